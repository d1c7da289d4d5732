"""What `./run drivers` and `./run sources` share: the devices that log in at the brokers."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from doorstep.credentials import DeviceSecrets
from doorstep.fix import ID_PATTERN
from doorstep.store.people import Device
from ops.console import print_line
from ops.stack.stack import Stack

CHANGES = ("revoke", "rotate", "remove")
Secret = Callable[[DeviceSecrets], str | None]


@dataclass(frozen=True, slots=True)
class DeviceCommand:
    """A command over one kind of device. `secrets` has a function per action that prints one."""

    kind: str  # driver or source
    secrets: Mapping[str, Secret]
    add: Callable[[Stack, Sequence[str]], list[Device]]

    def run(self, stack: Stack, action: str, ids: Sequence[str], *, show_all: bool) -> int:
        """Run one action; the return value is the exit status."""
        if action != "list" and not ids:
            print_line(f"run: name at least one id: ./run {self.kind}s {action} ID...")
            return 2
        if action == "add":
            return self._add(stack, ids)
        devices = stack.devices(self.kind)
        if action == "list":
            self._list(devices, show_all=show_all)
            return 0
        found = {one.device_id: one for one in devices if one.state != "removed"}
        unknown = [one for one in ids if one not in found]
        if unknown:
            print_line(not_found(self.kind, unknown, found))
            return 1
        if action in CHANGES:
            return self._change(stack, action, ids)
        return self._print_secrets(stack, action, [found[one] for one in ids])

    def _add(self, stack: Stack, ids: Sequence[str]) -> int:
        before = {one.device_id for one in stack.devices(self.kind) if one.state == "active"}
        locked_out = self.add(stack, ids)
        existing = [one for one in ids if one in before]
        added = len(ids) - len(existing) - len(locked_out)
        if existing:
            print_line(f"registered already: {' '.join(existing)}")
        if added:
            print_line(f"added {added}; the MQTT user name is the {self.kind}'s id")
        for one in locked_out:
            print_line(refusal(one))
        return 1 if locked_out else 0

    def _list(self, devices: Sequence[Device], *, show_all: bool) -> None:
        for one in devices:
            if show_all:
                print(f"{one.device_id} {one.state} generation {one.generation}")
            elif one.state == "active":
                print(one.device_id)

    def _change(self, stack: Stack, action: str, ids: Sequence[str]) -> int:
        for one in ids:
            device = stack.change_device(self.kind, one, action)
            if action == "rotate":
                secrets = " and ".join(f"./run {self.kind}s {name} {one}" for name in self.secrets)
                print_line(f"rotated {one} to generation {device.generation}; see {secrets}")
            else:
                print_line(f"{action}d {one}")
        return 0

    def _print_secrets(self, stack: Stack, action: str, devices: Sequence[Device]) -> int:
        locked_out = [one for one in devices if one.state != "active"]
        for one in locked_out:
            print_line(refusal(one))
        if locked_out:
            return 1
        status = 0
        for one in devices:
            secrets = stack.device_secrets(one)
            if secrets is None:
                print_line(
                    f"run: {one.device_id} got its secrets over the API, and they are not stored; "
                    f"for new ones: ./run {self.kind}s rotate {one.device_id}"
                )
                status = 1
                continue
            secret = self.secrets[action](secrets)
            print(secret if len(devices) == 1 else f"{one.device_id} {secret}")
        return status


def not_found(kind: str, ids: Sequence[str], present: Collection[str]) -> str:
    """Return that there are no such devices, ids like theirs, and the command that adds them."""
    listing = f"all ids: ./run {kind}s"
    bad = [one for one in ids if not re.fullmatch(ID_PATTERN, one)]
    if bad:
        names = " and ".join(map(repr, bad))
        return f"run: {names} can't be a {kind}'s id: 1 to 64 letters, digits, _ or -; {listing}"
    names = " ".join(ids)
    lowered = {one.lower(): one for one in present}
    close = {
        lowered[like]
        for one in ids
        for like in get_close_matches(one.lower(), lowered, n=3, cutoff=0.75)
    }
    hint = f" (perhaps {' or '.join(sorted(close))})" if close else ""
    return f"run: no {kind} is named {names}{hint}; {listing}; to add: ./run {kind}s add {names}"


def refusal(device: Device) -> str:
    """Return why a device may not log in, and the command that changes it."""
    name, kind = device.device_id, device.kind
    if device.state == "removed":
        return f"run: {name} was removed; to add it with new secrets: ./run {kind}s add {name}"
    return f"run: {name} is revoked; to give it new secrets: ./run {kind}s rotate {name}"


def add_arguments(parser: argparse.ArgumentParser, actions: Sequence[str]) -> None:
    """Add the arguments of both commands."""
    parser.add_argument("action", nargs="?", choices=actions, default="list")
    parser.add_argument("ids", nargs="*", metavar="ID")
    parser.add_argument(
        "--all", action="store_true", help="list revoked and removed ones too, with their state"
    )
