"""QR codes of links."""

from __future__ import annotations

from io import StringIO

import segno


def qr_svg(link: str) -> str:
    """Draw a link as an SVG image, dark on light, with the margin that scanners need."""
    code = segno.make_qr(link, error="L")
    return code.svg_inline(border=4, dark="#000", light="#fff", omitsize=True)


def qr_text(link: str) -> str:
    """Draw a link with half blocks, for a terminal."""
    text = StringIO()
    segno.make_qr(link, error="L").terminal(text, border=2, compact=True)
    return text.getvalue()
