"""Write docs/pictures/stages/, one picture per stage, and generated.png, from what the last `make run` left.

Pictures are cropped at the bottom and stored with 128 colours; pages are photographed with Debian's chromium.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from PIL import Image

from tailorset.generators.parts.lora import has_zero_updates
from tailorset.project.layout import LORA, UNET_LORA

FOLDER = Path("docs/pictures/stages")
PLOTS = {
    "prepare_dataset": "reports/prepare_dataset/plots/photo_style.png",
    "tune_unet": "reports/tune_unet/plots/look.png",
    "tune_text_encoder": "reports/tune_text_encoder/plots/before_after.png",
    "generate_images": "reports/generate_images/plots/pass_rate.png",
    "filter_images": "reports/generate_images/plots/rejected.png",
    "train_classifier": "reports/train_classifier/plots/augmented.png",
    "fit_thresholds": "reports/evaluate/plots/trust.png",
    "evaluate": "reports/evaluate/plots/test_images.png",
}
ADAPTERS = {"tune_unet": UNET_LORA, "tune_text_encoder": LORA}
KEPT = "reports/generate_images/plots/kept.png"  # whole, for the guide to the data card
HTML_PAGES = {"validate_data": "reports/validation/index.html", "data_card": "reports/card/index.html"}
MAX_SIZE = (840, 520)  # px; what is below is cropped
NUM_PROMPTS = 10


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for stage, picture in [*plots(), *pages(), ("write_prompts", prompt_table())]:
        cropped = picture.convert("RGB").crop((0, 0, picture.width, min(picture.height, MAX_SIZE[1])))
        cropped.thumbnail(MAX_SIZE)
        save(cropped, FOLDER / f"{stage}.png")
    save(Image.open(KEPT).convert("RGB"), FOLDER.parent / "generated.png")


def save(picture: Image.Image, path: Path) -> None:
    picture.quantize(128).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1024} kB")


def plots() -> Iterator[tuple[str, Image.Image]]:
    """Yield the plots that stages have made; where nothing was tuned, the former picture stays."""
    for stage, path in PLOTS.items():
        if has_zero_updates(ADAPTERS.get(stage, Path())):
            print(f"{FOLDER / stage}.png stays: the last run had no updates")
        else:
            yield stage, Image.open(path)


def pages() -> Iterator[tuple[str, Image.Image]]:
    """Yield the top of the pages that stages have made, as a browser shows it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"))
        for stage, path in HTML_PAGES.items():
            page = browser.new_page(viewport={"width": MAX_SIZE[0], "height": MAX_SIZE[1]})
            page.goto(Path(path).absolute().as_uri())
            target = FOLDER / f"{stage}.png"
            page.screenshot(path=target)
            yield stage, Image.open(target)
        browser.close()


def prompt_table() -> Image.Image:
    """Return a picture of some prompts and the labels that they request."""
    prompts = pd.read_parquet("data/prompts/prompts.parquet")
    chosen = prompts.iloc[:: max(1, len(prompts) // NUM_PROMPTS)][:NUM_PROMPTS]
    figure, axes = plt.subplots(figsize=(8.4, 3.6))
    axes.axis("off")
    for row, (labels, text) in enumerate(zip(chosen["labels"], chosen["text"], strict=True)):
        height = 1 - (row + 0.5) / NUM_PROMPTS
        axes.text(0.0, height, ", ".join(labels), weight="bold", va="center", fontsize=9)
        axes.text(0.2, height, textwrap.shorten(text, 95), va="center", fontsize=9)
    figure.tight_layout()
    figure.savefig(FOLDER / "write_prompts.png", dpi=100)
    return Image.open(FOLDER / "write_prompts.png")


if __name__ == "__main__":
    main()
