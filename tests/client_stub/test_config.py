from __future__ import annotations

from pathlib import Path

import pytest
from xpool.config import FOREVER_MS, JobSettings, job_settings
from xpool_protocol.errors import UsageError
from xpool_protocol.settings_file import CONFIG_VARIABLE


def test_defaults(tmp_path: Path) -> None:
    settings = job_settings({}, {"XPOOL_TENANT": "ann"}, tmp_path)
    assert settings == JobSettings(
        registry="127.0.0.1:7700",
        share_percent=100,
        memory_nbytes=0,
        mode="elastic",
        tenant="ann",
        wait_ms=FOREVER_MS,
    )


def test_the_user_is_the_tenant(tmp_path: Path) -> None:
    assert job_settings({}, {}, tmp_path).tenant


def test_flags_win_over_environment_over_file(tmp_path: Path) -> None:
    (tmp_path / "xpool.toml").write_text(
        'registry = "file:1"\nslice = 20\nmode = "capped"\n'
    )
    environment = {"XPOOL_REGISTRY": "variable:2", "XPOOL_SLICE": "30%"}
    settings = job_settings({"registry": "flag:3"}, environment, tmp_path)
    assert settings.registry == "flag:3"
    assert settings.share_percent == 30
    assert settings.mode == "capped"


def test_an_empty_variable_counts_as_unset(tmp_path: Path) -> None:
    settings = job_settings({}, {"XPOOL_SLICE": "", CONFIG_VARIABLE: ""}, tmp_path)
    assert settings.share_percent == 100


def test_an_empty_flag_does_not(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'' is not a slice"):
        job_settings({"slice": ""}, {"XPOOL_SLICE": "30%"}, tmp_path)


def test_another_file_may_be_named(tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    environment = {CONFIG_VARIABLE: str(path)}
    with pytest.raises(UsageError, match=r"other\.toml, which is missing"):
        job_settings({}, environment, tmp_path)
    path.write_text('memory = "8GiB"')
    assert job_settings({}, environment, tmp_path).memory_nbytes == 8 << 30


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slice = ", "cannot read the settings in"),
        ("\xff", "cannot read the settings in"),
        ("speed = 9", r"sets 'speed'; it may set registry, slice, memory"),
        ("slice = [1]", r"sets slice to \[1\]: write a text in quotes"),
        ("slice = true", "sets slice to True"),
        ("slice = '0%'", "'0%' is not a slice"),
        ("memory = '1XB'", "'1XB' is not a memory size"),
        ("mode = 'rude'", "mode 'rude' is unknown: write elastic or capped"),
        ("registry = 'host'", "write HOST:PORT"),
        ("registry = 'host:0'", "write HOST:PORT"),
        ("registry = 'host:99999'", "write HOST:PORT"),
        ("registry = 'a b:1'", "write HOST:PORT"),
    ],
)
def test_senseless_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "xpool.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=message):
        job_settings({}, {}, tmp_path)


@pytest.mark.parametrize("address", ["host:7700", "10.0.0.1:1", "[::1]:65535"])
def test_addresses(tmp_path: Path, address: str) -> None:
    assert job_settings({"registry": address}, {}, tmp_path).registry == address


def test_how_a_job_waits_and_where_it_may_run(tmp_path: Path) -> None:
    flags = {
        "priority": "high",
        "queue": "10m",
        "time_limit": "1.5h",
        "place": "spread",
        "same_server": "yes",
        "require": "model=a100, memory=40GiB,label.zone=b",
    }
    settings = job_settings(flags, {}, tmp_path)
    assert (settings.priority, settings.place) == ("high", "spread")
    assert (settings.wait_ms, settings.limit_ms) == (600_000, 5_400_000)
    assert settings.same_server
    assert settings.wanted == {
        "model": "a100",
        "memory": str(40 << 30),
        "label.zone": "b",
    }
    assert job_settings({"queue": "no"}, {}, tmp_path).wait_ms == 0
    assert job_settings({"queue": "900d"}, {}, tmp_path).wait_ms == FOREVER_MS


SENSELESS_SLICES = ("0", "101", "12.5", "abc", "-1", "1e1", "003000", "5%%", "\u0663")


@pytest.mark.parametrize(
    "flags",
    [
        *({"slice": one} for one in SENSELESS_SLICES),
        {"priority": "urgent"},
        {"queue": "10"},
        {"queue": "0s"},
        {"time_limit": "soon"},
        {"place": "here"},
        {"same_server": "maybe"},
        {"require": "colour=red"},
        {"require": "model="},
        {"require": "label.=x"},
    ],
)
def test_wishes_that_make_no_sense(tmp_path: Path, flags: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        job_settings(flags, {}, tmp_path)
