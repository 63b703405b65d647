"""Traces in openb's format that nobody here has seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from xpool_perf import openb
from xpool_perf.placement_replay import replays
from xpool_perf.pool import RunFailed
from xpool_perf.scenario import Settings


def write(folder: Path, nodes: str, tasks: str) -> None:
    (folder / "my_nodes.csv").write_text(nodes)
    (folder / "my_pods.csv").write_text(tasks)


NODES = "sn,cpu_milli,memory_mib,gpu,model\nn0,64000,262144,4,T4\n"
TASKS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli\nt0,4000,15000,1,500\n"


@pytest.mark.parametrize(
    ("nodes", "tasks", "sentence"),
    [
        ("sn,cpu_milli\nn0,5\n", TASKS, "line 2 has no column gpu"),
        (NODES, "name\nx\n", "line 2 has no column gpu_milli"),
        (NODES + "n1,64000\n", TASKS, "line 3 has no column gpu"),
        (NODES + "n0,1,1,1,T4\n", TASKS, "names the node 'n0' twice"),
        (NODES + ",1,1,1,T4\n", TASKS, "line 3: sn is empty"),
        (NODES.replace(",4,", ",0,"), TASKS, "no node with a GPU"),
        (NODES.replace(",4,", ",-4,"), TASKS, "gpu is -4; it must be a whole number"),
        (NODES.replace(",4,", ",9999999,"), TASKS, "from 0 to 1024"),
        (NODES.replace("64000", "many"), TASKS, "cpu_milli is 'many'"),
        (NODES.replace("64000", "nan"), TASKS, "cpu_milli is nan"),
        (NODES, TASKS.replace(",500", ",2000"), "gpu_milli is 2000"),
        (NODES, TASKS.replace(",500", ",0.5"), "gpu_milli is 0.5"),
        (NODES, TASKS.replace("1,500", "0,0"), "no task that asks for a GPU"),
        (NODES, TASKS.split("t0")[0], "no task that asks for a GPU"),
        ("", TASKS, "no node with a GPU"),
        (NODES, TASKS + "\0,\0\n", "line 3 has no column"),
    ],
)
def test_what_makes_no_sense_is_named_with_its_line(
    tmp_path: Path, nodes: str, tasks: str, sentence: str
) -> None:
    write(tmp_path, nodes, tasks)
    with pytest.raises(RunFailed) as caught:
        replays(Settings(path=tmp_path), print)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_clusters_are_replayed(tmp_path: Path) -> None:
    """Nodes without a GPU, of three and of ten, huge tasks, times in no order."""
    nodes = NODES + "n1,96000.0,524288,3,\nn2,64000,1,0,\nn3,128000,1048576,10,A10\n"
    head = "name,num_gpu,memory_mib,cpu_milli,gpu_milli,creation_time\n"
    forms = ["2,100,1000,250", "1,100,1000,1000", "0,100,1000,", "10,1,1,1000"]
    forms += ["1000000000,1,1,1000", "16,1,1,1000", "3,100,1000,1000"]
    rows = [f"t{i},{form},{9000 - i}\n" for i, form in enumerate(forms * 3)]
    write(tmp_path, "\ufeff" + nodes, head + "".join(rows))
    trace = openb.load(tmp_path)
    assert trace.capacity_milli == 17_000
    assert [len(node.devices) for node in trace.nodes] == [4, 3, 10]
    samples = replays(Settings(path=tmp_path), lambda text: None)
    assert all(0 <= one <= 100 for one in samples["allocation_percent_by_seed"])


def test_one_task_that_is_most_of_a_cluster(tmp_path: Path) -> None:
    write(tmp_path, NODES, TASKS.replace("1,500", "4,1000"))
    samples = replays(Settings(path=tmp_path), lambda text: None)
    assert samples["allocation_percent_by_seed"] == [100.0] * 5


def test_tasks_run_on_the_models_that_they_name(tmp_path: Path) -> None:
    nodes = NODES + "n1,64000,262144,4,V100M16\nn2,64000,262144,4,V100M32\n"
    tasks = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n"
    tasks += "t0,1,1,1,1000,V100M16|V100M32\n"
    write(tmp_path, nodes, tasks)
    samples = replays(Settings(path=tmp_path), lambda text: None)
    assert samples["allocation_percent"] == [pytest.approx(100 * 8 / 12)]
