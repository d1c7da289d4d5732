"""`./run sources`: lists, adds and removes sources, and prints or ends their passwords."""

from __future__ import annotations

import argparse

from ops.commands.broker_users import CHANGES, DeviceCommand
from ops.stack.stack import Stack

ACTIONS = ("list", "add", "password", *CHANGES)
DESCRIPTION = "List, add and remove the sources of series, and print or end their MQTT passwords."
EXAMPLES = """examples:
  ./run sources                      list all sources that may log in
  ./run sources add weather          register a source; may be repeated
  ./run sources password weather     the password for MQTT; the user name is the source's id
  ./run sources rotate weather       a new password; `revoke` and `remove` as for drivers

A source publishes numbers to doorstep/v1/series/SOURCE/MEASURE. With one id, `password` prints only
the password; with several, `id password` lines."""

COMMAND = DeviceCommand(
    "source",
    {"password": lambda secrets: secrets.mqtt_password},
    lambda stack, ids: stack.add_sources(ids, again=True),
)


def sources(stack: Stack, options: argparse.Namespace) -> int:
    """Run the command; the return value is the exit status."""
    return COMMAND.run(stack, options.action, options.ids, show_all=options.all)
