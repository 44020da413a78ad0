"""Each stage's own inner loop on models of real size with random weights: `python benchmarks/real_size.py`.

Peak memory, samples per second, FLOPs of a sample and the share of the best rate measured in this process. Settings are
those of presets/paper.yaml; a CPU uses float32, fewer steps and one sample of what would take hours. `denoisers` counts
weights, operations and memory of larger generators in a dry run, `steps` times a denoising step of each in bfloat16.
Figures are kept in reports/real_size.json, a part at a time; --write-docs writes the tables of docs/performance.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import torch
from performance_page import processor, read_figures, store_figures
from real_denoisers import GeneratorShape, dry_run, larger_generators, timed_step
from real_models import PUBLISHED, MeasuredModels, check_shapes
from real_size_page import denoisers_page, page, write_docs
from real_stages import RealSizeBenchmark, amounts_of
from tqdm import tqdm

import tailorset  # noqa: F401 - sets the offline and telemetry switches before any library is imported
from tailorset.compute.device import resolve_device, use_tf32
from tailorset.compute.memory import free_memory
from tailorset.messages import GIB, first_line
from tailorset.project.presets import load_preset

PRESET, FAST = "paper", "coco_fast"
CPU_GIB = {"generation": 18, "fast": 18, "tuning": 20, "filter": 3, "classifier": 12, "llm": 10}  # memory a part takes


def measured(bench: RealSizeBenchmark, part: str) -> dict[str, Any]:
    """A part's row, or the reason for having none."""
    free = psutil.virtual_memory().available / GIB
    if bench.device.type == "cpu" and bench.models == MeasuredModels() and free < CPU_GIB[part]:
        return {"reason": f"it takes {CPU_GIB[part]} GiB of memory, and {free:.0f} are free"}
    try:
        row = bench.parts[part]()
    except (torch.OutOfMemoryError, MemoryError) as error:
        return {"reason": f"out of memory: {first_line(error)}"}
    finally:
        free_memory()
    return asdict(row) | {"machine": machine(bench.device), "repetitions": bench.repetitions}


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def measure_denoisers(figures: dict[str, Any], shapes: Mapping[str, GeneratorShape]) -> None:
    for name, shape in shapes.items():
        figures.setdefault("denoisers", {}).setdefault(name, {}).update(dry_run(shape))


def time_steps(
    figures: dict[str, Any], shapes: Mapping[str, GeneratorShape], device: torch.device, repetitions: int, output: Path
) -> None:
    """Time a step of each generator, the smallest first; figures are stored after each."""
    measure_denoisers(figures, shapes)
    for name in sorted(shapes, key=lambda name: float(figures["denoisers"][name]["flops"])):
        row = timed_step(shapes[name], device, repetitions) | {"machine": machine(device), "repetitions": repetitions}
        figures["denoisers"][name].setdefault("steps", {})[device.type] = row
        store_figures(figures, output, sort_keys=True)


def main(
    arguments: Sequence[str] | None = None,
    models: MeasuredModels | None = None,
    larger: Mapping[str, GeneratorShape] | None = None,
) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["shapes", "denoisers", "steps", *CPU_GIB]
    parser.add_argument("--parts", nargs="*", choices=names, default=names)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--image-px", type=int, help="side of generated images (default: the preset's)")
    parser.add_argument("--steps", type=int, help="sampling steps (default: the preset's, 2 on a CPU)")
    parser.add_argument("--repetitions", type=int, default=1, help="timed runs of each part (default 1)")
    parser.add_argument("--output", type=Path, default=Path("reports/real_size.json"))
    parser.add_argument("--write-docs", action="store_true", help="write docs/performance.md from the figures")
    options = parser.parse_args(arguments)

    use_tf32()
    device = resolve_device(options.device)

    def bench(part: str) -> RealSizeBenchmark:
        params = load_preset(FAST if part == "fast" else PRESET)
        amounts = amounts_of(params, device, options.image_px, options.steps)
        return RealSizeBenchmark(params, models or MeasuredModels(), amounts, device, options.repetitions)

    figures = read_figures(options.output)
    for part in tqdm(options.parts, unit="part"):
        if part == "shapes":
            figures["shapes"] = {name: check_shapes(name) for name in PUBLISHED}
        elif part == "denoisers":
            measure_denoisers(figures, larger or larger_generators())
        elif part == "steps":
            time_steps(figures, larger or larger_generators(), device, options.repetitions, options.output)
        else:
            figures.setdefault(device.type, {})[part] = measured(bench(part), part)
        store_figures(figures, options.output, sort_keys=True)
    print(page(figures), denoisers_page(figures), sep="\n\n")
    if options.write_docs:
        write_docs(figures)


if __name__ == "__main__":
    main()
