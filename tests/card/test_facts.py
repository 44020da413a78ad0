"""The data card of a small made-up run says what happened in it, whatever the LLM wrote."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tailorset.card.assembly import own_photo_facts
from tailorset.card.candidates import Candidates, join_candidates, stored_probabilities
from tailorset.card.confusions import Photos, confusions
from tailorset.card.facts import LabelCard, label_card, photo_sheet, shown_ids
from tailorset.card.page import MAX_PX, data_uri, render
from tailorset.card.settings import DataCard
from tailorset.card.verdicts import Precision, verdict
from tailorset.evaluation.bootstrap import Interval
from tailorset.images.signatures import signature
from tailorset.records import LabelSpace

SPACE = LabelSpace.model_validate(
    {
        "name": "small",
        "labels": [{"name": name, "seen": name == "tree"} for name in ("key", "cup", "fish", "boat", "tree")],
        "confusable": [["key", "tree"]],
    }
)
HOSTILE = "<script>alert(\"x\")</script> a key & 'cup'"
# asked for, kept, judge agrees to keep it, best other label by both CLIPs
DRAWN = [
    (["key"], True, True, "tree"),
    (["key"], True, False, "tree"),
    (["key"], True, True, "cup"),
    (["key"], False, True, "cup"),
    (["key"], False, False, "cup"),
    (["key"], False, False, "tree"),
    (["key", "cup"], True, True, "fish"),
    (["cup"], True, True, "fish"),
    (["fish"], False, False, "key"),
    (["fish"], False, False, "key"),
]
TWINS = (0, 2)  # candidates with nearly the same pixels
PARTS = [
    ("image generator", "some/<model>", "c0ffee (the latest)", "MIT", "yes"),
    ("judge", "x", "local folder", "not known", "depends"),
]
SETTINGS = DataCard(num_shown=4, num_resamples=10, near_duplicate=0.95, low_pass_rate=0.1, min_gain=0)


def picture(row: int) -> Image.Image:
    """Random blocks; of the twins, the second one is the first with noise."""
    rng = np.random.default_rng(TWINS[0] if row == TWINS[1] else row)
    pixels = rng.integers(0, 255, (8, 8, 3)).repeat(4, 0).repeat(4, 1)
    noise = np.random.default_rng(100 + row).normal(0, 4, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def logits(labels: list[str], shown: bool, other: str) -> list[float]:
    """(L,) scores: a label that is shown beats `other` by 3; one that is not loses to it by 3 and to the boat by 2."""
    scores = dict.fromkeys(SPACE.names, -9.0) | {"boat": -9.0 if shown else 4.0, other: -1.0 if shown else 5.0}
    return list((scores | dict.fromkeys(labels, 2.0)).values())


@pytest.fixture(scope="module")
def candidates() -> Candidates:
    by_filter = np.array([logits(labels, kept, other) for labels, kept, _, other in DRAWN])
    by_judge = np.array([logits(labels, judged, other) for labels, _, judged, other in DRAWN])
    manifest = pd.DataFrame({"image_id": [f"image{i}" for i in range(len(DRAWN))]})
    manifest["prompt_id"] = ["first" if i < 4 else f"prompt{i}" for i in range(len(DRAWN))]
    manifest["labels"] = [labels for labels, *_ in DRAWN]
    manifest["discriminator_logits"] = list(by_filter[:, :4])
    manifest["judge_logits"] = list(by_judge[:, :4])
    filtered = pd.DataFrame(
        {
            "image_id": manifest["image_id"],
            "kept": [kept for _, kept, *_ in DRAWN],
            "labels": [labels if kept else [] for labels, kept, *_ in DRAWN],
            "reason": ["kept" if kept else f"{labels[0]} below threshold" for labels, kept, *_ in DRAWN],
            "confidence": 0.5,
        }
    )
    table = join_candidates(manifest, filtered.iloc[::-1])
    table["judged"], table["judge_confidence"] = [judged for _, _, judged, _ in DRAWN], 0.25
    signatures = np.stack([signature(picture(row)) for row in range(len(DRAWN))])
    scores = {"discriminator": by_filter, "judge": by_judge}
    return Candidates(table, SPACE, stored_probabilities(manifest, SPACE.unseen), scores, signatures)


@pytest.fixture(scope="module")
def photos() -> Photos:
    """Six photos: two show a key; the two best scores for key are a photo of a tree and a photo of a key."""
    targets = np.zeros((6, 5), dtype=int)
    targets[[0, 5], 0] = 1
    targets[[1, 2], 4] = 1
    scores = np.zeros((6, 5))
    scores[:, 0] = [0.8, 0.9, 0.1, 0.1, 0.1, 0.1]
    return Photos(tuple(f"photo{i}" for i in range(6)), scores, targets)


@pytest.fixture(scope="module")
def cards(candidates: Candidates, photos: Photos) -> list[LabelCard]:
    prompts = pd.DataFrame(
        [("first", HOSTILE, ["key"], "llm"), ("never", "a key nobody drew", ["key"], "template")],
        columns=["prompt_id", "text", "labels", "origin"],
    )
    shortfall = {"fish": "given up: not one kept in its share of the budget"}
    precision = Precision(0.5, 0.25, Interval(0.25, 0.125, 0.375))
    unmeasured = verdict(None, 0.0)
    return [
        label_card(label, candidates, prompts, photos, shortfall.get(label, ""), precision, unmeasured, SETTINGS)
        for label in SPACE.unseen
    ]


def page(cards: list[LabelCard], notes: Sequence[str] = (), **replaced: Any) -> str:
    """The page with one-pixel images; `replaced` fields are set in the first card."""
    cards = [dataclasses.replace(cards[0], **replaced), *cards[1:]]
    ids = shown_ids(cards)
    images = dict.fromkeys(ids["generated"] | ids["photos"], "data:image/png;base64,AAAA")
    return render(cards, {"label space": "small", "ladder": "ran with num_train 2"}, PARTS, images, images, notes)


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<style.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL).split())


def test_a_training_that_did_not_help_comes_first(cards: list[LabelCard]) -> None:
    notes = ["On the test split the classifier is below raw CLIP in ZSL mAP: 45.1 instead of 50.0 %.", "To try: a < b"]
    text = text_of(page(cards, notes))
    assert text.index("training did not help") < text.index("label worth generating?")
    assert "below raw CLIP in ZSL mAP: 45.1 instead of 50.0 %. To try: a &lt; b" in text
    assert "training did not help" not in text_of(page(cards))


def test_rates_are_those_of_the_candidates_asked_to_show_the_label(cards: list[LabelCard]) -> None:
    key = cards[0]
    assert (key.rates.drawn, key.rates.kept, key.rates.judge_kept, key.rates.confirmed) == (7, 4, 4, 3)
    assert {partner: (rates.kept, rates.drawn) for partner, rates in key.partners} == {"alone": (3, 6), "cup": (1, 1)}
    first, never = key.prompts
    assert (first.rates.kept, first.rates.drawn, first.origin) == (3, 4, "llm")
    assert (never.rates.drawn, never.rates.pass_rate, never.origin) == (0, None, "template")


def test_sheets_show_images_with_scores_and_reasons(cards: list[LabelCard]) -> None:
    kept, rejected, judge_no, judge_yes = cards[0].sheets
    assert (kept.total, rejected.total, judge_no.total, judge_yes.total) == (4, 3, 1, 1)
    assert {tile.image_id for tile in rejected.tiles} == {"image3", "image4", "image5"}
    assert judge_no.tiles[0].lines == ("key 1.00 / 0.12",)
    assert judge_yes.tiles[0].lines == ("key 0.04 / 0.95", "key below threshold")


def test_a_planted_near_duplicate_is_found(cards: list[LabelCard]) -> None:
    found = cards[0].duplicates
    assert (found.pairs, found.images) == (1, 2)
    assert [tile.image_id for tile in found.closest[0]] == ["image0", "image2"]
    assert len(found.closest) == SETTINGS.num_shown // 2  # the next pairs too, to see where the limit lies


def test_confusions_count_who_stands_in_the_way(candidates: Candidates, photos: Photos) -> None:
    tree, cup, *_ = confusions("key", candidates, photos)
    assert (tree.label, tree.look_alike) == ("tree", True)
    assert tree.wins == pytest.approx(1 / 3)
    assert tree.fools == pytest.approx(1 / 4)  # image1: kept, but the judge sees a tree
    assert (tree.alarms, tree.usual) == (1, 0.5)  # the only false alarm shows a tree, as half of the photos do
    assert (cup.label, cup.look_alike) == ("cup", False)
    assert cup.wins == pytest.approx(2 / 3)
    assert photos.false_alarms(0).tolist() == [1]


def test_a_label_without_kept_images_has_a_card_and_stands_first(cards: list[LabelCard]) -> None:
    html = page(cards)
    fish, boat = cards[2:]
    assert fish.problems == ("none of 2 candidates kept", "given up: not one kept in its share of the budget")
    assert boat.problems == ("no candidate drawn",)
    assert fish.duplicates.pairs == 0
    assert re.findall(r"<h2>(.*?)</h2>", html) == ["fish", "boat", "key", "cup"]
    assert html.index("Cannot be drawn") < html.index("none of 2 candidates kept") < html.index("<table>")
    assert "Every label can be drawn" not in html


def test_labels_with_few_kept_images_are_named_as_hard(cards: list[LabelCard]) -> None:
    html = page(cards[:2], problems=("under quota, budget spent",))
    assert "Cannot be drawn" not in html
    assert html.index("Hard to draw") < html.index("under quota, budget spent") < html.index("<table>")
    assert "Every label can be drawn" in page(cards[:2])


def test_the_page_holds_the_facts_of_the_run(cards: list[LabelCard]) -> None:
    text = text_of(page(cards))
    for fact in (
        "4 of 7 candidates kept (57 %)",
        "confirms 75 % of the kept ones",
        "4 images train the label",
        "AP on test photos: 50.0 % ours, 25.0 % raw CLIP, +25.0 [+12.5, +37.5] points",
        "1 pair, 2 images",
        "look-alike",
        "a key nobody drew",
        "generator some/&lt;model&gt; c0ffee (the latest) MIT yes",
        "judge x local folder not known depends",
        "template",
    ):
        assert fact in text


def test_what_an_llm_wrote_is_text_and_nothing_else(cards: list[LabelCard]) -> None:
    html = page(cards)
    assert "<script" not in html
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt; a key &amp; &#39;cup&#39;" in html
    assert not re.findall(r"(?:src|href)=\"(?!data:image/|#|\.\./)|https?:|url\(|@import", html)  # nothing is fetched
    assert html == page(cards)


@pytest.mark.parametrize(
    ("bounds", "answer"), [((0.01, 0.03), "yes"), ((-0.03, -0.01), "no"), ((-0.01, 0.03), "undecided")]
)
def test_a_measured_verdict_stands_with_its_interval(
    cards: list[LabelCard], bounds: tuple[float, float], answer: str
) -> None:
    low, high = bounds
    html = page(cards[:1], verdict=verdict(Interval((low + high) / 2, low, high), 0.0))
    assert f"Worth generating? {answer} :" in text_of(html)
    assert f"[{100 * low:+.1f}, {100 * high:+.1f}] points of AP against".replace("-", "−") in text_of(html)
    assert "make ladder" not in html


def test_an_unmeasured_verdict_says_why(cards: list[LabelCard]) -> None:
    text = text_of(page(cards))
    assert "Worth generating? Not measured: the ladder , which compares this classifier" in text
    assert "ran with num_train 2" in text
    assert "Worth generating? not measured ." in text


def test_a_label_no_photo_shows_has_no_precision(cards: list[LabelCard]) -> None:
    assert "No test photo shows it." in page(cards, precision=Precision(None, None, None))
    assert "too few photos for an interval" in page(cards, precision=Precision(0.5, 0.5, None))


def test_photos_nobody_annotated_are_shown_by_their_score(candidates: Candidates, photos: Photos) -> None:
    shown = photo_sheet("key", candidates, photos, 2)
    assert (shown.title, [tile.image_id for tile in shown.tiles]) == ("False alarms on test photos", [photos.ids[1]])
    unknown = dataclasses.replace(photos, targets=np.full_like(photos.targets, -1))
    best = photo_sheet("key", candidates, unknown, 2)
    assert best.title == "Best-scored photos"
    ranked = np.argsort(-photos.scores[:, candidates.label_space.index("key")])
    assert [tile.image_id for tile in best.tiles] == [photos.ids[row] for row in ranked[:2]]
    assert best.total == len(photos.ids)


def test_manifests_of_two_runs_are_not_mixed() -> None:
    drawn = pd.DataFrame({"image_id": ["a", "b"], "labels": [["key"], ["key"]]})
    filtered = pd.DataFrame(
        {"image_id": ["a", "c"], "kept": True, "labels": [["key"]] * 2, "reason": "", "confidence": 1}
    )
    with pytest.raises(ValueError, match="dvc repro filter_images"):
        join_candidates(drawn, filtered)


def test_small_images_are_embedded_exactly_and_large_ones_as_thumbnails() -> None:
    assert data_uri(picture(0)).startswith("data:image/png;base64,")
    large = data_uri(Image.new("RGB", (512, 256), "red"))
    assert large.startswith("data:image/jpeg;base64,")
    assert large == data_uri(Image.new("RGB", (512, 256), "red"))
    assert len(large) < MAX_PX**2


def test_streamed_scores_are_those_of_the_stored_pixels(tmp_path: Any, tiny_clip_folder: Any) -> None:
    from tailorset.card.candidates import look_at_images
    from tailorset.clip.model import load_clip
    from tailorset.images.codec import encode_png
    from tailorset.storage.shards import sha256, write_shard

    contents = [(f"i{row}", encode_png(np.asarray(picture(row)))) for row in range(3)]
    write_shard(tmp_path / "shards" / "0.tar", contents)
    rows = pd.DataFrame({"image_id": ["i0", "i1", "i2"], "shard": "0.tar", "sha256": [sha256(c) for _, c in contents]})
    clip = load_clip(f"local-dir:{tiny_clip_folder}", "cpu")
    texts = clip.encode_texts(SPACE.names, "a photo of a {}")
    scores, signatures = look_at_images(rows, tmp_path, {"judge": clip}, {"judge": texts})
    pixels = torch.stack([torch.from_numpy(np.asarray(picture(row)).copy()) for row in range(3)])
    expected = clip.logits(pixels.permute(0, 3, 1, 2).float() / 255, texts)
    assert np.allclose(scores["judge"], expected.detach().numpy(), atol=1e-4)
    assert np.allclose(signatures[2], signature(picture(2)))


def test_the_card_says_what_derives_from_photos() -> None:
    table = pd.DataFrame({"photo_id": ["a", "b", "a"], "copies_photo": [True, False, False]})
    assert own_photo_facts(table) == {}
    learned = own_photo_facts(table, num_learned=2000)
    assert learned["look of images"] == "learned from at most 2000 annotated photos"
    assert "private" in learned["privacy"]
    facts = own_photo_facts(table, num_captioned=50, strength=0.7)
    assert facts["scenes of prompts"] == "captions of at most 50 photos"
    drawn = "from 2 photos, strength 0.7; 1 of 3 candidates rejected as near-duplicates of their photos"
    assert facts["image-to-image"] == drawn
    assert "private" in facts["privacy"]
