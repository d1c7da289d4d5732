"""How deep a JSON text is nested, told before it is parsed.

The parser's own limit is Python's recursion limit less the depth of whoever calls, so that the
same text would be too deep in one process and merely no JSON in another.
"""

from __future__ import annotations

import re

MAX_NESTING = 200  # of a whole text; what a field may have is checked after parsing

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")


def is_nested_too_deep(text: str) -> bool:
    """Say whether brackets outside strings open more than MAX_NESTING levels."""
    if text.count("[") + text.count("{") <= MAX_NESTING:
        return False
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_NESTING:
            return True
    return False
