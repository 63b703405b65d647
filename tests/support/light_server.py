"""``xpool server`` with light workers: the real node, without torch.

A light worker (``light_worker.py``) speaks the real control lines and the real wire
and executes nothing, so that a test of the node starts in a fraction of a second.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from xpool_protocol.errors import PoolError
from xpool_protocol.quantities import nbytes_from_text
from xpool_server import log
from xpool_server.devices.discovery import DeviceInfo
from xpool_server.node import Node, NodeOptions

LIGHT_WORKER = Path(__file__).with_name("light_worker.py")


def main(
    registry: Annotated[str, typer.Option()],
    name: Annotated[str, typer.Option()] = "light",
    listen: Annotated[str, typer.Option()] = "tcp://127.0.0.1:0",
    device_count: Annotated[int, typer.Option()] = 1,
    memory: Annotated[str, typer.Option()] = "4GiB",
    spares: Annotated[int, typer.Option()] = 1,
    worker_args: Annotated[str, typer.Option()] = "",
) -> None:
    log.configure(log.LogFormat.TEXT)
    devices = [
        DeviceInfo(
            index=index,
            kind="cpu",
            name="light device",
            memory_nbytes=nbytes_from_text(memory),
            torch_device="cpu",
        )
        for index in range(device_count)
    ]

    def command(control_fd: int, device_index: int) -> list[str]:
        argv = [sys.executable, str(LIGHT_WORKER), "--parent", str(os.getpid())]
        argv += ["--control-fd", str(control_fd), "--device", f"cpu:{device_index}"]
        return [*argv, *worker_args.split()]

    options = NodeOptions(
        registry=registry, listen=listen, name=name, devices=devices, spares=spares
    )
    try:
        Node(options, on_ready=typer.echo, worker_command=command).run()
    except PoolError as error:
        typer.echo(f"xpool: {error}", err=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    typer.run(main)
