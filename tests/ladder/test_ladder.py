"""The ladder: its points, each product made once, and a report that agrees with the scores."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from dvc.utils.hydra import apply_overrides

sys.path.insert(0, str(Path(__file__).parents[2] / "pipeline" / "ladder"))
import figures
import measure
import pages
import report
import summarise
import web_photos
import workspace as workspace_module
from points import BOUNDS, FACTORS, FULL, Ladder, Point, load_ladder
from workspace import Workspace, merged, working_in

from tailorset.evaluation.metrics import multilabel_metrics
from tailorset.images.codec import decode_image
from tailorset.project.checks import contradictions
from tailorset.project.params import check_params, load_params, read_yaml
from tailorset.project.presets import preset_text
from tailorset.project.tracking import Tracker, connect
from tailorset.records import LabelSpace
from tailorset.registry.comparison import executions
from tailorset.storage.files import write_json

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def settings(project: Path) -> Path:
    """A project with the shipped ladder, fewer seeds and no curves."""
    content = yaml.safe_load((ROOT / "pipeline/ladder/params.yaml").read_text())
    content["worlds"]["toybox"]["seeds"] = [0, 1]
    content |= {"num_resamples": 200, "curves": {"seeds": [0, 1], "settings": {"filter_images.threshold": [0.7]}}}
    path = project / "ladder.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def changed(path: Path, **blocks: object) -> Path:
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | blocks))
    return path


def test_points_are_the_base_with_the_settings_of_a_rung(settings: Path) -> None:
    ladder = load_ladder(settings)
    points = {(point.name, point.seed): point for part in ("toybox", "curves") for point in ladder.points(part)}
    base = points["full", 0].settings
    assert points["without_fusion", 1].settings == base | {"train_classifier.fusion": False}
    assert points["filter_images.threshold=0.7", 0].settings == base | {"filter_images.threshold": 0.7}
    assert [point.name for point in ladder.points("curves")] == 2 * ["full"] + 2 * ["filter_images.threshold=0.7"]


def test_shipped_ladder_is_valid_and_its_second_world_has_other_unseen_labels(project: Path) -> None:
    ladder = load_ladder(ROOT / "pipeline/ladder/params.yaml")
    first, second = (LabelSpace.load(world.label_space) for world in ladder.worlds.values())
    assert not set(first.unseen) & set(second.unseen)
    assert set(first.names) == set(second.names)


def test_a_world_without_results_is_said_to_be_not_measured(results: Path) -> None:
    page = Path("docs/results.md").read_text()
    assert "## toybox_b\n\nNot measured yet" in page
    assert page.index("## toybox\n") < page.index("## toybox_b\n")


def test_a_part_measured_earlier_stays_when_only_its_tables_are_at_hand(results: Path) -> None:
    page = Path("docs/results.md").read_text()
    shutil.rmtree("data/ladder")
    report.main()
    assert Path("docs/results.md").read_text() == page
    shutil.rmtree("reports/ladder/curves")
    report.main()
    assert "## Curves\n\nNot measured yet." in Path("docs/results.md").read_text()
    shutil.rmtree("reports/ladder/toybox")
    with pytest.raises(ValueError, match="toybox is missing: run `make ladder`"):
        report.main()


def test_bad_settings_are_named(settings: Path) -> None:
    with pytest.raises(ValueError, match=r"train_classifier\.fussion.*does not have"):
        load_ladder(changed(settings, base={"train_classifier.fussion": True}))
    with pytest.raises(ValueError, match="'nothing'"):
        load_ladder(changed(settings, base={}, components={"fusion": ["full", "nothing"]}))


STAGE = """
import json, os, yaml
from pathlib import Path
if __name__ == "__main__":
    params = yaml.safe_load(Path("params.yaml").read_text())
    log = Path(os.environ["RUNS"])
    log.write_text(log.read_text() + f"{params['block']['value']}\\n")
    Path("data").mkdir(exist_ok=True)
    Path("data/out.json").write_text(json.dumps(params["block"]))
    if params["block"]["value"] == 13:
        raise SystemExit("bad luck")
"""


@pytest.fixture
def small_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one stage that notes each run."""
    monkeypatch.setattr(workspace_module, "CODE", ["src/tailorset", "dvc.yaml", "params.yaml"])
    monkeypatch.setattr(workspace_module, "STAGES", ())
    for folder in ("src/tailorset", "pipeline", "models/foundation", "data/labels"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "pipeline" / "draw.py").write_text(STAGE)
    stage = {"cmd": "", "deps": ["pipeline/draw.py"], "params": ["block"], "outs": ["data/out.json"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"draw": stage}}))
    (tmp_path / "params.yaml").write_text("block: {value: 1}\nother: {value: 1}\n")
    (tmp_path / "runs").write_text("")
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    return tmp_path


def test_a_product_is_made_once_and_shared(small_root: Path) -> None:
    here, there = (Workspace(small_root, small_root / ".work" / name) for name in ("here", "there"))
    here.run("draw", {"block.value": 5})
    there.run("draw", {"block.value": 5, "other.value": 9})  # what the stage does not depend on
    there.run("draw", {"block.value": 6})
    here.run("draw", {"block.value": 5})
    assert (small_root / "runs").read_text().split() == ["5", "6"]
    values = [json.loads((space.folder / "data/out.json").read_text())["value"] for space in (here, there)]
    assert values == [5, 6]


def test_a_failed_stage_leaves_no_product_and_changed_code_makes_a_new_one(small_root: Path) -> None:
    workspace = Workspace(small_root, small_root / ".work" / "here")
    for _ in range(2):
        with pytest.raises(SystemExit, match="bad luck"):
            workspace.run("draw", {"block.value": 13})
    workspace.run("draw", {"block.value": 5})
    script = small_root / "pipeline" / "draw.py"
    script.write_text(script.read_text() + "\n")
    workspace.run("draw", {"block.value": 5})
    assert (small_root / "runs").read_text().split() == ["13", "13", "5", "5"]


def test_code_that_changes_while_the_ladder_runs_stops_it(small_root: Path) -> None:
    workspace = Workspace(small_root, small_root / ".work" / "here")
    (small_root / "src/tailorset/new.py").write_text("")
    with pytest.raises(RuntimeError, match="changed while the ladder ran"):
        workspace.run("draw", {"block.value": 5})
    assert not [path for path in (small_root / ".work/ladder/products/draw").iterdir() if path.is_dir()]


def test_merged_sets_keys_and_names_what_it_cannot_reach() -> None:
    assert merged({"a": {"b": 1, "c": 2}}, {"a.b": 3}) == {"a": {"b": 3, "c": 2}}
    with pytest.raises(KeyError):
        merged({"a": {}}, {"x.b": 3})


def test_the_command_of_every_row_makes_the_settings_of_its_point(settings: Path) -> None:
    """Also where a row replaces a whole block, which must not be merged with the one in params.yaml."""
    ladder = load_ladder(settings)
    for name in ladder.rungs:
        changed_file = Path("changed.yaml")
        shutil.copy("params.yaml", changed_file)
        words = shlex.split(pages.command(ladder, name))
        apply_overrides(str(changed_file), [word for word in words[3:] if word != "-S"])
        wanted = merged(read_yaml("params.yaml"), ladder.base | ladder.rungs[name].settings)
        assert read_yaml(changed_file) == wanted, name
        load_params(changed_file)


QUALITY = {"full": 2.0, "tuned_text_encoder": 2.0} | dict.fromkeys(BOUNDS, 3.0)  # of made-up scores; 0.5 else


def write_results(ladder: object, image_ids: list[str], targets: pd.DataFrame) -> None:
    """Scores of every point: the truth times a quality, with noise of the seed."""
    names = list(targets.columns)
    for point in ladder.points("toybox") + ladder.points("curves"):  # type: ignore[attr-defined]
        point.folder.mkdir(parents=True)
        rng = np.random.default_rng(point.seed)
        noise = rng.normal(size=targets.shape)
        rows = []
        for method in ("clip", "clip_ensemble", "clip_normalised", "clip_patches", "ours"):
            quality = QUALITY.get(point.name, 0.5) if method == "ours" else 0.3
            table = pd.DataFrame(quality * targets.to_numpy() + noise, columns=names).astype("float32")
            rows.append(pd.DataFrame({"method": method, "image_id": image_ids}).join(table))
        pd.concat(rows).sample(frac=1, random_state=0).to_parquet(point.folder / "scores.parquet")
        counts = {"generate/images": 700, "filter/kept": 300}
        counts |= {"filter/judge_precision": 0.7, "filter/oracle_precision": 0.6}
        trained = 0 if point.name.startswith(("seen", "supervised")) else 300
        counts |= {"num_synthetic_images": trained, "zsl/map": 0.4 + 0.1 * point.seed}
        (point.folder / "metrics.json").write_text(json.dumps(counts))
        (point.folder / "point.json").write_text(json.dumps(point.settings))
        targets.assign(image_id=image_ids).to_parquet(point.folder / "targets.parquet")


@pytest.fixture
def results(settings: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    ladder = load_ladder(settings)
    names = LabelSpace.load("data/labels/toybox.yaml").names
    truth = np.random.default_rng(5).integers(0, 2, (120, len(names)))
    write_results(ladder, [f"test-{i}" for i in range(120)], pd.DataFrame(truth, columns=list(names)))
    for module in (report, summarise):
        monkeypatch.setattr(module, "load_ladder", lambda: ladder)
    Path("docs").mkdir()
    Path("docs/components.md").write_text("before\n<!-- ladder -->\nold\n<!-- /ladder -->\nafter\n")
    make_report()
    return settings


def make_report() -> None:
    for part in ("toybox", "curves"):
        summarise.main(part)
    report.main()


def test_report_says_what_the_scores_say(results: Path) -> None:
    table = pd.read_csv("reports/ladder/toybox/ladder.csv").set_index("row")
    space = LabelSpace.load("data/labels/toybox.yaml")
    targets = torch.from_numpy(
        pd.read_parquet("data/ladder/toybox/full/seed-0/targets.parquet")[list(space.unseen)].to_numpy("int8")
    )
    maps = []
    for seed in (0, 1):
        scores = pd.read_parquet(Point("toybox", "full", seed, {}).folder / "scores.parquet")
        ours = scores[scores["method"] == "ours"].set_index("image_id").loc[[f"test-{i}" for i in range(120)]]
        maps.append(multilabel_metrics(torch.from_numpy(ours[list(space.unseen)].to_numpy()), targets)["map"])
    assert table.loc["full", "zsl_map"] == pytest.approx(np.mean(maps), abs=1e-5)
    assert table.loc["full", "zsl_map_low"] < table.loc["full", "zsl_map"] < table.loc["full", "zsl_map_high"]


def test_pages_say_what_a_single_seed_leaves_out(results: Path) -> None:
    pages_of = ("docs/results.md", "docs/components.md")
    assert not any(pages.ONE_SEED in Path(page).read_text() for page in pages_of)
    measured = Path("reports/ladder/toybox/measured.csv")
    pd.read_csv(measured).assign(seeds=1).to_csv(measured, index=False)
    report.main()
    assert all(Path(page).read_text().count(pages.ONE_SEED) == 1 for page in pages_of)
    assert "1 seed, measured with commit" in Path("docs/results.md").read_text()


def test_a_row_is_drawn_beside_its_title_in_every_world(results: Path) -> None:
    rows = pd.read_csv("reports/ladder/toybox/ladder.csv")
    fewer = rows[~rows["row"].isin(["clip_patches", "seen"])].reset_index(drop=True)
    figure = figures.ladder_figure({"fewer": fewer, "all": rows})
    shown = figure.axes[0].yaxis  # both panels share it
    names = {place: label.get_text() for place, label in zip(shown.get_ticklocs(), shown.get_ticklabels(), strict=True)}
    for axes, table in zip(figure.axes, (fewer, rows), strict=True):
        points = axes.containers[0].lines[0].get_xydata()
        drawn = {names[round(y + 0.12)]: x for x, y in points}
        assert drawn == pytest.approx(dict(zip(table["title"], 100 * table["zsl_map"], strict=True)))


def test_a_row_that_no_world_measured_is_not_drawn(results: Path) -> None:
    rows = pd.read_csv("reports/ladder/toybox/ladder.csv")
    lost = rows["row"] == "seen"
    unmeasured = rows.assign(**{key: rows[key].mask(lost) for key in rows.columns if "map" in key})
    (title,) = rows.loc[lost, "title"]
    for worlds, shown in (({"one": unmeasured}, False), ({"one": unmeasured, "two": rows}, True)):
        labels = figures.ladder_figure(worlds).axes[0].yaxis.get_ticklabels()
        assert (title in [label.get_text() for label in labels]) == shown


def test_components_that_help_are_told_from_those_that_do_not(results: Path) -> None:
    table = pd.read_csv("reports/ladder/toybox/components.csv").set_index("component")
    assert table.loc["fusion", "zsl_map_low"] > 0  # full 2.0, without 0.5
    assert table.loc["tuned text encoder", "zsl_map"] == 0  # both 2.0, same noise: paired
    page = Path("docs/results.md").read_text()
    assert "| fusion | `full` - `without_fusion` |" in page
    lines = {line.split(" |")[0].strip("| "): line for line in page.splitlines()}
    assert lines["fusion"].endswith("helps |")
    assert lines["tuned text encoder"].endswith("no effect shown |")
    gap = json.loads(Path("reports/ladder/metrics.json").read_text())["toybox/gap_closed"]
    assert 0.5 < gap < 1


def test_curves_say_which_values_are_not_measured(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree("data/ladder/curves/filter_images.threshold=0.7")
    make_report()
    table = pd.read_csv("reports/ladder/curves/curves.csv").set_index("value")
    assert table.loc[0.9, ["zsl_map", "zsl_map_low", "zsl_map_high"]].tolist() == pytest.approx([0.45, 0.4, 0.5])
    assert "| `filter_images.threshold` | 0.7 | not measured |" in Path("docs/results.md").read_text()


def test_rungs_that_were_not_run_are_rows_without_figures(results: Path) -> None:
    shutil.rmtree("data/ladder/toybox/template/seed-1")
    make_report()
    table = pd.read_csv("reports/ladder/toybox/ladder.csv").set_index("row")
    assert np.isnan(table.loc["template", "zsl_map"])
    components = pd.read_csv("reports/ladder/toybox/components.csv").set_index("component")
    assert np.isnan(components.loc["prompts by the language model", "zsl_map"])
    assert components.loc["fusion", "zsl_map_low"] > 0
    assert "| + images of template prompts, unfiltered | not measured |" in Path("docs/results.md").read_text()


def test_results_of_other_settings_are_refused(results: Path) -> None:
    path = Path("data/ladder/toybox/seen/seed-0/point.json")
    path.write_text(json.dumps({"train_classifier.num_epochs": 99}))
    with pytest.raises(ValueError, match="measured with other settings"):
        make_report()


@pytest.mark.parametrize("best", BOUNDS)
def test_the_best_bound_counts(results: Path, best: str) -> None:
    """Whichever of them is best, the others must not make the gap look smaller."""
    before = json.loads(Path("reports/ladder/metrics.json").read_text())["toybox/gap_closed"]
    for name in set(BOUNDS) - {best}:
        for seed in (0, 1):
            folders = [Path(f"data/ladder/toybox/{rung}/seed-{seed}/scores.parquet") for rung in ("template", name)]
            shutil.copy(*folders)
    make_report()
    assert json.loads(Path("reports/ladder/metrics.json").read_text())["toybox/gap_closed"] == pytest.approx(before)


def test_a_gap_names_the_bounds_that_were_not_measured(results: Path) -> None:
    assert "so perhaps higher" not in Path("docs/results.md").read_text()
    shutil.rmtree("data/ladder/toybox/supervised_probe/seed-1")
    make_report()
    sentence = "(goal 0.9). Not measured, so perhaps higher: `supervised_probe`."
    assert sentence in Path("docs/results.md").read_text()
    assert sentence in Path("docs/components.md").read_text()


def test_pages_say_that_settings_have_changed_since(results: Path) -> None:
    """The former augmentation's figures must not pass for those of today's."""
    assert (
        "Not measured with today's" not in Path("docs/results.md").read_text() + Path("docs/components.md").read_text()
    )
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["train_classifier"]["augment"]["real"]["cutout"] = 0.25
    Path("params.yaml").write_text(yaml.safe_dump(params))
    report.main()
    sentence = (
        "**Not measured with today's settings, labels and weights**, but with `train_classifier.augment.real.cutout` 0."
    )
    assert Path("docs/results.md").read_text().count(sentence) == 2  # the world and the curves
    assert Path("docs/components.md").read_text().count(sentence) == 1


def test_the_page_gets_the_summary_between_its_marks(results: Path) -> None:
    summary = Path("docs/components.md").read_text()
    assert summary.startswith("before\n<!-- ladder -->\n| test split, % |")
    assert summary.endswith("<!-- /ladder -->\nafter\n")
    assert "old" not in summary
    (gain,) = (line for line in summary.splitlines() if line.startswith("| fusion |"))
    assert gain.count(": helps") == 1
    with pytest.raises(ValueError, match="needs the lines `<!-- ladder -->`"):
        pages.with_summary("nothing to renew", {})


@pytest.mark.parametrize("preset", ["folder", "coco", "nus_wide"])
def test_the_ladder_of_other_data_ends_in_a_line_that_says_what_to_do(project: Path, preset: str) -> None:
    (project / "params.yaml").write_text(preset_text(preset, ROOT / "presets"))
    shutil.copytree(ROOT / "pipeline", project / "pipeline")
    command = [sys.executable, "pipeline/ladder/points.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"params.yaml is for the data set {preset!r}" in line
    assert "`tailorset use toybox`" in line
    shutil.copy(ROOT / "params.yaml", project)
    assert subprocess.run(command, check=False).returncode == 0


def write_factor(ladder: Ladder, name: str, zsl: list[float], **chosen: float) -> None:
    """Metrics of a row's runs, one per seed."""
    points = ladder.full_points(FACTORS) if name == FULL else ladder.factor_points(name)
    for point, value in zip(points, zsl, strict=True):
        point.folder.mkdir(parents=True)
        metrics = {"val/zsl/map": value, "val/gzsl/map": 0.5, "best_epoch": 3, "zsl/map": 0.9} | chosen
        (point.folder / "metrics.json").write_text(json.dumps(metrics))
        (point.folder / "point.json").write_text(json.dumps(point.settings))


def test_factors_are_compared_with_full_on_val(
    settings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ladder = load_ladder(settings)
    monkeypatch.setattr(summarise, "load_ladder", lambda: ladder)
    with pytest.raises(ValueError, match="lacks the rung 'full': run `make factors`"):
        summarise.main(FACTORS)
    write_factor(ladder, FULL, [0.4, 0.5])
    write_factor(ladder, "cache", [0.45, 0.52], cache_alpha=2.0, cache_beta=20.0)
    summarise.main(FACTORS)
    table = pd.read_csv("reports/ladder/factors/factors.csv").set_index("row")
    assert list(table.index) == [FULL, *ladder.factors.rows]
    assert table.loc["cache", "zsl_map"] == pytest.approx(0.485)
    assert table.loc["cache", ["zsl_map_change", "zsl_map_change_low"]].tolist() == pytest.approx([0.035, 0.02])
    assert table.loc[FULL, "zsl_map_change"] == 0
    assert np.isnan(table.loc["guidance_2", "zsl_map"])
    lines = {line.split(" |")[0].strip("| "): line for line in capsys.readouterr().out.splitlines()}
    assert "| 48.5 [45.0, 52.0] | 50.0 [50.0, 50.0] | +3.5 [+2.0, +5.0] |" in lines["cache"]
    assert lines["cache"].endswith("| 3 3 |  | 2 2 | 20 20 |")
    assert lines["guidance_2"].count("not measured") == 4
    assert "guidance_2: guidance scale 2 (generator.guidance_scale=2.0)" in lines


def test_a_factor_may_switch_on_what_params_yaml_does_not_name_but_no_typo(settings: Path) -> None:
    ladder = load_ladder(settings)
    (point, _) = ladder.factor_points("separate_half")
    assert point.settings == ladder.full_points(FACTORS)[0].settings | {"train_classifier.separate_tokens": 8}
    row = {"title": "a typo", "settings": {"train_classifier.seperate_tokens": 8}}
    with pytest.raises(ValueError, match=r"row 'typo' of factors(.|\n)*Did you mean 'separate_tokens'"):
        load_ladder(changed(settings, factors={"seeds": [0], "rows": {"typo": row}}))


def test_rows_that_start_from_photos_lend_those_of_train_only(settings: Path) -> None:
    ladder = load_ladder(settings)
    full = ladder.full_points(FACTORS)[0].settings
    rows = {name: ladder.factor_points(name)[0].settings for name in ladder.factors.rows}
    users = {name: row for name, row in rows.items() if "prepare_dataset.lend_photos" in row}
    assert sorted(users) == ["captions", "from_photos_0_5", "from_photos_0_7", "from_photos_0_9"]
    for row in users.values():
        values = merged(yaml.safe_load(Path("params.yaml").read_text()), row)
        params = check_params(values, "row")
        assert params.prepare_dataset.lend_photos == "train"
        assert not list(contradictions(params, LabelSpace.load(params.label_space)))
    assert rows["template_phrases"] == full | {"write_prompts.llm": {"name": "template"}}
    assert rows["captions"].items() >= rows["template_phrases"].items()
    assert full.get("generate_images.from_photos") is None


def test_the_row_of_retrieved_photos_has_a_folder_to_search(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_photos, "NUM_IMAGES", 3)
    (point, *_) = load_ladder(settings).factor_points("retrieval")
    params = check_params(merged(read_yaml("params.yaml"), point.settings), "row")
    labels = LabelSpace.load(params.label_space)
    pool = Path(point.settings["generator"]["images"])
    web_photos.draw_pool(pool, labels)
    assert not list(contradictions(params, labels))
    photos = [decode_image(path.read_bytes()) for path in sorted(pool.iterdir())]
    assert [photo.size for photo in photos] == [(64, 64)] * 3
    assert len({photo.tobytes() for photo in photos}) == 3


def test_choosing_a_factor_never_needs_test_photos(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ladder, run = load_ladder(settings), []

    class Recorder:
        def __init__(self, root: Path, folder: Path) -> None:
            self.folder = root
            (root / "reports").mkdir(exist_ok=True)

        def run(self, stage: str, settings: object) -> None:
            run.append(stage)

    monkeypatch.setattr(measure, "Workspace", Recorder)
    monkeypatch.setattr(measure, "summarise", lambda *_: None)
    (point, _) = ladder.factor_points("cache")
    for variable in ("DVC_ROOT", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):  # set for good, in a process of its own
        monkeypatch.setenv(variable, "")
    assert measure.run_point(Path.cwd(), None, point) == ""
    assert run[-1] == "train_classifier"
    assert "evaluate" not in run
    assert measure.is_measured(point)
    monkeypatch.setattr(measure, "load_ladder", lambda: ladder)
    with pytest.raises(ValueError, match=r"'cahce'.*Did you mean 'cache'"):
        measure.main(FACTORS, "cahce")


def test_a_point_has_one_run_in_mlflow_with_stages_and_metrics(
    settings: Path, monkeypatch: pytest.MonkeyPatch, tracking_database: Path
) -> None:
    """The stages run with the settings of the point, in a folder of its own."""
    root = Path.cwd()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(tracking_database, root)
    for variable, value in {"DVC_EXP_NAME": "ladder-toybox-cache-0", "DVC_EXP_BASELINE_REV": "1"}.items():
        monkeypatch.setenv(variable, value)
    (root / "point/reports").mkdir(parents=True)
    values = merged(read_yaml("params.yaml"), {"filter_images.threshold": 0.7})
    (root / "point/params.yaml").write_text(yaml.safe_dump(values))
    write_json(root / "point/reports/metrics.json", {"zsl/map": 0.5})
    with working_in(root / "point"), Tracker("evaluate", root, {}):
        pass
    measure.summarise(SimpleNamespace(folder=root / "point"), root)
    (run,) = executions(*connect(root))
    assert run.metrics == {"zsl/map": 0.5}
    assert run.params["filter_images.threshold"] == "0.7"


def test_measure_names_an_unknown_world(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "load_ladder", lambda: load_ladder(settings))
    with pytest.raises(ValueError, match="'toyboks' is not a part of the ladder"):
        measure.main("toyboks")
