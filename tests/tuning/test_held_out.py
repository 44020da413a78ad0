"""Held-out prompts: their split, their images, and the share of images that a CLIP accepts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tailorset.clip.model import load_clip
from tailorset.clip.scorer import LabelScorer, acceptance
from tailorset.compute.memory import ShrinkingBatches
from tailorset.generators.stable_diffusion import Config, build
from tailorset.tuning.held_out import draw_images, split_prompts
from tests.tuning_prompts import LABELS, PROMPTS, UNSEEN


def test_held_out_prompts_are_spread_over_labels_and_never_tuned_on() -> None:
    tuning, held_out = split_prompts(PROMPTS, len(LABELS), seed=0)
    assert sorted(prompt.labels for prompt in held_out) == sorted(LABELS)
    assert not {prompt.text for prompt in tuning} & {prompt.text for prompt in held_out}
    assert len(tuning) == len(PROMPTS) - len(LABELS)
    assert split_prompts(PROMPTS, 5, seed=0) == (tuning, held_out)
    assert split_prompts(PROMPTS, 5, seed=1)[1] != held_out


def test_a_text_that_is_held_out_is_not_tuned_on_under_another_id() -> None:
    first, *others = PROMPTS
    twins = [first, *(prompt.model_copy(update={"text": "the same words"}) for prompt in others)]
    tuning, held_out = split_prompts(twins, len(PROMPTS) - 1, seed=0)
    assert {prompt.text for prompt in tuning}.isdisjoint(prompt.text for prompt in held_out)
    alike = [prompt.model_copy(update={"text": "the same words"}) for prompt in PROMPTS]
    with pytest.raises(ValueError, match="all 15 prompts read like one that is held out"):
        split_prompts(alike, 3, seed=0)


@pytest.mark.parametrize("num_held_out", [0, len(PROMPTS)])
def test_a_split_without_prompts_on_one_side_is_refused(num_held_out: int) -> None:
    with pytest.raises(ValueError, match="choose 1 to 14"):
        split_prompts(PROMPTS, num_held_out, seed=0)


def test_acceptance_is_the_share_of_images_that_show_every_requested_label(
    tiny_clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = LabelScorer(load_clip(f"local-dir:{tiny_clip_folder}", "cpu"), UNSEEN, "a photo of a {}")
    images = torch.rand(len(PROMPTS), 3, 8, 8, generator=torch.Generator().manual_seed(0))
    probabilities = scorer.probabilities(images, PROMPTS)
    expected = [
        all(row[UNSEEN.index(label)] > 0.5 for label in prompt.labels)
        for row, prompt in zip(probabilities.tolist(), PROMPTS, strict=True)
    ]
    assert 0 < sum(expected) < len(expected)
    assert acceptance(scorer, images, PROMPTS) == pytest.approx(sum(expected) / len(expected))
    monkeypatch.setattr("tailorset.clip.scorer.SCORED_AT_ONCE", 4)
    assert acceptance(scorer, images, PROMPTS) == pytest.approx(sum(expected) / len(expected))


def test_drawing_repeats_itself_whatever_the_batch_and_varies_a_repeated_prompt(tiny_diffusion_folder: Path) -> None:
    generator = build(Config(model=str(tiny_diffusion_folder), image_px=8, guidance_scale=2.0), "cpu")
    prompts = PROMPTS[:3] * 2
    images = torch.cat(list(draw_images(generator, prompts, 0, 2, ShrinkingBatches(4, "drawing", ""))))
    again = torch.cat(list(draw_images(generator, prompts, 0, 2, ShrinkingBatches(6, "drawing", ""))))
    torch.testing.assert_close(images, again, atol=1e-5, rtol=0)
    assert (images[0] - images[3]).abs().max() > 1e-2


def test_images_do_not_fill_the_memory_of_the_device_that_draws_them() -> None:
    class OnDevice:
        def sample(self, prompts: list[str], seeds: list[int], num_inference_steps: int) -> torch.Tensor:
            return torch.empty(len(prompts), 3, 8, 8, device="cuda")

    with FakeTensorMode():
        for batch in draw_images(OnDevice(), PROMPTS, 0, 2, ShrinkingBatches(4, "drawing", "")):
            assert batch.device.type == "cpu"
