"""Creates the secrets of docker-compose.yml: `./run compose-secrets [--rotate]`.

.env                    a copy of .env.example with a random password in each empty place
.doorstep/compose/      mode 0700
├── fleet.key           the password and token of each device derive from it
├── staff.token         the staff token of both APIs
├── lib/                empty; the agent for Kafka's figures goes here
└── tls/                empty; server.crt and server.key of your own go here
.doorstep/cities/       of ./run city

git ignores these files. Existing files are kept, so the command may be repeated; it adds variables
of a later release to .env. --rotate replaces the secrets in .env, except VAPID_KEY and
POSTGRES_PASSWORD, which the volume stores, and keeps .doorstep/compose/; then `docker compose up
-d` starts the containers again, and `provision` brings the new passwords to PostgreSQL and Kafka.
The command needs Python only and works before anything is installed.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import sys
from pathlib import Path

from doorstep.credentials import (
    decode_fleet_key,
    encode_fleet_key,
    new_fleet_key,
    new_staff_token,
)
from doorstep.errors import DoorstepError, SettingsError
from ops.stack.private_file import replace_file

PROJECT = Path(__file__).resolve().parents[2]
SECRETS = Path(".doorstep") / "compose"
CITIES = Path(".doorstep") / "cities"  # mounted, so it has to exist
PASSWORD_BYTES = 24
# Read only when the volume is created; and bound to browsers' subscriptions.
KEPT = ("POSTGRES_PASSWORD", "VAPID_KEY")
ASSIGNMENT = re.compile(r"(?m)^(?P<name>[A-Z][A-Z0-9_]*)=(?P<value>.*)$")


def make_secrets(project: Path) -> list[Path]:
    """Write missing files and return their paths.

    Raises SettingsError if .env exists without the other files, or the fleet key is malformed.
    """
    written: list[Path] = []
    folder = project / SECRETS
    environment = project / ".env"
    if environment.exists() and not folder.exists():
        raise SettingsError(f".env exists, but {SECRETS}/ does not: restore it, or delete .env too")
    folder.mkdir(parents=True, exist_ok=True)
    # The containers' users must be able to read the mounted files. The folder's mode protects them
    # from other users of this machine.
    folder.chmod(0o700)
    (folder / "tls").mkdir(exist_ok=True)
    (project / CITIES).mkdir(exist_ok=True)
    (folder / "lib").mkdir(exist_ok=True)
    for name, text in (
        ("fleet.key", encode_fleet_key(new_fleet_key())),
        ("staff.token", new_staff_token() + "\n"),
    ):
        if _write_once(folder / name, text, 0o644):
            written.append(folder / name)
    decode_fleet_key((folder / "fleet.key").read_text(encoding="ascii"))
    example = (project / ".env.example").read_text(encoding="utf-8")
    if _write_once(environment, fill(example), 0o600) or _add_new_variables(environment, example):
        written.append(environment)
    return written


def fill(example: str) -> str:
    """Fill each empty value with a random password."""

    def fill_line(match: re.Match[str]) -> str:
        name, value = match["name"], match["value"].strip()
        return f"{name}={value or secrets.token_urlsafe(PASSWORD_BYTES)}"

    return ASSIGNMENT.sub(fill_line, example)


def rotate(project: Path) -> list[str]:
    """Replace the secrets in .env, and return their names. Raises SettingsError."""
    environment = project / ".env"
    try:
        text = environment.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SettingsError(".env does not exist: ./run compose-secrets creates it") from None
    example = (project / ".env.example").read_text(encoding="utf-8")
    empty = {one["name"] for one in ASSIGNMENT.finditer(example) if not one["value"].strip()}
    names = sorted(empty - set(KEPT))

    def renew(match: re.Match[str]) -> str:
        is_secret = match["name"] in names
        return f"{match['name']}={secrets.token_urlsafe(PASSWORD_BYTES)}" if is_secret else match[0]

    replace_file(environment, ASSIGNMENT.sub(renew, text))
    return names


def _add_new_variables(environment: Path, example: str) -> bool:
    """Append variables of a later release's .env.example. Returns whether there were any."""
    text = environment.read_text(encoding="utf-8")
    found = {match["name"] for match in ASSIGNMENT.finditer(text)}
    new = [match[0] for match in ASSIGNMENT.finditer(example) if match["name"] not in found]
    if new:
        with environment.open("a", encoding="utf-8") as file:
            file.write(("" if text.endswith("\n") else "\n") + fill("\n".join(new)) + "\n")
    return bool(new)


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
    """Create the secrets and print their paths; the return value is the exit status."""
    parser = argparse.ArgumentParser(
        prog="./run compose-secrets",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rotate", action="store_true", help="replace the secrets in .env")
    options = parser.parse_args()
    try:
        written = make_secrets(PROJECT)
        if options.rotate:
            print(f"replaced {', '.join(rotate(PROJECT))}")
            print("now: docker compose up -d")
            return 0
    except (OSError, DoorstepError) as exc:
        print(f"compose-secrets: {exc}", file=sys.stderr)
        return 1
    for path in written:
        print(f"created {path.relative_to(PROJECT)}")
    if not written:
        print("nothing to do: .env and .doorstep/compose/ exist")
    return 0


if __name__ == "__main__":
    sys.exit(main())
