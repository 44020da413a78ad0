"""Images of seen labels: worded like the others, and without an unseen label for the classifier."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tailorset.generation.negatives import negative_draws, negative_shards
from tailorset.records import Label, LabelSpace, Prompt, prompt_id
from tailorset.storage.annotated import Collection
from tailorset.training.images import training_sets
from tests.generation_project import SETTINGS, run_stage_script

SPACE = LabelSpace(
    name="street",
    labels=(
        *(Label(name=name, seen=True) for name in ("traffic light", "dog", "bench")),
        *(Label(name=name, seen=False) for name in ("kite", "hot dog", "clock")),
    ),
)
PROMPTS = [
    Prompt(prompt_id=prompt_id(labels, 0), text=text, labels=labels, origin="llm", attempt=1)
    for labels, text in {
        ("kite",): "a photo of a red kite in the snow",
        ("hot dog", "clock"): "a photo of a hot dog next to a green clock, on a table",
    }.items()
]


def test_negatives_are_the_written_prompts_with_seen_labels_which_take_turns() -> None:
    draws = negative_draws(PROMPTS, SPACE, 60, seed=0)
    assert [draw.charged_to for draw in draws[:4]] == ["traffic light", "dog", "bench", "traffic light"]
    assert {len(draw.prompt.labels) for draw in draws} == {1, 2}
    for draw in draws:
        assert SPACE.named_in(draw.prompt.text) == set(draw.prompt.labels) <= set(SPACE.seen)
        assert draw.charged_to in draw.prompt.labels
    assert {draw.prompt.text for draw in draws if len(draw.prompt.labels) == 1} == {
        f"a photo of a red {name} in the snow" for name in SPACE.seen
    }
    assert len({draw.image_id for draw in draws}) == 60
    assert draws[:7] == negative_draws(PROMPTS, SPACE, 7, seed=0)
    assert draws != negative_draws(PROMPTS, SPACE, 60, seed=1)
    assert [len(plan.draws) for plan in negative_shards(draws, 25)] == [25, 25, 10]


def test_with_one_seen_label_prompts_of_one_label_are_used() -> None:
    space = LabelSpace(name="street", labels=SPACE.labels[1:2] + SPACE.labels[3:])
    assert {draw.prompt.text for draw in negative_draws(PROMPTS, space, 5, 0)} == {"a photo of a red dog in the snow"}
    with pytest.raises(ValueError, match=r"negative_images is 5, and none of 1 prompts .* 1 seen labels .*: set it"):
        negative_draws(PROMPTS[1:], space, 5, 0)
    assert negative_draws(PROMPTS[1:], space, 0, 0) == []


def test_no_negative_is_asked_to_show_an_unseen_label() -> None:
    told = {
        ("kite",): "a photo of a kite next to a clock",
        ("clock",): "a photo of a clock next to a bench",
        ("animal",): "a photo of an animal next to a vehicle",
    }
    prompts = [
        Prompt(prompt_id=prompt_id(labels, 0), text=text, labels=labels, origin="llm", attempt=1)
        for labels, text in told.items()
    ]
    labels = (
        Label(name="puppy", seen=True, parents=("dog",)),
        Label(name="cup", seen=True),
        Label(name="dog", seen=True, parents=("animal",)),
        *(Label(name=name, seen=False) for name in ("kite", "clock", "animal")),
        Label(name="bench", seen=True),
        Label(name="vehicle", seen=True),
        Label(name="car", seen=True, parents=("vehicle",)),
        Label(name="sports car", seen=False, parents=("car",)),
    )
    draws = negative_draws(prompts, LabelSpace(name="street", labels=labels), 20, 0)
    assert {draw.prompt.text for draw in draws} == {
        "a photo of a cup next to a bench",
        "a photo of a bench next to a bench",
    }
    with pytest.raises(ValueError, match="0 seen labels without an unseen parent or child"):
        negative_draws(prompts, LabelSpace(name="street", labels=(labels[0], *labels[2:6])), 20, 0)


def test_every_unseen_label_is_absent_in_negatives_and_no_seen_one_is_annotated(generation_project: Path) -> None:
    run_stage_script()
    space = LabelSpace.load(Path("data/labels/toybox.yaml"))
    product = generation_project / "data/synthetic"
    candidates = pd.read_parquet(product / "manifest.parquet")
    filtered = generation_project / "data/filtered"
    filtered.mkdir()
    kept = [number < 5 for number in range(len(candidates))]
    decided = candidates.assign(kept=kept, reason="kept", confidence=0.9, reviewed=[[]] * len(kept))
    decided.to_parquet(filtered / "manifest.parquet")

    collection = Collection(space, generation_project / "data/real", product, filtered)
    learned = training_sets(collection, 8, ["synthetic"], 0.2)["synthetic"]
    negatives = [image_id.startswith("negative-") for image_id in learned.ids]
    assert sum(negatives) == SETTINGS["negative_images"]
    assert sum(negatives) < len(learned) <= sum(negatives) + 5
    targets = learned.targets[negatives]
    assert (targets[:, space.columns(space.unseen)] == 0).all()
    assert (targets[:, space.columns(space.seen)] == -1).all()
    assert (learned.targets[[not one for one in negatives]] == 1).any(1).all()
    rows = pd.read_parquet(product / "negatives/manifest.parquet")
    assert {name for labels in rows["labels"] for name in labels} <= set(space.seen)
    assert not rows["sha256"].duplicated().any()
    assert (generation_project / "reports/generate_images/plots/negatives.png").stat().st_size > 1000
