"""The data card: its facts agree with a small made-up run, and its page is safe and leads with what cannot be drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tailorset.bootstrap import Interval
from tailorset.candidates import Candidates, join_candidates
from tailorset.card import LabelCard, Options, label_card, shown_ids
from tailorset.card_page import render
from tailorset.confusions import Photos
from tailorset.near_duplicates import closest_pairs, signature
from tailorset.records import Label, LabelSpace
from tailorset.verdicts import Precision, ladder_gains, precisions, verdict

UNSEEN, SEEN = ("boat", "cup", "key"), ("hat", "spoon")
SPACE = LabelSpace(
    name="small",
    labels=tuple(Label(name=name, seen=name in SEEN) for name in (*UNSEEN, *SEEN)),
    confusable=frozenset({frozenset({"boat", "hat"})}),
)
HOSTILE = 'a boat <script>alert("x")</script> & more'
ROWS = [  # image, prompt, requested, kept, judged
    ("i0", "p0", ["boat"], True, True),
    ("i1", "p0", ["boat"], True, False),
    ("i2", "p0", ["boat"], False, True),
    ("i3", "p1", ["boat", "cup"], True, True),
    ("i4", "p2", ["key"], False, False),
    ("i5", "p2", ["key"], False, False),
]
PROMPTS = pd.DataFrame({
    "prompt_id": ["p0", "p1", "p2"], "text": [HOSTILE, "a boat next to a cup", "a key"],
    "labels": [["boat"], ["boat", "cup"], ["key"]], "origin": ["llm", "retry", "template"],
})  # fmt: skip


@pytest.fixture(scope="module")
def candidates() -> Candidates:
    table = pd.DataFrame(ROWS, columns=["image_id", "prompt_id", "requested", "kept", "judged"])
    table["labels"] = [labels if kept else [] for labels, kept in zip(table["requested"], table["kept"], strict=True)]
    table["reason"] = ["kept" if kept else f"{labels[0]} below threshold" for labels, kept in
                       zip(table["requested"], table["kept"], strict=True)]  # fmt: skip
    table["confidence"], table["judge_confidence"] = [0.9, 0.8, 0.4, 0.7, 0.1, 0.2], [0.9, 0.3, 0.8, 0.7, 0.1, 0.1]
    requested = np.array([[name in labels for name in UNSEEN] for labels in table["requested"]])
    probabilities = np.where(requested, table["confidence"].to_numpy()[:, None], np.nan)
    logits = np.random.default_rng(0).normal(size=(len(table), len(SPACE.names)))
    logits[4:, SPACE.index("spoon")] = 9.0  # what rejected keys look like
    pictures = [
        np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8) for seed in (0, 0, 2, 3, 4, 5)
    ]
    signatures = np.stack([signature(Image.fromarray(picture)) for picture in pictures])
    scorers = ("discriminator", "judge")
    return Candidates(table, SPACE, dict.fromkeys(scorers, probabilities), dict.fromkeys(scorers, logits), signatures)


@pytest.fixture(scope="module")
def cards(candidates: Candidates) -> dict[str, LabelCard]:
    rng = np.random.default_rng(1)
    photos = Photos(tuple(f"photo{i}" for i in range(20)), rng.random((20, 5)), rng.integers(0, 2, (20, 5)))
    gains = {"boat": Interval(0.05, 0.01, 0.09), "cup": Interval(0.02, -0.01, 0.05)}
    precision = Precision(0.5, 0.4, Interval(0.1, 0.05, 0.15))
    options = Options(num_shown=4, near_duplicate=0.95, low_pass_rate=0.1)
    return {
        name: label_card(name, candidates, PROMPTS, photos, "", precision, verdict(gains.get(name), 0.0), options)
        for name in UNSEEN
    }


def page_of(cards: dict[str, LabelCard]) -> str:
    ids = shown_ids(list(cards.values()))
    sources = ({name: f"data:,{name}" for name in ids[kind]} for kind in ("generated", "photos"))
    return render(list(cards.values()), {"generator": "somewhere/model"}, *sources)


def test_rates_count_candidates_kept_and_what_the_judge_says(cards: dict[str, LabelCard]) -> None:
    boat, key = cards["boat"].rates, cards["key"].rates
    assert (boat.drawn, boat.kept, boat.judge_kept, boat.confirmed) == (4, 3, 3, 2)
    assert (boat.pass_rate, boat.confirmed_rate) == (0.75, pytest.approx(2 / 3))
    assert (key.drawn, key.kept, key.confirmed_rate) == (2, 0, None)
    prompts = {row.text: row for row in cards["boat"].prompts}
    assert prompts[HOSTILE].rates.kept == 2
    assert prompts["a boat next to a cup"].origin == "retry"


def test_sheets_show_where_the_judge_disagrees(cards: dict[str, LabelCard]) -> None:
    sheets = {sheet.title: [tile.image_id for tile in sheet.tiles] for sheet in cards["boat"].sheets}
    assert sheets["Kept"] == ["i0", "i1", "i3"]  # the surest first
    assert sheets["Rejected"] == ["i2"]
    assert sheets["Kept, but the judge says no"] == ["i1"]
    assert sheets["Rejected, but the judge says yes"] == ["i2"]
    rejected = cards["boat"].sheets[1].tiles[0]
    assert rejected.lines == ("boat 0.40 / 0.40", "boat below threshold")


def test_a_planted_duplicate_is_found_and_nothing_else(cards: dict[str, LabelCard]) -> None:
    found = cards["boat"].duplicates
    assert (found.pairs, found.images) == (1, 2)
    first, second = found.closest[0]
    assert {first.image_id, second.image_id} == {"i0", "i1"}
    assert cards["key"].duplicates.pairs == 0


def test_signatures_ignore_brightness_and_a_flat_image_resembles_nothing() -> None:
    picture = np.random.default_rng(0).integers(0, 100, (32, 32, 3), dtype=np.uint8)
    flat = np.full((32, 32, 3), 90, dtype=np.uint8)
    marks = np.stack([signature(Image.fromarray(image)) for image in (picture, picture + 100, flat)])
    pairs = {(pair.first, pair.second): pair.similarity for pair in closest_pairs(marks)}
    assert pairs[0, 1] == pytest.approx(1)
    assert pairs[0, 2] == pairs[1, 2] == 0


def test_confusions_name_who_wins_and_always_the_look_alikes(cards: dict[str, LabelCard]) -> None:
    key = {row.label: row for row in cards["key"].confusions}
    assert key["spoon"].wins == 1.0
    assert cards["boat"].confusions[0].label == "hat"
    assert cards["boat"].confusions[0].look_alike


def test_page_leads_with_what_cannot_be_drawn_and_escapes_what_a_model_wrote(cards: dict[str, LabelCard]) -> None:
    page = page_of(cards)
    assert cards["key"].problems == ("none of 2 candidates kept",)
    assert page.index("none of 2 candidates kept") < page.index("boat next to a cup")
    assert page.index("<h2>key</h2>") < page.index("<h2>boat</h2>")
    assert "<script>alert" not in page
    assert "a boat &lt;script&gt;" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert page == page_of(cards)


def test_verdict_follows_the_interval() -> None:
    assert verdict(None, 0.0).answer == "not measured"
    assert verdict(Interval(0.05, 0.01, 0.09), 0.0).answer == "yes"
    assert verdict(Interval(0.05, 0.01, 0.09), 0.02).answer == "undecided"
    assert verdict(Interval(-0.05, -0.09, -0.01), 0.0).answer == "no"


def test_gains_are_read_for_their_world_and_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "per_label.csv"
    assert ladder_gains(path, "small") == {}
    rows = [("small", "boat", 0.05, 0.01, 0.09), ("other", "boat", 0.5, 0.1, 0.9)]
    table = pd.DataFrame(rows, columns=["world", "label", "difference", "low", "high"])
    table.to_csv(path)
    assert ladder_gains(path, "small") == {"boat": Interval(0.05, 0.01, 0.09)}
    table.drop(columns="low").to_csv(path)
    with pytest.raises(ValueError, match="no column"):
        ladder_gains(path, "small")
    table.assign(low=1.0).to_csv(path)
    with pytest.raises(ValueError, match="boat"):
        ladder_gains(path, "small")


def test_precision_of_a_label_without_photos_is_unknown() -> None:
    rng = np.random.default_rng(0)
    targets = torch.from_numpy(rng.integers(0, 2, (60, 2)))
    targets[:, 1] = 0
    ours, clip = targets + torch.rand(60, 2), torch.from_numpy(rng.random((60, 2)))
    first, second = precisions(ours, clip, targets, 200, seed=0)
    assert first.ours == 1.0
    assert first.gain is not None
    assert first.gain.low > 0
    assert second == Precision(None, None, None)


def test_manifests_of_different_runs_are_refused() -> None:
    synthetic = pd.DataFrame({"image_id": ["a", "b"], "labels": [["boat"], ["cup"]]})
    filtered = pd.DataFrame(
        {"image_id": ["a", "c"], "kept": True, "labels": [[], []], "reason": "", "confidence": 1}
    )
    with pytest.raises(ValueError, match="dvc repro filter_images"):
        join_candidates(synthetic, filtered)
