"""Candidates do not depend on how they are batched or sharded, scores belong to the stored bytes, plans repeat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tailorset.clip.scorer import passes, requested_probabilities
from tailorset.generation.engine import LocalEngine, Shard, Shelf, generate_shards
from tailorset.generation.quota import QuotaPlanner
from tailorset.generation.report import Tally
from tailorset.generation.studio import Studio
from tailorset.generators import Sampler, stable_diffusion
from tailorset.images.codec import decode_image
from tailorset.records import SYNTHETIC_COLUMNS, Prompt, prompt_id
from tailorset.seeding import numpy_rng, sample_seed
from tailorset.storage.shards import sha256

UNSEEN = ("boat", "clock", "fish")
PX = 8
THRESHOLD = 0.8


class Painter:
    """Paints each label that a prompt names as a bright row of noise; it misses one at times, and `fish` always."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def sample(self, prompts: list[str], seeds: list[int], num_inference_steps: int) -> Tensor:
        self.batches.append(len(prompts))
        return torch.stack([self._paint(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)])

    def _paint(self, prompt: str, seed: int) -> Tensor:
        rng = numpy_rng(seed)
        image = 0.2 * rng.random((3, PX, PX))
        for row, label in enumerate(UNSEEN):
            if label in prompt and label != "fish" and rng.random() < 0.8:
                image[:, row] += 0.9
        return torch.tensor(image, dtype=torch.float32)


class RowClip:
    """Scores a label by the brightness of its row."""

    device = torch.device("cpu")

    def __init__(self, scale: float = 20.0) -> None:
        self.scale, self.texts_encoded = scale, 0

    def encode_texts(self, names: Sequence[str], template: str) -> Tensor:
        self.texts_encoded += len(names)
        return torch.eye(PX)[: len(names)]

    def logits(self, images: Tensor, text_features: Tensor) -> Tensor:
        assert images.min() >= 0
        assert images.max() <= 1
        return self.scale * images.mean((1, 3)) @ text_features.T


def prompts() -> list[Prompt]:
    pairs = [tuple(dict.fromkeys(pair)) for pair in combinations_with_replacement(UNSEEN, 2)]
    return [
        Prompt(prompt_id=prompt_id(pair, i), text=" next to ".join(pair), labels=pair, origin="llm", attempt=1)
        for pair in pairs
        for i in range(2)
    ]


def studio(batch_size: int = 4, base_seed: int = 0, painter: Sampler | None = None) -> Studio:
    return Studio(painter or Painter(), RowClip(), RowClip(5.0), UNSEEN, "a {}", base_seed, 2, batch_size)


def shards(
    studio: Studio,
    shard_size: int = 10,
    quota: int = 12,
    max_images: int = 120,
    found: dict[str, Shard] | None = None,
    kept: dict[str, bytes] | None = None,
) -> tuple[list[Shard], QuotaPlanner]:
    """kept: takes image_id -> PNG of what was drawn."""
    planner = QuotaPlanner(UNSEEN, prompts(), quota, max_images)
    rows = {name: shard.rows for name, shard in (found or {}).items()}
    pngs = {} if kept is None else kept
    shelf = Shelf(UNSEEN, THRESHOLD, rows.get, lambda name, rows, samples: pngs.update(samples))
    return list(generate_shards(LocalEngine(studio), planner, shard_size, shelf)), planner


def images(*args: Any, **options: Any) -> dict[str, bytes]:
    """image_id -> PNG of what `shards` drew."""
    kept: dict[str, bytes] = {}
    shards(*args, kept=kept, **options)
    return kept


def test_quotas_are_met_the_undrawable_label_is_reported_and_the_budget_holds() -> None:
    made, planner = shards(studio())
    rows = [row for shard in made for row in shard.rows]
    kept = [row for row, shown in zip(rows, passes(rows, UNSEEN, THRESHOLD), strict=True) if shown]
    assert all(sum(label in row["labels"] for row in kept) >= 12 for label in ("boat", "clock"))
    assert planner.under_quota == planner.given_up == ("fish",)
    assert len(rows) <= 120
    assert planner.charged["fish"] == planner.share


def test_images_do_not_depend_on_batch_size_or_shard_size() -> None:
    expected = images(studio(batch_size=4), shard_size=10)
    for batch_size, shard_size in ((1, 10), (64, 10), (4, 3), (5, 1000)):
        assert images(studio(batch_size), shard_size) == expected


def test_a_diffusion_model_draws_the_same_images_in_any_batch(tiny_diffusion_folder: Path) -> None:
    """Except for pixels that a kernel for another batch rounds the other way: on one thread there are some."""
    config = stable_diffusion.Config(model=str(tiny_diffusion_folder), image_px=8, guidance_scale=3.0)
    generator = stable_diffusion.build(config, "cpu")
    expected = images(studio(5, painter=generator), quota=5, max_images=20)
    assert len(expected) == 20
    for batch_size, shard_size in ((1, 10), (20, 1000)):
        drawn = images(studio(batch_size, painter=generator), shard_size, quota=5, max_images=20)
        assert list(drawn) == list(expected)
        for ours, theirs in zip(drawn.values(), expected.values(), strict=True):
            levels = np.abs(np.array(decode_image(ours), dtype=int) - np.array(decode_image(theirs), dtype=int))
            assert levels.max() <= 1
            assert (levels > 0).mean() < 0.02


def test_images_and_rows_stay_the_same_where_memory_runs_out(
    tiny_diffusion_folder: Path, failing_twice: Callable[..., list[int]]
) -> None:
    config = stable_diffusion.Config(model=str(tiny_diffusion_folder), image_px=8, guidance_scale=3.0)
    generator = stable_diffusion.build(config, "cpu")
    expected = shards(studio(8, painter=generator), quota=5, max_images=20)[0]
    calls, heard = failing_twice(generator, "sample"), []
    at_work = studio(8, painter=generator)
    planner = QuotaPlanner(UNSEEN, prompts(), 5, 20)
    made = list(generate_shards(LocalEngine(at_work, heard.append), planner, 10, Shelf(UNSEEN, THRESHOLD)))
    assert calls[:5] == [8, 4, 4, 2, 2]
    assert (at_work.drawing.size, sum(heard)) == (2, 20)
    assert made == expected


def test_another_base_seed_gives_other_images() -> None:
    assert images(studio(base_seed=0)) != images(studio(base_seed=1))


def test_rows_describe_the_stored_bytes() -> None:
    contents: dict[str, bytes] = {}
    made, _ = shards(studio(), kept=contents)
    for shard in made:
        assert len(shard.rows) <= 10
        for row in shard.rows:
            assert tuple(row) == SYNTHETIC_COLUMNS
            pixels = np.asarray(decode_image(contents[row["image_id"]]))
            assert row["sha256"] == sha256(contents[row["image_id"]])
            assert (row["height"], row["width"]) == pixels.shape[:2]
            assert row["pixel_mean"] == pytest.approx(pixels.mean() / 255)
            assert row["pixel_std"] == pytest.approx(pixels.std() / 255)
            assert row["seed"] == sample_seed(0, row["prompt_id"], int(row["image_id"].split("-")[1]))
            scores = 20 * (pixels / 255).mean((1, 2))[: len(UNSEEN)]
            assert row["discriminator_logits"] == pytest.approx(scores, abs=1e-4)
            assert row["judge_logits"] == pytest.approx(scores / 4, abs=1e-4)


def test_text_features_are_computed_once() -> None:
    at_work = studio()
    shards(at_work)
    assert at_work.discriminator.texts_encoded == at_work.judge.texts_encoded == len(UNSEEN)


@pytest.mark.parametrize("num_finished", [1, 3, 1000])
def test_a_restart_draws_only_what_is_missing_and_ends_the_same(num_finished: int) -> None:
    of_whole: dict[str, bytes] = {}
    of_again: dict[str, bytes] = {}
    whole, _ = shards(studio(), kept=of_whole)
    finished = {shard.name: shard for shard in whole[:num_finished]}
    painter = Painter()
    again, planner = shards(studio(painter=painter), found=finished, kept=of_again)
    assert [(shard.name, shard.rows, shard.passed) for shard in again] == [
        (shard.name, shard.rows, shard.passed) for shard in whole
    ]
    assert sum(painter.batches) == sum(len(shard.rows) for shard in whole[num_finished:])
    missing = [row["image_id"] for shard in whole[num_finished:] for row in shard.rows]
    assert of_again == {image_id: of_whole[image_id] for image_id in missing}
    assert [shard.found for shard in again] == [shard.name in finished for shard in again]
    assert planner.under_quota == ("fish",)


def test_a_finished_shard_of_another_plan_is_drawn_again() -> None:
    whole, _ = shards(studio())
    strange = Shard(whole[0].name, whole[1].rows, whole[1].passed, found=True)
    assert images(studio(), found={strange.name: strange}) == images(studio())


def test_a_pixel_that_is_not_finite_stops_the_stage() -> None:
    class Overflowing(Painter):
        def _paint(self, prompt: str, seed: int) -> Tensor:
            image = super()._paint(prompt, seed)
            image[0, 0, 0] = torch.nan
            return image

    with pytest.raises(ValueError, match=r"not finite: \['\w+-0000'.*dtype: float32"):
        shards(studio(painter=Overflowing()))


def test_an_image_counts_only_if_every_requested_label_wins_against_those_not_requested() -> None:
    """Positives do not compete: boat 2 and clock 5 against fish 0 are exp(s) / (exp(s) + 1) each."""
    rows = [{"labels": ["boat", "clock"], "discriminator_logits": [2.0, 5.0, 0.0], "judge_logits": [0.0, 5.0, 1.0]}]
    probabilities = requested_probabilities(rows, UNSEEN)
    assert probabilities[0, :2] == pytest.approx([1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-5))])
    assert np.isnan(probabilities[0, 2])
    assert passes(rows, UNSEEN, 0.5).tolist() == [True]
    assert passes(rows, UNSEEN, 0.9).tolist() == [False]
    assert passes(rows, UNSEEN, 0.5, "judge").tolist() == [False]


def test_the_tally_counts_by_label_what_each_observer_accepts() -> None:
    logits = [[5.0, 0.0, 0.0], [0.0, 5.0, 0.0], [5.0, 5.0, 0.0]]
    judged = [[5.0, 0.0, 0.0], [0.0, -5.0, 0.0], [5.0, -5.0, 0.0]]
    rows = [
        {"labels": labels, "discriminator_logits": ours, "judge_logits": theirs}
        for labels, ours, theirs in zip([["boat"], ["clock"], ["boat", "clock"]], logits, judged, strict=True)
    ]
    tally = Tally(UNSEEN, 0.5)
    tally.add(Shard("a.tar", rows[:2], [True, True], found=False))
    tally.add(Shard("b.tar", rows[2:], [False], found=True))
    assert (tally.shards, list(tally.passed), len(tally), tally.num_judged) == (["a.tar", "b.tar"], [1, 1, 0], 3, 1)
    assert tally.kept == {"boat": 1, "clock": 1, "fish": 0}
    assert tally.judged == {"boat": 1, "clock": 0, "fish": 0}
