"""The file of rotated devices' secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from doorstep.credentials import DeviceSecrets
from doorstep.errors import SettingsError
from doorstep.secrets_file import keep_secrets, read_secrets


def test_secrets__kept_twice__the_newest_counts_and_only_their_user_may_read(
    tmp_path: Path,
) -> None:
    file = tmp_path / "devices"
    assert read_secrets(file) == {}
    drawn = [DeviceSecrets.draw("driver") for _ in range(2)]
    for generation, secrets in enumerate(drawn, start=1):
        keep_secrets(file, "anna", generation, secrets)
    keep_secrets(file, "weather", 1, DeviceSecrets("password", None))
    kept = read_secrets(file)
    assert (kept["anna"].generation, kept["anna"].secrets) == (2, drawn[1])
    assert kept["weather"].secrets == DeviceSecrets("password", None)
    assert file.stat().st_mode & 0o777 == 0o600


def test_secrets__malformed_line__is_reported_without_the_secret(tmp_path: Path) -> None:
    file = tmp_path / "devices"
    file.write_text("anna 1 s3cret\n")
    with pytest.raises(SettingsError) as refusal:
        read_secrets(file)
    assert "s3cret" not in str(refusal.value)


def test_device_secrets__drawn__are_random_and_not_in_their_representation() -> None:
    first, second = DeviceSecrets.draw("driver"), DeviceSecrets.draw("driver")
    assert first != second
    assert first.token is not None
    assert first.mqtt_password not in repr(first)
    assert DeviceSecrets.draw("source").token is None
    assert first.hashes()[0] != first.hashes()[0]  # another salt
