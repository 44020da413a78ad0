"""A Ray cluster draws the same bytes as one process, and a lost worker costs no more than its shard."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_cluster import Cluster, kill, local_cluster

from tailorset.commands import doctor
from tailorset.generation.engine import Shelf
from tailorset.generation.quota import Draw
from tailorset.generation.studio import PlannedShard, Row
from tailorset.project.params import load_params
from tailorset.records import LabelSpace, Prompt
from tests.generation_project import (
    change_params,
    products,
    remove_products,
    resume_folder,
    run_stage_script,
    start_stage,
    wait_for_shards,
)

ray_engine = pytest.importorskip("tailorset.project.ray_engine", reason="Ray is not installed")
RayEngine, LEAD = ray_engine.RayEngine, ray_engine.LEAD


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two workers of one core each."""
    with local_cluster(num_cpus=2) as running:
        yield running


@pytest.fixture
def expected(generation_project: Path, one_thread: None) -> dict[str, bytes]:
    """Products of one process; the project is as before."""
    run_stage_script()
    made = products(generation_project)
    remove_products(generation_project)
    return made


@pytest.mark.timeout(1800)
def test_a_cluster_with_a_killed_worker_makes_the_same_bytes(
    generation_project: Path, expected: dict[str, bytes], cluster: Cluster
) -> None:
    change_params(engine={"name": "ray", "address": cluster.address})
    process = start_stage(generation_project, stderr=subprocess.PIPE)
    wait_for_shards(process, resume_folder(process, generation_project), 1)
    workers = cluster.workers()
    assert len(workers) == 2
    kill(workers[0])
    _, told = process.communicate()
    assert process.returncode == 0, told[-3000:]
    assert "2 workers, a CPU each" in told
    assert told.count("lost a Ray worker (") == 1
    assert products(generation_project) == expected


def test_a_restart_takes_finished_shards_from_the_shelf_as_their_turn_comes() -> None:
    prompt = Prompt(prompt_id="p", text="a boat", labels=("boat",), origin="llm", attempt=1)
    plans = [PlannedShard(f"{number}.tar", [Draw(prompt, number, "boat")]) for number in range(50)]
    row = {"labels": ["boat"], "discriminator_logits": [1.0, 0.0], "judge_logits": [1.0, 0.0]}
    taken: list[str] = []

    def rows_of(name: str) -> list[Row]:
        taken.append(name)
        return [row | {"image_id": f"p-{int(name.removesuffix('.tar')):04d}"}]

    engine = object.__new__(RayEngine)  # no cluster is needed to find that there is nothing to draw
    engine._num_workers = 2
    names = []
    for shard in engine.shards(plans, Shelf(("boat", "clock"), 0.5, rows_of)):
        names.append(shard.name)
        assert len(taken) - len(names) < 2 * LEAD
    assert names == taken == [plan.name for plan in plans]


def test_where_every_worker_is_lost_the_stage_ends(generation_project: Path, cluster: Cluster) -> None:
    change_params(engine={"name": "ray", "address": cluster.address})
    process = start_stage(generation_project, stderr=subprocess.PIPE)
    while process.poll() is None:
        for worker in cluster.workers():
            kill(worker)
        time.sleep(0.05)
    assert process.returncode == 1
    assert process.stderr is not None
    assert "6 workers were lost while they loaded" in process.stderr.read()


def test_an_address_where_no_cluster_answers_is_named(generation_project: Path) -> None:
    change_params(engine={"name": "ray", "address": "127.0.0.1:9"})
    process = start_stage(generation_project, stderr=subprocess.PIPE)
    _, told = process.communicate()
    assert process.returncode
    assert "engine.address '127.0.0.1:9': no Ray cluster answers there" in told
    assert "ray start --head" in told


def test_the_doctor_dials_the_cluster(cluster: Cluster) -> None:
    assert doctor.cluster(cluster.address).status == "ok"
    for address in ("127.0.0.1:9", "nowhere"):
        finding = doctor.cluster(address)
        assert finding.status == "error"
        assert f"engine.address '{address}': no Ray cluster answers" in finding.text


def test_a_machine_with_other_code_or_models_refuses_to_draw(generation_project: Path) -> None:
    params = load_params()
    state = ray_engine.state_of(params, ["params.yaml"])
    space = LabelSpace.load(params.label_space)
    job = ray_engine.WorkerJob(params, space, {}, ["params.yaml"], state, str(generation_project))
    Path("params.yaml").write_text(Path("params.yaml").read_text() + "# changed since\n")
    with pytest.raises(ValueError, match="bring both to the same commit"):
        ray_engine.Worker().open(job)
    Path("params.yaml").unlink()
    with pytest.raises(ValueError, match=r"params.yaml is missing.*call `ray start` in the project's folder"):
        ray_engine.Worker().open(job)
