"""Make what docker-compose.yml needs and nobody else may know: `./run compose-secrets`.

.env                    the settings of .env.example, with a random password in each empty place
.doorstep/compose/      mode 0700
├── fleet.key           every device's password and token is derived from it
└── staff.token         staff's token for both APIs

git ignores all of it. What exists is kept, so it is safe to run again; the volumes hold the same
passwords, so make new secrets only together with new volumes (`docker compose down -v`). Needs
nothing but Python: `python3 -m ops.stack.compose_secrets` works before anything is installed.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from doorstep.credentials import (
    decode_fleet_key,
    encode_fleet_key,
    mqtt_password,
    new_fleet_key,
    new_staff_token,
)
from doorstep.errors import DoorstepError, SettingsError

PROJECT = Path(__file__).resolve().parents[2]
SECRETS = Path(".doorstep") / "compose"
PASSWORD_BYTES = 24
ASSIGNMENT = re.compile(r"(?m)^(?P<name>[A-Z][A-Z0-9_]*)=(?P<value>.*)$")


def make_secrets(project: Path) -> list[Path]:
    """Write the files that are missing, and return them.

    Raises SettingsError if .env was made with another fleet key or staff token.
    """
    written: list[Path] = []
    folder = project / SECRETS
    environment = project / ".env"
    if environment.exists() and not folder.exists():
        raise SettingsError(f".env exists, but not {SECRETS}/: restore that, or delete .env, too")
    folder.mkdir(parents=True, exist_ok=True)
    # The files are mounted into containers whose users are not this one, so everybody may read
    # them; the folder keeps everybody else of this machine out.
    folder.chmod(0o700)
    for name, text in (
        ("fleet.key", encode_fleet_key(new_fleet_key())),
        ("staff.token", new_staff_token() + "\n"),
    ):
        if _write_once(folder / name, text, 0o644):
            written.append(folder / name)
    key = decode_fleet_key((folder / "fleet.key").read_text(encoding="ascii"))
    derived = {
        "BRIDGE_MQTT_PASSWORD": mqtt_password(key, "bridge"),
        "DRIVER_EVENTS_MQTT_PASSWORD": mqtt_password(key, "driver_events"),
        "STAFF_TOKEN": (folder / "staff.token").read_text(encoding="ascii").strip(),
    }
    example = (project / ".env.example").read_text(encoding="utf-8")
    if _write_once(environment, fill(example, derived), 0o600):
        written.append(environment)
    found = {
        match["name"]: match["value"] for match in ASSIGNMENT.finditer(environment.read_text())
    }
    strangers = [name for name, value in derived.items() if found.get(name) != value]
    if strangers:
        raise SettingsError(
            f"{', '.join(strangers)} in .env and the files in {SECRETS}/ do not belong together: "
            "restore the missing one, or delete both (and the volumes) to start afresh"
        )
    return written


def fill(example: str, derived: Mapping[str, str]) -> str:
    """Put a secret in each empty place: the derived one of that name, or a random password."""

    def filled(match: re.Match[str]) -> str:
        name, value = match["name"], match["value"].strip()
        return f"{name}={value or derived.get(name) or secrets.token_urlsafe(PASSWORD_BYTES)}"

    return ASSIGNMENT.sub(filled, example)


def _write_once(path: Path, text: str, mode: int) -> bool:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text)
    path.chmod(mode)
    return True


def main() -> int:
    """Make the secrets and say where they are."""
    argparse.ArgumentParser(
        prog="./run compose-secrets",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    try:
        written = make_secrets(PROJECT)
    except (OSError, DoorstepError) as exc:
        print(f"compose-secrets: {exc}", file=sys.stderr)
        return 1
    for path in written:
        print(f"made {path.relative_to(PROJECT)}")
    if not written:
        print("nothing to do: .env and .doorstep/compose/ exist")
    return 0


if __name__ == "__main__":
    sys.exit(main())
