"""Models of phone apps' queues, as their sources have them: first in, first out.

Each knows which answers take an entry off its queue, which block it and which lose the entry.
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlencode

import httpx

LAT_DEG, LON_DEG = 43.7700, 11.2500
STEP_DEG = 0.000_01  # a metre: each good position has a place of its own


class NoAnswer(Exception):
    """The connection failed, before or after the server has handled the request."""


@dataclass(frozen=True)
class Entry:
    """One position of a queue, or another message.

    `kind` is `good`, `ignored`, or the reason for which it is refused.
    """

    number: int
    kind: str
    at: datetime

    @property
    def lat_deg(self) -> float:
        if self.kind == "latitude_out_of_range":
            return 143.77
        return round(LAT_DEG + STEP_DEG * self.number, 7)


@dataclass
class Network:
    """Loses some requests before they arrive and some answers after. Seeded."""

    base_url: str
    seed: int
    lost: float = 0.05
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self.client = httpx.Client(base_url=self.base_url, timeout=15)

    def restart(self) -> None:
        """Open a new connection, as an app that was killed does."""
        self.client.close()
        self.client = httpx.Client(base_url=self.base_url, timeout=15)

    def send(self, request: httpx.Request) -> httpx.Response:
        """Send a request. Raises NoAnswer."""
        if self._random.random() < self.lost:
            raise NoAnswer
        try:
            answer = self.client.send(request)
        except httpx.TransportError as exc:
            raise NoAnswer from exc
        if self._random.random() < self.lost:
            raise NoAnswer
        return answer


class App:
    """An app's queue. `safe` holds what it was told is stored, `lost` what it has thrown away."""

    name = ""
    at_once = 1

    def __init__(self, driver_id: str, token: str, network: Network) -> None:
        self.driver_id, self.token, self.network = driver_id, token, network
        self.queue: deque[Entry] = deque()
        self.safe: list[Entry] = []
        self.lost: list[Entry] = []
        self.statuses: list[int] = []

    def send_next(self) -> bool:
        """Send the head of the queue. False: to be tried again after a pause."""
        head = [self.queue[n] for n in range(min(self.at_once, len(self.queue)))]
        try:
            answer = self.network.send(self.request(head))
        except NoAnswer:
            return False
        self.statuses.append(answer.status_code)
        if self.is_success(answer):
            self.safe += head
        elif self.is_given_up(answer):
            self.lost += head
        else:
            return False
        for _ in head:
            self.queue.popleft()
        return True

    def request(self, head: list[Entry]) -> httpx.Request:
        """Return the request for these entries."""
        raise NotImplementedError

    def is_success(self, answer: httpx.Response) -> bool:
        """Whether the app takes the entries off its queue and believes them stored."""
        return answer.is_success

    def is_given_up(self, answer: httpx.Response) -> bool:
        """Whether the app throws the entries away."""
        return False

    def restart(self) -> None:
        """End the app and start it again: the queue stays."""
        self.network.restart()

    def close(self) -> None:
        self.network.client.close()

    def post(self, path: str, **more: object) -> httpx.Request:
        return self.network.client.build_request("POST", path, **more)  # type: ignore[arg-type]


def _other_owntracks(entry: Entry) -> dict[str, object]:
    kinds = ("transition", "waypoints", "lwt", "status", "dump", "card", "new-in-2030")
    return {"_type": kinds[entry.number % len(kinds)], "tst": round(entry.at.timestamp())}


class OwnTracksAndroid(App):
    """2xx with an array: removed. Anything else stays at the head and blocks."""

    name = "owntracks-android"

    def body(self, entry: Entry) -> bytes:
        """Return the message of an entry."""
        message: dict[str, object] = {
            "_type": "location",
            "lat": entry.lat_deg,
            "lon": LON_DEG,
            "tst": round(entry.at.timestamp()),
            "batt": entry.number % 100 + 1,
            "vel": -1 if entry.number % 3 else 18,
        }
        if entry.kind == "ignored":
            message = _other_owntracks(entry)
        body = json.dumps(message).encode()
        return body[:-9] if entry.kind == "not_json" else body

    def request(self, head: list[Entry]) -> httpx.Request:
        return self.post("/owntracks", content=self.body(head[0]), headers=self.basic())

    def basic(self) -> dict[str, str]:
        auth = httpx.BasicAuth(self.driver_id, self.token)
        signed = next(auth.auth_flow(httpx.Request("POST", "http://phone.test")))
        return {"Authorization": signed.headers["Authorization"], "X-Limit-U": "another-phone"}

    def is_success(self, answer: httpx.Response) -> bool:
        return answer.is_success and isinstance(answer.json(), list)


class OwnTracksIos(OwnTracksAndroid):
    """2xx: removed. 4xx: deleted, with an alert. Else it stays."""

    name = "owntracks-ios"

    def is_given_up(self, answer: httpx.Response) -> bool:
        return 400 <= answer.status_code < 500


def _form(entry: Entry, token: str) -> dict[str, str]:
    form = {"id": token, "timestamp": str(round(entry.at.timestamp())), "batt": "76"}
    if entry.kind == "not_json":
        form["timestamp"] = "yesterday"
    if entry.kind != "ignored":
        form |= {"lat": str(entry.lat_deg), "lon": str(LON_DEG), "speed": "10.11"}
        form |= {"accuracy": "0.0", "bearing": "360.0"}
    return form


class Traccar10(App):
    """Any 2xx: removed. Else it stays at the head."""

    name = "traccar-10"

    def request(self, head: list[Entry]) -> httpx.Request:
        return self.post("/osmand", data=_form(head[0], self.token))


class Traccar9(App):
    """JSON. Any 2xx: removed. Else it stays at the head."""

    name = "traccar-9"

    def request(self, head: list[Entry]) -> httpx.Request:
        [entry] = head
        coords = {"latitude": entry.lat_deg, "longitude": LON_DEG, "speed": -1, "heading": -1}
        at = "never" if entry.kind == "not_json" else entry.at.isoformat()
        location: dict[str, object] = {"timestamp": at, "coords": coords}
        if entry.kind == "ignored":
            location = {"timestamp": at, "event": "heartbeat"}
        return self.post("/osmand", json={"location": location, "device_id": self.token})


class Traccar8Android(App):
    """A query. Below 400: removed. Else it stays at the head."""

    name = "traccar-8-android"

    def request(self, head: list[Entry]) -> httpx.Request:
        return self.post(f"/osmand?{urlencode(_form(head[0], self.token))}")

    def is_success(self, answer: httpx.Response) -> bool:
        return answer.status_code < 400


class Overland(App):
    """Batches. Only {"result": "ok"} takes them off the queue."""

    name = "overland"
    at_once = 50

    def request(self, head: list[Entry]) -> httpx.Request:
        body = {"locations": [self._feature(one) for one in head]}
        return self.post("/overland", json=body, headers={"Authorization": f"Bearer {self.token}"})

    def _feature(self, entry: Entry) -> dict[str, object]:
        at = "never" if entry.kind == "not_json" else entry.at.isoformat()
        properties: dict[str, object] = {"timestamp": at, "speed": -1, "battery_level": -1}
        if entry.kind == "ignored":
            properties["action"] = "paused_location_updates"
        geometry = {"type": "Point", "coordinates": [LON_DEG, entry.lat_deg]}
        return {"type": "Feature", "geometry": geometry, "properties": properties}

    def is_success(self, answer: httpx.Response) -> bool:
        return answer.is_success and answer.json() == {"result": "ok"}


APPS: list[Callable[[str, str, Network], App]] = [
    OwnTracksAndroid,
    OwnTracksIos,
    Traccar10,
    Traccar9,
    Traccar8Android,
    Overland,
]
