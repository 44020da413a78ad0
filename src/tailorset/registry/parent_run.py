"""Parent run in MLflow: its results as a table, sheets of images, a few headline metrics, data and model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from tailorset.evaluation.results import columns, shown_rows
from tailorset.project.layout import REPORTS
from tailorset.project.mlflow_pages import artifact, artifact_page, version_page
from tailorset.registry.model_card import markdown_table

HEADLINE = "_headline/"  # first where metrics are sorted by name
DATA_SETS = ("data/real", "data/filtered")
MAX_DIGEST_CHARS = 36  # of MLflow
SHEETS = {  # title: picture of a stage
    "Generated images that were kept": REPORTS / "generate_images" / "plots" / "kept.png",
    "Generated images that were rejected": REPORTS / "generate_images" / "plots" / "rejected.png",
    "The same prompts before and after tuning the UNet": REPORTS / "tune_unet" / "plots" / "look.png",
    "The same prompts before and after tuning": REPORTS / "tune_text_encoder" / "plots" / "before_after.png",
    "Test photos with their best scores": REPORTS / "evaluate" / "plots" / "test_images.png",
}
SHEETS_FOLDER, SMALL_FOLDER = "sheets", "sheets/small"  # of the run's artifacts
SMALL_PX = 560  # width of what fits beside the facts of a run; MLflow shows pictures in their own size


def headline(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return our measures of the results table, under names that are listed first."""
    return {HEADLINE + key: value for key, value in our_measures(metrics).items()}


def our_measures(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return our measures of the results table, as far as they were measured."""
    return {key: metrics[key] for key in columns(metrics).values() if key in metrics}


def sheets() -> dict[str, Path]:
    """Return {title: file} of the pictures that stages have made."""
    return {title: path for title, path in SHEETS.items() if path.exists()}


def shrink(pictures: Mapping[str, Path], folder: Path) -> list[Path]:
    """Write copies for the run's page to a folder, and return them."""
    copies = []
    for path in pictures.values():
        with Image.open(path) as picture:
            size = (SMALL_PX, round(picture.height * SMALL_PX / picture.width))
            small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        copies.append(folder / path.name)
        small.save(copies[-1])
    return copies


def description(
    metrics: Mapping[str, float], model: tuple[str, str], run: tuple[str, str], pictures: Mapping[str, Path]
) -> str:
    """Return the results table in Markdown, a link to the registered version, and the pictures on the run's page.

    model: name and version. run: ids of the experiment and of the parent run, which holds the pictures as artifacts.
    """
    table = markdown_table(("test split, %", *columns(metrics)), shown_rows(metrics))
    link = f"[{model[0]}, version {model[1]}]({version_page(*model)})"
    files = "*Artifacts* has the data card (index.html), the test scores, and these pictures in full size."
    return "\n\n".join([table, f"Model: {link}, with its model card. {files}", *_shown(pictures, *run)])


def _shown(pictures: Mapping[str, Path], experiment_id: str, run_id: str) -> Iterator[str]:
    """Yield each picture with its title, which leads to the full size."""
    for title, path in pictures.items():
        page = artifact_page(experiment_id, run_id, f"{SHEETS_FOLDER}/{path.name}")
        yield f"[{title}]({page})\n\n![{title}]({artifact(run_id, f'{SMALL_FOLDER}/{path.name}')})"


def data_sets(lock: Path) -> dict[str, str]:
    """Return {path: digest} of the products that the classifier learned from, by dvc.lock; {} before DVC wrote it."""
    content: Any = yaml.safe_load(lock.read_text(encoding="utf-8")) if lock.exists() else None
    stages = (content or {}).get("stages", {}).values()
    outs = {out["path"]: out.get("md5", "") for stage in stages for out in stage.get("outs", [])}
    return {path: outs[path].removesuffix(".dir")[:MAX_DIGEST_CHARS] for path in DATA_SETS if path in outs}
