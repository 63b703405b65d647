"""The root of the command line: help, versions, parts that are not installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from xpool.cli import with_program_marked

COMMANDS = ("run", "explain", "up", "admin", "registry", "server")


def xpool(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", **variables}
    return subprocess.run(
        [sys.executable, "-m", "xpool", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_help_names_every_command_and_what_it_does() -> None:
    done = xpool("--help")
    assert done.returncode == 0
    for name in COMMANDS:
        assert re.search(rf"^│ {name} +[A-Z].*\.", done.stdout, re.MULTILINE), name
    assert "not installed" not in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    done = xpool(name, "--help")
    assert done.returncode == 0
    assert f"Usage: xpool {name}" in done.stdout
    assert done.stderr == ""


def test_without_arguments_there_is_help() -> None:
    done = xpool()
    assert done.returncode == 2
    assert "Usage: xpool" in done.stdout + done.stderr


def test_the_version() -> None:
    done = xpool("--version")
    assert re.fullmatch(r"xpool \d+\.\d+\.\d+\n", done.stdout)


def test_an_unknown_command_is_a_usage_error() -> None:
    done = xpool("fly")
    assert done.returncode == 2
    assert "No such command 'fly'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_registry_that_is_away_is_one_sentence() -> None:
    done = xpool("admin", "nodes", "--registry", "127.0.0.1:9")
    assert done.returncode == 1
    assert "no registry answers at 127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_naming_a_command_loads_nothing_else() -> None:
    code = (
        "import sys, runpy\n"
        "sys.argv = ['xpool', 'run', 'missing.py']\n"
        "try:\n"
        "    runpy.run_module('xpool', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert end.code == 2, end.code\n"
        "heavy = {'grpc', 'torch', 'zmq', 'cryptography', 'xpool_server',"
        " 'xpool_registry'}\n"
        "loaded = heavy & sys.modules.keys()\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, timeout=60
    )


def test_the_help_does_not_import_the_framework() -> None:
    code = (
        "import sys, runpy\n"
        "sys.argv = ['xpool', '--help']\n"
        "try:\n"
        "    runpy.run_module('xpool', run_name='__main__')\n"
        "except SystemExit:\n"
        "    pass\n"
        "assert not {'torch', 'grpc'} & sys.modules.keys()\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, timeout=60
    )


def plug_in(folder: Path, name: str, target: str) -> str:
    """An installed package that offers a command; returns what PYTHONPATH needs."""
    info = folder / "plug_in-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug-in\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[xpool.commands]\n{name} = {target}\n")
    return str(folder)


def test_a_package_can_bring_a_command(tmp_path: Path) -> None:
    (tmp_path / "greeting.py").write_text(
        "import typer\n"
        "app = typer.Typer(help='Greet.')\n"
        "@app.command()\n"
        "def hello(name: str): print('hello', name)\n"
    )
    path = plug_in(tmp_path, "greet", "greeting:app")
    assert xpool("greet", "ann", PYTHONPATH=path).stdout == "hello ann\n"
    assert "greet" in xpool("--help", PYTHONPATH=path).stdout


def test_a_part_that_is_not_installed_says_how_to_get_it(tmp_path: Path) -> None:
    path = plug_in(tmp_path, "extra", "nowhere_to_be_found:app")
    done = xpool("extra", "--any", "thing", PYTHONPATH=path)
    assert done.returncode == 2
    assert done.stderr == (
        "xpool: the extra part is not installed: pip install 'xpool[extra]'"
        " (Python has no module 'nowhere_to_be_found')\n"
    )
    assert "not installed" in xpool("--help", PYTHONPATH=path).stdout


def test_a_pool_error_of_any_command_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "refusing.py").write_text(
        "import typer\n"
        "from xpool_protocol.errors import NoCapacity\n"
        "app = typer.Typer()\n"
        "@app.command()\n"
        "def refuse(): raise NoCapacity('nothing is free')\n"
    )
    done = xpool("refuse", PYTHONPATH=plug_in(tmp_path, "refuse", "refusing:app"))
    assert (done.returncode, done.stderr) == (1, "xpool: nothing is free\n")


@pytest.mark.parametrize(
    ("words", "marked"),
    [
        ([], []),
        (["--slice", "9%"], ["--slice", "9%"]),
        (["--slice=9%", "a.py"], ["--slice=9%", "--", "a.py"]),
        (["--slice", "-m", "-m", "x"], ["--slice", "-m", "--", "-m", "x"]),
        (["--", "-x.py"], ["--", "-x.py"]),
        (["a.py", "--", "b"], ["--", "a.py", "--", "b"]),
        (["--unknown", "a.py"], ["--unknown", "--", "a.py"]),
    ],
)
def test_where_the_program_begins(words: list[str], marked: list[str]) -> None:
    assert with_program_marked(words, {"--slice"}) == marked
