"""What each service role may do, as the page docs/reference/database-roles.md shows it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg

from sql import query
from sql.migrate import PASSWORD_VARIABLES

ROLES = sorted(PASSWORD_VARIABLES)
HEAD = """\
# Database roles

What each role may do, as `python -m sql roles` prints it. A test tries all that is not listed.
Only `doorstep_owner` writes tables; the functions write with its rights.

- `driver_…` functions take a driver's token, `customer_…` functions a link's and `restaurant_…`
  functions that of a restaurant's staff: the role can act for its holder only.
  `command_order_as_staff_v1` records staff, whatever calls it.
- `create_order_v2` and `replace_customer_token_v1` add customers' tokens, `change_staff_v2` and
  `open_staff_session_v2` staff's, and `change_device_v2` and `open_driver_session_v1` drivers'.
"""

Grant = tuple[str, str, str]
"""An object, a role, and what it may do with it."""


def read_grants(conn: psycopg.Connection[Any], kind: str) -> list[Grant]:
    """Read the grants on `functions`, `tables` or `containers`."""
    return conn.execute(query(kind, "roles.sql"), {"roles": ROLES}).fetchall()


def page(conn: psycopg.Connection[Any]) -> str:
    """Return the page. A role that may use no object of a section is not in it."""
    sections = [
        f"## {title}\n\n{_block(read_grants(conn, kind))}"
        for kind, title in (
            ("containers", "Database"),
            ("tables", "Tables"),
            ("functions", "Functions"),
        )
    ]
    return "\n".join([HEAD, *sections])


def _block(grants: Iterable[Grant]) -> str:
    objects: dict[str, list[str]] = {}
    for name, role, rights in grants:
        objects.setdefault(role, []).append(f"    {name}: {rights}" if rights else f"    {name}")
    roles: dict[tuple[str, ...], list[str]] = {}  # by equal rights
    for role in sorted(objects):
        roles.setdefault(tuple(objects[role]), []).append(role)
    lines = [line for rights, some in roles.items() for line in (", ".join(some), *rights)]
    return "".join(f"{line}\n" for line in ["```text", *lines, "```"])
