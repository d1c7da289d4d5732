"""Notifications: who sends them, and where to. Push services are replaced by fakes."""

from __future__ import annotations

import os
import socket
from base64 import urlsafe_b64encode
from collections.abc import Collection
from uuid import UUID, uuid4

import http_ece
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from doorstep.errors import StoreUnavailable
from doorstep.public_addresses import is_public_address
from tracking_api.push.guarded_session import guarded_session
from tracking_api.push.notifier import Kind, Notification, Outcome, Recipient
from tracking_api.push.texts import TITLES, title_of
from tracking_api.push.web_push import VapidKey, WebPushNotifier
from tracking_api.push.worker import PushWorker

ENDPOINT = "https://push.example.org/send/1"


def notification(kind: Kind = "nearby", endpoint: str = ENDPOINT) -> Notification:
    return Notification(uuid4(), kind, Recipient(endpoint, "key", "auth", "it-IT"))


class FakeStore:
    def __init__(self, *due: Notification) -> None:
        self.due = list(due)
        self.requests: list[Collection[UUID] | None] = []
        self.dropped: list[str] = []
        self.is_away = False

    async def take_due(self, order_ids: Collection[UUID] | None) -> list[Notification]:
        self.requests.append(order_ids)
        if self.is_away:
            raise StoreUnavailable
        due, self.due = self.due, []
        return due

    async def drop_subscription(self, endpoint: str) -> None:
        self.dropped.append(endpoint)


class FakeNotifier:
    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.sent: list[Notification] = []

    async def send(self, notification: Notification) -> Outcome:
        self.sent.append(notification)
        return self.outcomes.pop(0)


async def sent_by(store: FakeStore, notifier: FakeNotifier) -> None:
    worker = PushWorker(store, notifier, retries_after_s=(0.0, 0.0))
    await worker.send_due(None)
    await worker.finish()


async def test_worker__failures_at_first__repeats_until_it_is_sent():
    store, notifier = FakeStore(notification()), FakeNotifier("failed", "failed", "sent")
    await sent_by(store, notifier)
    assert (len(notifier.sent), store.dropped) == (3, [])


async def test_worker__endpoint_gone__drops_the_subscription():
    store, notifier = FakeStore(notification()), FakeNotifier("gone")
    await sent_by(store, notifier)
    assert (len(notifier.sent), store.dropped) == (1, [ENDPOINT])


async def test_worker__database_away__sends_later():
    store, notifier = FakeStore(notification()), FakeNotifier("sent")
    store.is_away = True
    await sent_by(store, notifier)
    assert notifier.sent == []
    store.is_away = False
    await sent_by(store, notifier)
    assert len(notifier.sent) == 1


def test_texts__every_language__has_every_kind():
    assert {frozenset(titles) for titles in TITLES.values()} == {frozenset({"nearby", "delivered"})}
    assert title_of("nearby", "it-IT") != title_of("nearby", "en") == title_of("nearby", "sv")


@pytest.mark.parametrize(
    ("address", "is_public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::1", False),
    ],
)
def test_address__of_the_internet_or_not__is_told_apart(address, is_public):
    assert is_public_address(address) is is_public


def test_session__name_that_leads_inside__connects_to_nothing(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        inside = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", listener.getsockname())]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: inside)
        with guarded_session() as session, pytest.raises(requests.ConnectionError, match="public"):
            session.post("https://push.example.org/x", timeout=5)
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_session__without_https__is_refused():
    with guarded_session() as session, pytest.raises(requests.exceptions.InvalidSchema):
        session.get("http://push.example.org/x", timeout=5)


class Answering(requests.Session):
    """Answers each request itself, and keeps it."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status
        self.posted: list[tuple[str, dict[str, str], bytes]] = []

    def post(self, url, data=None, json=None, **options):
        self.posted.append((url, options["headers"], data))
        answer = requests.Response()
        answer.status_code = self.status
        return answer


def browser() -> tuple[ec.EllipticCurvePrivateKey, bytes, Recipient]:
    """A browser's private key and secret, and what it gives away of them."""
    private, secret = ec.generate_private_key(ec.SECP256R1()), os.urandom(16)
    point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    key, auth = (urlsafe_b64encode(one).rstrip(b"=").decode() for one in (point, secret))
    return private, secret, Recipient(ENDPOINT, key, auth, "de")


@pytest.mark.parametrize(("status", "outcome"), [(201, "sent"), (410, "gone"), (503, "failed")])
async def test_web_push__answer_of_the_push_service__decides(status, outcome):
    session, (private, secret, recipient) = Answering(status), browser()
    notifier = WebPushNotifier(VapidKey("secret"), "mailto:ops@example.org", lambda: session)
    order_id = UUID(int=7)
    assert await notifier.send(Notification(order_id, "delivered", recipient)) == outcome
    [(url, headers, data)] = session.posted
    assert url == ENDPOINT
    assert headers["Authorization"].startswith("vapid t=")
    read = http_ece.decrypt(data, private_key=private, auth_secret=secret, version="aes128gcm")
    assert title_of("delivered", "de") in read.decode()
    assert f"/t/{order_id}" in read.decode()


def test_vapid_key__same_secret__is_the_same_key():
    assert VapidKey("a").public == VapidKey("a").public != VapidKey("b").public
    assert len(VapidKey("a").public) == 87
