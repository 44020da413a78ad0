"""Contact sheets: images in a grid, each with its caption below, to look at the results of a stage."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

FONT_PX = 11
LINE_PX = 14
GAP_PX = 8
MIN_TILE_PX = 88  # about 14 letters: narrower captions break into single words
BACKGROUND, INK = (255, 255, 255), (20, 20, 20)


def contact_sheet(
    images: Sequence[np.ndarray], captions: Sequence[str], columns: int, scale: int = 2, title: str = ""
) -> Image.Image:
    """Lay `images` out row by row, enlarged `scale` times without smoothing, captions wrapped under each tile.

    images: (H, W, 3) uint8 each, sizes may differ; captions: one per image, "\\n" starts a new line.
    title: one line above all.

    Raises: ValueError for no images, a caption missing, an array of another shape or dtype, columns or scale < 1.
    """
    _check(images, captions, columns, scale)
    font = ImageFont.load_default(FONT_PX)
    image_width = scale * max(image.shape[1] for image in images)
    words = [word for caption in captions for word in caption.split()]
    width = max([image_width, MIN_TILE_PX, *(round(font.getlength(word)) + 1 for word in words)])
    height = scale * max(image.shape[0] for image in images)
    lines = [_wrap(caption, font, width) for caption in captions]

    columns = min(columns, len(images))
    rows = [range(start, min(start + columns, len(images))) for start in range(0, len(images), columns)]
    row_heights = [height + LINE_PX * max(len(lines[i]) for i in row) + GAP_PX for row in rows]
    top = GAP_PX + (LINE_PX if title else 0)
    sheet_width = max(GAP_PX + columns * (width + GAP_PX), round(font.getlength(title)) + 2 * GAP_PX)
    sheet = Image.new("RGB", (sheet_width, top + sum(row_heights)), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP_PX, GAP_PX // 2), title, fill=INK, font=font)
    for row, row_height in zip(rows, row_heights, strict=True):
        for column, i in enumerate(row):
            left = GAP_PX + column * (width + GAP_PX)
            tile = Image.fromarray(images[i])
            sheet.paste(tile.resize((tile.width * scale, tile.height * scale), Image.Resampling.NEAREST), (left, top))
            for line_index, line in enumerate(lines[i]):
                draw.text((left, top + height + 1 + LINE_PX * line_index), line, fill=INK, font=font)
        top += row_height
    return sheet


def sheet_of_kinds(
    images: Sequence[Tensor], captions: Sequence[Sequence[str]], columns: int, tile_px: int
) -> Image.Image:
    """Lay out images of several kinds: rows of each kind in turn, so that corresponding images share a column.

    images: (M, 3, P, P) in [0, 1] of each kind; captions: M of each kind. tile_px: side to which small ones are
    enlarged. Rows are whole: of more than `columns` images the last ones may be left out.
    """
    columns = min(columns, len(images[0]))
    tiles: list[np.ndarray] = []
    texts: list[str] = []
    for start in range(0, len(images[0]) // columns * columns, columns):
        part = slice(start, start + columns)
        for kind, words in zip(images, captions, strict=True):
            tiles += list((kind[part] * 255).round().byte().permute(0, 2, 3, 1).numpy())
            texts += words[part]
    return contact_sheet(tiles, texts, columns, scale=max(1, tile_px // tiles[0].shape[1]))


def _check(images: Sequence[np.ndarray], captions: Sequence[str], columns: int, scale: int) -> None:
    if not images:
        raise ValueError("a contact sheet needs at least one image; skip the sheet when there is nothing to show")
    if len(images) != len(captions):
        raise ValueError(f"{len(images)} images but {len(captions)} captions; give one caption per image")
    if columns < 1 or scale < 1:
        raise ValueError(f"columns={columns}, scale={scale}; both must be at least 1")
    for image in images:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"image of shape {image.shape} and dtype {image.dtype}; convert it to (H, W, 3) uint8")


def _wrap(caption: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> list[str]:
    """Break a caption at spaces so that every line fits `width_px`."""
    lines = []
    for paragraph in caption.split("\n"):
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".strip()
            if line and font.getlength(longer) > width_px:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines
