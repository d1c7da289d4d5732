"""Joining on a stack with TLS: a link, a phone set up by what the product answers, an order.

The seam is the phone: clients that speak as OwnTracks and Traccar Client do.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
import pytest

from ops.servers.waiting import wait_until
from ops.stack import caddy
from ops.stack.certificates import CertificateAuthority
from ops.stack.settings import FREE_PORTS, StackSettings
from ops.stack.stack import Stack
from tests.integration.mqtt_phone import MqttPhone, location
from tests.integration.test_off_boarding import run
from tests.programs import provided

# paho leaves the socket of a connection that was refused to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*SSLSocket:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]
SOON_S = 60.0
STEP_S = 1.2
FIXES_AT_A_PLACE = 4
NEAR = (11.2600, 43.7780)  # 220 m from the door
DOOR = (11.2600, 43.7800)
QUICK = {"name": "quick", "dwell_min_s": 2, "leave_min_s": 1, "arriving_min_s": 1}


@dataclass
class Office:
    """Staff, and what drivers reach over HTTPS."""

    stack: Stack
    ca_file: Path
    staff: httpx.Client
    open: ExitStack

    def client(self, **options: Any) -> httpx.Client:
        """Return an HTTP client that trusts the stack's authority. It is closed at the end."""
        trust = ssl.create_default_context(cafile=self.ca_file)
        return self.open.enter_context(httpx.Client(verify=trust, timeout=30, **options))

    def browser(self) -> httpx.Client:
        return self.client(
            base_url=self.stack.public_url, headers={"Sec-Fetch-Site": "same-origin"}
        )

    def invite(self, driver_id: str) -> str:
        answer = self.staff.post(f"/drivers/{driver_id}/invitations")
        assert answer.status_code == 201, answer.text
        assert answer.json()["qr_svg"].startswith("<svg")
        link = urlsplit(answer.json()["link"])
        assert f"{link.scheme}://{link.netloc}{link.path}" == f"{self.stack.public_url}/join"
        return link.fragment

    def join(self, driver_id: str, app: str) -> tuple[httpx.Client, dict[str, Any]]:
        """Open an invitation on a phone; return its browser and the answer."""
        browser = self.browser()
        token = self.invite(driver_id)
        answer = browser.post("/join", json={"token": token, "app": app})
        assert answer.status_code == 200, answer.text
        return browser, answer.json()

    def state_of(self, order: dict[str, Any]) -> str:
        return str(self.staff.get(f"/orders/{order['order_id']}").json()["state"])

    def phone_of(self, driver_id: str) -> dict[str, Any] | None:
        phone: dict[str, Any] | None = self.staff.get(f"/drivers/{driver_id}").json()["phone_app"]
        return phone


@pytest.fixture(scope="module")
def office(server_home: Path, only_worker: Callable[[str], None]) -> Iterator[Office]:
    provided(caddy.find_program)
    only_worker("the stack with TLS for joining")
    settings = StackSettings(doorstep_home=server_home / "joining", doorstep_tls=True, **FREE_PORTS)
    stack = Stack(settings, environment=dict(os.environ), echo=lambda _line: None)
    try:
        stack.up(owner_pid=os.getpid())
        ca_file = CertificateAuthority(stack.paths.tls).certificate
        headers = {"Authorization": f"Bearer {stack.paths.staff_token()}"}
        trust = ssl.create_default_context(cafile=ca_file)
        with ExitStack() as opened:
            url = stack.public_url
            staff = httpx.Client(base_url=url, verify=trust, headers=headers, timeout=30)
            yield Office(stack, ca_file, opened.enter_context(staff), opened)
    finally:
        stack.down(erase=True)


def configuration_of(link: str) -> dict[str, Any]:
    """Read a configuration link as Android does: the address is decoded first."""
    assert link.startswith("owntracks:///config?inline=")
    found: dict[str, Any] = json.loads(base64.b64decode(unquote(link.partition("=")[2])))
    return found


class OwnTracksHttp:
    """POST with Basic; the array of the answer holds commands."""

    def __init__(self, office: Office, configuration: dict[str, Any]) -> None:
        self.configuration = configuration
        self.commands: list[dict[str, Any]] = []
        self.http = office.client(
            auth=(configuration["username"], configuration["password"]),
            headers={"User-Agent": "Owntracks-Android/gms/420600000"},
        )

    def send(self, at_s: int, lon_deg: float, lat_deg: float) -> int:
        message = location(at_s, lat_deg, lon_deg, self.configuration["monitoring"])
        answer = self.http.post(self.configuration["url"], json=message)
        self.commands += answer.json() if answer.is_success else []
        return answer.status_code


class OwnTracksOverMqtt:
    def __init__(self, office: Office, configuration: dict[str, Any]) -> None:
        self.phone = MqttPhone(configuration, office.ca_file)
        wait_until(lambda: self.phone.is_connected, SOON_S)

    def send(self, at_s: int, lon_deg: float, lat_deg: float) -> int:
        message = json.dumps(location(at_s, lat_deg, lon_deg)).encode()
        return 200 if self.phone.publish(message) else 503


class Traccar:
    """The app's three forms, by version; knots, metres per second, or neither."""

    def __init__(self, office: Office, link: str, version: int) -> None:
        found = {key: one for key, [one] in parse_qs(urlsplit(link).query).items()}
        self.url, self.id, self.version = found["url"], found["id"], version
        self.http = office.client()

    def send(self, at_s: int, lon_deg: float, lat_deg: float) -> int:
        pairs = {"id": self.id, "timestamp": str(at_s), "lat": str(lat_deg), "lon": str(lon_deg)}
        if self.version == 10:
            return self.http.post(self.url, data=pairs | {"accuracy": "8.0"}).status_code
        if self.version == 8:
            return self.http.post(self.url, params=pairs | {"accuracy": "0.0"}).status_code
        coords = {"latitude": lat_deg, "longitude": lon_deg, "accuracy": 8, "speed": -1}
        at = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(at_s))
        body = {"location": {"timestamp": at, "coords": coords}, "device_id": self.id}
        return self.http.post(self.url, json=body).status_code


def test_five_phones__set_up_by_the_product__bring_an_order_to_the_door_by_gps_alone(
    office: Office,
) -> None:
    names = ["join-http", "join-mqtt", "join-t10", "join-t9", "join-t8"]
    office.stack.add_drivers(names)
    browsers: dict[str, httpx.Client] = {}
    phones: dict[str, Any] = {}
    for driver_id in names:
        app = "traccar" if "-t" in driver_id else "owntracks"
        assert office.phone_of(driver_id) is None
        browsers[driver_id], answer = office.join(driver_id, app)
        assert office.phone_of(driver_id) == {
            "state": "invited",
            "invited_until": None,
            "heard_at": None,
            "app": None,
        }
        if app == "traccar":
            version = int(driver_id.removeprefix("join-t"))
            phones[driver_id] = Traccar(office, answer["traccar"]["link"], version)
        elif driver_id == "join-http":
            link = answer["owntracks"]["http_link"]
            phones[driver_id] = OwnTracksHttp(office, configuration_of(link))
        else:
            configuration = configuration_of(answer["owntracks"]["mqtt_link"])
            assert configuration["tls"] is True
            # broker_sync takes a moment, which the app's own attempts bridge
            phones[driver_id] = OwnTracksOverMqtt(office, configuration)
        follow = {"Authorization": f"Bearer {answer['follow_token']}"}
        browsers[driver_id].headers.update(follow)
        assert browsers[driver_id].get("/join/position").json() == {"has_position": False}

    restaurant = office.staff.get("/restaurants").json()["restaurants"][0]
    policy_id = office.staff.post("/policies", json=QUICK).json()["policy_id"]
    orders: dict[str, Any] = {}
    for driver_id in names:
        duty = browsers[driver_id].post(f"/drive/drivers/{driver_id}/on-duty", auth=no_bearer)
        assert duty.status_code == 200, duty.text
        new = {
            "restaurant_id": restaurant["restaurant_id"],
            "destination": {"lon_deg": DOOR[0], "lat_deg": DOOR[1]},
            "policy_id": policy_id,
        }
        orders[driver_id] = order = office.staff.post("/orders", json=new).json()
        for command, body in (("confirm", None), ("assign", {"driver_id": driver_id})):
            path = f"/orders/{order['order_id']}/{command}"
            done = office.staff.post(path, json=body)
            assert done.status_code == 200, done.text
    time.sleep(STEP_S)  # an app's instants are whole seconds

    start = (restaurant["lon_deg"], restaurant["lat_deg"])
    between = ((start[0] + DOOR[0]) / 2, (start[1] + DOOR[1]) / 2)
    for place in (start, between, NEAR, DOOR):
        for _ in range(FIXES_AT_A_PLACE):
            for phone in phones.values():
                assert phone.send(int(time.time()), *place) == 200
            time.sleep(STEP_S)

    for driver_id in names:
        wait_until(
            lambda one=driver_id: office.state_of(orders[one]) == "at_customer",  # type: ignore[misc]
            SOON_S,
            f"{driver_id}: {office.state_of(orders[driver_id])}",
        )
        assert browsers[driver_id].get("/join/position").json() == {"has_position": True}
        path = f"/drive/drivers/{driver_id}/orders/{orders[driver_id]['order_id']}/delivered"
        delivered = browsers[driver_id].post(path, auth=no_bearer)
        assert delivered.json().get("state") == "delivered", delivered.text
    on_the_map = {row[0] for row in office.staff.get("/drivers/positions").json()["drivers"]}
    assert set(names) <= on_the_map
    apps = {driver_id: (office.phone_of(driver_id) or {})["app"] for driver_id in names}
    assert apps["join-http"] == "OwnTracks over HTTP (Owntracks-Android/gms/420600000)"
    assert apps["join-mqtt"] == "OwnTracks over MQTT"
    assert apps["join-t9"].startswith("Traccar Client (")
    assert phones["join-mqtt"].phone.other == []
    phones["join-mqtt"].phone.close()


def no_bearer(request: httpx.Request) -> httpx.Request:
    """The courier's page uses the cookie alone."""
    request.headers.pop("Authorization", None)
    return request


def test_new_phone__replaces_the_old_one__which_is_refused_and_disconnected(
    office: Office,
) -> None:
    office.stack.add_drivers(["join-again"])
    first_browser, first = office.join("join-again", "owntracks")
    http = OwnTracksHttp(office, configuration_of(first["owntracks"]["http_link"]))
    old = OwnTracksOverMqtt(office, configuration_of(first["owntracks"]["mqtt_link"]))
    assert http.send(int(time.time()), *DOOR) == 200
    page = "/drive/session"
    assert first_browser.get(page).status_code == 200

    _, second = office.join("join-again", "owntracks")
    started_s = time.monotonic()
    wait_until(lambda: http.send(int(time.time()), *DOOR) == 401, SOON_S)
    wait_until(lambda: not old.phone.is_connected, SOON_S)
    wait_until(lambda: first_browser.get(page).status_code == 401, SOON_S)
    print(f"the old phone has ended after {time.monotonic() - started_s:.1f} s")
    new = OwnTracksOverMqtt(office, configuration_of(second["owntracks"]["mqtt_link"]))
    assert new.send(int(time.time()), *DOOR) == 200
    assert not old.phone.is_connected
    for one in (old, new):
        one.phone.close()


def test_invitation__used_replaced_or_guessed__is_one_and_the_same_answer(office: Office) -> None:
    office.stack.add_drivers(["join-once"])
    browser = office.browser()
    used, replaced = office.invite("join-once"), office.invite("join-once")
    used, replaced = office.invite("join-once"), used
    assert browser.post("/join", json={"token": used, "app": "browser"}).status_code == 200
    answers = [
        browser.post("/join", json={"token": token, "app": "browser"})
        for token in (used, replaced, "inv_guess")
    ]
    assert [one.status_code for one in answers] == [404] * 3
    assert len({one.text for one in answers}) == 1
    assert browser.get("/drive/session").json()["driver_id"] == "join-once"
    foreign = {"Sec-Fetch-Site": "cross-site"}
    token = office.invite("join-once")
    refused = browser.post("/join", json={"token": token, "app": "browser"}, headers=foreign)
    assert refused.status_code == 403


def test_owntracks_over_http__off_and_on_duty__is_answered_with_its_mode(office: Office) -> None:
    office.stack.add_drivers(["join-modes"])
    browser, answer = office.join("join-modes", "owntracks")
    phone = OwnTracksHttp(office, configuration_of(answer["owntracks"]["http_link"]))
    assert phone.send(int(time.time()), *DOOR) == 200
    assert phone.commands == []  # a driver who has never used duty
    for duty in ("on-duty", "off-duty"):
        done = browser.post(f"/drive/drivers/join-modes/{duty}")
        assert done.status_code == 200, done.text
    for _ in range(2):  # once a minute at most
        assert phone.send(int(time.time()), *DOOR) == 200
    assert phone.commands == [
        {
            "_type": "cmd",
            "action": "setConfiguration",
            "configuration": {"_type": "configuration", "monitoring": 1},
        }
    ]


def test_invite__on_the_command_line__prints_the_link_and_draws_its_code(office: Office) -> None:
    office.stack.add_drivers(["join-shell"])
    done = run(office.stack, "drivers", "invite", "join-shell")
    assert done.returncode == 0, done.stderr
    assert f"{office.stack.public_url}/join#inv_" in done.stdout
    assert "█" in done.stdout or "▀" in done.stdout
    assert run(office.stack, "drivers", "invite", "nina").returncode == 1
