"""broker_sync with a real Mosquitto and PostgreSQL: what happens in the database reaches logins."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from doorstep.broker_sync import BrokerSync
from doorstep.credentials import (
    DeviceSecrets,
    driver_token,
    mqtt_password,
    phone_token,
    phone_username,
    token_sha256,
)
from doorstep.errors import StoreUnavailable
from doorstep.provision import provision_drivers, provision_sources
from doorstep.store.people import Device, change_device
from doorstep.store.phones import issue_phone, revoke_phone
from ops.servers.mosquitto import MosquittoServer
from ops.servers.waiting import wait_until
from ops.stack import mosquitto
from tests.database import Database

WHO = "test"


class Synced:
    """A broker, a database and the broker_sync between them."""

    def __init__(self, broker: MosquittoServer, database: Database) -> None:
        self.broker, self.database = broker, database
        self.key = broker.paths.fleet_key()
        self.new: DeviceSecrets | None = None  # of the newest rotation or repeated addition
        self.restart()

    def restart(self) -> None:
        """Start a new broker_sync, which remembers nothing."""
        self._sync = BrokerSync(
            self.key,
            self.broker.paths.mqtt_passwords(),
            self.broker.paths.password_file,
            lambda: self.broker.signal(signal.SIGHUP),
            self.broker.paths.acl_file,
            mosquitto.ACL.read_text(encoding="utf-8"),
        )
        self.sync()

    def sync(self) -> None:
        with self.database.connect("broker_sync") as conn:
            self._sync.sync(conn)

    def add(self, *driver_ids: str, again: bool = False) -> None:
        def keep(_: Device, secrets: DeviceSecrets) -> None:
            self.new = secrets

        with self.database.connect() as conn:
            provision_drivers(
                conn, self.key, driver_ids, print, again=keep if again else None, who=WHO
            )
        self.sync()

    def change(self, driver_id: str, change: str, kind: str = "driver") -> None:
        secrets = DeviceSecrets.draw(kind) if change == "rotate" else None
        with self.database.connect() as conn:
            change_device(conn, kind, driver_id, change, WHO, secrets)
        self.new = secrets or self.new
        self.sync()

    def password(self, driver_id: str) -> str:
        return mqtt_password(self.key, driver_id)

    def lets_in(self, driver_id: str) -> bool:
        """Whether the broker accepts the password that derives from the fleet key."""
        return self.broker.accepts(driver_id, self.password(driver_id))

    def lets_in_new(self, driver_id: str) -> bool:
        return self.broker.accepts(driver_id, self.new.mqtt_password if self.new else "")

    def token_is_good(self, driver_id: str) -> bool:
        return self._is_good(driver_token(self.key, driver_id))

    def new_token_is_good(self) -> bool:
        return self._is_good((self.new.token if self.new else None) or "")

    def _is_good(self, token: str) -> bool:
        digest = token_sha256(token)
        return bool(self.database.rows("SELECT * FROM doorstep.find_token_v2(%s)", digest))


@pytest.fixture
def synced(mosquitto_broker: MosquittoServer, database: Database) -> Synced:
    return Synced(mosquitto_broker, database)


@contextmanager
def connected(
    synced: Synced, driver_id: str, protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5
) -> Iterator[threading.Event]:
    """Keep a driver connected. The event is set when the broker ends the connection."""
    ended = threading.Event()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=protocol)
    client.username_pw_set(driver_id, synced.password(driver_id))
    client.on_disconnect = lambda *_: ended.set()
    client.reconnect_delay_set(600, 600)
    client.connect("127.0.0.1", synced.broker.port)
    client.loop_start()
    try:
        wait_until(client.is_connected)
        yield ended
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.mark.parametrize("change", ["remove", "revoke", "rotate"])
@pytest.mark.parametrize("protocol", [MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311])
def test_change__while_connected__ends_the_session_and_no_other(
    synced: Synced, change: str, protocol: MQTTProtocolVersion
) -> None:
    synced.add("anna", "bruno")
    wait_until(lambda: synced.lets_in("bruno"))
    with connected(synced, "anna", protocol) as ended, connected(synced, "bruno") as other:
        synced.change("anna", change)

        assert ended.wait(30)
        assert not other.is_set()
    assert not synced.lets_in("anna")
    assert not synced.token_is_good("anna")


def test_rotate__new_secrets__are_good_at_both_doors_and_the_fleet_keys_at_none(
    synced: Synced,
) -> None:
    synced.add("anna")
    synced.change("anna", "rotate")

    wait_until(lambda: synced.lets_in_new("anna"))
    assert synced.new_token_is_good()
    assert not synced.lets_in("anna")
    assert not synced.token_is_good("anna")


def test_remove__sync_and_broker_restarted_and_id_added_again__old_secrets_stay_dead(
    synced: Synced,
) -> None:
    synced.add("anna")
    wait_until(lambda: synced.lets_in("anna"))
    synced.change("anna", "remove")

    synced.broker.kill()
    synced.broker.start()
    synced.restart()
    synced.add("anna")  # as a simulator registers its drivers: a removed one stays removed
    assert not synced.lets_in("anna")

    synced.add("anna", again=True)
    wait_until(lambda: synced.lets_in_new("anna"))
    assert synced.new_token_is_good()
    assert not synced.lets_in("anna")
    assert not synced.token_is_good("anna")


def test_sync__connection_lost_in_the_middle__applies_the_change_the_next_time(
    synced: Synced, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced.add("anna")
    wait_until(lambda: synced.lets_in("anna"))

    def lose_connection(*_: object) -> None:
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr("doorstep.broker_sync.changed_devices", lose_connection)
        with pytest.raises(StoreUnavailable):
            synced.change("anna", "rotate")
    assert not synced.lets_in_new("anna")
    synced.sync()
    wait_until(lambda: synced.lets_in_new("anna"))
    assert synced.new_token_is_good()


def test_sync__user_only_in_the_file__is_removed(synced: Synced) -> None:
    synced.broker.add_drivers("stray")
    synced.restart()

    wait_until(lambda: not synced.lets_in("stray"))
    assert synced.broker.accepts("bridge")


def test_source__removed__cannot_log_in(synced: Synced) -> None:
    with synced.database.connect() as conn:
        provision_sources(conn, ["weather"])
    synced.sync()
    wait_until(lambda: synced.lets_in("weather"))

    synced.change("weather", "remove", "source")
    wait_until(lambda: not synced.lets_in("weather"))


def test_service_passwords__derived_from_the_fleet_key__are_refused(synced: Synced) -> None:
    for user in ("bridge", "driver_events", "driver_events-2", "stack"):
        assert synced.broker.accepts(user)
        assert not synced.lets_in(user)


def test_phone__issued_and_revoked__has_a_login_and_rules_of_its_own(synced: Synced) -> None:
    synced.add("pia", "paul")
    user, token = phone_username("pia"), phone_token(synced.key, "pia")
    acl = synced.broker.paths.acl_file
    template = mosquitto.ACL.read_text(encoding="utf-8")
    with synced.database.connect() as conn:
        issue_phone(conn, synced.key, "pia", WHO)
    synced.sync()
    wait_until(lambda: synced.broker.accepts(user, token))
    assert acl.read_text().startswith(template)
    assert acl.read_text().removeprefix(template).split("\n") == [
        "",
        "user pia.phone",
        "topic deny doorstep/#",
        "topic write owntracks/pia/phone",
        "topic read owntracks/pia/phone/cmd",
        "",
    ]
    synced.restart()
    assert synced.broker.accepts(user, token)
    with synced.database.connect() as conn:
        revoke_phone(conn, "pia", WHO)
    synced.sync()
    wait_until(lambda: not synced.broker.accepts(user, token))
    assert acl.read_text() == template
    assert synced.lets_in("pia")
