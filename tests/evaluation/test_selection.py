"""Notes if training did not help: every place that shows the classifier has them, with a remedy."""

from __future__ import annotations

import pytest

from tailorset.evaluation.selection import (
    RAW_CLIP,
    START,
    TO_TRY,
    best_candidate,
    is_untrained,
    selection_metrics,
    training_notes,
)


def row(epoch: int, zsl: float, gzsl: float) -> dict[str, float]:
    harmonic = 2 * zsl * gzsl / (zsl + gzsl)
    return {"epoch": epoch, "val/zsl/map": zsl, "val/gzsl/map": gzsl, "val/harmonic_map": harmonic}


RAW, BETTER_START = row(RAW_CLIP, 0.518, 0.673), row(START, 0.53, 0.68)
WORSE_START, WORSE, WORST = row(START, 0.47, 0.61), row(1, 0.451, 0.627), row(2, 0.4, 0.5)


def test_a_training_that_made_things_worse_is_called_so_with_its_figures_and_what_to_try() -> None:
    """700 photos and 7 labels of a user: epochs below raw CLIP, and a start below it as well."""
    metrics = selection_metrics([RAW, WORSE_START, WORSE, WORST])
    assert metrics["best_epoch"] == RAW_CLIP
    assert metrics["val/zsl/map"] == metrics["val/raw_clip/zsl/map"] == 0.518
    assert is_untrained(metrics)
    note, advice = training_notes(metrics)
    assert note.startswith("Training did not help")
    assert "raw CLIP itself" in note
    assert "raw CLIP 51.8 / 67.3, the start of training 47.0 / 61.0, best epoch 45.1 / 62.7" in note
    assert advice == TO_TRY


def test_a_cache_of_generated_images_is_more_than_raw_clip() -> None:
    cached = row(RAW_CLIP, 0.53, 0.68) | {"cache_alpha": 1, "cache_beta": 5}
    metrics = selection_metrics([RAW, WORSE_START, WORSE, WORST, cached])
    assert (metrics["best_epoch"], metrics["cache_alpha"]) == (RAW_CLIP, 1)
    assert metrics["val/trained/zsl/map"] == WORSE["val/zsl/map"]  # of the epochs
    assert not is_untrained(metrics)
    assert not training_notes(metrics)


def test_seen_labels_choose_where_the_history_has_their_map() -> None:
    seen = (0.6, 0.5, 0.7, 0.65)
    history = [
        one | {"val/seen/map": value} for one, value in zip((RAW, BETTER_START, WORSE, WORST), seen, strict=True)
    ]
    assert best_candidate(history)["epoch"] == 1
    history[2]["val/seen/map"] = history[3]["val/seen/map"] = 0.6
    assert best_candidate(history)["epoch"] == RAW_CLIP  # not better than raw CLIP


def test_a_start_that_is_kept_is_no_training_either() -> None:
    metrics = selection_metrics([RAW, BETTER_START, WORSE])
    assert metrics["best_epoch"] == START
    assert "the start of training: calibrated CLIP" in training_notes(metrics)[0]


def test_a_tie_goes_to_raw_clip_and_the_better_epoch_wins() -> None:
    assert best_candidate([RAW, row(START, 0.518, 0.673), WORSE])["epoch"] == RAW_CLIP
    assert best_candidate([RAW, WORSE_START, row(1, 0.6, 0.7), row(2, 0.7, 0.7)])["epoch"] == 2


def test_an_epoch_below_raw_clip_in_either_measure_is_not_kept() -> None:
    """The harmonic mean alone once kept an epoch that had lost ZSL mAP for GZSL mAP."""
    lost = row(1, RAW["val/zsl/map"] - 0.006, RAW["val/gzsl/map"] + 0.1)
    assert lost["val/harmonic_map"] > RAW["val/harmonic_map"]
    assert best_candidate([RAW, WORSE_START, lost])["epoch"] == RAW_CLIP
    assert best_candidate([RAW, WORSE_START, lost, row(2, 0.52, 0.68)])["epoch"] == 2


def test_a_training_that_helped_needs_no_words() -> None:
    metrics = selection_metrics([RAW, WORSE_START, row(1, 0.6, 0.7)])
    test = {"zsl/map": 0.6, "baseline/clip/zsl/map": 0.5, "gzsl/map": 0.7, "baseline/clip/gzsl/map": 0.6}
    assert not is_untrained(metrics)
    assert training_notes(metrics) == training_notes(metrics | test) == []
    assert training_notes({}) == []  # nothing trained yet


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"val/zsl/map": 0.51}, "On val the classifier is below raw CLIP in ZSL mAP: 51.0 instead of 51.8 %."),
        ({"zsl/map": 0.451}, "On the test split the classifier is below raw CLIP in ZSL mAP: 45.1 instead of 50.0 %."),
        ({"gzsl/map": 0.5}, "On the test split the classifier is below raw CLIP in GZSL mAP: 50.0 instead of 60.0 %."),
    ],
)
def test_a_loss_in_one_measure_is_told_though_an_epoch_was_kept(changed: dict[str, float], words: str) -> None:
    metrics = selection_metrics([RAW, WORSE_START, row(1, 0.6, 0.7)])
    test = {"zsl/map": 0.6, "baseline/clip/zsl/map": 0.5, "gzsl/map": 0.7, "baseline/clip/gzsl/map": 0.6}
    assert training_notes(metrics | test | changed) == [words, TO_TRY]
