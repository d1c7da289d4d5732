"""Series through the whole stack: from a source's MQTT over Kafka to the table and to viewers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from websockets.sync.client import connect

from doorstep.credentials import driver_token, mqtt_password, read_fleet_key
from doorstep.geo import distance_m
from doorstep.kafka.access_control import OPERATOR
from doorstep.settings import MqttBroker
from ops.servers.waiting import wait_until
from ops.stack.stack import Stack
from tests.clients.kafka import read_topic
from tests.integration.http_services import make_fix
from tests.integration.test_live import Follower


class SeriesSource:
    """A source of series on the stack, and staff that reads them."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.source_id = f"box-{uuid4().hex[:8]}"
        stack.add_sources([self.source_id])
        settings = stack.client_environment()
        self.key = read_fleet_key(Path(settings["FLEET_KEY_FILE"]))
        self.token = Path(settings["STAFF_TOKEN_FILE"]).read_text().strip()
        self.url = settings["TRACKING_API_URL"]
        self.staff = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=15
        )
        broker = MqttBroker.parse(settings["MQTT_URL"])
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=self.source_id)
        self._client.username_pw_set(self.source_id, mqtt_password(self.key, self.source_id))
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()

    def name(self, measure: str) -> str:
        return f"{self.source_id}/{measure}"

    def publish(self, name: str, payload: Any) -> None:
        """Publish, and wait for the broker's acknowledgement."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload)
        info = self._client.publish(f"doorstep/v1/series/{name}", body, qos=1)
        info.wait_for_publish(20)
        assert info.is_published()

    def read(self, name: str, **parameters: Any) -> httpx.Response:
        return self.staff.get(f"/series/{name}", params=parameters)

    def points(self, name: str) -> list[list[float]]:
        answer = self.read(name)
        found: list[list[float]] = answer.json()["points"] if answer.status_code == 200 else []
        return found

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self.staff.close()


@pytest.fixture(scope="module")
def source(stack: Stack) -> Iterator[SeriesSource]:
    with closing(SeriesSource(stack)) as source:
        yield source


def test_series__published_over_mqtt__are_listed_and_read_with_their_signs(source):
    now = int(time.time() * 1000)
    sent = [[now - 3000.0, -1.5], [now - 2000.0, 0.0], [now - 1000.0, 2.0]]
    name = source.name("box_c")
    source.publish(name, [{"at": int(at), "value": value} for at, value in sent])
    wait_until(lambda: source.points(name) == sent, description="the points are in the table")
    source.publish(name, {"at": int(sent[0][0]), "value": 99})  # the first value stays
    source.publish(name, {"at": now, "value": -7})
    wait_until(lambda: source.points(name) == [*sent, [now, -7.0]])
    [entry] = source.staff.get("/series", params={"prefix": source.name("")}).json()["series"]
    assert (entry["name"], entry["unit"], entry["last_value"]) == (name, "°C", -7.0)
    answer = source.read(name, points=2).json()
    assert (answer["stands_for"], answer["points"]) == (4, [sent[2], [now, -7.0]])


def test_series__a_bad_payload__is_a_dead_letter_and_the_next_one_is_written(source):
    name = source.name("bad")
    now = int(time.time() * 1000)
    mark = source.source_id.encode()
    source.publish(name, b'{"at": 1, "value": NaN, "of": "%b"}' % mark)
    source.publish(name, {"at": now, "value": 1})
    wait_until(lambda: source.points(name) == [[now, 1.0]])
    kafka = source.stack.kafka_access(OPERATOR)
    found = read_topic(kafka, "dead-letter", lambda some: any(mark in one.value() for one in some))
    [letter] = [one for one in found if mark in one.value()]
    headers = dict(letter.headers())
    assert headers["reason"] == b"not_finite"
    assert headers["topic"] == f"doorstep/v1/series/{name}".encode()


def test_series__published_under_another_source__are_refused(source):
    now = int(time.time() * 1000)
    other = f"other-{source.source_id}/x"
    source.publish(other, {"at": now, "value": 1})  # Mosquitto acknowledges what it denies
    mine = source.name("after")
    source.publish(mine, {"at": now, "value": 1})
    wait_until(lambda: source.points(mine))
    assert source.read(other).status_code == 404


def test_series_stream__points__are_live_resumable_and_of_one_series(source):
    name, other = source.name("live"), source.name("live2")
    start = int(time.time() * 1000)
    for one in (name, other):
        source.publish(one, {"at": start, "value": 0})
    wait_until(lambda: source.points(name) and source.points(other))
    with closing(Follower(f"{source.url}/series/{name}/stream", source.token)) as viewer:
        assert viewer.next("points")[0] == {"name": name, "points": [[start, 0.0]]}
        cursors: list[str | None] = []
        for n in range(1, 4):
            source.publish(other, {"at": start + n, "value": 1000})
            source.publish(name, {"at": start + n, "value": -n})
            assert viewer.next("points")[0]["points"] == [[start + n, -n]]
            cursors.append(viewer.cursor)
        assert viewer.frames.empty()
    url = f"{source.url.replace('http', 'ws', 1)}/series/{name}/stream?last_event_id={cursors[0]}"
    with connect(url, additional_headers={"Authorization": f"Bearer {source.token}"}) as socket:
        for n in (2, 3):
            frame = json.loads(socket.recv(timeout=30))
            assert (frame["type"], frame["data"]["points"]) == ("points", [[start + n, -n]])


def test_series__unknown_name_or_invalid_range__is_refused(source):
    assert source.read("unknown-source/x").status_code == 404
    assert source.read("unknown-source/x/stream").status_code == 404
    assert source.read("driver/unknown-driver/battery").status_code == 404
    name = source.name("box_c")
    assert source.read(name, points=5001).status_code == 422
    early, late = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
    assert source.read(name, **{"from": late, "to": early}).status_code == 422
    assert source.read(name, **{"from": "2026-01-01T00:00:00"}).status_code == 422  # no zone
    assert httpx.get(f"{source.url}/series").status_code == 401


def test_series__battery_and_speed_of_a_driver__are_read_from_fixes(source):
    driver_id = f"volt-{uuid4().hex[:8]}"
    source.stack.add_drivers([driver_id])
    api = source.stack.client_environment()["DRIVER_API_URL"]
    fix = make_fix((11.25, 43.77)) | {"battery": 0.5, "speed_mps": 3.0}
    headers = {"Authorization": f"Bearer {driver_token(source.key, driver_id)}"}
    answer = httpx.patch(f"{api}/drivers/{driver_id}/location", json=fix, headers=headers)
    assert answer.status_code == 200, answer.text
    listed = source.staff.get("/series", params={"prefix": f"driver/{driver_id}/"}).json()["series"]
    assert [(one["name"], one["last_value"]) for one in listed] == [
        (f"driver/{driver_id}/battery", 0.5),
        (f"driver/{driver_id}/speed_mps", 3.0),
    ]
    [[_, value]] = source.points(f"driver/{driver_id}/battery")
    assert value == 0.5


def test_series_list__pages__hold_each_series_once(source):
    for n in range(5):
        source.publish(source.name(f"page{n}"), {"at": int(time.time() * 1000), "value": n})
    wait_until(lambda: source.points(source.name("page4")))
    names: list[str] = []
    after: str | None = ""
    while after is not None:
        page = source.staff.get("/series", params={"limit": 3, "after": after}).json()
        names += [one["name"] for one in page["series"]]
        after = page["next_after"]
    assert len(names) == len(set(names))
    assert {source.name(f"page{n}") for n in range(5)} <= set(names)
    assert [one for one in names if one.startswith("driver/")]


def test_simulations__a_target__is_kept_until_replaced(source):
    answer = source.staff.put("/simulations/cities", json={"count": 7})
    assert answer.status_code == 200, answer.text
    wanted = {one["kind"]: one["wanted"] for one in answer.json()["simulations"]}
    assert wanted["cities"] == 7
    assert source.staff.put("/simulations/trains", json={"count": 7}).status_code == 422
    assert source.staff.put("/simulations/cities", json={"count": -1}).status_code == 422


class Simulator:
    """`python -m simulators.{kind}` beside the stack, started and killed by a test."""

    def __init__(self, stack: Stack, kind: str, *arguments: str) -> None:
        argv = [sys.executable, "-m", f"simulators.{kind}", *arguments]
        self._process = subprocess.Popen(argv, env=stack.client_environment())

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """Let it finish; its exit status."""
        self._process.terminate()
        return self._process.wait(60)


def test_tickers__killed_and_restarted__continue_and_follow_the_target(source):
    names = [f"tickers/{n:03}" for n in (1, 2, 3)]
    tickers = Simulator(source.stack, "tickers", "--count", "3", "--every", "0.2")
    try:
        wait_until(lambda: all(len(source.points(name)) > 5 for name in names))
        tickers.kill()
        counts = {name: len(source.points(name)) for name in names}
        tickers = Simulator(source.stack, "tickers", "--every", "0.2")
        wait_until(lambda: all(len(source.points(one)) > counts[one] + 5 for one in names))
        for name in names:
            values = [0.0, *(value for _, value in source.points(name))]
            steps = {abs(after - before) for before, after in pairwise(values)}
            assert steps == {1.0}
        assert source.staff.put("/simulations/tickers", json={"count": 4}).status_code == 200
        wait_until(lambda: source.points("tickers/004"), description="a ticker was added")
        assert tickers.stop() == 0
    finally:
        tickers.kill()


def test_cities__killed_and_restarted__continue_from_their_saved_position(source):
    def places() -> dict[str, tuple[float, float]]:
        body = source.staff.get("/drivers/positions").json()
        at = [body["columns"].index(one) for one in ("driver_id", "lon_deg", "lat_deg")]
        rows = [[row[n] for n in at] for row in body["drivers"]]
        return {row[0]: (row[1], row[2]) for row in rows if row[0].startswith("city-")}

    source.stack.add_drivers(["city-001", "city-002"])
    vans = Simulator(source.stack, "cities", "--count", "2")
    try:
        wait_until(lambda: len(places()) == 2)
        vans.kill()
        before = places()
        vans = Simulator(source.stack, "cities")
        wait_until(lambda: all(places()[one] != before[one] for one in before))
        assert max(distance_m(before[one], place) for one, place in places().items()) < 2000
        assert source.staff.put("/simulations/cities", json={"count": 0}).status_code == 200
        rests = [f"/drivers/{one}" for one in before]
        wait_until(
            lambda: all(source.staff.get(one).json()["duty"] == "off_duty" for one in rests),
            description="the vans were taken off the road",
        )
        assert vans.stop() == 0
    finally:
        vans.kill()
