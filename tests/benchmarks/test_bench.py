"""`make bench` runs on the models of params.yaml, draws what the stock pipeline draws, and writes its figures."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import plain_ways
import pytest
import yaml
from bench_page import table

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def small(project: Path, tiny_clip_folder: Path, tiny_judge_folder: Path, tiny_diffusion_folder: Path) -> Path:
    """The project with tiny models; the classifier's backbone and the LLM are the toybox's."""
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["generator"] |= {"model": str(tiny_diffusion_folder), "image_px": 8, "guidance_scale": 3.0}
    for role, folder in (("discriminator", tiny_clip_folder), ("judge", tiny_judge_folder)):
        params["clip"][role] = {"model": f"local-dir:{folder}"}
    params["generate_images"] |= {"num_inference_steps": 2, "batch_size": 8}
    params["tune_text_encoder"] |= {"num_inference_steps": 2, "stop_after": [1, 2], "batch_size": 2}
    params["write_prompts"]["llm"] |= {"batch_size": 4, "max_new_tokens": 3}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    (project / "models").mkdir(exist_ok=True)
    (project / "models" / "foundation").symlink_to(ROOT / "models" / "foundation")
    for name in ("coco", "nus_wide"):
        shutil.copy(ROOT / "data" / "labels" / f"{name}.yaml", project / "data" / "labels")
    return project


def test_bench_measures_every_part_and_agrees_with_the_plain_ways(
    small: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_ways, "SCORES", (200, 5))
    monkeypatch.setattr(plain_ways, "PUBLISHED_STEPS", 2)
    (small / "docs").mkdir()
    (small / "docs/performance.md").write_text("before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n")

    main = runpy.run_path(str(ROOT / "benchmarks" / "bench.py"))["main"]
    main(["--repetitions", "1", "--judged", "4", "--write-docs"])

    figures = json.loads(Path("reports/bench.json").read_text())
    rows, printed = figures["comparisons"], capsys.readouterr().out
    assert list(rows) == [
        "generation",
        "batched",
        "full_stack",
        "cached",
        "tuning",
        "filter_17",
        "filter_81",
        "classifier",
        "prompts",
        "metrics",
    ]
    for part, row in rows.items():
        assert row["ratio"] == pytest.approx(row["plain_s"] / row["ours_s"])
        assert row["name"] in printed, part
    assert rows["generation"]["equal"]
    assert rows["metrics"]["equal"]
    assert 0 < figures["utilisation"]["mfu"] < 1.5
    assert 0.3 < figures["utilisation"]["unet_share_of_flops"] < 1
    page = (small / "docs/performance.md").read_text()
    assert page == f"before\n<!-- bench -->\n{table(figures)}\n<!-- /bench -->\nafter\n"

    main(["--repetitions", "1", "--judged", "4", "--parts", "metrics"])
    again = json.loads(Path("reports/bench.json").read_text())
    assert list(again["comparisons"]) == list(rows)
    assert again["comparisons"]["metrics"] != rows["metrics"]
    assert {**again["comparisons"], "metrics": 0} == {**rows, "metrics": 0}
    assert again["utilisation"] == figures["utilisation"]

    main(["--repetitions", "2", "--judged", "4", "--parts", "metrics"])
    assert list(json.loads(Path("reports/bench.json").read_text())["comparisons"]) == ["metrics"]


def test_a_part_that_is_not_there_is_named(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(ROOT / "benchmarks" / "bench.py"))["main"]
    with pytest.raises(SystemExit):
        main(["--parts", "generaton"])
    assert "no parts ['generaton']: choose from ['generation'," in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ratio", "equal", "verdict"), [(3.1, True, "3: reached"), (2.9, True, "3: **missed**"), (9.0, False, "**missed**")]
)
def test_a_goal_is_reached_by_speed_with_the_same_outcome_only(ratio: float, equal: bool, verdict: str) -> None:
    row: dict[str, Any] = {
        "name": "drawing",
        "ours_s": 0.01,
        "plain_s": 0.01 * ratio,
        "ratio": ratio,
        "goal": 3,
        "equal": equal,
        "note": "",
        "date": "2026-11-30",
    }
    use = {
        "mfu": 0.3,
        "goal": 0.35,
        "rate": 3e10,
        "roofs": {"matmul": 1e11},
        "unet_share_of_flops": 0.9,
        "unet_share_of_time": 0.8,
    }
    settings = {
        "model": "m",
        "dtype": "d",
        "device": "cpu",
        "machine": "x",
        "threads": 1,
        "torch": "2",
        "repetitions": 1,
    }
    page = table({"comparisons": {"generation": row}, "utilisation": use, "settings": settings})
    assert verdict in page
    assert "goal 35%: **missed**" in page
