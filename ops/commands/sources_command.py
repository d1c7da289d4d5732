"""`./run sources`: lists and adds the sources of series, and prints their passwords."""

from __future__ import annotations

import argparse

from doorstep.credentials import mqtt_password
from ops.commands.broker_users import print_secrets, read_source_ids
from ops.console import print_line
from ops.stack.stack import Stack

ACTIONS = ("list", "add", "password")
DESCRIPTION = "List the sources of series, add some, or print their MQTT passwords."
EXAMPLES = """examples:
  ./run sources                      list all sources
  ./run sources add weather          register a source; may be repeated
  ./run sources password weather     the password for MQTT; the user name is the source's id

A source publishes numbers to doorstep/v1/series/SOURCE/MEASURE. With one id, `password` prints only
the password; with several, `id password` lines."""


def sources(stack: Stack, options: argparse.Namespace) -> int:
    """Run the command; the return value is the exit status."""
    if options.action != "list" and not options.source_ids:
        print_line(f"run: name at least one id: ./run sources {options.action} ID...")
        return 2
    if options.action == "add":
        stack.add_sources(options.source_ids)
        return 0
    registered = read_source_ids(stack)
    if options.action == "list":
        print("\n".join(registered))
        return 0
    unknown = [source_id for source_id in options.source_ids if source_id not in registered]
    if unknown:
        names = " ".join(unknown)
        print_line(f"run: no source is named {names}; to add: ./run sources add {names}")
        return 1
    key = stack.paths.fleet_key()
    print_secrets(options.source_ids, lambda source_id: mqtt_password(key, source_id))
    return 0
