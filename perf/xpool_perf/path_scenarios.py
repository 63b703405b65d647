"""``train``, ``decode`` and ``transfer``: what the path adds to the same work.

Each runs a program of ours under ``xpool run`` that does the work remotely and locally
in turn (``programs/alternating.py``), on loopback and behind emulated round trips.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from xpool_perf.children import Children
from xpool_perf.far import start_far_pool
from xpool_perf.figures import Figure, Samples
from xpool_perf.pool import (
    Pool,
    RunFailed,
    json_line,
    own_environment,
    run_to_end,
    start_pool,
    wait_until_calm,
    xpool_run,
)
from xpool_perf.scenario import Say, Scenario, Settings

PROGRAMS: Final = Path(__file__).parent / "programs"


class Course:
    """Pools near and far, and the samples of the programs that ran in them."""

    def __init__(self, children: Children, folder: Path, settings: Settings, say: Say):
        self.samples: defaultdict[str, list[float]] = defaultdict(list)
        self.settings = settings
        self._children = children
        self._folder = folder
        self._say = say
        self._env = own_environment(settings.threads)
        self._hidden = hidden_cuda(self._env) if settings.device == "cuda" else {}
        self._count = 0

    @contextmanager
    def near(self, spares: int = 0) -> Iterator[Pool]:
        """A pool on loopback; warm workers, where they are kept, may disturb."""
        self._say("starting a pool on loopback")
        pool = start_pool(
            self._children,
            self._fresh_folder(),
            self._env,
            spares=spares,
            threads=self.settings.threads,
            devices=self.settings.device,
        )
        try:
            yield pool
        finally:
            self._children.end(pool.child)

    @contextmanager
    def far(self, round_trip_ms: float, spares: int = 0) -> Iterator[Pool]:
        """A pool behind a round trip; how long that really is becomes a sample."""
        self._say(f"starting a pool behind {round_trip_ms:g} ms")
        far = start_far_pool(
            self._children,
            self._fresh_folder(),
            self._env,
            one_way_ms=round_trip_ms / 2,
            threads=self.settings.threads,
            spares=spares,
            devices=self.settings.device,
        )
        name = f"round_trip_{round_trip_ms:g}ms_s"
        self._say(f"{name}: {far.round_trip_s:.5f}")
        self.samples[name].append(far.round_trip_s)
        try:
            yield far.pool
        finally:
            for child in far.children:
                self._children.end(child)

    def run(
        self,
        pool: Pool,
        what: str,
        program: str,
        *arguments: object,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Run a program and take its samples, their names behind ``what``."""
        wait_until_calm(self._children, pool)
        self._say(f"running {what}")
        argv = xpool_run(
            pool.registry, str(PROGRAMS / program), *(str(one) for one in arguments)
        )
        env = {**self._env, **self._hidden, **(environment or {})}
        child, _ = run_to_end(self._children, what, argv, env, self._folder)
        for name, values in lists_in(json_line(child)).items():
            self.samples[f"{what}_{name}"] += values
            middle = sorted(values)[len(values) // 2]
            self._say(f"{what}_{name}: {middle:.5f} ({len(values)} samples)")

    def sample(self, pool: Pool, what: str, argv: Callable[[], list[str]]) -> None:
        """Run a command and take the figures it prints, one sample of each.

        Args:
            pool: is calm before the command begins.
            what: stands before the figures' names.
            argv: the command, made when it is about to be started.
        """
        wait_until_calm(self._children, pool)
        env = {**self._env, **self._hidden}
        child, _ = run_to_end(self._children, what, argv(), env, self._folder)
        for name, value in json_line(child).items():
            self.samples[f"{what}_{name}"].append(float(value))
            self._say(f"{what}_{name}: {value:.4g}")

    def build(self) -> None:
        """Build the native libraries, if they are not there: once, and on no clock."""
        for module in ("xpool.native.build", "xpool_server.native.build"):
            argv = [sys.executable, "-m", module]
            run_to_end(self._children, "build", argv, self._env, self._folder)

    def _fresh_folder(self) -> Path:
        self._count += 1
        folder = self._folder / f"pool-{self._count}"
        folder.mkdir()
        return folder


def hidden_cuda(environment: Mapping[str, str]) -> dict[str, str]:
    """For a client on a machine whose CUDA devices are the server's.

    What they were goes to the local side that it starts.

    >>> hidden_cuda({"CUDA_VISIBLE_DEVICES": "3"})
    {'CUDA_VISIBLE_DEVICES': '', 'PERF_VISIBLE_DEVICES': '3'}
    """
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    if "CUDA_VISIBLE_DEVICES" in environment:
        hidden["PERF_VISIBLE_DEVICES"] = environment["CUDA_VISIBLE_DEVICES"]
    return hidden


def lists_in(found: dict[str, Any]) -> dict[str, list[float]]:
    """A program's samples by name.

    Raises:
        RunFailed: it printed something else.
    """
    try:
        return {name: [float(one) for one in values] for name, values in found.items()}
    except (TypeError, ValueError) as error:
        raise RunFailed(f"the program printed no samples: {error}") from error


@contextmanager
def course(settings: Settings, say: Say) -> Iterator[Course]:
    """A course whose processes and files are gone afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="xpool-perf-") as folder,
        Children(lambda _name, _line: None) as children,
    ):
        one = Course(children, Path(folder), settings, say)
        one.build()
        yield one


def ratio(name: str, over: str, under: str, method: str) -> Figure:
    """A figure that is one median over another."""
    return Figure(name=name, unit="ratio", method=method, sources=(over, under))


def on_device(what: str, side: str) -> Figure:
    """Seconds by the device's clock, of a scenario with a CUDA device."""
    return Figure(
        name=f"{what}_{side}_device_s",
        unit="s",
        method=f"The {side} side of {what} by the device's clock, from the first"
        " operation to the last: of each batch that the server ran, or of the whole"
        " local block.",
        sources=(f"{what}_{side}_device_s",),
    )


def on_devices(*names: str) -> tuple[Figure, ...]:
    """Those of both sides."""
    sides = ("remote", "local")
    return tuple(on_device(name, side) for name in names for side in sides)


def _train(settings: Settings, say: Say) -> Samples:
    runs, threads, device = settings.runs, settings.threads, settings.device

    def train(pool: Pool, name: str, model: str, read_every: int) -> None:
        one.run(pool, name, "train.py", model, runs, threads, read_every, device)

    with course(settings, say) as one:
        with one.near() as pool:
            train(pool, "cnn", "cnn", 4)
            train(pool, "transformer", "transformer", 4)
            train(pool, "small", "small", 1)
            for what, plans in (("replay", "on"), ("single", "off")):
                env = {"XPOOL_PLANS": plans}
                one.run(pool, what, "replay.py", runs, threads, environment=env)
        with one.far(1) as pool:
            train(pool, "train_1ms", "transformer", 1)
        with one.far(30) as pool:
            train(pool, "small_30ms", "small", 1)
        floor = one.samples["round_trip_30ms_s"][0]
        one.samples["small_floor_s"] = [
            local + floor for local in one.samples["small_30ms_local_s"]
        ]
        return one.samples


def _decode(settings: Settings, say: Say) -> Samples:
    arguments = settings.runs, settings.threads, settings.device
    with course(settings, say) as one:
        with one.near() as pool:
            one.run(pool, "decode", "decode.py", *arguments)
        with one.far(1) as pool:
            one.run(pool, "decode_1ms", "decode.py", *arguments)
        return one.samples


def _transfer(settings: Settings, say: Say) -> Samples:
    with course(settings, say) as one, one.near() as pool:
        one.run(pool, "transfer", "transfer.py", settings.runs)
        return one.samples


def _of_a_step(name: str, unit: str, source: str, method: str) -> Figure:
    return Figure(name=name, unit=unit, method=method, sources=(source,))


_REPLAY: Final = (
    _of_a_step(
        "replay_bytes_per_step",
        "bytes",
        "replay_bytes",
        "Bytes to the server in a training step of a transformer encoder of four layers"
        " of width 64, AdamW, data on the device; automatic plans are on.",
    ),
    _of_a_step(
        "replay_client_us_per_step",
        "us",
        "replay_client_us",
        "Processor time of the client process for such a step, all threads, Python's"
        " modules, autograd and sending included; 20 steps, then one read.",
    ),
    _of_a_step(
        "single_bytes_per_step",
        "bytes",
        "single_bytes",
        "replay_bytes_per_step with XPOOL_PLANS=off.",
    ),
    _of_a_step(
        "single_client_us_per_step",
        "us",
        "single_client_us",
        "replay_client_us_per_step with XPOOL_PLANS=off.",
    ),
    _of_a_step(
        "replay_ops_per_step",
        "operations",
        "replay_ops",
        "Calls that the server has run for such a step.",
    ),
)

TRAIN: Final = Scenario(
    name="train",
    summary="training steps in a pool and locally, near and far",
    figures=(
        ratio(
            "cnn_ratio",
            "cnn_remote_s",
            "cnn_local_s",
            "Seconds of a training step of a small residual network, remote over local;"
            " four steps and a read of the loss are one sample. Aim: 1.03.",
        ),
        ratio(
            "transformer_ratio",
            "transformer_remote_s",
            "transformer_local_s",
            "The same of a transformer encoder of width 256. Aim: 1.03.",
        ),
        ratio(
            "small_ratio",
            "small_remote_s",
            "small_local_s",
            "The same of a perceptron whose step takes under a millisecond, with a read"
            " of the loss in every step.",
        ),
        ratio(
            "train_ratio_1ms",
            "train_1ms_remote_s",
            "train_1ms_local_s",
            "The transformer behind 1 ms, with a read of the loss in every step."
            " Aim: 1.05.",
        ),
        ratio(
            "small_step_over_floor_30ms",
            "small_30ms_remote_s",
            "small_floor_s",
            "A step of the perceptron with one read behind 30 ms, over the local step"
            " plus one bare round trip on the same path. Aim: 1.15.",
        ),
        *_REPLAY,
    ),
    cuda_figures=on_devices("cnn", "transformer", "small"),
    devices=("cpu", "cuda"),
    measure=_train,
)

DECODE: Final = Scenario(
    name="decode",
    summary="tokens of a GPT-2-shaped model in a pool and locally, near and far",
    figures=(
        ratio(
            "decode_ratio_loopback",
            "decode_local_s",
            "decode_remote_s",
            "Tokens a second, remote over local, of a GPT-2-shaped model with a growing"
            " cache; one read a token. Aim: 0.97.",
        ),
        ratio(
            "decode_ratio_1ms",
            "decode_1ms_local_s",
            "decode_1ms_remote_s",
            "The same behind 1 ms. Aim: 0.90.",
        ),
    ),
    cuda_figures=on_devices("decode"),
    devices=("cpu", "cuda"),
    measure=_decode,
)

TRANSFER: Final = Scenario(
    name="transfer",
    summary="bytes to and from the device beside a bare socket",
    figures=(
        ratio(
            "h2d_over_raw_socket",
            "transfer_raw_h2d_s",
            "transfer_h2d_s",
            "Rate of copying 256 MiB to the device, until the server has them, over the"
            " rate of a bare TCP socket that receives into warm memory. Aim: 0.95.",
        ),
        ratio(
            "d2h_over_raw_socket",
            "transfer_raw_d2h_s",
            "transfer_d2h_s",
            "The same from the device into warm host memory. Aim: 0.95.",
        ),
        Figure(
            name="read_during_upload_ms",
            unit="ms",
            method="The 99th percentile of a scalar read while 1 GiB is uploaded.",
            sources=("transfer_read_busy_p99_ms",),
        ),
        ratio(
            "read_during_upload_over_idle",
            "transfer_read_busy_p99_ms",
            "transfer_read_idle_p99_ms",
            "read_during_upload_ms over the same percentile without an upload. Aim: 3.",
        ),
    ),
    devices=("cpu", "cuda"),
    measure=_transfer,
)
