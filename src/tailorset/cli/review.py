"""Commands with a local page for a person's labels: annotate photos, review generated images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tailorset.cli.models import check_address, params_and_labels, run_server
from tailorset.commands.terminal import console, or_stop, stopping

if TYPE_CHECKING:
    from tailorset.serving.reviewing import Desk

HOST = "127.0.0.1"  # the page writes files, so no other machine is let in
DRAIN_S = 5
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 = any free port")]


def annotate(
    guess: Annotated[bool, typer.Option(help="Tick the labels that raw CLIP (clip.discriminator) finds")] = True,
    port: Port = 8010,
) -> None:
    """Annotate photos of the data set `folder` on a local page; each is saved to the table of annotations at once.

    Run the same command again to go on.
    """
    from tailorset.commands.annotating import ClipGuess, photo_desk
    from tailorset.compute.device import resolve_device

    check_address(HOST, port)
    params, space = params_and_labels()
    desk = or_stop(photo_desk, params, space)
    if guess:
        with stopping():
            clip = params.clip.discriminator.load(resolve_device(params.device))
            desk.guess = ClipGuess(clip, space.names, params.clip.prompt_template)
    _open(desk, port)


def review(
    rejected: Annotated[bool, typer.Option("--rejected", help="Show the images that the filter rejected")] = False,
    port: Port = 8010,
) -> None:
    """Review generated images on a local page: strike them out or correct their labels; `make run` applies it.

    Run the same command again to go on.
    """
    from tailorset.commands.reviewing import image_desk

    check_address(HOST, port)
    _, space = params_and_labels()
    _open(or_stop(image_desk, space, rejected), port)


def _open(desk: Desk, port: int) -> None:
    from tailorset.serving.reviewing import create_review_app

    console.print(f"{len(desk.saved()):,} of {len(desk.ids):,} images are saved. {desk.help}")
    if port:
        console.print(f"Open http://{HOST}:{port}/; Ctrl-C ends")
    run_server(create_review_app(desk), HOST, port, DRAIN_S)
