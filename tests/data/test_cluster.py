"""Recording on Ray: on this machine, and on two nodes, one of which is killed in the middle."""

import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.toy_world import record_toy, toy_config

import reverie
from reverie.data.dataset import Dataset
from reverie.data.record import record
from reverie.errors import WorldError

WORKERS_PATH = os.pathsep.join(str(folder) for folder in (Path(reverie.__file__).parents[1], Path(__file__).parents[2]))
"""Of Ray's workers: the sources under test, whichever are installed, and the toy world."""


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes with one core each, and the driver connected to them."""
    pytest.importorskip("ray", reason='Ray is not installed: pip install "reverie-world[cluster]"')
    from reverie.data.cluster import import_ray

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, of its dependencies and its processes
        ray = import_ray()
        from ray.cluster_utils import Cluster

        os.environ["PYTHONPATH"] = WORKERS_PATH
        small = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args=small)
        try:
            made.add_node(**small)
            ray.init(address=made.address, log_to_driver=False, configure_logging=False)
            yield made
        finally:
            ray.shutdown()
            made.shutdown()
            os.environ.pop("PYTHONPATH")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_node_that_is_killed_costs_no_episode(cluster: Any, tmp_path: Path) -> None:
    node = cluster.list_all_nodes()[-1]
    killed = False

    from reverie.data import record as module

    add = module._add

    def add_and_kill(writer: Any, draft: Any) -> None:
        nonlocal killed
        add(writer, draft)
        if len(writer.rows) == 3 and not killed:
            killed = True
            cluster.remove_node(node, allow_graceful=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_add", add_and_kill)
        record_toy(tmp_path, 400, cluster=cluster.address)
    data = Dataset(tmp_path)
    assert killed
    assert data.num_frames >= 400
    assert all(len(data.clip(i).frames) == data.episodes[i].length for i in range(data.num_episodes))
    rejected = tmp_path / "meta/rejected.jsonl"
    assert not rejected.exists() or "lost" not in rejected.read_text(), "what the node had played was played again"


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason='Ray is not installed: pip install "reverie-world[cluster]"')
    monkeypatch.setenv("PYTHONPATH", WORKERS_PATH)
    record_toy(tmp_path, 80, cluster="local", processes=1)
    data = Dataset(tmp_path)
    assert data.num_frames >= 80
    assert len(data.clip(0).frames) == data.episodes[0].length


def test_without_ray_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(WorldError, match=r'not installed; pip install "reverie-world\[cluster\]"'):
        record(toy_config(tmp_path, 40, cluster="local"))


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(WorldError, match=r"no Ray cluster at '127\.0\.0\.1:1'"):
        record(toy_config(tmp_path, 40, cluster="127.0.0.1:1"))
