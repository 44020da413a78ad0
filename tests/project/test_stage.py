from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import torch
import yaml

from tailorset.compute.device import resolve_device
from tailorset.project.definition import fingerprint, stage_definition
from tailorset.project.stage import all_metrics, run_stage
from tailorset.storage.files import atomic_output, write_json


@pytest.fixture
def stage_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one stage with a templated dependency, a folder and a parameter."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "soft.py").write_text("1")
    (tmp_path / "params.yaml").write_text("seed: 0\nother: 1\nfilter: {name: soft, threshold: 0.5}\n")
    stage = {"cmd": "true", "deps": ["code/${filter.name}.py", "code"], "params": ["seed", "filter"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"filter": stage}}))
    return tmp_path


def current() -> str:
    return fingerprint(stage_definition("filter"))


def test_a_definition_has_its_templates_filled_and_its_params_flat(stage_files: Path) -> None:
    assert stage_definition("filter") == {
        "deps": ["code/soft.py", "code"],
        "params": {"seed": 0, "filter.name": "soft", "filter.threshold": 0.5},
    }


def test_the_fingerprint_is_stable_and_blind_to_what_the_stage_does_not_use(stage_files: Path) -> None:
    before = current()
    (stage_files / "params.yaml").write_text("seed: 0\nother: 2\nfilter: {name: soft, threshold: 0.5}\n")
    (stage_files / "code" / "__pycache__").mkdir()
    (stage_files / "code" / "__pycache__" / "soft.pyc").write_text("x")
    assert current() == before


def test_an_edited_parameter_changes_the_fingerprint(stage_files: Path) -> None:
    before = current()
    (stage_files / "params.yaml").write_text("seed: 0\nfilter: {name: soft, threshold: 0.6}\n")
    assert current() != before


def test_an_edited_moved_or_new_file_changes_the_fingerprint(stage_files: Path) -> None:
    seen = {current()}
    for path, text in (("soft.py", "2"), ("new.py", "2"), ("newer.py", "")):
        (stage_files / "code" / path).write_text(text)
        seen.add(current())
    (stage_files / "code" / "newer.py").rename(stage_files / "code" / "newest.py")
    assert len(seen | {current()}) == 5


def test_an_unknown_stage_lists_the_choices(stage_files: Path) -> None:
    with pytest.raises(ValueError, match="Did you mean 'filter'"):
        stage_definition("filtr")


def test_a_stage_that_cannot_be_shared_is_left_to_process_0(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as ended, run_stage("filter_images"):
        pytest.fail("process 1 did the work of process 0")
    assert not ended.value.code


def test_memory_that_runs_out_in_a_stage_is_explained(project: Path) -> None:
    with pytest.raises(MemoryError, match=r"filter_images: out of memory.*name smaller"), run_stage("filter_images"):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_stage_says_that_a_budget_has_no_effect_on_a_cpu(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    params = (project / "params.yaml").read_text().replace("memory_budget_gb: null", "memory_budget_gb: 6")
    (project / "params.yaml").write_text(params.replace("device: auto", "device: cpu"))
    with run_stage("filter_images") as stage:
        assert stage.device == stage.device == torch.device("cpu")
    assert caplog.text.count("memory_budget_gb is 6") == 1


def test_an_unfilled_template_names_the_key(stage_files: Path) -> None:
    (stage_files / "params.yaml").write_text("filter: {nme: soft}\n")
    with pytest.raises(ValueError, match=r"'filter.name'.*Did you mean 'filter.nme'"):
        stage_definition("filter")


def test_a_missing_dependency_names_the_remedy(stage_files: Path) -> None:
    (stage_files / "code" / "soft.py").unlink()
    with pytest.raises(ValueError, match="dvc repro"):
        current()


def test_a_stage_keeps_its_resume_folder_until_it_succeeds(project: Path) -> None:
    def interrupted() -> None:
        with run_stage("evaluate") as stage:
            (stage.work_dir / "progress").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with run_stage("evaluate") as stage:
        assert (stage.work_dir / "progress").read_text() == "half"
        work_dir = stage.work_dir
    assert not work_dir.exists()


def test_under_dvc_the_resume_folder_stays_until_products_are_stored(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC hashes products after the stage's process has ended; a kill in between must not cost the stage's work."""

    def seen_at_start() -> bool:
        with run_stage("evaluate") as stage:
            was_there = (stage.work_dir / "shard").exists()
            (stage.work_dir / "shard").touch()
        return was_there

    lock = Path("dvc.lock")
    lock.touch()
    os.utime(lock, (1, 1))  # of an earlier run
    monkeypatch.setenv("DVC_STAGE", "evaluate")
    assert not seen_at_start()
    assert seen_at_start()  # as after a kill before DVC wrote dvc.lock
    os.utime(lock, (time.time() + 5,) * 2)
    assert not seen_at_start()  # stored: whoever runs it again, with --force, wants it made again
    with run_stage("filter_images"):
        pass
    assert not list(Path(".work").glob("evaluate/*"))  # the next stage tidied up


def test_the_resume_folder_lies_in_the_project_dvc_copied_from(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path_factory.mktemp("root")
    monkeypatch.setenv("DVC_ROOT", str(root))
    with run_stage("evaluate") as stage:
        assert stage.work_dir.is_relative_to(root / ".work" / "evaluate")


def test_a_stage_seeds_torch_by_seed_and_name(project: Path) -> None:
    draws = []
    for name in ("evaluate", "evaluate", "filter_images"):
        with run_stage(name):
            draws.append(torch.rand(1).item())
    assert draws[0] == draws[1] != draws[2]


def test_too_few_unseen_labels_are_refused(project: Path) -> None:
    path = project / "data" / "labels" / "toybox.yaml"
    content = yaml.safe_load(path.read_text())
    unseen = [label for label in content["labels"] if not label["seen"]]
    content["labels"] = [label for label in content["labels"] if label["seen"]] + unseen[:2]
    content["confusable"] = []
    path.write_text(yaml.safe_dump(content))
    with run_stage("evaluate") as stage, pytest.raises(ValueError, match=r"has 2 unseen labels .* at least 3"):
        _ = stage.label_space


def test_metrics_are_sorted_flat_and_finite(project: Path) -> None:
    with run_stage("evaluate") as stage:
        stage.save_metrics({"b": torch.tensor(0.5), "a": 1})
        assert (stage.report_dir / "metrics.json").read_text() == '{\n  "a": 1,\n  "b": 0.5\n}\n'
        with pytest.raises(ValueError, match="JSON compliant"):
            stage.save_metrics({"loss": float("nan")})


def test_metrics_of_all_stages_meet_under_their_own_names(tmp_path: Path) -> None:
    write_json(tmp_path / "generate_images" / "metrics.json", {"generate/images": 3})
    write_json(tmp_path / "metrics.json", {"zsl/map": 0.5})
    assert all_metrics(tmp_path) == {"generate/images": 3, "zsl/map": 0.5}


def test_an_output_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    def fails(path: Path) -> None:
        with atomic_output(path) as partial:
            partial.mkdir()
            (partial / "a").write_text("new")
            raise RuntimeError("interrupted")

    target = tmp_path / "data" / "out"
    target.mkdir(parents=True)
    (target / "a").write_text("old")
    with pytest.raises(RuntimeError):
        fails(target)
    assert (target / "a").read_text() == "old"
    with atomic_output(target) as partial:
        assert not partial.exists()
        partial.mkdir()
        (partial / "b").write_text("new")
    assert [path.name for path in target.iterdir()] == ["b"]
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def test_an_output_can_be_a_file(tmp_path: Path) -> None:
    with atomic_output(tmp_path / "a.json") as partial:
        write_json(partial, {"x": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto").type == "cpu"
    with pytest.raises(ValueError, match="choose auto or cpu"):
        resolve_device("cuda")
