"""A drawn photo of a delivery: a parcel at a door."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw


def delivery_photo() -> bytes:
    """A JPEG of 800 × 600 pixels."""
    picture = Image.new("RGB", (800, 600), "#cbb9a0")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 470, 800, 600), fill="#8a8f94")
    draw.rectangle((250, 60, 550, 470), fill="#5b3a29", outline="#3c261b", width=10)
    draw.ellipse((505, 260, 530, 285), fill="#d9b44a")
    draw.rectangle((330, 380, 520, 520), fill="#c98f4f", outline="#8c5f2e", width=6)
    draw.line((425, 380, 425, 520), fill="#8c5f2e", width=10)
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=80)
    return encoded.getvalue()
