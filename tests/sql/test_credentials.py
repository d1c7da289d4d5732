"""Credentials of devices and staff, and the audit, in the database."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from doorstep.credentials import (
    DeviceSecrets,
    driver_token,
    encode_fleet_key,
    mqtt_password,
    token_sha256,
)
from doorstep.errors import (
    DeviceExists,
    DriverUnavailable,
    StaffExists,
    UnknownDriver,
    UnknownStaff,
)
from doorstep.provision import main as provision_main
from doorstep.provision import provision_drivers
from doorstep.store import admin
from doorstep.store.people import (
    Device,
    StaffMember,
    add_devices,
    change_device,
    change_staff,
    changed_devices,
    list_devices,
    read_audit,
)
from tests.database import Database
from tests.sql.fleet import Fleet

KEY = bytes(32)
WHO = "run:test"
ROLES = (
    "driver_events",
    "driver_api",
    "tracking_api",
    "customer",
    "broker_sync",
    "webhooks",
    "doorstep_owner",
)


def role_of(fleet: Fleet, token: bytes) -> str | None:
    rows = fleet.run("SELECT role, name, staff_role FROM find_token_v2(%s)", token)
    return rows[0]["staff_role"] or rows[0]["role"] if rows else None


def add_staff(fleet: Fleet, name: str, role: str, token: bytes, days: float = 1) -> StaffMember:
    expires_at = datetime.now(UTC) + timedelta(days=days)
    return change_staff(
        fleet.conn, name, "add", who=WHO, role=role, token_sha256=token, expires_at=expires_at
    )


def test_staff_token__revoked_and_registered_again_at_the_next_start__stays_revoked(
    fleet: Fleet,
) -> None:
    token, new = secrets.token_bytes(32), secrets.token_bytes(32)
    admin.register_staff_token(fleet.conn, token)
    change_staff(fleet.conn, "stack", "revoke", who=WHO)
    admin.register_staff_token(fleet.conn, token)
    assert role_of(fleet, token) is None
    admin.register_staff_token(fleet.conn, new)
    assert role_of(fleet, new) == "admin"
    admin.register_staff_token(fleet.conn, token)
    assert (role_of(fleet, token), role_of(fleet, new)) == (None, "admin")


def test_driver_token__revoked_and_driver_registered_again__stays_revoked(fleet: Fleet) -> None:
    token = secrets.token_bytes(32)
    admin.register_drivers(fleet.conn, [admin.NewDriver("d1", "d1", token)])
    assert role_of(fleet, token) == "driver"
    change_device(fleet.conn, "driver", "d1", "revoke", WHO)
    admin.register_drivers(fleet.conn, [admin.NewDriver("d1", "d1", token)])
    assert role_of(fleet, token) is None


@pytest.mark.parametrize("change", ["revoke", "remove"])
def test_provision_drivers__one_who_was_locked_out__is_returned_and_stays_so(
    fleet: Fleet, change: str
) -> None:
    assert provision_drivers(fleet.conn, KEY, ["anna", "bruno"], print) == []
    change_device(fleet.conn, "driver", "anna", change, WHO)
    [locked_out] = provision_drivers(fleet.conn, KEY, ["anna", "bruno"], print)
    assert (locked_out.device_id, locked_out.state) == ("anna", f"{change}d")
    assert role_of(fleet, token_sha256(driver_token(KEY, "anna"))) is None
    assert role_of(fleet, token_sha256(driver_token(KEY, "bruno"))) == "driver"


def test_provision_drivers__a_removed_one_again__has_new_random_secrets(fleet: Fleet) -> None:
    provision_drivers(fleet.conn, KEY, ["anna"], print)
    tokens = [driver_token(KEY, "anna")]

    def hand_out(device: Device, secrets: DeviceSecrets) -> None:
        tokens.append(secrets.token or "")
        assert device.generation == len(tokens) - 1

    for _ in range(2):
        change_device(fleet.conn, "driver", "anna", "remove", WHO)
        assert provision_drivers(fleet.conn, KEY, ["anna"], print, again=hand_out) == []
        # registered by a simulator, with what derives from the fleet key
        assert provision_drivers(fleet.conn, KEY, ["anna"], print) == []
        roles = [role_of(fleet, token_sha256(one)) for one in tokens]
        assert roles == [None] * (len(tokens) - 1) + ["driver"]


def test_change_device__added_under_a_taken_id__is_refused(fleet: Fleet) -> None:
    secrets = DeviceSecrets.draw("source")
    with pytest.raises(DeviceExists):
        change_device(fleet.conn, "driver", "d1", "add", WHO, DeviceSecrets.draw("driver"))
    change_device(fleet.conn, "driver", "d1", "remove", WHO)
    with pytest.raises(DeviceExists):
        change_device(fleet.conn, "source", "d1", "add", WHO, secrets)
    added = change_device(fleet.conn, "source", "weather", "add", WHO, secrets)
    assert (added.state, added.generation, added.is_derived) == ("active", 0, False)


def test_change_device__unknown_or_removed__is_refused(fleet: Fleet) -> None:
    with pytest.raises(UnknownDriver):
        change_device(fleet.conn, "driver", "unknown-driver", "revoke", WHO)
    with pytest.raises(UnknownDriver):
        change_device(fleet.conn, "source", "d1", "revoke", WHO)
    change_device(fleet.conn, "driver", "d1", "remove", WHO)
    with pytest.raises(UnknownDriver):
        change_device(fleet.conn, "driver", "d1", "rotate", WHO, DeviceSecrets.draw("driver"))


@pytest.mark.parametrize("change", ["revoke", "remove"])
def test_change_device__driver_on_duty__is_no_longer_assignable(fleet: Fleet, change: str) -> None:
    order_id: UUID = fleet.create_order()["order_id"]
    fleet.command_order(order_id, "confirm")
    change_device(fleet.conn, "driver", "d1", change, WHO)
    with pytest.raises(DriverUnavailable):
        fleet.command_order(order_id, "assign", driver_id="d1")


def test_changed_devices__since_a_version__are_those_changed_later(fleet: Fleet) -> None:
    since = max(one.version for one in changed_devices(fleet.conn, -1))
    assert changed_devices(fleet.conn, since) == []
    add_devices(fleet.conn, "source", ["weather"])
    change_device(fleet.conn, "driver", "d2", "rotate", WHO, DeviceSecrets.draw("driver"))
    change_device(fleet.conn, "driver", "d1", "revoke", WHO)
    changed = changed_devices(fleet.conn, since)
    assert {(one.device_id, one.mqtt_hash is None, one.is_active) for one in changed} == {
        ("weather", True, True),
        ("d2", False, True),
        ("d1", True, False),
    }


def test_staff__added_rotated_revoked__only_the_newest_token_is_good(fleet: Fleet) -> None:
    first, second, third = (secrets.token_bytes(32) for _ in range(3))
    add_staff(fleet, "anna", "dispatcher", first)
    assert role_of(fleet, first) == "dispatcher"
    with pytest.raises(StaffExists):
        add_staff(fleet, "anna", "admin", second)
    change_staff(fleet.conn, "anna", "rotate", who=WHO, role="viewer", token_sha256=second)
    assert (role_of(fleet, first), role_of(fleet, second)) == (None, "viewer")
    change_staff(fleet.conn, "anna", "revoke", who=WHO)
    assert role_of(fleet, second) is None
    add_staff(fleet, "anna", "admin", third)
    assert [role_of(fleet, one) for one in (first, second, third)] == [None, None, "admin"]


def test_staff__unknown__is_refused(fleet: Fleet) -> None:
    with pytest.raises(UnknownStaff):
        change_staff(fleet.conn, "unknown-staff", "revoke", who=WHO)


def test_staff_token__expired__is_refused(fleet: Fleet) -> None:
    token = secrets.token_bytes(32)
    add_staff(fleet, "anna", "viewer", token, days=-0.001)
    assert role_of(fleet, token) is None


def test_staff_token__role_without_routes__is_refused(fleet: Fleet) -> None:
    token = secrets.token_bytes(32)
    add_staff(fleet, "shop", "integration", token)
    assert role_of(fleet, token) is None


def test_audit__commands_and_credentials__name_who_did_them(fleet: Fleet) -> None:
    order_id: UUID = fleet.create_order()["order_id"]
    fleet.run("SELECT apply_order_command_v1(%s, 'confirm', 'staff', 'anna', NULL, NULL)", order_id)
    change_device(fleet.conn, "driver", "d1", "rotate", "anna", DeviceSecrets.draw("driver"))
    add_staff(fleet, "nino", "viewer", secrets.token_bytes(32))
    entries = [(one.who, one.action, one.subject) for one in read_audit(fleet.conn)]
    assert entries[-3:] == [
        ("anna", "order.confirm", str(order_id)),
        ("anna", "driver.rotate", "d1"),
        (WHO, "staff.add", "nino"),
    ]
    assert {one.who for one in read_audit(fleet.conn, "anna")} == {"anna"}


def test_audit__a_service_gives_no_name__names_its_role(database: Database) -> None:
    with database.connect("tracking_api", autocommit=True) as conn:
        conn.execute(
            "SELECT change_staff_v1('eve', 'add', 'admin', %s, now() + interval '1 day', NULL)",
            [secrets.token_bytes(32)],
        )
    who = database.value("SELECT who FROM doorstep.audit WHERE action = 'staff.add'")
    assert who == "role:tracking_api"


@pytest.mark.parametrize("role", ROLES)
def test_audit__update_delete_or_truncate__is_refused_to_every_role(
    database: Database, role: str
) -> None:
    with database.connect() as conn:
        add_devices(conn, "driver", ["anna"], who=WHO)
    for statement in ("UPDATE audit SET who = 'x'", "DELETE FROM audit", "TRUNCATE audit"):
        with database.connect(role) as conn, pytest.raises(psycopg.Error) as refusal:
            conn.execute(statement)
        assert refusal.value.sqlstate in ("42501", "DS024")
    assert database.value("SELECT count(*) FROM doorstep.audit") == 1


def test_broker_sync__role__reads_no_table(database: Database) -> None:
    with database.connect("broker_sync", autocommit=True) as conn:
        for table in ("access_token", "device_credential", "driver", "staff", "audit"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(f"SELECT * FROM {table}")
        assert conn.execute("SELECT * FROM changed_devices_v2(-1)").fetchall() == []


def test_list_devices__removed_ones__are_kept(fleet: Fleet) -> None:
    change_device(fleet.conn, "driver", "d1", "remove", WHO)
    found = {one.device_id: one.state for one in list_devices(fleet.conn, "driver")}
    assert found == {"d1": "removed", "d2": "active"}


def test_provision_command__rotate_and_remove__print_the_new_secrets_only(
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "fleet.key").write_text(encode_fleet_key(KEY))
    (tmp_path / "staff.token").write_text("stf_x\n")
    monkeypatch.setenv("DATABASE_ADMIN_URL", database.url())
    monkeypatch.setenv("FLEET_KEY_FILE", str(tmp_path / "fleet.key"))
    monkeypatch.setenv("STAFF_TOKEN_FILE", str(tmp_path / "staff.token"))

    def provision(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["provision", *arguments])
        return provision_main()

    assert provision("--driver", "anna", "--driver", "bruno") == 0
    assert provision("--rotate", "anna", "--remove", "bruno") == 0
    name, _, token = capsys.readouterr().out.split()
    assert name == "anna"
    assert provision("--rotate", "bruno") == 1
    assert provision("--driver", "bruno", "--again") == 0
    assert capsys.readouterr().out.split()[0] == "bruno"
    assert provision("--source", "weather") == 0
    assert capsys.readouterr().out.split() == ["weather", mqtt_password(KEY, "weather")]
    assert provision("--kind", "source", "--rotate", "weather", "--revoke", "weather") == 0
    assert len(capsys.readouterr().out.split()) == 2
    with database.connect() as conn:
        [found] = conn.execute(
            "SELECT driver_id FROM find_token_v2(%s)", [token_sha256(token)]
        ).fetchall()
        assert tuple(found) == ("anna",)
        devices = {one.device_id: one for one in list_devices(conn, "driver")}
    assert (devices["bruno"].state, devices["bruno"].generation) == ("active", 1)


def sign_in(fleet: Fleet, token: bytes, lifetime_s: float = 60.0) -> bytes | None:
    """Open a session of a token; None if it is refused."""
    session = secrets.token_bytes(32)
    opened = fleet.run(
        "SELECT * FROM open_staff_session_v1(%s, %s, %s)", token, session, lifetime_s
    )
    return session if opened else None


@pytest.mark.parametrize("change", ["revoke", "rotate"])
def test_session__of_a_member_who_is_changed__ends(fleet: Fleet, change: str) -> None:
    token = secrets.token_bytes(32)
    add_staff(fleet, "anna", "dispatcher", token)
    session = sign_in(fleet, token)
    assert session is not None
    assert role_of(fleet, session) == "dispatcher"
    change_staff(fleet.conn, "anna", change, who=WHO, token_sha256=secrets.token_bytes(32))
    assert role_of(fleet, session) is None


def test_session__expires_no_later_than_its_token_and_after_its_lifetime(fleet: Fleet) -> None:
    token = secrets.token_bytes(32)
    member = add_staff(fleet, "anna", "viewer", token, days=0.001)
    assert sign_in(fleet, token, 1e6) is not None
    ends = fleet.run("SELECT expires_at FROM access_token WHERE is_session")
    assert [row["expires_at"] for row in ends] == [member.expires_at]
    over = sign_in(fleet, token, -1)
    assert over is not None
    assert role_of(fleet, over) is None


def test_session__opens_no_other_and_closes_nothing_else(fleet: Fleet) -> None:
    token = secrets.token_bytes(32)
    add_staff(fleet, "anna", "viewer", token)
    first, second = sign_in(fleet, token), sign_in(fleet, token)
    assert first is not None
    assert second is not None
    assert sign_in(fleet, first) is None
    assert sign_in(fleet, secrets.token_bytes(32)) is None
    fleet.run("SELECT close_staff_session_v1(%s)", token)
    fleet.run("SELECT close_staff_session_v1(%s)", first)
    assert [role_of(fleet, one) for one in (token, first, second)] == ["viewer", None, "viewer"]
    actions = [one.action for one in read_audit(fleet.conn, "anna")]
    assert actions == ["staff.sign_in", "staff.sign_in", "staff.sign_out"]
