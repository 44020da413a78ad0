"""The replay counts the images of the pool, the bound is the hand-computed one, a pool of other settings is refused."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml

from tailorset.generation.allocation import Turns
from tailorset.generation.quota import Draw, QuotaPlanner
from tailorset.generation.shard_store import write_manifest
from tailorset.generation.studio import Studio
from tailorset.project.params import load_params
from tailorset.records import LabelSpace, Prompt, prompt_id

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("allocation_bench", BENCHMARKS / "allocation.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "allocation_bench", module)
    spec.loader.exec_module(module)
    return module


def alone(labels: tuple[str, ...]) -> list[Prompt]:
    return [
        Prompt(prompt_id=prompt_id([label], 0), text=label, labels=(label,), origin="llm", attempt=1)
        for label in labels
    ]


def test_a_seed_shuffles_the_images_of_a_prompt_and_each_comes_once_a_lap(bench: ModuleType) -> None:
    prompt = alone(("boat",))[0]
    shown = np.array([[place % 2, place < 3] for place in range(10)], dtype=bool)
    pool = bench.Pool({prompt.prompt_id: shown})
    laps = [
        np.array([pool.outcome(Draw(prompt, 10 * lap + i, "boat"), seed) for i in range(10)])
        for lap in (0, 1)
        for seed in (0, 1)
    ]
    assert all(sorted(map(tuple, lap)) == sorted(map(tuple, shown)) for lap in laps)
    assert len({lap.tobytes() for lap in laps}) == 4


def test_a_replay_counts_what_was_drawn_kept_and_judged(bench: ModuleType) -> None:
    prompts = alone(("boat", "clock"))
    shown = {prompts[0].prompt_id: np.array([[True, True]] * 4), prompts[1].prompt_id: np.array([[True, False]] * 4)}
    pool = bench.Pool(shown)
    planner = QuotaPlanner(("boat", "clock"), prompts, 10, 100, Turns())
    draws, outcomes, num_rounds = bench.replay(planner, pool, seed=0)
    figures = bench.figures(planner, pool, draws, outcomes)
    assert num_rounds == 1
    assert figures["drawn"] == figures["kept"] == len(draws) == 28  # the quota and the root of it, each
    assert figures["drawn_per_label_image"] == 28 / 20
    assert figures["judge_precision"] == figures["judged_right_per_drawn"] == 0.5
    assert figures["repeats"] == pytest.approx(20 / 28)
    assert figures["in_company"] == figures["under_quota"] == 0


def test_the_bound_is_the_quota_over_the_rate_where_each_label_has_one_prompt(bench: ModuleType, project: Path) -> None:
    params = load_params()
    unseen = LabelSpace.load(params.label_space).unseen
    prompts = alone(unseen)
    pool = bench.Pool({prompt.prompt_id: np.array([[True, True], [False, False]]) for prompt in prompts})
    expected = len(unseen) * params.generate_images.images_per_label / 0.5
    assert bench.fewest_draws(pool, prompts, params, 1.0) == pytest.approx(expected)


def test_candidates_drawn_before_are_taken_only_if_they_come_out_the_same_again(
    bench: ModuleType, project: Path, tiny_clip_folder: Path, tiny_judge_folder: Path, tiny_diffusion_folder: Path
) -> None:
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["generator"] |= {"model": str(tiny_diffusion_folder), "image_px": 16}
    for role, folder in (("discriminator", tiny_clip_folder), ("judge", tiny_judge_folder)):
        params["clip"][role] = {"model": f"local-dir:{folder}"}
    params["generate_images"] |= {"num_inference_steps": 2, "batch_size": 4}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    for adapter in ("unet_lora", "text_encoder_lora"):
        (project / "models" / adapter).mkdir(parents=True)
        (project / "models" / adapter / "tuning.json").write_text('{"num_updates": 0}')
    pool, prompts = sys.modules["pool"], alone(("boat", "clock", "fish"))

    fresh = pool.candidates(load_params(), prompts, 2)
    assert len(fresh) == 6
    (project / "data/synthetic").mkdir(parents=True)
    manifest = project / "data/synthetic/manifest.parquet"
    write_manifest(fresh.head(4).to_dict("records"), manifest)
    again = pool.candidates(load_params(), prompts, 2)
    assert again.sha256.tolist() == fresh.sha256.tolist()

    altered = fresh.head(4).to_dict("records")
    altered[0]["judge_logits"] = (np.array(altered[0]["judge_logits"]) + 1).tolist()
    write_manifest(altered, manifest)
    with pytest.raises(ValueError, match="drawn with other settings"):
        pool.candidates(load_params(), prompts, 2)


def test_a_pool_on_disk_is_not_drawn_again(
    bench: ModuleType, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second reader finds complete shards and draws nothing, so a Studio that cannot draw is enough."""
    pool, draws = sys.modules["pool"], [Draw(prompt, 0, prompt.labels[0]) for prompt in alone(("boat", "clock"))]
    monkeypatch.setattr(pool, "_folder", lambda: tmp_path)
    studio = Studio(_Painter(), _Clip(), _Clip(), ("boat", "clock"), "a {}", 0, 1, 1)
    first = list(pool._draw(studio, draws))
    monkeypatch.setattr(Studio, "draw_shard", lambda *arguments: pytest.fail("drawn again"))
    assert list(pool._draw(studio, draws)) == first


def test_candidates_that_start_from_photos_have_a_pool_of_their_own(bench: ModuleType, project: Path) -> None:
    pool, params = sys.modules["pool"], yaml.safe_load((project / "params.yaml").read_text())
    folders = {pool._folder()}
    for strength in (0.3, 0.9):
        params["generate_images"]["from_photos"] = {"strength": strength}
        (project / "params.yaml").write_text(yaml.safe_dump(params))
        folders.add(pool._folder())
    params["generate_images"]["max_images"] += 1  # another number of the same images
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    assert len(folders | {pool._folder()}) == 3


class _Painter:
    def sample(self, prompts: list[str], seeds: list[int], num_inference_steps: int) -> torch.Tensor:
        return torch.full((len(prompts), 3, 8, 8), 0.5)


class _Clip:
    device = torch.device("cpu")

    def encode_texts(self, names: list[str], template: str) -> torch.Tensor:
        return torch.eye(len(names))

    def logits(self, images: torch.Tensor, text_features: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(images), len(text_features))
