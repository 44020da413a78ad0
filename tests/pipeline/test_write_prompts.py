"""The stage write_prompts, run in a small project with scripted and with template language models."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from PIL import Image

from pipeline import prepare_dataset
from pipeline import write_prompts as stage_script
from tailorset import settings
from tailorset.llms.captioners.scenes import RankedScenes
from tailorset.llms.template import Config, TemplateLLM
from tailorset.plugins import load_plugin
from tailorset.project.layout import PROMPTS
from tailorset.project.tracking import TrackingWarning
from tailorset.prompts.wording import Dialogue, keywords_of
from tailorset.records import PROMPT_COLUMNS, LabelSpace
from tailorset.seeding import numpy_rng
from tests.chat_server import ChatServer

ROOT = Path(__file__).resolve().parents[2]
METRICS = Path("reports/write_prompts/metrics.json")


@pytest.fixture
def template_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project with the template as its LLM, and no MLflow server to talk to."""
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["generator"]["model"] = str(ROOT / params["generator"]["model"])
    params["write_prompts"] |= {"llm": {"name": "template", "batch_size": 20}, "prompts_per_pair": 5}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.setattr("tailorset.project.tracking.connect", refuse)
    return project


def refuse(root: Path) -> None:
    raise ConnectionError("no tracking server in this test")


def use_llm(monkeypatch: pytest.MonkeyPatch, llm: object) -> None:
    plugins = {"llms": SimpleNamespace(build=lambda config, device: llm)}
    monkeypatch.setattr(settings, "load_plugin", lambda kind, name: plugins.get(kind) or load_plugin(kind, name))


class GarbageLLM:
    """Answers with odd strings, many of them paths and code."""

    batch_size = 64
    pieces = (
        "../../x",
        "/tmp/x",
        "\x00",
        "\n",
        "{labels}",
        "$(touch owned)",
        "`touch owned`",
        "\ud800",
        "\u202e",
        '"',
        "1.",
        "Sure:",
        "__import__('os').system('touch owned')",
        "next to",
        "umbrella",
        "clock",
        "a big old cup and key",
        "fish",
        "o" * 3000,
        "<script>alert(1)</script>",
        "boat in the quiet light of one more evening",
        "",
    )

    def reply(self, dialogues: list[Dialogue], seeds: list[int]) -> list[str]:
        return [" ".join(self.odd(seed)) for seed in seeds]

    def odd(self, seed: int) -> list[str]:
        rng = numpy_rng(seed)
        return [self.pieces[int(i)] for i in rng.integers(len(self.pieces), size=rng.integers(1, 12))]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def files_beside(folder: Path) -> set[str]:
    return {name for name in files(folder.parent) if not name.startswith(folder.name)}


def test_template_llm_fills_every_slot(template_project: Path) -> None:
    with pytest.warns(TrackingWarning):
        stage_script.main()
    table = pd.read_parquet(PROMPTS)
    space = LabelSpace.load("data/labels/toybox.yaml")
    assert tuple(table.columns) == PROMPT_COLUMNS
    assert len(table) == table.prompt_id.nunique() == table.text.nunique() == 5 * len(space.pairs())
    assert set(table.origin) <= {"llm", "retry"}
    assert all(space.named_in(row.text) >= set(row.labels) for row in table.itertuples())
    metrics = json.loads(METRICS.read_text())
    assert metrics["prompts/count"] == len(table)
    assert metrics["prompts/origin/llm"] + metrics["prompts/origin/retry"] == len(table)
    assert all(isinstance(value, int | float) for value in metrics.values())
    plot = pd.read_csv("reports/write_prompts/plots/prompts_per_pair.csv")
    assert (plot[["llm", "retry", "template"]].sum(axis=1) == 5).all()
    assert len(plot) == len(space.pairs())


def test_a_server_writes_the_same_file_again_and_its_key_is_in_no_file(
    template_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_KEY", "sk-not-to-be-seen-4711")
    params = yaml.safe_load(Path("params.yaml").read_text())
    with ChatServer(key="sk-not-to-be-seen-4711").serving() as chat:
        params["write_prompts"]["llm"] = {"name": "openai", **chat.settings(api_key_env="LLM_KEY")}
        Path("params.yaml").write_text(yaml.safe_dump(params))
        with pytest.warns(TrackingWarning):
            stage_script.main()
    first = PROMPTS.read_bytes()
    PROMPTS.unlink()
    with pytest.warns(TrackingWarning):
        stage_script.main()  # the server is gone
    assert PROMPTS.read_bytes() == first
    assert set(pd.read_parquet(PROMPTS).origin) <= {"llm", "retry"}
    paths = [path for path in template_project.rglob("*") if path.is_file()]
    assert not [path for path in paths if b"sk-not-to-be-seen" in path.read_bytes()]


def test_garbage_ends_in_templates_and_writes_nothing_elsewhere(
    template_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_llm(monkeypatch, GarbageLLM())
    outside = files_beside(template_project)
    before = files(template_project)
    with pytest.warns(TrackingWarning):
        stage_script.main()
    written = files(template_project) - before
    expected = {str(PROMPTS), str(METRICS), "reports/write_prompts/plots/prompts_per_pair.csv"}
    assert {name for name in written if not name.startswith((".work/", "mlflow", "."))} == expected
    assert files_beside(template_project) == outside
    table = pd.read_parquet(PROMPTS)
    assert (table.origin == "template").any()
    assert table.text.map(str.isprintable).all()
    space = LabelSpace.load("data/labels/toybox.yaml")
    assert all(space.named_in(row.text) >= set(row.labels) for row in table.itertuples())


class Dying(TemplateLLM):
    """Dies half-way, like a process that is killed."""

    calls = 0

    def reply(self, dialogues: list[Dialogue], seeds: list[int]) -> list[str]:
        self.calls += 1
        if self.calls == 4:
            raise KeyboardInterrupt
        return super().reply(dialogues, seeds)


def test_a_killed_stage_goes_on_where_it_stopped(template_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(TrackingWarning):
        stage_script.main()
    expected, expected_metrics = PROMPTS.read_bytes(), METRICS.read_bytes()
    PROMPTS.unlink()
    llm = Dying(Config(batch_size=20))
    use_llm(monkeypatch, llm)
    with pytest.warns(TrackingWarning), pytest.raises(KeyboardInterrupt):
        stage_script.main()
    assert not PROMPTS.exists()
    with pytest.warns(TrackingWarning):
        stage_script.main()
    assert llm.calls == 4 + 6 - 3  # six batches in all, three of them kept
    assert (PROMPTS.read_bytes(), METRICS.read_bytes()) == (expected, expected_metrics)


CAPTIONS = {
    "num_photos": 12,
    "captioner": {"name": "scenes", "scenes": ["in the red boat", "next to the tree in soft light"], "batch_size": 5},
}


@pytest.fixture
def caption_project(template_project: Path, tiny_clip_folder: Path) -> Path:
    """The project with scenes from the captions of some of 20 train photos, by a tiny CLIP."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    sizes = {"num_train": 20, "num_val": 4, "num_test": 4, "image_px": 16}
    params["prepare_dataset"] |= sizes | {"lend_photos": "train"}
    params["tune_unet"]["num_updates"] = 0
    captioner = CAPTIONS["captioner"] | {"clip": {"model": f"local-dir:{tiny_clip_folder}"}}
    params["write_prompts"] |= {"captions": CAPTIONS | {"captioner": captioner}}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    with pytest.warns(TrackingWarning):
        prepare_dataset.main()
    return template_project


def test_captions_of_train_photos_are_the_scenes_of_the_prompts(caption_project: Path) -> None:
    with pytest.warns(TrackingWarning):
        stage_script.main()
    texts = pd.read_parquet(PROMPTS).text
    space = LabelSpace.load("data/labels/toybox.yaml")
    assert {"boat", "tree"} <= set(space.names)  # labels, which the captions name
    ends = [" in the red something", " next to something in soft light"]
    assert texts.map(lambda text: any(end in text for end in ends)).all()
    assert all(space.named_in(row.text) == set(row.labels) for row in pd.read_parquet(PROMPTS).itertuples())
    metrics = json.loads(METRICS.read_text())
    assert metrics["prompts/captions/photos"] == 12
    assert metrics["prompts/captions/names_replaced"] == 12
    assert metrics["prompts/captions/without_scene"] == 0
    assert not list(Path(".work").rglob("captions.json"))


def test_captioning_goes_on_where_it_was_killed(caption_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(TrackingWarning):
        stage_script.main()
    expected = PROMPTS.read_bytes(), METRICS.read_bytes()
    PROMPTS.unlink()
    caption, seen = RankedScenes.caption, []

    def dying(self: RankedScenes, photos: list[Image.Image]) -> list[str]:
        seen.append(len(photos))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return caption(self, photos)

    monkeypatch.setattr(RankedScenes, "caption", dying)
    with pytest.warns(TrackingWarning), pytest.raises(KeyboardInterrupt):
        stage_script.main()
    with pytest.warns(TrackingWarning):
        stage_script.main()
    assert seen == [5, 5, 5, 2]
    assert (PROMPTS.read_bytes(), METRICS.read_bytes()) == expected


class Thinking(TemplateLLM):
    """A reasoning model that never reaches the phrase."""

    def reply(self, dialogues: list[Dialogue], seeds: list[int]) -> list[str]:
        thoughts = "the user wants one phrase of at least 10 words with a"
        return [f"{thoughts} {' next to a '.join(keywords_of(each))}, so let me think" for each in dialogues]


def test_thoughts_are_not_prompts_and_the_stage_says_so(
    template_project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use_llm(monkeypatch, Thinking(Config(batch_size=20)))
    with pytest.warns(TrackingWarning):
        stage_script.main()
    assert set(pd.read_parquet(PROMPTS).origin) == {"template"}
    assert "about the task instead of a picture: choose an instruction-tuned LLM" in caplog.text
    metrics = json.loads(METRICS.read_text())
    assert metrics["prompts/rejected/about_the_task"] > 0
    assert metrics["prompts/tokens_max"] > 10


def test_a_label_beyond_what_the_text_encoder_reads_ends_the_stage_before_anything_is_asked(
    template_project: Path, tiny_diffusion_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["generator"]["model"] = str(tiny_diffusion_folder)  # its text encoder reads 12 letters
    Path("params.yaml").write_text(yaml.safe_dump(params))
    use_llm(
        monkeypatch,
        SimpleNamespace(batch_size=20, reply=lambda dialogues, seeds: pytest.fail("no reply can be accepted")),
    )
    with pytest.warns(TrackingWarning), pytest.raises(ValueError, match=r"label 'umbrella'.*text encoder reads: lower"):
        stage_script.main()
