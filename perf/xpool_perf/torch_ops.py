"""``torch_ops``: what one small operation costs on the client and on the server."""

from __future__ import annotations

from typing import Final

from xpool_perf.figures import Figure, Samples
from xpool_perf.path_scenarios import course, on_devices, ratio
from xpool_perf.scenario import Say, Scenario, Settings

PROGRAM: Final = "torch_ops.py"


def micros(name: str, source: str, method: str) -> Figure:
    """A figure in microseconds."""
    return Figure(name=name, unit="us", method=method, sources=(source,))


def _measure(settings: Settings, say: Say) -> Samples:
    with course(settings, say) as one, one.near() as pool:
        arguments = (
            *(settings.runs, settings.threads, pool.child.process.pid),
            settings.device,
        )
        one.run(pool, "native", PROGRAM, "cuda", *arguments)
        one.run(
            pool,
            "python",
            PROGRAM,
            "xpool",
            *arguments,
            environment={"XPOOL_DEVICE": "python"},
        )
        return one.samples


TORCH_OPS: Final = Scenario(
    name="torch_ops",
    summary="what a small operation costs the client and the server",
    figures=(
        micros(
            "client_us_per_op",
            "native_client_us",
            "Wall time until 2,000 additions of 8 x 8 numbers have returned, over their"
            " number; encoded, handed over and sent meanwhile. Aim: 5.",
        ),
        micros(
            "client_us_per_op_python",
            "python_client_us",
            "The same on the device in Python, which needs no compiler. Aim: 30.",
        ),
        micros(
            "client_cpu_us_per_op",
            "native_client_cpu_us",
            "Processor time of the program's thread in client_us_per_op: all that is"
            " left with cores to spare.",
        ),
        micros(
            "client_cpu_us_per_op_python",
            "python_client_cpu_us",
            "The same of client_us_per_op_python.",
        ),
        micros(
            "server_us_per_op_over_local",
            "native_server_over_local_us",
            "Processor time of the worker, all threads, for 10,000 dependent additions"
            " and a read, less that of a local thread for the same, per addition."
            " Aim: 3.",
        ),
        micros(
            "server_us_per_op",
            "native_server_us",
            "The worker's part of it.",
        ),
        micros(
            "local_us_per_op",
            "native_local_us",
            "The local part of it, Python's loop included.",
        ),
        ratio(
            "sync_read_over_raw_echo",
            "native_read_s",
            "native_echo_s",
            "Round trip of .item() over that of a bare ZeroMQ echo of as many bytes,"
            " pyzmq at both ends. Aim: 1.5.",
        ),
        Figure(
            name="sync_read_s",
            unit="s",
            method="Round trip of .item().",
            sources=("native_read_s",),
        ),
        ratio(
            "chain_ratio",
            "native_chain_remote_s",
            "native_chain_local_s",
            "10,000 dependent additions of 8 x 8 numbers and one read, remote over"
            " local. Aim: 1.3.",
        ),
    ),
    cuda_figures=on_devices("native_chain"),
    devices=("cpu", "cuda"),
    measure=_measure,
)
