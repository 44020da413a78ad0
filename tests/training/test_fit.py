"""Training resumes where it was killed, and keeps the candidate that is best on val."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tailorset.classifiers import Classifier, load_classifier
from tailorset.classifiers.dual_prompt import Config, DualPrompt, build
from tailorset.evaluation.selection import RAW_CLIP, START, History, best_candidate
from tailorset.records import LabelSpace
from tailorset.storage.image_set import ImageSet, Mixture
from tailorset.training import fit as fit_module
from tailorset.training.fit import Validation, fit
from tailorset.training.loop import predict


@pytest.fixture
def data(real: ImageSet, synthetic: ImageSet) -> Mixture:
    return Mixture([(real, 1), (synthetic, 1)])


def fresh(backbones: dict[str, str], label_space: LabelSpace, **keys: object) -> DualPrompt:
    torch.manual_seed(0)
    block = {"backbone": {"model": backbones["resnet"]}, "num_context_tokens": 4, "num_epochs": 3, "batch_size": 8}
    return build(Config.model_validate(block | keys), label_space)


FACTORS = {"interpolation": [0.25, 0.75], "separate_tokens": 2, "cache": {"alpha": [2], "beta": [20]}}


@pytest.mark.parametrize("keys", [{}, FACTORS])
def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(
    keys: dict[str, Any],
    backbones: dict[str, str],
    label_space: LabelSpace,
    data: Mixture,
    val: ImageSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def trained(classifier: DualPrompt, folder: str) -> tuple[Classifier, History]:
        (tmp_path / folder).mkdir(exist_ok=True)
        return fit(classifier, data, val, label_space, classifier.config, 0, tmp_path / folder)

    whole = fresh(backbones, label_space, **keys)
    kept, history = trained(whole, "whole")
    assert [row["epoch"] for row in history[:5]] == [RAW_CLIP, START, 1, 2, 3]
    assert len(history) == (8 if keys else 5)

    class Killed(Exception):
        pass

    def die_after_two(*args: Any, **keys: Any) -> None:
        if args[1] == 2:
            raise Killed
        save(*args, **keys)

    save = fit_module.save_checkpoint
    monkeypatch.setattr(fit_module, "save_checkpoint", die_after_two)
    with pytest.raises(Killed):
        trained(fresh(backbones, label_space, **keys), "cut")
    monkeypatch.setattr(fit_module, "save_checkpoint", save)
    resumed = fresh(backbones, label_space, **keys)
    again, history_again = trained(resumed, "cut")
    assert history_again == history
    for ours, theirs in ((whole, resumed), (kept, again)):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name
    for path in (tmp_path / "cut").glob("candidate-*.safetensors"):
        path.unlink()
    with pytest.raises(ValueError, match=r"candidate-\d\.safetensors cannot be used .*; delete .*/cut to start"):
        trained(fresh(backbones, label_space, **keys), "cut")


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

    def grade(validation: Validation, candidate: DualPrompt) -> dict[str, float]:
        assert validation.val is val
        seen.append(copy.deepcopy(candidate))
        return dict.fromkeys(("val/zsl/map", "val/gzsl/map", "val/harmonic_map"), grades[len(seen) - 1])

    monkeypatch.setattr(Validation, "of", grade)
    kept, _ = fit(classifier, data, val, classifier.label_space, classifier.config, 0, folder)
    return kept, seen


def test_weights_of_an_attempt_that_was_cut_off_are_not_taken_for_others(
    backbones: dict[str, str],
    label_space: LabelSpace,
    data: Mixture,
    val: ImageSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a GPU an epoch need not repeat bit for bit: the second attempt may be worse than the first one was."""
    classifier = fresh(backbones, label_space)
    save = fit_module.save_checkpoint

    def die(path: Path, step: int, **parts: Any) -> None:
        if path.name == "last.safetensors" and step == 2:
            raise KeyboardInterrupt
        save(path, step, **parts)

    monkeypatch.setattr(fit_module, "save_checkpoint", die)
    with pytest.raises(KeyboardInterrupt):
        graded(classifier, data, val, tmp_path, monkeypatch, [0.1, 0.2, 0.5, 0.9])
    monkeypatch.setattr(fit_module, "save_checkpoint", save)
    kept, seen = graded(fresh(backbones, label_space), data, val, tmp_path, monkeypatch, [0.3, 0.2])  # epochs 2, 3
    scores = predict(kept, val.images)
    assert not any(torch.equal(scores, predict(other, val.images)) for other in seen)
    assert {path.name for path in tmp_path.glob("candidate-*")} == {
        "candidate-1.safetensors",
        "candidate-2.safetensors",
    }


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
    data: Mixture,
    val: ImageSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept, seen = graded(fresh(backbones, label_space), data, val, tmp_path, monkeypatch, grades)
    kept.save(tmp_path / "classifier")
    scores = [predict(candidate, val.images) for candidate in (*seen, load_classifier(tmp_path / "classifier"))]
    assert torch.equal(scores[-1], scores[best])
    assert sum(torch.equal(scores[-1], other) for other in scores[:-1]) == 1


@pytest.mark.parametrize(
    ("grades", "best"),
    [
        ([0.1, 0.2, 0.4, 0.9, 0.5, 0.8, 0.95, 0.9], 6),  # raw CLIP, start, three epochs, then shares 0, 0.5 and 1
        ([0.1, 0.2, 0.4, 0.9, 0.5, 0.8, 0.85, 0.9], 3),  # no share is better than the epoch: it stays
        ([0.6, 0.5, 0.2, 0.4, 0.3, 0.5, 0.7, 0.4], 6),  # training alone would have lost against raw CLIP
    ],
)
def test_interpolated_weights_are_kept_where_val_prefers_them(
    grades: list[float],
    best: int,
    backbones: dict[str, str],
    label_space: LabelSpace,
    data: Mixture,
    val: ImageSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = {"interpolation": [0, 0.5, 1], "learning_rate": 0.5, "label_residual_learning_rate": 0.01}
    kept, seen = graded(fresh(backbones, label_space, **keys), data, val, tmp_path, monkeypatch, grades)
    scores = [predict(candidate, val.images) for candidate in (*seen, kept)]
    assert torch.equal(scores[-1], scores[best])
    _, start, *epochs, none, half, whole, _ = scores
    assert torch.equal(none, start)
    assert torch.equal(whole, epochs[int(torch.tensor(grades[2:5]).argmax())])
    assert not torch.allclose(half, start, atol=1e-4)
    assert not torch.allclose(half, whole, atol=1e-4)


def test_seen_labels_alone_choose_if_asked_to(
    backbones: dict[str, str],
    label_space: LabelSpace,
    data: Mixture,
    val: ImageSet,
    tmp_path: Path,
) -> None:
    """The annotations of unseen labels may be anything, as long as they can be measured."""
    unseen = label_space.columns(label_space.unseen)
    inverted = copy.deepcopy(val)
    inverted.targets[:, unseen] = 1 - inverted.targets[:, unseen]
    found = []
    for number, images in enumerate((val, inverted)):
        classifier = fresh(backbones, label_space, choose_on_seen=True, interpolation=[0.5])
        kept, history = fit(classifier, data, images, label_space, classifier.config, 0, tmp_path / str(number))
        found.append((predict(kept, val.images), [row["val/seen/map"] for row in history]))
        assert best_candidate(history)["val/seen/map"] == max(found[-1][1])
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def test_a_cache_is_kept_only_where_it_is_better_on_val(
    backbones: dict[str, str],
    label_space: LabelSpace,
    real: ImageSet,
    synthetic: ImageSet,
    val: ImageSet,
    tmp_path: Path,
) -> None:
    """Val repeats the generated images, so their own labels are found there; with turned labels they mislead.

    A ViT, because an untrained ResNet makes nearly the same features of all images.
    """
    targets = torch.where(synthetic.targets < 0, val.targets[: len(synthetic)], synthetic.targets)
    for name, wanted in (("helps", targets), ("misleads", 1 - targets)):
        images = ImageSet(synthetic.ids, synthetic.images, wanted)
        cache = {"alpha": [0, 20], "beta": [1000]}
        classifier = fresh(backbones, label_space, backbone={"model": backbones["vit"]}, cache=cache)
        data = Mixture([(real, 1), (synthetic, 2)])
        kept, history = fit(classifier, data, images, label_space, classifier.config, 0, tmp_path / name)
        assert [row["cache_alpha"] for row in history if "cache_alpha" in row] == [0, 20]
        assert history[-2]["val/zsl/map"] == best_candidate(history[:-2])["val/zsl/map"]  # alpha 0 changes nothing
        chosen = best_candidate(history)
        assert (chosen.get("cache_alpha") == 20) == (name == "helps")
        kept.save(tmp_path / name / "classifier")
        loaded = load_classifier(tmp_path / name / "classifier")
        assert torch.equal(predict(loaded, val.images), predict(kept, val.images))
        assert ("cache.features" in loaded.state_dict()) == (name == "helps")


def test_a_cache_without_annotated_photos_is_refused_before_training(
    backbones: dict[str, str], label_space: LabelSpace, real: ImageSet, synthetic: ImageSet, tmp_path: Path
) -> None:
    classifier = fresh(backbones, label_space, cache={})
    with pytest.raises(ValueError, match=r"train_classifier\.cache needs annotated photos in val"):
        fit(classifier, Mixture([(real, 1)]), synthetic, label_space, classifier.config, 0, tmp_path)
