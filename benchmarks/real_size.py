"""Each stage's own inner loop on models of real size with random weights: `python benchmarks/real_size.py`.

Peak memory, samples per second, FLOPs of a sample and the share of the best rate measured in this process. Settings are
those of presets/paper.yaml; a CPU uses float32, fewer steps and one sample of what would take hours. Figures are
kept in reports/real_size.json, a part at a time; --write-docs writes the tables of docs/performance.md from them.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import torch
from real_models import PUBLISHED, MeasuredModels, check_shapes
from real_size_page import page, write_docs
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
    instructions = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} with {instructions}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def main(arguments: Sequence[str] | None = None, models: MeasuredModels | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", choices=["shapes", *CPU_GIB], default=["shapes", *CPU_GIB])
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

    figures = json.loads(options.output.read_text(encoding="utf-8")) if options.output.exists() else {}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for part in tqdm(options.parts, unit="part"):
        if part == "shapes":
            figures["shapes"] = {name: check_shapes(name) for name in PUBLISHED}
        else:
            figures.setdefault(device.type, {})[part] = measured(bench(part), part)
        options.output.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(page(figures))
    if options.write_docs:
        write_docs(figures)


if __name__ == "__main__":
    main()
