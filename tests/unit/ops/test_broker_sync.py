"""What broker_sync serves about itself. The seams: the database's connection, and BrokerSync."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import prometheus_client
import pytest
from pydantic import SecretStr

from doorstep.broker_sync import BrokerSync
from doorstep.errors import StoreUnavailable
from ops.stack import broker_sync
from ops.stack.broker_sync import BrokerSyncSettings, Follower


class Ended(BaseException):
    """Ends the loop that only the process's end would end."""


@pytest.fixture
def follower(monkeypatch: pytest.MonkeyPatch) -> Follower:
    @contextlib.contextmanager
    def connect(_url: str, application_name: str) -> Iterator[None]:
        assert application_name == "broker_sync"
        yield None

    monkeypatch.setattr(broker_sync, "connect", connect)
    secret = SecretStr("x")
    settings = BrokerSyncSettings(
        database_url=secret,
        fleet_key_file=Path("key"),
        mosquitto_password_file=Path("passwd"),
        bridge_mqtt_password=secret,
        driver_events_mqtt_password=secret,
    )
    return Follower(settings, cast("BrokerSync", Sync()))


class Sync:
    """Fails in its third and fourth run."""

    runs = 0

    def sync(self, _conn: object) -> bool:
        self.runs += 1
        if self.runs in (3, 4):
            raise StoreUnavailable("away")
        return False


def test_follow__database_goes_and_returns__is_seen_in_readiness_and_metric(
    follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, bool]] = []
    broker_sync.SYNCED_AT.set(0)

    def sleep(_s: float) -> None:
        [is_ready] = follower.readiness().values()
        synced_at = prometheus_client.REGISTRY.get_sample_value(
            "doorstep_broker_sync_synced_timestamp_seconds"
        )
        seen.append((is_ready, bool(synced_at)))
        broker_sync.SYNCED_AT.set(0)
        if len(seen) == 5:
            raise Ended

    monkeypatch.setattr("ops.stack.broker_sync.time.sleep", sleep)
    assert follower.readiness() == {"database": False}
    with pytest.raises(Ended):
        follower.follow()
    up, down = (True, True), (False, False)
    assert seen == [up, up, down, down, up]
