"""benchmarks/tuning.py: its computations, compared with results by hand; and a run."""

from __future__ import annotations

import gc
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from timing import peak_bytes
from tuning import UpdateCost, is_right, ratios, seconds_to_equal

from tailorset.records import LabelSpace, Prompt, prompt_id
from tailorset.seeding import numpy_rng
from tailorset.toybox.oracle import COMMITTED, load_oracle
from tailorset.toybox.scenes import render, web_scene

ROOT = Path(__file__).resolve().parents[2]
ONE, ALL = "K=1", "K=10"


def curves(of_one: list[float], of_all: list[float]) -> pd.DataFrame:
    """A measurement every 10 s of K = 1 and every 40 s of all steps."""
    rows = [(ONE, 10.0 * i, share) for i, share in enumerate(of_one)]
    rows += [(ALL, 40.0 * i, share) for i, share in enumerate(of_all)]
    return pd.DataFrame(rows, columns=["way", "seconds", "oracle"])


@pytest.mark.parametrize(
    ("of_one", "of_all", "expected"),
    [
        ([0.4, 0.5, 0.6], [0.4, 0.6, 0.5], {ONE: 20.0, ALL: 40.0}),
        ([0.4, 0.5, 0.5], [0.4, 0.6, 0.7], {ONE: None, ALL: 80.0}),
        ([0.4, 0.5, 0.6], [0.4, 0.3, 0.4], {ONE: None, ALL: None}),  # nothing to equal: untuned is as good
    ],
)
def test_seconds_to_equal_precision(of_one: list[float], of_all: list[float], expected: dict[str, Any]) -> None:
    assert seconds_to_equal(curves(of_one, of_all), ALL) == expected


def test_ratios_against_full_back_propagation() -> None:
    seconds = {(ONE, False): 0.1, (ONE, True): 0.12, (ALL, False): 0.3, (ALL, True): 0.5}
    costs = [UpdateCost(*side, value, peak_bytes=1, grad_norm=1.0) for side, value in seconds.items()]
    of_one, of_all = ratios(costs, {ONE: 20.0, ALL: 40.0}, ALL)
    assert of_one == pytest.approx(
        {"way": ONE, "per_sample_vs_published": 5, "per_sample_vs_full": 3, "to_equal_oracle_vs_full": 2}
    )
    assert of_all["to_equal_oracle_vs_full"] == 1
    assert ratios(costs, {ONE: None, ALL: 40.0}, ALL)[0]["to_equal_oracle_vs_full"] is None


def test_the_peak_is_what_was_held_at_once() -> None:
    def work() -> None:
        first = torch.zeros(1000, 1000)
        second = first + 1
        del first
        second.add(1)

    assert peak_bytes(work, torch.device("cpu")) == pytest.approx(8e6, rel=0.01)


def test_what_earlier_work_left_in_a_cycle_is_not_counted_as_given_back() -> None:
    def leave() -> None:
        cycle: list[object] = [torch.zeros(1000, 1000)]
        cycle.append(cycle)
        gc.collect()  # from now on only a full collection looks at it

    def work() -> None:
        first = torch.zeros(1000, 1000)
        gc.collect()
        first.add(1)

    for task, held in ((leave, 4e6), (work, 8e6)):
        assert peak_bytes(task, torch.device("cpu")) == pytest.approx(held, rel=0.01)


def test_an_image_is_right_if_the_oracle_sees_all_that_was_requested() -> None:
    scene = web_scene(numpy_rng("tuning bench"), ["cup"], 1, "snapshot")
    image = torch.from_numpy(render(scene, 64)).permute(2, 0, 1) / 255
    prompts = [
        Prompt(prompt_id=prompt_id(labels, 0), text=" ".join(labels), labels=labels, origin="llm", attempt=1)
        for labels in (("cup",), ("cup", "key"), ("key",))
    ]
    oracle = load_oracle(ROOT / COMMITTED)
    assert is_right(oracle, image.expand(3, -1, -1, -1), prompts).tolist() == [True, False, False]


def test_it_runs_on_the_models_of_params_yaml(
    project: Path,
    tiny_clip_folder: Path,
    tiny_judge_folder: Path,
    tiny_diffusion_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["generator"] |= {"model": str(tiny_diffusion_folder), "image_px": 8}
    for role, folder in (("discriminator", tiny_clip_folder), ("judge", tiny_judge_folder)):
        params["clip"][role] = {"model": f"local-dir:{folder}"}
    params["tune_text_encoder"] |= {
        "batch_size": 2,
        "num_inference_steps": 2,
        "stop_after": [1, 2],
        "held_out_prompts": 3,
    }
    params["generate_images"]["num_inference_steps"] = 3
    Path("params.yaml").write_text(yaml.safe_dump(params))
    pairs = LabelSpace.load(params["label_space"]).pairs()
    prompts = [
        Prompt(prompt_id=prompt_id(labels, 0), text=" ".join(labels), labels=labels, origin="llm", attempt=1)
        for labels in pairs
    ]
    Path("data/prompts").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([p.model_dump() for p in prompts]), "data/prompts/prompts.parquet")
    Path("models/foundation/toybox").mkdir(parents=True)
    Path("models/foundation/toybox/oracle").symlink_to(ROOT / "models" / "foundation" / "toybox" / "oracle")

    main = runpy.run_path(str(ROOT / "benchmarks" / "tuning.py"))["main"]
    main(["--repetitions", "1", "--updates", "2", "--evaluate-every", "1", "--backprop-steps", "1", "2"])

    figures = json.loads(Path("reports/tuning_bench.json").read_text())
    sides = [(cost["way"], cost["checkpointing"]) for cost in figures["costs"]]
    ways = ("K=1 of 2, after 1-2", "K=1 of 3", "K=2 of 3", "K=3 of 3")
    assert sides == [(way, on) for way in ways for on in (False, True)]
    assert all(cost["grad_norm"] > 0 and cost["seconds"] > 0 for cost in figures["costs"])
    peaks = {side: cost["peak_bytes"] for side, cost in zip(sides, figures["costs"], strict=True)}
    assert peaks["K=1 of 3", False] < peaks["K=2 of 3", False] < peaks["K=3 of 3", False]
    assert peaks["K=3 of 3", True] < peaks["K=3 of 3", False]
    start = [point for point in figures["curves"] if point["samples"] == 0]
    assert len(start) == 4
    assert len({point["oracle"] for point in start}) == 1
    assert "Times cheaper" in capsys.readouterr().out

    main(["--repetitions", "1", "--updates", "1", "--evaluate-every", "1", "--only-own"])
    figures = json.loads(Path("reports/tuning_bench.json").read_text())
    assert {point["way"] for point in figures["curves"]} == {"K=1 of 2, after 1-2"}
    assert "Times cheaper" not in capsys.readouterr().out
