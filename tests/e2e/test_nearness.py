"""Real jobs on the servers that are near: to the client, and to one another.

A server is far because opening a connection to it takes long: the job's own process
waits that much at the call, as it would for a longer path. All else is real.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.pool import Pool
from xpool_protocol.control import registry_pb2 as pb

FAR_MS = 40
LONGER_PATH = f"""
import os, socket, time
real = socket.create_connection
def create_connection(address, *arguments, **named):
    if str(address[1]) == os.environ.get("FAR_PORT"):
        time.sleep({FAR_MS / 1000})
    return real(address, *arguments, **named)
socket.create_connection = create_connection
"""
WHERE = """
import json, torch
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
total = sum(float(torch.ones(8, device=f"cuda:{i}").sum()) for i in range(len(names)))
print(json.dumps({"names": names, "total": total}))
"""
SERVERS = {"far": "1", "here": "2", "third": "1"}
"""By name: their racks. Without a word about distance, equals are taken in order."""

Job = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with Pool(tmp_path_factory.mktemp("pool"), ttl="30s") as pool:
        pool.start_registry()
        for name, rack in SERVERS.items():
            pool.start_server(
                name,
                *("--threads", "1", "--devices", "cpu,memory=1GiB"),
                *("--label", f"rack={rack}", "--spares", "1"),
                light=False,
            )
        yield pool


@pytest.fixture
def job(pool: Pool, tmp_path: Path) -> Job:
    """``xpool run`` of a program that says where it was, at the end of a long path."""
    (tmp_path / "sitecustomize.py").write_text(LONGER_PATH)
    port = urlsplit(pool.members["far"].address).port
    environment = {
        "PYTHONPATH": os.pathsep.join(
            [str(tmp_path), os.environ.get("PYTHONPATH", "")]
        ),
        "FAR_PORT": str(port),
    }

    def run(*options: str, command: tuple[str, ...] = ()) -> object:
        return subprocess.run(
            [
                *(sys.executable, "-m", "xpool"),
                *(command or ("run", *options, "-c", WHERE)),
            ],
            env=pool.environment({**environment, "XPOOL_REGISTRY": pool.registry}),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run  # type: ignore[return-value]


def servers_of(ended: subprocess.CompletedProcess[str]) -> list[str]:
    """Where the job's devices were; it has computed on each."""
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["total"] == 8 * len(found["names"])
    return [name.rpartition(" on ")[2].split(",")[0] for name in found["names"]]


@pytest.fixture
def taken(pool: Pool) -> Iterator[Callable[[str, int], pb.Lease]]:
    """Somebody else has so much of a server, until the test ends."""
    leases: list[pb.Lease] = []
    with pool.client() as client:

        def take(server: str, share_percent: int) -> pb.Lease:
            group = client.ask(
                pb.AcquireGroupRequest(
                    slice=pb.AcquireRequest(
                        tenant="other",
                        share_percent=share_percent,
                        ttl_ms=600_000,
                        mode="elastic",
                    ),
                    device_count=1,
                    wanted=pb.Wanted(node_name=server),
                )
            )
            leases.extend(group.leases)
            return group.leases[0]

        yield take
        for lease in leases:
            client.release(lease.lease_id, lease.epoch)


def test_near_takes_the_nearest_that_has_room(
    job: Job, taken: Callable[[str, int], pb.Lease]
) -> None:
    taken("far", 40)  # a tighter fit, so that it would be chosen
    taken("third", 90)
    wish = ("--slice", "50%", "--memory", "100MiB")
    assert servers_of(job(*wish)) == ["far"]
    assert servers_of(job(*wish, "--near")) == ["here"]
    taken("here", 60)
    assert servers_of(job(*wish, "--near")) == ["far"]


def test_who_is_too_far_is_not_taken_even_if_there_is_nobody_else(
    job: Job, taken: Callable[[str, int], pb.Lease]
) -> None:
    limit = ("--slice", "50%", "--memory", "100MiB", "--max-rtt", "20ms")
    taken("third", 90)
    taken("far", 40)
    assert servers_of(job(*limit)) == ["here"]
    taken("here", 60)
    ended = job(*limit, "--queue", "0")
    assert ended.returncode != 0
    assert "far/0" in ended.stderr
    assert "20 ms" in ended.stderr, ended.stderr
    assert len(ended.stderr.strip().splitlines()) <= 2, ended.stderr


def test_what_if_measures_the_same(
    job: Job, taken: Callable[[str, int], pb.Lease]
) -> None:
    taken("third", 90)
    taken("far", 40)
    wish = ("admin", "whatif", "--slice", "50%", "--memory", "100MiB", "--json")
    for options, server in (((), "far/0"), (("--near",), "here/0")):
        told = job(command=(*wish, *options))
        assert told.returncode == 0, told.stderr
        assert server in json.loads(told.stdout)["headline"] + told.stdout
    told = job(command=(*wish, "--max-rtt", "20ms"))
    assert "here/0" in told.stdout


def test_a_mixed_wish_takes_what_is_near_and_as_much_as_there_is(
    job: Job, pool: Pool, taken: Callable[[str, int], pb.Lease]
) -> None:
    taken("third", 90)
    taken("here", 70)
    wish = ("--slice", "100%", "--at-least", "20%", "--max-rtt", "20ms")
    ended = job(*wish, "--near")
    assert servers_of(ended) == ["here"]
    assert "on here, 30%" in ended.stdout
    ended = job(
        "--slice", "100%", "--at-least", "40%", "--max-rtt", "20ms", "--queue", "0"
    )
    assert ended.returncode != 0
    assert "20 ms" in ended.stderr, ended.stderr


def test_devices_close_by_one_another(
    job: Job, taken: Callable[[str, int], pb.Lease]
) -> None:
    wish = ("--devices", "2", "--slice", "50%", "--memory", "100MiB")
    found = servers_of(job(*wish, "--close-by", "rack"))
    assert sorted(found) == ["far", "third"]
    taken("third", 90)
    ended = job(*wish, "--close-by", "rack", "--queue", "0")
    assert ended.returncode != 0
    assert "rack" in ended.stderr, ended.stderr
