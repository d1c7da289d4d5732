"""`./run up`, `down`, `status` and `logs`."""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

from ops.console import print_line
from ops.stack.certificates import CertificateAuthority, fingerprint
from ops.stack.stack import Stack
from ops.stack.tls_config import TlsConfig
from ops.stack.upgrade import upgrade as upgrade_stack

UP_EXAMPLES = """examples:
  ./run up                                start it; does nothing if it is up
  MQTT_BROKERS=3 ./run up                 with three brokers
  DOORSTEP_BIND=0.0.0.0 ./run up --tls    reachable from other machines, with TLS
  ./run up --ha                           with a standby database and three Kafka nodes
  ./run up --observe                      with Prometheus, Alertmanager and the page /observe"""
DOWN_EXAMPLES = """examples:
  ./run down                              stop it; the data are kept
  ./run down --erase                      also delete all data and secrets"""
UPGRADE_DESCRIPTION = """Bring the running stack to this code: migrate the database, then restart
the services one by one. Devices lose no fix, and streams resume. docs/how-to/upgrade.md"""
STATUS_EXAMPLES = """examples:
  ./run status
  ./run status --json

The exit status is 0 if all processes are ready, else 1."""
LOGS_EXAMPLES = """examples:
  ./run logs                              the last 20 lines of each log
  ./run logs bridge --follow              new lines of one log
  ./run logs mosquitto -n 100             of all brokers"""


def up(stack: Stack, _options: argparse.Namespace) -> int:
    """Start the stack and print its addresses."""
    stack.up()
    addresses = stack.addresses
    for line in describe_public(stack):
        print(line)
    print(f"API reference http://{addresses.tracking_api_internal}/docs")
    print(f"              http://{addresses.driver_api_internal}/docs")
    print(f"sign in       {stack.public_url}/sign-in#{stack.paths.staff_token()}")
    print(f"staff token   {stack.paths.staff_token_file}")
    if addresses.prometheus is not None:
        print(f"monitoring    {stack.public_url}/observe")
        print(f"              http://{addresses.prometheus} (Prometheus)")
        print(f"              http://{addresses.alertmanager} (Alertmanager)")
    owner_pid = stack.owner_pid()
    if owner_pid is not None:
        print_line(
            f"{_owner_name(owner_pid)} (pid {owner_pid}) started this stack and will stop it"
        )
    return 0


def describe_public(stack: Stack) -> list[str]:
    """Describe the addresses for devices, customers and staff, a line each."""
    addresses, paths = stack.addresses, stack.paths
    if addresses.https is None:
        return [
            f"tracking_api  {addresses.tracking_api_url}   (map: /fleet)",
            f"driver_api    {addresses.driver_api_url}",
            f"MQTT          {addresses.mqtt_url}",
        ]
    lines = [
        f"tracking_api  {stack.public_url}   (map: /fleet)",
        f"driver_api    {stack.public_url}/driver-api",
        f"MQTT          {addresses.mqtt_tls_url}",
    ]
    if TlsConfig.load(paths.tls_file).has_own_authority:
        authority = CertificateAuthority(paths.tls).certificate
        lines += [
            f"authority     {authority}   (phones: {stack.public_url}/ca.crt)",
            f"              SHA-256 {fingerprint(authority)}",
        ]
    return lines


def down(stack: Stack, options: argparse.Namespace) -> int:
    """Stop the stack; with --erase, delete its data and secrets."""
    was_up = stack.is_up()
    stack.down(erase=options.erase)
    print_line("stopped" if was_up else "the stack was not up")
    if options.erase:
        print_line("its data and secrets are deleted")
    return 0


def upgrade(stack: Stack, _options: argparse.Namespace) -> int:
    """Upgrade the running stack, service by service. Raises StackError."""
    upgrade_stack(stack, print_line)
    return 0


def status(stack: Stack, options: argparse.Namespace) -> int:
    """Print a line per process. The exit status is 0 if all are ready."""
    states = stack.status()
    if options.json:
        print(json.dumps([state.to_json() for state in states]))
    elif not states:
        print("the stack is not up")
    else:
        for state in states:
            ready = f"ready {state.detail}".strip() if state.ready else state.detail or "not ready"
            print(f"{state.name:<15} {state.address:<22} pid {state.pid:<8} {ready}")
    return 0 if states and all(state.ready for state in states) else 1


def logs(stack: Stack, options: argparse.Namespace) -> int:
    """Print the last lines of the logs, of all processes or of one."""
    files = stack.log_files()
    chosen = [
        path
        for name, path in files.items()
        if options.process is None or _matches(options.process, name)
    ]
    if options.process is not None and not chosen:
        print_line(f"run: {options.process!r} has no log; these have one: {', '.join(files)}")
        return 2
    argv = ["tail", "-n", str(options.lines), *(["-F"] if options.follow else [])]
    return subprocess.run([*argv, *map(str, chosen)], check=False).returncode if chosen else 0


def _matches(asked: str, process: str) -> bool:
    """Whether a process is meant: `mosquitto` means mosquitto-1 and all other brokers."""
    return process == asked or process.rpartition("-")[0] == asked


def _owner_name(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        words = []
    return "a demo" if b"demo" in words else "another command"
