"""`./run upgrade`: brings a running stack to this code, service by service, under load.

1. The database is migrated and topics are created, while the services of before run.
2. Each service ends and starts again with this code, consumers before producers. The next one
   follows once it is ready.
3. Backups, monitoring and the guard start again. PostgreSQL, Kafka, Mosquitto, Caddy and
   supervisord run on: they read their new configuration at the next `./run down` and `./run up`.

An interrupted upgrade continues with the same command.
"""

from __future__ import annotations

import time

from ops.console import Echo
from ops.stack import monitoring
from ops.stack.addresses import add_addresses
from ops.stack.errors import StackError
from ops.stack.stack import Stack
from ops.stack.supervisor import SUPERVISOR_GUARD, write_config

READY_WITHIN_S = 120.0
POLL_S = 0.1
KIND = "services"


def upgrade(stack: Stack, echo: Echo) -> None:
    """Upgrade the running stack. Raises StackError if it is not up, or a service is not ready."""
    if not stack.is_up():
        raise StackError("the stack is not up: ./run up")
    began = time.monotonic()
    with stack.locked():
        stack.paths.prepare()
        add_addresses(stack.paths.addresses_file, stack.settings, echo)
        stack.read_addresses()
        echo("migrating the database")
        stack.set_up()
        _restart_services(stack, echo)
        _restart_the_rest(stack, echo)
    stack.wait_ready()
    echo(f"upgraded in {time.monotonic() - began:.1f} s")


def _restart_services(stack: Stack, echo: Echo) -> None:
    supervisor, before = stack.supervisor, stack.supervisor.groups(KIND)
    # supervisord can't change a process of a group, so there is a new group. Its processes do not
    # start together, as they would if supervisord itself started.
    group = f"{KIND}-{time.time_ns() // 1_000_000}"
    owner_pid, specs = stack.owner_pid(), stack.process_specs()
    write_config(stack.paths, specs, owner_pid, waiting={KIND: group})
    supervisor.read_config()
    supervisor.add_group(group)
    write_config(stack.paths, specs, owner_pid)  # for the next supervisord
    for spec in reversed([one for one in specs if one.kind == KIND]):
        echo(f"restarting {spec.name}")
        supervisor.move(spec.name, before, to=group)
        _wait_ready(stack, spec.name)
    for one in before:
        supervisor.remove_group(one)


def _wait_ready(stack: Stack, name: str) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while True:
        found = next((one for one in stack.status() if one.name == name), None)
        if found is not None and found.ready:
            return
        if time.monotonic() > deadline:
            detail = found.detail or found.state if found else "it does not run"
            raise StackError(
                f"{name} is not ready after {READY_WITHIN_S:.0f} s ({detail}): see "
                f"./run logs {name}; ./run upgrade continues"
            )
        time.sleep(POLL_S)


def _restart_the_rest(stack: Stack, echo: Echo) -> None:
    supervisor = stack.supervisor
    supervisor.read_config()
    if stack.addresses.prometheus is not None:
        monitoring.prepare(stack.paths, stack.addresses, stack.settings, echo)
    for kind in ("backups", "monitoring", SUPERVISOR_GUARD):
        if supervisor.groups(kind):
            supervisor.stop_group(kind)
            supervisor.replace_group(kind)
