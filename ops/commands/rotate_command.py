"""`./run rotate-secrets`: replaces the passwords of services."""

from __future__ import annotations

import argparse

from ops.console import print_line
from ops.stack.rotation import rotate_secrets
from ops.stack.stack import Stack

DESCRIPTION = """Replace the passwords of the database roles, of Kafka's principals and of the
services at the brokers, and the token between services. Services, brokers and
Kafka start again, which takes half a minute; devices send again what is missing: no fix is lost."""
EXAMPLES = """examples:
  ./run rotate-secrets

It does not replace secrets of devices (./run drivers rotate), of staff (./run staff rotate), or
fleet.key. If it is interrupted: ./run down, then ./run up.

In containers, which start again with the new passwords:
  ./run compose-secrets --rotate && docker compose up -d"""


def rotate(stack: Stack, _options: argparse.Namespace) -> int:
    """Run the command; the return value is the exit status. Raises StackError."""
    rotate_secrets(stack, print_line)
    print_line("every service uses its new password")
    return 0
