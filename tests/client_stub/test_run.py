"""``xpool run``: how a program starts, what its lease does meanwhile, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.pool import SUPPORT, Member, Pool
from support.waiting import eventually
from xpool_protocol.control.admin_rpc import AdminClient

PLAIN_RUN = str(SUPPORT / "plain_run.py")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """A pool for tests that end no process but their own job's."""
    with Pool(tmp_path_factory.mktemp("pool")) as made:
        made.start_registry()
        made.start_server("one", "--spares", "2")
        yield made


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    with Pool(tmp_path) as made:
        made.start_registry()
        made.start_server("one")
        yield made


def run(
    pool: Pool, *arguments: str, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run ``xpool run`` to its end."""
    return subprocess.run(
        [sys.executable, PLAIN_RUN, "run", *arguments],
        env=pool.environment({"XPOOL_REGISTRY": pool.registry, **variables}),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def start(pool: Pool, code: str, *options: str) -> Member:
    """Start ``xpool run -c`` and wait until the program has said "begun"."""
    argv = [sys.executable, PLAIN_RUN, "run", *options, "-c", code]
    job = pool.start("job", argv, {"XPOOL_REGISTRY": pool.registry})

    def begun() -> bool:
        assert job.process.poll() is None or "begun" in job.said(), job.logged()
        return "begun" in job.said()

    eventually(begun, "the program's first line", 20)
    return job


def one_sentence(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """The user sees one line that begins with ``xpool:`` and holds ``parts``."""
    assert done.stderr.startswith("xpool: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for part in parts:
        assert part in done.stderr
    assert done.stdout == ""


# ---- starting ----


def test_a_script_sees_its_arguments_and_its_lease(
    shared: Pool, tmp_path: Path
) -> None:
    script = tmp_path / "job.py"
    script.write_text(
        "import os, sys\n"
        "print(sys.argv[1:], lease.share_percent, lease.memory_nbytes)\n"
        "print(lease.node_name, lease.device_kind, lease.device_name)\n"
        "print(any('XPOOL_LEASE' in name for name in os.environ))\n"
    )
    arguments = ["--slice", "x", "-m", "--", "--help", "a b"]
    done = run(shared, "--slice=30%", "--memory", "1GiB", str(script), *arguments)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"{arguments} 30 {1 << 30}",
        "one cpu light device",
        "False",
    ]
    assert done.returncode == 0
    assert not shared.leases()


def test_modules_and_code_run_too(shared: Pool, tmp_path: Path) -> None:
    (tmp_path / "tool.py").write_text("import sys; print(sys.argv[1:])")
    path = {"PYTHONPATH": str(tmp_path)}
    assert run(shared, "-m", "tool", "--slice", **path).stdout == "['--slice']\n"
    done = run(shared, "-c", "import sys; print(sys.argv)", "--mode", "-c")
    assert done.stdout == "['-c', '--mode', '-c']\n"


def test_the_terminal_is_the_programs_own(shared: Pool) -> None:
    done = subprocess.run(
        [sys.executable, PLAIN_RUN, "run", "-c", "print(input())"],
        env=shared.environment({"XPOOL_REGISTRY": shared.registry}),
        input="a line\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "a line\n"


def test_settings_come_from_flags_then_environment_then_file(
    shared: Pool, tmp_path: Path
) -> None:
    (tmp_path / "xpool.toml").write_text('slice = "11%"\nmemory = "2GiB"\n')
    code = "print(lease.share_percent, lease.memory_nbytes >> 20)"
    assert run(shared, "-c", code, cwd=tmp_path).stdout == "11 2048\n"
    done = run(shared, "-c", code, cwd=tmp_path, XPOOL_SLICE="12%")
    assert done.stdout == "12 2048\n"
    done = run(shared, "--slice", "13", "-c", code, cwd=tmp_path, XPOOL_SLICE="12%")
    assert done.stdout == "13 2048\n"


def test_the_registry_shows_who_holds_the_lease(shared: Pool) -> None:
    job = start(shared, "print('begun'); input_ = __import__('time').sleep(60)")
    (info,) = shared.leases()
    assert f"pid {psutil.Process(job.pid).children()[0].pid} -c ..." in info.client
    job.process.terminate()
    assert job.process.wait(10) == -signal.SIGTERM


# ---- refusals ----


@pytest.mark.parametrize(
    ("arguments", "status", "part"),
    [
        (["--slice", "0%", "-c", "1"], 2, "'0%' is not a slice"),
        (["--slice", "101", "-c", "1"], 2, "'101' is not a slice"),
        (["--slice", "12.5", "-c", "1"], 2, "'12.5' is not a slice"),
        (["--slice", "abc", "-c", "1"], 2, "'abc' is not a slice"),
        (["--memory", "1XB", "-c", "1"], 2, "'1XB' is not a memory size"),
        (["--mode", "rude", "-c", "1"], 2, "mode 'rude' is unknown"),
        (["--registry", "nowhere", "-c", "1"], 2, "write HOST:PORT"),
        (["missing.py", "--epochs", "3"], 2, "there is no script 'missing.py'"),
        (["-m"], 2, "-m needs a module"),
        (["-c"], 2, "-c needs code"),
        (["/"], 2, "is a folder without a __main__.py"),
        (["--stats-json", "no/where", "-c", "1"], 2, "its folder does not exist"),
        (["--memory", "9GiB", "-c", "1"], 1, "no device"),
    ],
)
def test_bad_input_is_one_sentence(
    shared: Pool, arguments: list[str], status: int, part: str
) -> None:
    done = run(shared, *arguments)
    one_sentence(done, part)
    assert done.returncode == status
    assert not shared.leases()


def test_without_a_registry_there_is_one_sentence(shared: Pool) -> None:
    done = run(shared, "--registry", "127.0.0.1:9", "-c", "print('ran')")
    one_sentence(done, "no registry answers at 127.0.0.1:9", "xpool up")
    assert done.returncode == 1


def test_without_room_there_is_one_sentence_with_the_reasons(shared: Pool) -> None:
    with shared.client() as client:
        lease = client.acquire(tenant="other", share_percent=80, ttl_ms=60_000)
        done = run(shared, "--queue", "no", "--slice", "30%", "-c", "print('ran')")
        client.release(lease.lease_id, lease.epoch)
    one_sentence(done, "30%", "20%", "one")
    assert done.returncode == 1


def test_what_never_fits_is_not_waited_for(shared: Pool) -> None:
    done = run(shared, "--devices", "9", "-c", "print('ran')")
    one_sentence(done, "never 9 devices of this pool could hold")
    assert done.returncode == 1


def test_without_room_a_job_waits_and_then_runs(pool: Pool) -> None:
    with pool.client() as client:
        lease = client.acquire(tenant="other", share_percent=80, ttl_ms=60_000)
        argv = [sys.executable, PLAIN_RUN, "run", "--registry", pool.registry]
        job = pool.start("job", [*argv, "--slice", "30%", "-c", "print('ran')"])
        eventually(lambda: "xpool: waiting, place 1 of 1" in job.logged(), "a line", 20)
        assert job.process.poll() is None
        assert "no device has 30%" in job.logged()
        client.release(lease.lease_id, lease.epoch)
    assert job.process.wait(20) == 0
    assert "ran" in job.said()
    eventually(lambda: not pool.leases(), "the lease is released", 5)


def test_a_job_that_is_ended_while_it_waits_leaves_the_queue(pool: Pool) -> None:
    with AdminClient(pool.registry) as client:
        client.acquire(tenant="other", share_percent=80, ttl_ms=60_000)
        argv = [sys.executable, PLAIN_RUN, "run", "--registry", pool.registry]
        job = pool.start("job", [*argv, "--slice", "30%", "-c", "print('ran')"])
        eventually(lambda: len(client.list_queue()) == 1, "it waits", 20)
        pool.kill("job", signal.SIGTERM)
        assert job.process.wait(10) == -signal.SIGTERM
        assert client.list_queue() == []
        assert "ran" not in job.said()


def test_a_full_command_line_without_program_is_a_usage_error(shared: Pool) -> None:
    done = run(shared, "--slice", "30%")
    assert done.returncode == 2
    assert "Missing argument" in done.stderr
    assert "Traceback" not in done.stderr


# ---- ends ----


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("raise SystemExit(7)", 7),
        ("raise SystemExit('words')", 1),
        ("1 / 0", 1),
        ("import os; os._exit(200)", 200),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import os; os.kill(os.getpid(), 11)", -11),
        ("raise KeyboardInterrupt", -2),
    ],
)
def test_the_program_ends_as_it_would_have_alone(
    shared: Pool, code: str, status: int
) -> None:
    assert run(shared, "-c", code).returncode == status
    assert not shared.leases()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_are_passed_on(shared: Pool, number: signal.Signals) -> None:
    code = (
        "import signal, sys, time\n"
        f"signal.signal({int(number)}, lambda n, f: sys.exit(40 + n))\n"
        "print('begun', flush=True)\n"
        "time.sleep(60)\n"
    )
    job = start(shared, code)
    job.process.send_signal(number)
    assert job.process.wait(10) == 40 + number
    assert not shared.leases()


def test_ctrl_c_is_the_programs_and_the_lease_is_given_back(shared: Pool) -> None:
    code = (
        "import time\n"
        "print('begun', flush=True)\n"
        "try:\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    print('caught', flush=True)\n"
    )
    job = start(shared, code)
    os.killpg(job.pid, signal.SIGINT)
    assert job.process.wait(10) == 0
    assert "caught" in job.said()
    assert not shared.leases()


def test_the_servers_counters_are_written(shared: Pool, tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    code = (
        "assert pipe.wants_statistics\n"
        "pipe.send_statistics("
        "{'executed_ops': 3, 'received_nbytes': 9}, lease.lease_id)\n"
    )
    done = run(shared, "--stats-json", str(path), "-c", code)
    assert done.returncode == 0
    figures = json.loads(path.read_text())
    assert len(figures.pop("lease_id")) == 16
    assert figures == {
        "server": "one",
        "device": "light device",
        "executed_ops": 3,
        "received_nbytes": 9,
    }


def test_counters_that_never_came_are_said_to_be_missing(
    shared: Pool, tmp_path: Path
) -> None:
    path = tmp_path / "stats.json"
    done = run(shared, "--stats-json", str(path), "-c", "pass")
    assert done.returncode == 0
    one_sentence(done, "stats.json was not written")
    assert not path.exists()


# ---- the lease meanwhile ----


def test_the_lease_is_renewed_past_its_ttl(shared: Pool) -> None:
    """Three renewals are more than one TTL."""
    code = (
        "import threading\n"
        "from xpool.lease_pipe import Renewed\n"
        "later, enough = [], threading.Event()\n"
        "def note(what):\n"
        "    later.append(what)\n"
        "    len(later) == 4 and enough.set()\n"
        "pipe.watch(note)\n"
        "assert enough.wait(20)\n"
        "assert all(isinstance(one, Renewed) for one in later), later\n"
        "assert len({one.token for one in later}) > 1\n"
    )
    done = run(shared, "-c", code)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_program_hears_that_its_lease_is_over(pool: Pool) -> None:
    code = (
        "import threading\n"
        "heard = threading.Event()\n"
        "def note(what):\n"
        "    if isinstance(what, Exception):\n"
        "        print(type(what).__name__, what, flush=True)\n"
        "        heard.set()\n"
        "pipe.watch(note)\n"
        "print('begun', flush=True)\n"
        "raise SystemExit(5 if heard.wait(20) else 6)\n"
    )
    job = start(pool, code)
    (info,) = pool.leases()
    with pool.client() as client:
        client.release(info.lease.lease_id, info.lease.epoch, "an operator's wish")
    assert job.process.wait(20) == 5
    assert "LeaseExpired" in job.said()
    assert "an operator's wish" in job.said()
    assert job.logged() == ""


def test_a_killed_keeper_takes_job_lease_and_worker_along(pool: Pool) -> None:
    """1 a job with a session, 2 its keeper is killed, 3 the program is gone, 4 within
    the TTL the lease and the worker too."""
    code = (
        "import time\nheld = open_session()\nprint('begun', flush=True)\ntime.sleep(60)"
    )
    job = start(pool, code)
    (program,) = psutil.Process(job.pid).children()
    eventually(lambda: len(pool.workers("one")) == 2, "session and spare")
    pool.kill("job", signal.SIGKILL)
    eventually(lambda: not program.is_running(), "the end of the program")
    eventually(lambda: not pool.leases(), "the end of the lease", 2 + 2)
    eventually(lambda: len(pool.workers("one")) == 1, "the end of the worker")


def test_a_job_outlives_a_registry_that_is_killed(pool: Pool) -> None:
    """1 a job, 2 the registry is killed and stays away longer than a renewal, 3 it
    comes back, 4 the lease is renewed again, 5 the job ends well."""
    renewed = pool.folder / "renewed"
    code = (
        "import pathlib, time\n"
        "held = open_session()\n"
        "def note(what):\n"
        f"    with open({str(renewed)!r}, 'a') as f: print(what, file=f)\n"
        "pipe.watch(note)\n"
        "print('begun', flush=True)\n"
        f"while not pathlib.Path({str(pool.folder / 'go')!r}).exists():\n"
        "    time.sleep(0.02)\n"
        "held.__exit__()\n"
    )
    job = start(pool, code)
    pool.kill("registry", signal.SIGKILL)
    server = pool.members["one"]
    eventually(lambda: "waiting for the registry" in server.logged(), "the log line")
    pool.start_registry()
    renewed.write_text("")
    eventually(lambda: "Renewed" in renewed.read_text(), "a renewal")
    assert len(pool.leases()) == 1
    (pool.folder / "go").touch()
    assert job.process.wait(10) == 0
    assert job.logged() == ""
    assert not pool.leases()


def test_a_registry_that_is_away_at_the_end_does_not_change_the_end(
    pool: Pool,
) -> None:
    go = pool.folder / "go"
    code = (
        "import pathlib, time\n"
        "print('begun', flush=True)\n"
        f"while not pathlib.Path({str(go)!r}).exists():\n"
        "    time.sleep(0.02)\n"
        "raise SystemExit(9)\n"
    )
    job = start(pool, code)
    pool.kill("registry", signal.SIGKILL)
    go.touch()
    assert job.process.wait(15) == 9
    assert "the lease was not given back and runs out by itself" in job.logged()
    assert "Traceback" not in job.logged()


# ---- without xpool run ----

NOTEBOOK = """
import os, sys, time
from xpool.config import JobSettings
from xpool.keeper import start_keeper
pipe = start_keeper(JobSettings(registry=sys.argv[1], share_percent=40))
(lease,) = pipe.wait_for_leases(20)
if "fork" in sys.argv and os.fork() == 0:
    time.sleep(60)
    os._exit(0)
print("begun", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("extra", [[], ["fork"]], ids=["alone", "with-a-fork"])
def test_a_notebooks_lease_ends_with_it(pool: Pool, extra: list[str]) -> None:
    """Also while a forked child of it lives on."""
    argv = [sys.executable, "-c", NOTEBOOK, pool.registry, *extra]
    notebook = pool.start("notebook", argv)
    eventually(lambda: "begun" in notebook.said(), notebook.logged() or "begun", 20)
    (info,) = pool.leases()
    assert info.lease.share_percent == 40
    forked = [
        child
        for child in psutil.Process(notebook.pid).children()
        if "xpool.keeper" not in child.cmdline()
    ]
    assert len(forked) == len(extra)
    pool.kill("notebook", signal.SIGKILL)
    # Well before the TTL: the keeper has given it back.
    eventually(lambda: not pool.leases(), "the release")
    for child in forked:
        assert child.is_running()
        child.kill()


def test_a_notebook_without_a_registry_hears_why(pool: Pool) -> None:
    argv = [sys.executable, "-c", NOTEBOOK, "127.0.0.1:9"]
    notebook = pool.start("notebook", argv)
    assert notebook.process.wait(20) == 1
    assert "RegistryUnreachable: no registry answers at" in notebook.logged()
