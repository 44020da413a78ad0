"""Training resumes where it was killed, and keeps the candidate that is best on val."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tailorset.classifiers import Classifier, load_classifier
from tailorset.classifiers.dual_prompt import Config, DualPrompt, build
from tailorset.evaluation.selection import RAW_CLIP, START, History
from tailorset.records import LabelSpace
from tailorset.storage.image_set import ImageSet, Mixture
from tailorset.training import fit as fit_module
from tailorset.training.fit import fit
from tailorset.training.loop import predict


def fresh(backbones: dict[str, str], label_space: LabelSpace) -> DualPrompt:
    torch.manual_seed(0)
    block = {"backbone": {"model": backbones["resnet"]}, "num_context_tokens": 4, "num_epochs": 3, "batch_size": 8}
    return build(Config.model_validate(block), label_space)


def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(
    backbones: dict[str, str],
    label_space: LabelSpace,
    real: ImageSet,
    synthetic: ImageSet,
    val: ImageSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def trained(classifier: DualPrompt, folder: str) -> tuple[Classifier, History]:
        (tmp_path / folder).mkdir(exist_ok=True)
        return fit(
            classifier, Mixture([(real, 1), (synthetic, 1)]), val, label_space, classifier.config, 0, tmp_path / folder
        )

    whole = fresh(backbones, label_space)
    kept, history = trained(whole, "whole")
    assert [row["epoch"] for row in history] == [RAW_CLIP, START, 1, 2, 3]

    class Killed(Exception):
        pass

    def die_after_two(*args: Any, **keys: Any) -> None:
        if args[1] == 2:
            raise Killed
        save(*args, **keys)

    save = fit_module.save_checkpoint
    monkeypatch.setattr(fit_module, "save_checkpoint", die_after_two)
    with pytest.raises(Killed):
        trained(fresh(backbones, label_space), "cut")
    monkeypatch.setattr(fit_module, "save_checkpoint", save)
    resumed = fresh(backbones, label_space)
    again, history_again = trained(resumed, "cut")
    assert history_again == history
    for ours, theirs in ((whole, resumed), (kept, again)):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name


def graded(
    classifier: DualPrompt,
    data: Mixture,
    val: ImageSet,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    grades: list[float],
) -> tuple[Classifier, list[Classifier]]:
    """Return what is kept if raw CLIP, the start and each epoch get these grades on val, and copies of the graded."""
    seen: list[Classifier] = []

    def val_metrics(candidate: DualPrompt, images: ImageSet, space: LabelSpace) -> dict[str, float]:
        assert images is val
        seen.append(copy.deepcopy(candidate))
        return dict.fromkeys(("val/zsl/map", "val/gzsl/map", "val/harmonic_map"), grades[len(seen) - 1])

    monkeypatch.setattr(fit_module, "val_metrics", val_metrics)
    kept, _ = fit(classifier, data, val, classifier.label_space, classifier.config, 0, folder)
    return kept, seen


@pytest.mark.parametrize(
    ("grades", "best"),
    [
        ([0.1, 0.2, 0.4, 0.9, 0.5], 3),
        ([0.6, 0.5, 0.6, 0.4, 0.3], 0),  # training has to be better than raw CLIP, not as good
        ([0.5, 0.7, 0.6, 0.4, 0.7], 1),
    ],
)
def test_the_best_candidate_on_val_is_kept_raw_clip_and_the_start_among_them(
    grades: list[float],
    best: int,
    backbones: dict[str, str],
    label_space: LabelSpace,
    real: ImageSet,
    synthetic: ImageSet,
    val: ImageSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    classifier, data = fresh(backbones, label_space), Mixture([(real, 1), (synthetic, 1)])
    kept, seen = graded(classifier, data, val, tmp_path, monkeypatch, grades)
    kept.save(tmp_path / "classifier")
    scores = [predict(candidate, val.images) for candidate in (*seen, load_classifier(tmp_path / "classifier"))]
    assert torch.equal(scores[-1], scores[best])
    assert sum(torch.equal(scores[-1], other) for other in scores[:-1]) == 1
