"""A machine that can't run what needs a CUDA device is told so in one sentence."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from xpool_perf import gpu_host
from xpool_perf.gpu_host import MISSING, absent, least_releases, outdated

ROOT = Path(__file__).resolve().parents[2]
no_cuda = pytest.mark.skipif(
    torch.cuda.is_available(), reason="there is a CUDA device here"
)


def asked(*argv: str) -> tuple[int, list[str]]:
    """The exit status of a command that prints nothing, and what it says."""
    ended = subprocess.run(
        argv, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.stdout == ""
    return ended.returncode, ended.stderr.splitlines()


def test_what_is_absent() -> None:
    assert absent(["json", "no_such_module", "no_such.part"]) == [
        "no_such_module",
        "no_such.part",
    ]


def test_what_is_too_old() -> None:
    least = least_releases()
    assert {"torch", "grpcio", "protobuf", "pytest", "prometheus_client"} <= set(least)
    assert outdated(least) == []
    (told,) = outdated({**least, "grpcio": "99.1"})
    assert re.fullmatch(r"grpcio \d[\d.]* \(needed: 99\.1 or newer\)", told)
    assert outdated({"msgspec": "0.9.1", "nothing": "9"}) == []


def test_an_old_package_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_host, "least_releases", lambda: {"grpcio": "99.1"})
    assert gpu_host.main() == MISSING
    told = capsys.readouterr().err
    assert "has grpcio 1." in told
    assert told.endswith("(needed: 99.1 or newer)\n")


@no_cuda
def test_no_device_is_one_sentence() -> None:
    status, said = asked(sys.executable, "-m", "xpool_perf.gpu_host")
    assert (status, len(said)) == (MISSING, 1)
    assert said[0].startswith("xpool_perf: no CUDA device can be used here: torch 2.")


@no_cuda
@pytest.mark.parametrize("scenario", ["torch_ops", "train", "decode", "transfer"])
def test_a_scenario_without_its_device(scenario: str) -> None:
    argv = (sys.executable, "-m", "xpool_perf", scenario, "--device", "cuda")
    status, said = asked(*argv)
    assert status == MISSING
    assert "no CUDA device can be used here" in said[-1]


def test_an_interpreter_that_has_nothing_is_told_what_it_lacks() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(gpu_host.__file__).parents[1])!r})\n"
        "from xpool_perf import gpu_host; sys.exit(gpu_host.main())"
    )
    status, said = asked(sys.executable, "-I", "-S", "-c", code)
    assert (status, len(said)) == (MISSING, 1)
    assert "lacks torch, numpy, msgspec, pyzmq, grpcio, protobuf, typer" in said[0]


@no_cuda
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", ["test-gpu", "bench-gpu"])
def test_the_targets_take_an_interpreter_as_it_is(target: str, tmp_path: Path) -> None:
    """They go on to ask for a device: everything else has been found."""
    options = (f"PYTHON={sys.executable}", f"GPU_VENV={tmp_path / 'venv'}")
    status, said = asked("make", target, *options)
    assert status == 2
    assert "no CUDA device can be used here" in said[0]
    assert said[1].endswith(f"{target}] Error {MISSING}")
    assert len(said) == 2
