"""benchmarks/real_size.py: real shapes are the published ones, and every part runs, here on tiny models."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch.utils.checkpoint import checkpoint

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import real_denoisers
import real_size
import timing
from real_denoisers import LiveBytes, dry_run, flux_2_klein, larger_generators, prx_512, sdxl
from real_models import PUBLISHED, QWEN_7B, SD_2_1, SDXL, Diffusion, MeasuredModels, check_shapes, clip_tokenizer
from real_size_page import denoisers_page, page
from real_stages import FULL_GRADIENT, PUBLISHED_LOOP, STOCK, TEXTS_AGAIN, unknown_flops

from tailorset.compute.flops import flop_counter

ROOT = Path(__file__).resolve().parents[2]
TINY_DIFFUSION = Diffusion(
    unet=SD_2_1.unet
    | {
        "block_out_channels": (8, 8, 8, 8),
        "norm_num_groups": 4,
        "cross_attention_dim": 16,
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "sample_size": 8,
    },
    vae=SD_2_1.vae
    | {
        "block_out_channels": (8, 8, 8, 8),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "sample_size": 64,
    },
    text_encoder=SD_2_1.text_encoder
    | {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
    scheduler=SD_2_1.scheduler,
)
TINY_LLM = QWEN_7B | {
    "vocab_size": 4096,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
TINY_XL = Diffusion(
    unet=SDXL.unet
    | {
        "block_out_channels": (8, 8, 8),
        "norm_num_groups": 4,
        "cross_attention_dim": 32,
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "transformer_layers_per_block": 1,
        "projection_class_embeddings_input_dim": 6 * 256 + 16,
    },
    vae=TINY_DIFFUSION.vae,
    text_encoder=TINY_DIFFUSION.text_encoder,
    text_encoder_2=TINY_DIFFUSION.text_encoder | {"projection_dim": 16},
    scheduler=SDXL.scheduler,
)
TINY_ENCODER = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}
TINY_DENOISERS = {
    "sdxl": sdxl(TINY_XL, 64),
    "prx_512": prx_512(
        real_denoisers.PRX_512
        | {"context_in_dim": 16, "hidden_size": 16, "num_heads": 2, "depth": 1, "axes_dim": [4, 4]},
        TINY_ENCODER,
        TINY_DIFFUSION.vae,
        64,
    ),
    "flux_2_klein": flux_2_klein(
        real_denoisers.KLEIN_4B
        | {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 1, "joint_attention_dim": 48},
        TINY_ENCODER,
        {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "layers_per_block": 1},
        64,
    ),
}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MeasuredModels:
    """Architectures registered with open_clip during a test; and a roof that is quickly measured."""
    import open_clip

    monkeypatch.setitem(timing.ROOF_MATMUL, "cpu", (64, 256))

    vision = {
        "tiny-vit": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16},
        "tiny-resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16},
    }
    for name, config in vision.items():
        known = {"embed_dim": 16, "vision_cfg": config, "text_cfg": TEXT}
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, known)
    return MeasuredModels(TINY_DIFFUSION, "tiny-vit", "tiny-resnet", TINY_LLM)


@pytest.mark.parametrize("name", PUBLISHED)
def test_real_shapes_are_those_of_the_published_weights(name: str) -> None:
    assert check_shapes(name) == PUBLISHED[name].num_parameters


def test_every_part_runs_and_stands_in_the_page(
    project: Path, tiny: MeasuredModels, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "presets", "presets")
    Path("docs").mkdir()
    Path("docs/performance.md").write_text("before\n<!-- real_size -->\nold\n<!-- /real_size -->\nafter\n")
    arguments = ["--device", "cpu", "--image-px", "64", "--steps", "3", "--write-docs"]
    real_size.main([*arguments, "--parts", "generation", "fast", "tuning", "filter"], tiny)
    real_size.main([*arguments, "--parts", "classifier", "llm"], tiny)

    rows = json.loads(Path("reports/real_size.json").read_text())["cpu"]
    assert set(rows) == {"generation", "fast", "tuning", "filter", "classifier", "llm"}
    for row in rows.values():
        assert row["peak_bytes"] > 1000
        assert row["samples_per_s"] > 0
        assert row["mfu"] == pytest.approx(row["flops"] * row["samples_per_s"] / row["roof"])
    assert set(rows["generation"]["times"]) == set(rows["fast"]["times"]) == {STOCK, PUBLISHED_LOOP}
    assert set(rows["tuning"]["times"]) == {FULL_GRADIENT}
    assert min(ratio for row in rows.values() for ratio in row["times"].values()) > 0
    assert "3 steps" in rows["tuning"]["what"]
    text = Path("docs/performance.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert text.count(rows["llm"]["what"]) == 1
    assert "not measured" in text  # no GPU
    assert text.splitlines()[2] in capsys.readouterr().out


def test_a_part_that_does_not_fit_says_so(project: Path, tiny: MeasuredModels, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "presets", "presets")
    monkeypatch.setitem(real_size.CPU_GIB, "llm", 10**6)
    real_size.main(["--device", "cpu", "--parts", "llm"])
    (row,) = json.loads(Path("reports/real_size.json").read_text())["cpu"].values()
    assert re.fullmatch(r"it takes 1000000 GiB of memory, and \d+ are free", row["reason"])
    assert f"not measured: {row['reason']}" in page({"cpu": {"llm": row}})


def test_a_step_of_larger_generators_is_counted_and_timed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--device", "cpu", "--parts"]
    real_size.main([*arguments, "steps"], larger=TINY_DENOISERS)
    real_size.main([*arguments, "denoisers"], larger=TINY_DENOISERS)
    figures = json.loads(Path("reports/real_size.json").read_text())
    rows = figures["denoisers"]
    assert set(rows) == set(larger_generators())
    for row in rows.values():
        assert row["steps"]["cpu"]["seconds"] > 0
        assert row["flops"] > row["parts"]["network"]["parameters"] > 0
        assert row["activation_bytes"] > 0
    sizes = {name: part["bytes"] // part["parameters"] for name, part in rows["sdxl"]["parts"].items()}
    assert sizes == {"network": 2, "text encoder": 4, "second text encoder": 4, "VAE": 4}
    assert denoisers_page(figures).count("2 passes") == 2
    assert "**" not in denoisers_page(figures)

    monkeypatch.setattr(real_denoisers, "with_shared_weights", Mock(side_effect=MemoryError("20 GiB")))
    real_size.main([*arguments, "steps"], larger=TINY_DENOISERS)
    text = denoisers_page(json.loads(Path("reports/real_size.json").read_text()))
    assert text.count("not measured: out of memory: MemoryError: 20 GiB") == 3


@pytest.mark.parametrize("name", TINY_DENOISERS)
def test_a_timed_network_does_the_work_of_a_real_one_with_fewer_weights(name: str) -> None:
    shape = TINY_DENOISERS[name]
    with torch.no_grad(), flop_counter() as real:
        network = shape.network.build().eval()
        expected = network(**shape.inputs(), return_dict=False)[0].shape
    shared = real_denoisers.with_shared_weights(shape.network.build, torch.device("cpu")).eval()
    with torch.no_grad(), flop_counter() as counter:
        output = shared(**shape.inputs(), return_dict=False)[0]
    assert output.shape == expected
    assert output.isfinite().all()
    assert counter.get_total_flops() == real.get_total_flops()
    assert shared.state_dict().keys() == network.state_dict().keys()
    shapes = {weight.shape for weight in network.parameters()}
    assert len({weight.data_ptr() for weight in shared.parameters()}) == len(shapes)


def test_the_dry_run_counts_as_a_real_one_does() -> None:
    shape = TINY_DENOISERS["prx_512"]
    with real_denoisers.default_dtype(torch.bfloat16), torch.no_grad(), flop_counter() as counter:
        shape.network.build()(**shape.inputs())
    assert dry_run(shape)["flops"] == counter.get_total_flops()


def test_memory_that_is_released_is_not_counted_twice() -> None:
    before = torch.ones(1000)
    with LiveBytes([before]) as live:
        for _ in range(3):
            view = before.view(10, 100)
            held = view + 1
            del held
    assert (live.peak, live.now) == (4000, 0)


def test_products_with_4bit_weights_are_counted() -> None:
    import bitsandbytes as bnb

    layer = bnb.nn.Linear4bit(64, 128, bias=False, quant_type="nf4", compute_dtype=torch.bfloat16).to("cpu").eval()
    with torch.no_grad(), flop_counter(unknown_flops()) as counter:
        layer(torch.rand(2, 5, 64, dtype=torch.bfloat16))
    assert counter.get_total_flops() == 2 * 10 * 64 * 128


def test_attention_is_counted_with_and_without_gradient() -> None:
    layer, counts = torch.nn.MultiheadAttention(32, 4, batch_first=True).eval(), []
    for wanted in (True, False):
        x = torch.rand(2, 5, 32)
        with torch.set_grad_enabled(wanted), flop_counter(unknown_flops()) as counter:
            layer(x, x, x, need_weights=False)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] == 4 * 2 * 2 * 5 * 32 * 32 + 2 * 2 * 2 * 5 * 5 * 32


def test_counting_keeps_nothing_that_checkpointing_frees() -> None:
    layers = torch.nn.ModuleList(
        torch.nn.Sequential(*(torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh()) for _ in range(8)))
        for _ in range(4)
    )

    def forward_and_back() -> None:
        x = torch.ones(4096, 64, requires_grad=True)
        for layer in layers:
            x = checkpoint(layer, x, use_reentrant=False)
        x.sum().backward()

    def while_counting() -> None:
        with flop_counter() as counter:
            forward_and_back()
        assert counter.get_total_flops() > 0

    cpu = torch.device("cpu")
    assert timing.peak_bytes(while_counting, cpu) == pytest.approx(timing.peak_bytes(forward_and_back, cpu), rel=0.05)


def test_the_page_judges_goals_on_a_gpu_only() -> None:
    row: dict[str, Any] = {
        "what": "w",
        "samples": "images",
        "samples_per_s": 20_000.0,
        "flops": 9e9,
        "mfu": 0.5,
        "roof": 5e14,
        "peak_bytes": 9 * 2**30,
        "times": {TEXTS_AGAIN: 12.0},
        "machine": "a GPU",
    }
    text = page({"cuda": {"filter": row, "classifier": row}, "cpu": {"filter": row}})
    assert ">= 15,000 images/s: reached" in text
    assert "20,000 images, 12 times texts encoded for each image" in text
    assert "<= 8 GiB: **missed**" in text
    assert "| 0.009 | 50% of 500 TFLOP/s | >= 15,000 images/s; >= 10 times texts encoded for each image |" in text


def test_the_tokenizer_is_that_of_clip() -> None:
    import open_clip

    text = "a photo of a snowboard, next to 2 umbrellas"
    ours = clip_tokenizer()(text, padding="max_length", max_length=77)["input_ids"]
    known = open_clip.get_tokenizer("ViT-B-32")(text)[0].tolist()
    assert ours[: known.index(49407) + 1] == known[: known.index(49407) + 1]


def test_the_tables_of_the_document_are_those_of_the_report() -> None:
    figures = json.loads((ROOT / "reports" / "real_size.json").read_text())
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert f"<!-- real_size -->\n{page(figures)}\n<!-- /real_size -->" in text
    assert f"<!-- denoisers -->\n{denoisers_page(figures)}\n<!-- /denoisers -->" in text
