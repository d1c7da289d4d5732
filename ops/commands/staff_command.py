"""`./run staff`: adds, lists, rotates and revokes named staff."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime, timedelta

from doorstep.credentials import new_staff_token, token_sha256
from doorstep.errors import SettingsError
from doorstep.provision import owner_connection
from doorstep.store.people import STAFF_ROLES, StaffMember, change_staff, list_staff
from ops.console import operator, print_line
from ops.stack.private_file import replace_file
from ops.stack.stack import Stack

ACTIONS = ("list", "add", "rotate", "revoke")
RESTAURANT = "restaurant"
STACK = "stack"  # the name of the launcher's own token
DEFAULT_DAYS = 90
NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}")
DESCRIPTION = "Add, list, rotate and revoke named staff of both APIs."
EXAMPLES = """examples:
  ./run staff                                   list names, roles and expiry
  ./run staff add anna --role dispatcher        print a token that expires in 90 days
  ./run staff rotate anna --days 30             print a new token; the old one ends
  ./run staff rotate anna --role admin          the same, with another role
  ./run staff add mario --role restaurant --restaurant 17   of the restaurant with this id
  ./run staff revoke anna                       end the token within 5 s, open streams included

viewer reads; dispatcher also commands orders and drivers; admin also changes policies, staff and
credentials. restaurant has the page /restaurant with the orders of one restaurant, and nothing
else; integration has no routes yet. Only a token's hash is stored, so it is
shown once. `stack` is the token of the launcher, demo and simulators; it does not expire unless
--days is given."""


def staff(stack: Stack, options: argparse.Namespace) -> int:
    """Run the command; the return value is the exit status. Raises UnknownStaff, StaffExists."""
    if options.action == "list":
        with owner_connection(stack.database_admin_url) as conn:
            for member in list_staff(conn):
                print(_line(member))
        return 0
    name = options.name
    if name is None:
        print_line(f"run: name one: ./run staff {options.action} NAME")
        return 2
    if not NAME.fullmatch(name):
        raise SettingsError(f"{name!r} can't be a name: 1 to 64 letters, digits, _ . @ or -")
    if options.action == "add" and options.role is None:
        print_line(f"run: name a role: ./run staff add {name} --role {'|'.join(STAFF_ROLES)}")
        return 2
    if (options.role == RESTAURANT) != (options.restaurant is not None) and (
        options.action == "add" or options.role is not None
    ):
        print_line(f"run: the role {RESTAURANT}, and only it, needs --restaurant ID")
        return 2
    if options.action == "revoke":
        with owner_connection(stack.database_admin_url) as conn:
            change_staff(conn, name, "revoke", who=operator())
            conn.commit()
        print_line(f"revoked {name}")
        return 0
    token = new_staff_token()
    with owner_connection(stack.database_admin_url) as conn:
        member = change_staff(
            conn,
            name,
            options.action,
            who=operator(),
            role=options.role,
            restaurant_id=options.restaurant,
            token_sha256=token_sha256(token),
            expires_at=_expiry(name, options.days),
        )
        conn.commit()
    if name == STACK:
        replace_file(stack.paths.staff_token_file, token + "\n")
        print_line(f"the new token is in {stack.paths.staff_token_file}")
    else:
        print(token)
    print_line(_line(member))
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("action", nargs="?", choices=ACTIONS, default="list")
    parser.add_argument("name", nargs="?", metavar="NAME")
    parser.add_argument("--role", choices=STAFF_ROLES)
    parser.add_argument("--restaurant", type=int, metavar="ID", help="of the role restaurant")
    parser.add_argument("--days", type=int, metavar="N", help="until the token expires (90)")


def _expiry(name: str, days: int | None) -> datetime | None:
    if days is None and name == STACK:
        return None
    return datetime.now(UTC) + timedelta(days=DEFAULT_DAYS if days is None else days)


def _line(member: StaffMember) -> str:
    name = f"{member.name} {member.role}"
    if member.restaurant_id is not None:
        name = f"{name} {member.restaurant_id}"
    if member.revoked_at is not None:
        return f"{name} revoked at {member.revoked_at:%Y-%m-%d %H:%M}"
    if member.expires_at is None:
        return name
    verb = "expires" if member.expires_at > datetime.now(UTC) else "expired"
    return f"{name} {verb} at {member.expires_at:%Y-%m-%d %H:%M}"
