"""The random secrets of devices that the launcher rotated, kept for its commands and simulators.

One line per rotation, `id generation password token`; the last one of an id counts. A source's
token is `-`. The file is on the launcher's machine only, and only its user may read it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from doorstep.credentials import DeviceSecrets
from doorstep.errors import SettingsError

FILE_NAME = "devices"  # beside the fleet key
NO_TOKEN = "-"  # noqa: S105


@dataclass(frozen=True, slots=True)
class KeptSecrets:
    """A device's secrets, and the generation that they are of."""

    generation: int
    secrets: DeviceSecrets


def read_secrets(path: Path) -> dict[str, KeptSecrets]:
    """Read the newest secrets by id; none if there is no file. Raises SettingsError."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"cannot read the secrets {path}: {exc}") from exc
    kept = {}
    for line in lines:
        try:
            device_id, generation, password, token = line.split()
            secrets = DeviceSecrets(password, None if token == NO_TOKEN else token)
            kept[device_id] = KeptSecrets(int(generation), secrets)
        except ValueError as exc:
            raise SettingsError(f"{path} has a malformed line") from exc
    return kept


def keep_secrets(path: Path, device_id: str, generation: int, secrets: DeviceSecrets) -> None:
    """Append a device's new secrets."""
    line = f"{device_id} {generation} {secrets.mqtt_password} {secrets.token or NO_TOKEN}\n"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w") as file:
        file.write(line)
