"""Commands for the data set: export it, import labels that people corrected."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tailorset.cli.models import params_and_labels
from tailorset.commands.formats import FORMATS
from tailorset.commands.terminal import console, stopping
from tailorset.messages import MAX_CHOICES, count, some


def export_data(
    form: Annotated[str, typer.Argument(metavar="FORMAT", help=f"One of {', '.join(FORMATS)}")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New folder to write to (default: export-FORMAT)")
    ] = None,
    photos: Annotated[bool, typer.Option("--photos", help="Export the annotated photos too")] = False,
    scores: Annotated[
        bool, typer.Option("--scores", help="With the classifier's scores of the test photos; needs --photos")
    ] = False,
    val_share: Annotated[float, typer.Option(min=0, max=1, help="Share of the prompts whose images go to val")] = 0.0,
    test_share: Annotated[float, typer.Option(min=0, max=1, help="Share of the prompts whose images go to test")] = 0.0,
    url: Annotated[str, typer.Option(help="Address at which it will be published, for croissant.json")] = "",
    published: Annotated[str, typer.Option(help="Day on which it will be published, as 2026-12-31")] = "",
) -> None:
    """Export the images that the filter kept, with their labels, scores and origin, for other programs.

    All images of a prompt are in one split. croissant.json describes the export. Run the same command again after an
    interruption to go on.
    """
    from tailorset.commands.exporting import Export
    from tailorset.commands.exporting import export_data as write

    params, space = params_and_labels()
    target = output or Path(f"export-{form}")
    with stopping():
        summary = write(Export(form, target, photos, scores, val_share, test_share, url, published), params, space)
    for title, number in summary.images.items():
        console.print(f"{title}: {count(number, 'image')}")
    expected = space.names if photos else space.unseen
    if never := [label for label in expected if not summary.labels[label]]:
        console.print(f"no image shows {some(never, MAX_CHOICES)}")
    total = count(sum(summary.images.values()), "image")
    console.print(f"{target}: {total}, described in croissant.json")


def import_data(
    source: Annotated[Path, typer.Argument(help="Corrected file, or a folder with it")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New .csv file")] = Path("corrected.csv"),
    images: Annotated[Path | None, typer.Option(help="Folder of the pictures (default: that of the file)")] = None,
) -> None:
    """Read labels that people corrected, as annotations of the data set `folder`.

    Reads FiftyOne's labels.json, Label Studio's JSON, and exports of tailorset in one of these.
    """
    from tailorset.commands.importing import import_labels

    _, space = params_and_labels()
    with stopping():
        for line in import_labels(source, output, images, space):
            console.print(line)
