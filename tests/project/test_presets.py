from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tailorset.project.params import flatten
from tailorset.project.presets import BASE, load_preset, overlay, preset_names, preset_text

ROOT = Path(__file__).resolve().parents[2]
PRESETS = ROOT / "presets"
# Settings that come from the preset, from the one it differs from, and from the base of all.
WHOLE = {
    "coco": {"prepare_dataset.name": "coco", "train_classifier.backbone.model": "ViT-B-16", "seed": 0},
    "coco_fast": {
        "prepare_dataset.name": "coco",
        "generator.image_px": 512,
        "train_classifier.backbone.model": "ViT-B-16",
    },
    "paper": {"generator.image_px": 768, "train_classifier.backbone.model": "RN50-quickgelu"},
    "coco_sdxl": {"prepare_dataset.name": "coco", "generator.name": "stable_diffusion", "generator.image_px": 1024},
    "folder": {"prepare_dataset.name": "folder", "tune_text_encoder.num_updates": 0, "evaluate.top_k": [3]},
    "nus_wide": {
        "prepare_dataset.name": "nus_wide",
        "evaluate.top_k": [3, 5],
        "clip.prompt_template": "a photo of a {}",
    },
}
SETTINGS = """\
# The base.
seed: 0

model:                # of drawing
  name: one
  width: 3            # pixels
  parts: [a, b]

shown: {}
templates:            # wordings
  ["a {}"]
"""


@pytest.mark.parametrize("preset", preset_names(PRESETS))
def test_every_preset_is_valid(preset: str) -> None:
    load_preset(preset, PRESETS)


@pytest.mark.parametrize("preset", WHOLE)
def test_a_preset_has_the_settings_of_those_it_differs_from(preset: str) -> None:
    settings = flatten(yaml.safe_load(preset_text(preset, PRESETS)))
    assert {key: settings[key] for key in WHOLE[preset]} == WHOLE[preset]
    base = flatten(yaml.safe_load(preset_text(BASE, PRESETS)))
    assert not {key for key in base if not key.startswith("prepare_dataset.")} - settings.keys()


def test_params_yaml_is_the_toybox_preset() -> None:
    assert (ROOT / "params.yaml").read_text() == preset_text(BASE, PRESETS) == (PRESETS / "toybox.yaml").read_text()


@pytest.mark.parametrize("preset", sorted(set(preset_names(PRESETS)) - {BASE}))
def test_presets_for_real_models_draw_no_negatives_with_which_they_were_not_measured(preset: str) -> None:
    assert load_preset(preset, PRESETS).generate_images.negative_images == 0


@pytest.mark.parametrize("preset", preset_names(PRESETS))
def test_every_preset_says_what_it_is_for_and_what_it_takes(preset: str) -> None:
    header = preset_text(preset, PRESETS).split("\nseed:")[0].splitlines()
    assert all(line.startswith("# ") for line in header)
    for subject in ("Command", "Hardware", "Time", "Score"):
        assert any(line.startswith(f"# {subject}: ") for line in header), subject


@pytest.mark.parametrize("preset", sorted(set(preset_names(PRESETS)) - {BASE}))
def test_a_preset_holds_only_what_differs_from_its_base(preset: str) -> None:
    """A block of another plug-in is whole, and so are the settings of an augmentation, which stand in one line.

    A value that keeps its base's needs a comment that says more.
    """
    changes = yaml.safe_load((PRESETS / f"{preset}.yaml").read_text())
    base = yaml.safe_load(preset_text(changes.pop("base"), PRESETS))
    lines = changes.get("train_classifier", {}).pop("augment", {})
    assert all(base["train_classifier"]["augment"][source] != line for source, line in lines.items())
    ours = {key: value for key, value in flatten(changes).items() if not key.startswith("prepare_dataset.")}
    same = {key for key, value in ours.items() if flatten(base).get(key, "none") == value}
    assert same <= {"tune_text_encoder.batch_size", "generate_images.images_per_label"}


def test_values_change_and_comments_stay() -> None:
    text = overlay(SETTINGS, "# Wide.\nmodel:\n  width: 10\n  depth: 2\ntemplates:\n  [x]\n")
    assert text.splitlines() == [
        "# Wide.",
        "seed: 0",
        "",
        "model:                # of drawing",
        "  name: one",
        "  width: 10           # pixels",
        "  parts: [a, b]",
        "  depth: 2",
        "",
        "shown: {}",
        "templates:            # wordings",
        "  [x]",
    ]


def test_another_plug_in_replaces_its_whole_block() -> None:
    changed = yaml.safe_load(overlay(SETTINGS, "model:\n  name: two\n  height: 1\n"))
    assert changed["model"] == {"name": "two", "height": 1}
    same = yaml.safe_load(overlay(SETTINGS, "model:\n  name: one\n  height: 1\n"))
    assert same["model"] == {"name": "one", "width": 3, "parts": ["a", "b"], "height": 1}


def test_another_allocation_keeps_its_keys() -> None:
    changes = "generate_images:\n  allocation:\n    name: uniform\n"
    allocation = yaml.safe_load(overlay(preset_text(BASE, PRESETS), changes))["generate_images"]["allocation"]
    of_base = yaml.safe_load(preset_text(BASE, PRESETS))["generate_images"]["allocation"]
    assert allocation == of_base | {"name": "uniform"}


@pytest.mark.parametrize(
    "changes",
    [
        "shown: {cup: 1.5}\n",
        "shown:\n  cup: 1.5\n",
        "shown:\n  'T-shirt': 1\n  cup: 2\n",
        "model: null\n",
        "seed:\n  9\n",
        "model:\n  parts:\n    - c\n    # why\n    - d\n",
        "later: 1\nsub:\n  key: 2\n",
    ],
)
def test_values_may_be_written_in_any_way(changes: str) -> None:
    result, wanted = yaml.safe_load(overlay(SETTINGS, changes)), yaml.safe_load(changes)
    if "parts" in changes:
        result, wanted = result["model"]["parts"], wanted["model"]["parts"]
    assert result == wanted or {key: result[key] for key in wanted} == wanted


def test_a_preset_may_differ_from_any_other(tmp_path: Path) -> None:
    (tmp_path / "toybox.yaml").write_text(SETTINGS)
    (tmp_path / "one.yaml").write_text("# One.\nbase: toybox\nseed: 1\n")
    (tmp_path / "two.yaml").write_text("# Two.\nbase: one\nshown: {cup: 2}\n")
    text = preset_text("two", tmp_path)
    assert text.startswith("# Two.\nseed: 1\n")
    assert yaml.safe_load(text)["shown"] == {"cup": 2}
    assert "base" not in yaml.safe_load(text)


def test_faults_of_a_preset_are_named(tmp_path: Path) -> None:
    (tmp_path / "toybox.yaml").write_text(SETTINGS)
    (tmp_path / "one.yaml").write_text("base: two\nseed: 1\n")
    (tmp_path / "two.yaml").write_text("base: one\n")
    (tmp_path / "odd.yaml").write_text("base: tybox\n")
    with pytest.raises(ValueError, match=r"one\.yaml: base one leads back to itself \(one -> two -> one\)"):
        preset_text("one", tmp_path)
    with pytest.raises(ValueError, match=r"Unknown preset: 'tybox'\. Did you mean 'toybox'\?"):
        preset_text("odd", tmp_path)
