"""`./run retention` sets every kind that the schema keeps. Replaces nothing."""

from __future__ import annotations

import re
from pathlib import Path

from ops.commands.retention_command import WHAT

ROOT = Path(__file__).parents[3]
INSERTED = re.compile(r"INSERT INTO retention .*?;\n", re.DOTALL)


def kinds_of_the_schema() -> set[str]:
    text = "".join(file.read_text("utf-8") for file in (ROOT / "sql" / "schema").glob("*.sql"))
    return set(re.findall(r"\('(\w+)', \d+, \d+\)", "".join(INSERTED.findall(text))))


def test_retention__kinds__are_those_of_the_schema_and_of_the_docs() -> None:
    kinds = {*kinds_of_the_schema(), "history"}  # of the table limits
    page = (ROOT / "docs" / "how-to" / "personal-data.md").read_text("utf-8")
    assert set(WHAT) == kinds == set(re.findall(r"(?m)^- `(\w+)` \(\d+, at least", page))
