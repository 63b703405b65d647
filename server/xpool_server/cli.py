"""``xpool server``: options in, exit codes out.

Loaded whenever ``xpool`` shows its help, so everything large is imported inside.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from xpool_protocol.errors import PoolError, UsageError

from xpool_server.arbiter.policies import PolicyName
from xpool_server.arbiter.tenant import NS_PER_MS, Settings
from xpool_server.devices.device_info import DeviceInfo
from xpool_server.devices.mps import CudaSharing
from xpool_server.executors import ExecutorKind
from xpool_server.log import LogFormat
from xpool_server.settings_table import WithTable

server_app = typer.Typer(
    cls=WithTable,
    invoke_without_command=True,
    subcommand_metavar="",
    add_completion=False,
    help="Offer this machine's devices to a pool.",
)


@server_app.callback()
def server(
    registry: Annotated[
        str,
        typer.Option(envvar="XPOOL_REGISTRY", help="HOST:PORT of the pool's registry."),
    ] = "127.0.0.1:7700",
    listen: Annotated[
        str,
        typer.Option(
            help="Address for clients: tcp://HOST:PORT or ipc://PATH; port 0 takes any"
            " free one. Workers take further free ports beside it."
        ),
    ] = "tcp://127.0.0.1:0",
    name: Annotated[
        str,
        typer.Option(help="Name in the pool.", show_default="this machine's"),
    ] = "",
    devices: Annotated[
        str,
        typer.Option(
            help="What to offer, for instance 'cuda', 'npu:0,1', 'cpu' or"
            " 'cpu:2,memory=4GiB,cores=8'.",
            show_default="every device of the accelerator, otherwise the CPU",
        ),
    ] = "",
    accelerator: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            envvar="XPOOL_ACCELERATOR",
            help="This machine's accelerator, by torch's name of the device type, for"
            " instance npu or xpu.",
            show_default="what torch finds, CUDA first",
        ),
    ] = "",
    accelerator_module: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE",
            envvar="XPOOL_ACCELERATOR_MODULE",
            help="Python module that brings the accelerator to torch; may be repeated."
            " None but these is imported.",
            show_default="its vendor's, for instance torch_npu",
        ),
    ] = None,
    spares: Annotated[
        int, typer.Option(min=0, max=64, help="Warm workers to keep for each device.")
    ] = 1,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=4096,
            help="CPU threads of each worker.",
            show_default="the framework's",
        ),
    ] = None,
    advertise: Annotated[
        str | None,
        typer.Option(
            metavar="HOST",
            help="What clients call this machine.",
            show_default="the host of --listen",
        ),
    ] = None,
    worker_ports: Annotated[
        str | None,
        typer.Option(
            metavar="FIRST-LAST",
            help="Ports that workers take: for a firewall between clients and here.",
            show_default="any free ones",
        ),
    ] = None,
    executor: Annotated[
        ExecutorKind | None,
        typer.Option(
            envvar="XPOOL_EXECUTOR",
            help="What runs operations: C++, built once at the first start, or Python.",
            show_default="native, or python where there is no C++ compiler",
        ),
    ] = None,
    upload_cache: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            envvar="XPOOL_UPLOAD_CACHE",
            help="Disk space for weights that came over the network, so that a tenant's"
            " next job need not send them again; 0 keeps none.",
        ),
    ] = "4GiB",
    upload_cache_folder: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            envvar="XPOOL_UPLOAD_CACHE_FOLDER",
            help="Where they are kept; of this server alone.",
            show_default="in the user's cache folder",
        ),
    ] = None,
    arbiter: Annotated[
        PolicyName,
        typer.Option(
            envvar="XPOOL_ARBITER",
            help="How the jobs of a device take turns: by class and share, by share"
            " alone, first come first served, or not at all.",
        ),
    ] = PolicyName.PRIORITY,
    cuda_sharing: Annotated[
        CudaSharing,
        typer.Option(
            envvar="XPOOL_CUDA_SHARING",
            help="What keeps slices of a CUDA device apart: turns in time, which the"
            " arbiter gives, or NVIDIA's MPS, which runs jobs at once on parts of the"
            " device and gives none what others leave idle.",
        ),
    ] = CudaSharing.TIME,
    quantum_ms: Annotated[
        float,
        typer.Option(
            min=0.1,
            max=1000,
            envvar="XPOOL_QUANTUM_MS",
            help="Device time after which a job makes room for others.",
        ),
    ] = 2.0,
    starvation_ms: Annotated[
        float,
        typer.Option(
            min=1,
            max=600_000,
            envvar="XPOOL_STARVATION_MS",
            help="How long a job waits for a turn at most while jobs of a higher class"
            " work.",
        ),
    ] = 1000.0,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Say something of this server that jobs may ask for with --require"
            " label.KEY=VALUE; may be repeated.",
        ),
    ] = None,
    metrics: Annotated[
        str,
        typer.Option(
            envvar="XPOOL_METRICS",
            metavar="HOST:PORT",
            help="Answer Prometheus at http://HOST:PORT/metrics.",
            show_default="no metrics",
        ),
    ] = "",
    log_format: Annotated[
        LogFormat, typer.Option(help="How log lines on stderr look.")
    ] = LogFormat.TEXT,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Listen beyond this machine, unencrypted: only on a trusted network.",
        ),
    ] = False,
) -> None:
    """Offer this machine's devices to a pool.

    Joins the registry, waiting for it if it is not there yet, keeps warm worker
    processes, and gives each lease one of its own. Prints one line when it is ready,
    logs to stderr, and ends its sessions and itself on Ctrl-C.
    """
    try:
        # Our sentences say it; gRPC's own lines on stderr would bury them.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from xpool_protocol.quantities import nbytes_from_text

        from xpool_server import log
        from xpool_server.addresses import port_range
        from xpool_server.devices.discovery import discover
        from xpool_server.devices.kinds import check_modules
        from xpool_server.executors import executor_library
        from xpool_server.known_uploads import uploads_folder
        from xpool_server.node import Node, NodeOptions
        from xpool_server.sharing import shared

        log.configure(log_format)
        node_name = name or platform.node() or "server"
        is_off = upload_cache.strip() in ("0", "off")
        modules = check_modules(accelerator_module or [])
        offered = discover(devices or None, accelerator, modules)
        cached_nbytes = 0 if is_off else nbytes_from_text(upload_cache)
        options = NodeOptions(
            registry=registry,
            listen=listen,
            name=node_name,
            devices=offered,
            spares=spares,
            threads=threads,
            executor_library=executor_library(executor),
            is_insecure=insecure,
            advertise=advertise,
            worker_ports=None if worker_ports is None else port_range(worker_ports),
            uploads_folder=(
                (upload_cache_folder or uploads_folder(node_name))
                if cached_nbytes
                else None
            ),
            uploads_nbytes=cached_nbytes,
            arbiter=arbiter,
            metrics=metrics,
            turns=Settings(
                quantum_ns=round(quantum_ms * NS_PER_MS),
                starvation_ns=round(starvation_ms * NS_PER_MS),
            ),
            accelerator_modules=modules,
            labels={**vendor_label(offered), **labels_from_texts(label or [])},
        )
        with shared(options, cuda_sharing) as with_sharing:
            Node(with_sharing, on_ready=typer.echo).run()
    except PoolError as error:
        typer.echo(f"xpool: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, UsageError) else 1) from error


def vendor_label(devices: Sequence[DeviceInfo]) -> dict[str, str]:
    """Who makes a server's devices, for jobs that ask for ``label.vendor=NAME``."""
    vendors = {one.vendor for one in devices if one.vendor}
    return {"vendor": vendors.pop()} if len(vendors) == 1 else {}


def labels_from_texts(texts: Sequence[str]) -> dict[str, str]:
    """What ``--label`` says, as often as it was given.

    Raises:
        UsageError: not of the form KEY=VALUE.

    >>> labels_from_texts(["zone=b", "rack=7"])
    {'zone': 'b', 'rack': '7'}
    """
    labels = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not key or not sign:
            raise UsageError(f"the label {text!r} makes no sense: write KEY=VALUE")
        labels[key] = value
    return labels


def main() -> None:
    """``python -m xpool_server``."""
    server_app(prog_name=f"{os.path.basename(sys.executable)} -m xpool_server")
