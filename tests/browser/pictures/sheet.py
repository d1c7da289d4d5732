"""Contact sheets: thumbnails in a grid with a caption under each, as a WebP of a bounded size."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

MAX_BYTES = 250_000
QUALITIES = (80, 70, 60, 50, 40, 30, 20)
GAP, CAPTION_HEIGHT, FONT_SIZE = 14, 24, 14  # pixels
GROUND, INK, FRAME = "#ffffff", "#16202c", "#b9c2cc"


@dataclass(frozen=True)
class Cell:
    """One picture of a page."""

    caption: str
    png: bytes


def save_sheet(cells: list[Cell], file: Path, *, width: int, columns: int) -> int:
    """Save a sheet of thumbnails `width` pixels wide; return its size in bytes."""
    thumbnails = [_thumbnail(cell.png, width) for cell in cells]
    rows = [thumbnails[n : n + columns] for n in range(0, len(cells), columns)]
    heights = [max(one.height for one in row) for row in rows]
    tops = [GAP + sum(heights[:n]) + n * (CAPTION_HEIGHT + GAP) for n in range(len(rows) + 1)]
    sheet = Image.new("RGB", (GAP + columns * (width + GAP), tops[-1]), GROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT_SIZE)
    for n, (cell, picture) in enumerate(zip(cells, thumbnails, strict=True)):
        x, y = GAP + n % columns * (width + GAP), tops[n // columns]
        sheet.paste(picture, (x, y))
        frame = (x - 1, y - 1, x + picture.width, y + picture.height)
        draw.rectangle(frame, outline=FRAME)
        caption = cell.caption
        while font.getlength(caption) > width:
            caption = caption[:-2] + "…"
        draw.text((x, y + heights[n // columns] + 3), caption, fill=INK, font=font)
    file.parent.mkdir(parents=True, exist_ok=True)
    for quality in QUALITIES:
        encoded = io.BytesIO()
        sheet.save(encoded, "WEBP", quality=quality, method=6)
        if encoded.tell() <= MAX_BYTES:
            break
    file.write_bytes(encoded.getvalue())
    return encoded.tell()


def _thumbnail(png: bytes, width: int) -> Image.Image:
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    height = round(picture.height * width / picture.width)
    return picture.resize((width, height), Image.Resampling.LANCZOS)
