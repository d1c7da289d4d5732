"""`./run drivers`: lists and adds drivers, and prints their credentials."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from doorstep.credentials import driver_token, mqtt_password
from ops.commands.broker_users import print_secrets, read_driver_ids
from ops.console import print_line
from ops.stack.stack import Stack

ACTIONS = ("list", "add", "token", "password")
DESCRIPTION = "List the drivers, add some, or print the credentials of their devices."
EXAMPLES = """examples:
  ./run drivers                      list all drivers
  ./run drivers add anna bruno       register drivers; may be repeated
  ./run drivers token anna           the bearer token for driver_api
  ./run drivers password anna        the password for MQTT; the user name is the driver's id

With one id, `token` and `password` print the secret only; with several, `id secret` lines."""


def drivers(stack: Stack, options: argparse.Namespace) -> int:
    """Run the command; the return value is the exit status."""
    if options.action != "list" and not options.driver_ids:
        print_line(f"run: name at least one id: ./run drivers {options.action} ID...")
        return 2
    if options.action == "add":
        return _add(stack, options.driver_ids)
    registered = read_driver_ids(stack)
    if options.action == "list":
        print("\n".join(registered))
        return 0
    unknown = [driver_id for driver_id in options.driver_ids if driver_id not in registered]
    if unknown:
        names = " ".join(unknown)
        print_line(f"run: no driver is named {names}; to add: ./run drivers add {names}")
        return 1
    derive = driver_token if options.action == "token" else mqtt_password
    key = stack.paths.fleet_key()
    print_secrets(options.driver_ids, lambda driver_id: derive(key, driver_id))
    return 0


def _add(stack: Stack, driver_ids: Sequence[str]) -> int:
    before = set(read_driver_ids(stack))
    stack.add_drivers(driver_ids)
    existing = [driver_id for driver_id in driver_ids if driver_id in before]
    added = len(driver_ids) - len(existing)
    if existing:
        print_line(f"registered already: {' '.join(existing)}")
    if added:
        print_line(f"added {added}; the MQTT user name is the driver's id")
    return 0
