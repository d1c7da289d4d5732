"""The pages: customer, fleet and series. `npm run build` writes them to `dist/`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

DIST: Final = Path(__file__).resolve().parent / "dist"
