"""Streams in the whole stack: from a phone's PATCH over Kafka to a viewer, and through failures."""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from doorstep.credentials import driver_token, read_fleet_key
from ops.servers.waiting import wait_until
from ops.stack.stack import Stack
from tests.integration.http_services import SHOWN_AFTER_S, make_fix

PLACE = (11.2558, 43.7731)


class Follower:
    """A viewer in a thread of its own: comes back with its cursor, as EventSource does."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}
        self._stop = threading.Event()
        self.frames: queue.Queue[tuple[str, dict[str, Any], int | None]] = queue.Queue()
        self.cursor: str | None = None
        self.opened = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def next(self, kind: str) -> tuple[dict[str, Any], int | None]:
        """The data and id of the next frame of this kind; the rest is passed over."""
        while True:
            found, data, event_id = self.frames.get(timeout=60)
            if found == kind:
                return data, event_id

    def close(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            headers = self._headers | ({"Last-Event-ID": self.cursor} if self.cursor else {})
            try:
                with httpx.stream("GET", self._url, headers=headers, timeout=20) as answer:
                    self.opened += answer.status_code == 200
                    self._read(answer)
            except httpx.TransportError:
                self._stop.wait(0.3)

    def _read(self, answer: httpx.Response) -> None:
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            if self._stop.is_set():
                return
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
            elif "event" in fields:
                event_id = int(fields["id"]) if fields.get("id", "").isdigit() else None
                self.cursor = fields.get("id", self.cursor)
                self.frames.put((fields["event"], json.loads(fields["data"]), event_id))
                fields = {}


class Scene:
    """A phone, staff, and an order of the phone's driver."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.driver_id = f"live-{uuid4().hex[:8]}"
        stack.add_drivers([self.driver_id])
        settings = stack.client_environment()
        self._url = settings["TRACKING_API_URL"]
        self.staff = _client(self._url, Path(settings["STAFF_TOKEN_FILE"]).read_text().strip())
        key = read_fleet_key(Path(settings["FLEET_KEY_FILE"]))
        token = driver_token(key, self.driver_id)
        self.phone = _client(f"{settings['DRIVER_API_URL']}/drivers/{self.driver_id}", token)
        assert self.phone.post("/on-duty").status_code == 200
        self.order = self._order()

    def _order(self) -> dict[str, Any]:
        restaurant = self.staff.get("/restaurants").json()["restaurants"][0]
        new = {
            "restaurant_id": restaurant["restaurant_id"],
            "destination": {"lon_deg": PLACE[0], "lat_deg": PLACE[1]},
        }
        order: dict[str, Any] = self.staff.post("/orders", json=new).json()
        self.command(order, "confirm")
        self.command(order, "assign", json={"driver_id": self.driver_id})
        time.sleep(SHOWN_AFTER_S)
        return order

    def command(self, order: dict[str, Any], command: str, **body: Any) -> None:
        answer = self.staff.post(f"/orders/{order['order_id']}/{command}", **body)
        assert answer.status_code == 200, answer.text

    def report(self, n: int) -> list[float]:
        """Send the phone's n-th fix; give its place."""
        place = (PLACE[0], PLACE[1] + n * 1e-4)
        assert self.phone.patch("/location", json=make_fix(place)).status_code == 200
        return list(place)

    def follow(self) -> Follower:
        url = f"{self._url}/track/{self.order['order_id']}/stream"
        return Follower(url, self.order["customer_token"])

    def follow_as_staff(self, path: str) -> Follower:
        token = self.staff.headers["Authorization"].removeprefix("Bearer ")
        return Follower(f"{self._url}{path}", token)

    def publish(self, topic: str, value: Any) -> httpx.Response:
        return self.staff.post(f"/streams/{topic}", json=value, params={"key": "k"})

    def ready(self) -> dict[str, Any]:
        found: dict[str, Any] = self.staff.get("/readyz").json()
        return found

    def close(self) -> None:
        self.phone.close()
        self.staff.close()


@pytest.fixture
def scene(stack: Stack) -> Iterator[Scene]:
    with closing(Scene(stack)) as scene:
        wait_until(lambda: scene.ready()["kafka"], description="the live feed hears Kafka")
        yield scene


def test_stream__a_fix_and_a_delivery__reach_the_viewer_over_kafka(scene):
    with closing(scene.follow()) as viewer:
        data, event_id = viewer.next("snapshot")
        assert (data["state"], data["position"], event_id) == ("assigned", None, 3)
        for n in (1, 2):
            place = scene.report(n)
            data, event_id = viewer.next("position")
            assert (data["position"]["geometry"]["coordinates"], event_id) == (place, None)
        order_id = scene.order["order_id"]
        for command, event_id in (("picked-up", 4), ("delivered", 5)):
            assert scene.phone.post(f"/orders/{order_id}/{command}").status_code == 200
            data, found_id = viewer.next("order")
            assert (data["state"], found_id) == (command.replace("-", "_"), event_id)
        scene.report(3)
        assert viewer.next("end") == ({"reason": "delivered"}, None)
    internal = scene.stack.addresses.telemetry_of("tracking_api")
    metrics = httpx.get(f"http://{internal}/metrics", trust_env=False).text
    for topic in ("tracking-updates", "tracking-positions"):
        assert f'doorstep_live_records_total{{outcome="consumed",topic="{topic}"}}' in metrics


def test_stream__kafka_frozen__stays_open_and_sends_everything(scene):
    with closing(scene.follow()) as viewer:
        viewer.next("snapshot")
        kafka = scene.stack.pid_of("kafka")
        os.kill(kafka, signal.SIGSTOP)
        try:
            place = scene.report(1)
            assert viewer.next("position")[0]["position"]["geometry"]["coordinates"] == place
            scene.command(scene.order, "cancel")
            assert viewer.next("order")[1] == 4
        finally:
            os.kill(kafka, signal.SIGCONT)
        assert viewer.next("end")[0] == {"reason": "cancelled"}
        assert viewer.opened == 1


def test_stream__tracking_api_killed__resumes_with_every_event_once(scene):
    with closing(scene.follow()) as viewer:
        assert viewer.next("snapshot")[1] == 3
        os.kill(scene.stack.pid_of("tracking_api"), signal.SIGKILL)
        order_id = scene.order["order_id"]
        assert scene.phone.post(f"/orders/{order_id}/picked-up").status_code == 200
        assert viewer.next("snapshot")[1] is None  # resumed: the cursor stands until the next event
        assert viewer.next("order")[1] == 4
        place = scene.report(1)
        assert viewer.next("position")[0]["position"]["geometry"]["coordinates"] == place
        assert scene.phone.post(f"/orders/{order_id}/delivered").status_code == 200
        assert viewer.next("order")[1] == 5
        viewer.next("end")


def test_fleet_stream__a_fix__moves_its_driver(scene):
    scene.report(0)
    with closing(scene.follow_as_staff("/fleet/stream?bbox=11,43,12,44")) as viewer:
        data, _ = viewer.next("snapshot")
        assert scene.driver_id in [row[0] for row in data["drivers"]]
        place = scene.report(1)
        while True:
            rows = {row[0]: row for row in viewer.next("drivers")[0]["drivers"]}
            if scene.driver_id in rows and rows[scene.driver_id][2:4] == place:
                break


def test_topic_stream__records__reach_followers_from_their_start(scene):
    with closing(scene.follow_as_staff("/streams/streams")) as latest:
        wait_until(lambda: latest.opened, description="the first follower is in")
        marks = [f"{scene.driver_id}-{n}" for n in range(3)]
        cursors = []
        for mark in marks:
            answer = scene.publish("streams", {"mark": mark})
            assert answer.status_code == 201, answer.text
            data, _ = latest.next("record")
            assert (data["value"], data["key"]) == ({"mark": mark}, "k")
            assert data["offset"] == answer.json()["offset"]
            cursors.append(latest.cursor)
        # a follower from the earliest makes the consumer seek back; no follower gets a record twice
        with closing(scene.follow_as_staff("/streams/streams?from=earliest")) as earliest:
            found: list[str] = []
            while marks[-1] not in found:
                found.append(earliest.next("record")[0]["value"]["mark"])
            assert found[-3:] == marks
        with closing(scene.follow_as_staff(f"/streams/streams?from={cursors[0]}")) as resumed:
            assert resumed.next("record")[0]["value"]["mark"] == marks[1]
        assert latest.frames.empty()


def test_topic_stream__unlisted_topic_or_other_role__is_refused(scene):
    assert scene.publish("driver-pos", {}).status_code == 404
    assert scene.staff.get("/streams/driver-pos").status_code == 404
    assert scene.staff.get("/streams/streams?from=yesterday").status_code == 422
    customer = {"Authorization": f"Bearer {scene.order['customer_token']}"}
    assert scene.staff.get("/streams/streams", headers=customer).status_code == 403


def _client(base_url: str, token: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=base_url, headers=headers, timeout=15)
