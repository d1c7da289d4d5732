"""Derived and random secrets, and Mosquitto's entries. Pure: no seam is replaced."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from doorstep import credentials
from doorstep.errors import SettingsError

KEY = bytes(range(32))


def test_mqtt_password__same_key_and_user__same_password() -> None:
    assert credentials.mqtt_password(KEY, "anna") == credentials.mqtt_password(KEY, "anna")


def test_derived_secrets__other_user_key_or_purpose__differ() -> None:
    secrets = {
        credentials.mqtt_password(KEY, "anna"),
        credentials.mqtt_password(KEY, "bruno"),
        credentials.mqtt_password(KEY[::-1], "anna"),
        credentials.driver_token(KEY, "anna").removeprefix("drv_"),
    }

    assert len(secrets) == 4


def test_derived_secrets__in_a_url__need_no_quoting() -> None:
    for number in range(200):
        password = credentials.mqtt_password(KEY, f"driver-{number}")
        assert not set(password) & set("+/= :@%")


def test_tokens__new__have_their_prefix_and_never_repeat() -> None:
    assert credentials.driver_token(KEY, "anna").startswith("drv_")
    assert credentials.new_staff_token().startswith("stf_")
    assert credentials.new_customer_token().startswith("cst_")
    assert credentials.new_customer_token() != credentials.new_customer_token()


def test_token_sha256__any_text__has_a_digest() -> None:
    assert credentials.token_sha256("abc") == hashlib.sha256(b"abc").digest()
    assert len(credentials.token_sha256("\ud800")) == 32


def test_mosquitto_entry__any_user__holds_only_the_pbkdf2_hash() -> None:
    entry = credentials.mosquitto_entry(KEY, "anna")
    user, _, rest = entry.partition(":")
    kind, rounds, salt, digest = rest.removeprefix("$").split("$")
    password = credentials.mqtt_password(KEY, "anna")

    assert (user, kind) == ("anna", "7")
    assert base64.b64decode(digest) == hashlib.pbkdf2_hmac(
        "sha512", password.encode(), base64.b64decode(salt), int(rounds)
    )
    assert password not in entry


def test_fleet_key__encoded_and_read__is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "fleet.key"
    key = credentials.new_fleet_key()
    path.write_text(credentials.encode_fleet_key(key))

    assert credentials.read_fleet_key(path) == key


@pytest.mark.parametrize("text", ["", "zz", "abcd", "00" * 31, "00" * 33])
def test_fleet_key__malformed__is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        credentials.decode_fleet_key(text)


def test_fleet_key__missing_file__is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nothing\.key"):
        credentials.read_fleet_key(tmp_path / "nothing.key")
