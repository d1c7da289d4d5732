"""Notifications: who sends them, and where to. Push services are replaced by fakes."""

from __future__ import annotations

import asyncio
import json
import os
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Collection
from uuid import UUID, uuid4

import http_ece
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from py_vapid import Vapid02

from doorstep.errors import StoreUnavailable
from doorstep.notification_texts import TITLES, title_of
from doorstep.outbound.destination import DestinationRules
from doorstep.public_addresses import is_public_address
from tests.unit.doorstep.http_peer import PATIENCE_S, answering, peer
from tracking_api.push.notifier import Kind, Notification, Outcome, Recipient
from tracking_api.push.web_push import VapidKey, WebPushNotifier
from tracking_api.push.worker import MAX_AT_ONCE, PushWorker

ENDPOINT = "https://push.example.org/send/1"
CONTACT = "mailto:ops@example.org"
KEY = VapidKey("secret")
ORDER_ID = UUID(int=7)


def notification(kind: Kind = "nearby", endpoint: str = ENDPOINT) -> Notification:
    return attempt_of(uuid4(), kind, Recipient(endpoint, "key", "auth", "it-IT"))


def attempt_of(order_id: UUID, kind: Kind, recipient: Recipient) -> Notification:
    return Notification(order_id, kind, recipient, b"o" * 32, attempt=1)


class FakeStore:
    """Gives out at most so many, and of each order; a failed one is due again at once."""

    def __init__(self, *due: Notification) -> None:
        self.due = list(due)
        self.requests: list[Collection[UUID] | None] = []
        self.pauses_s: list[float | None] = []
        self.dropped: list[str] = []
        self.is_away = False
        self._leased: Counter[UUID] = Counter()

    async def claim(
        self,
        order_ids: Collection[UUID] | None,
        at_most: int,
        at_most_of_order: int,
        lease_s: float,
    ) -> list[Notification]:
        self.requests.append(order_ids)
        if self.is_away:
            raise StoreUnavailable
        taken: list[Notification] = []
        waiting: list[Notification] = []
        for one in self.due:
            is_taken = len(taken) < at_most and self._leased[one.order_id] < at_most_of_order
            (taken if is_taken else waiting).append(one)
            self._leased[one.order_id] += is_taken
        self.due = waiting
        return taken

    async def report(self, notification: Notification, retry_in_s: float | None) -> None:
        self.pauses_s.append(retry_in_s)
        self._leased[notification.order_id] -= 1
        if self.is_away:
            raise StoreUnavailable
        if retry_in_s is not None:
            self.due.append(notification._replace(attempt=notification.attempt + 1))

    async def drop_subscription(self, endpoint: str) -> None:
        self.dropped.append(endpoint)


class FakeNotifier:
    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.sent: list[Notification] = []
        self.has_sent_all = asyncio.Event()

    async def send(self, notification: Notification) -> Outcome:
        self.sent.append(notification)
        outcome = self.outcomes.pop(0)
        if not self.outcomes:
            self.has_sent_all.set()
        return outcome

    async def close(self) -> None: ...


async def sent_by(store: FakeStore, notifier: FakeNotifier) -> None:
    worker = PushWorker(store, notifier, retries_after_s=(5.0, 30.0))
    for _ in range(4):
        await worker.send_due(None)
        await worker.finish()


async def test_worker__failures_at_first__repeats_until_it_is_sent():
    store, notifier = FakeStore(notification()), FakeNotifier("failed", "failed", "sent")
    await sent_by(store, notifier)
    assert [one.attempt for one in notifier.sent] == [1, 2, 3]
    assert (store.pauses_s, store.dropped) == ([5.0, 30.0, None], [])


async def test_worker__failures_without_end__gives_up():
    store, notifier = FakeStore(notification()), FakeNotifier("failed", "failed", "failed")
    await sent_by(store, notifier)
    assert store.pauses_s == [5.0, 30.0, None]


async def test_worker__database_away_at_the_report__goes_on():
    store, notifier = FakeStore(notification()), FakeNotifier("sent")
    worker = PushWorker(store, notifier)
    await worker.send_due(None)
    store.is_away = True
    await worker.finish()
    assert len(notifier.sent) == 1


async def test_worker__more_are_due_than_may_be_sent_at_once__takes_the_rest_later():
    due = [notification() for _ in range(MAX_AT_ONCE + 1)]
    store, notifier = FakeStore(*due), FakeNotifier(*["sent"] * len(due))
    worker = PushWorker(store, notifier)
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(PATIENCE_S):
        await notifier.has_sent_all.wait()
    running.cancel()
    assert len({one.order_id for one in notifier.sent}) == len(due)


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
    kinds = frozenset({"nearby", "delivered", "failed"})
    assert {frozenset(titles) for titles in TITLES.values()} == {kinds}
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


def browser() -> tuple[ec.EllipticCurvePrivateKey, bytes, Recipient]:
    """A browser's private key and secret, and what it gives away of them."""
    private, secret = ec.generate_private_key(ec.SECP256R1()), os.urandom(16)
    point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    key, auth = (urlsafe_b64encode(one).rstrip(b"=").decode() for one in (point, secret))
    return private, secret, Recipient(ENDPOINT, key, auth, "de")


def notifier_on_loopback(key: VapidKey = KEY, contact: str = CONTACT) -> WebPushNotifier:
    return WebPushNotifier(key, contact, DestinationRules(allow_loopback=True))


@pytest.mark.parametrize(
    ("status", "outcome"), [(201, "sent"), (307, "failed"), (410, "gone"), (503, "failed")]
)
async def test_web_push__answer_of_the_push_service__decides(status, outcome):
    (private, secret, recipient), notifier = browser(), notifier_on_loopback()
    async with peer(answering(status)) as service:
        to = recipient._replace(endpoint=service.url)
        assert await notifier.send(attempt_of(ORDER_ID, "delivered", to)) == outcome
    await notifier.close()
    [(headers, body)] = service.requests
    assert (headers["content-encoding"], headers["ttl"]) == ("aes128gcm", "3600")
    read = http_ece.decrypt(body, private_key=private, auth_secret=secret, version="aes128gcm")
    payload = json.loads(read)
    assert (payload["title"], payload["url"]) == (title_of("delivered", "de"), f"/t/{ORDER_ID}")


async def test_web_push__all_of_an_order__has_one_topic_and_tag():
    (private, secret, recipient), notifier = browser(), notifier_on_loopback()
    kinds: list[Kind] = ["nearby", "nearby", "delivered"]
    async with peer(answering(201)) as service:
        to = recipient._replace(endpoint=service.url)
        for order_id in (ORDER_ID, UUID(int=8)):
            for kind in kinds:
                await notifier.send(attempt_of(order_id, kind, to))
    await notifier.close()
    topics = [headers["topic"] for headers, _ in service.requests]
    tags = [
        json.loads(
            http_ece.decrypt(body, private_key=private, auth_secret=secret, version="aes128gcm")
        )["tag"]
        for _, body in service.requests
    ]
    for found in (topics, tags):
        assert found == [found[0]] * 3 + [found[-1]] * 3
        assert found[0] != found[-1]
    assert all(re.fullmatch("[A-Za-z0-9_-]{1,32}", one) for one in topics)  # RFC 8030


async def test_web_push__signature__is_of_the_key_for_the_origin():
    notifier = notifier_on_loopback()
    async with peer(answering(201)) as service:
        to = browser()[2]._replace(endpoint=service.url)
        await notifier.send(attempt_of(ORDER_ID, "nearby", to))
    await notifier.close()
    [(headers, _)] = service.requests
    assert Vapid02.verify(headers["authorization"])
    assert headers["authorization"].endswith(f",k={KEY.public}")
    claims = headers["authorization"].split("t=")[1].split(".")[1]
    origin, contact = service.url.removesuffix("/x"), CONTACT
    found = json.loads(urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    assert (found["aud"], found["sub"]) == (origin, contact)


async def test_web_push__key_that_is_no_point_of_the_curve__is_gone():
    no_point = urlsafe_b64encode(b"\x04" + b"\x01" * 64).decode()
    notifier, to = notifier_on_loopback(), browser()[2]._replace(p256dh=no_point)
    assert await notifier.send(attempt_of(ORDER_ID, "nearby", to)) == "gone"
    await notifier.close()


async def test_web_push__contact_that_push_services_refuse__fails():
    notifier, to = notifier_on_loopback(contact="http://127.0.0.1:8000"), browser()[2]
    assert await notifier.send(attempt_of(ORDER_ID, "nearby", to)) == "failed"
    await notifier.close()


async def test_web_push__endpoint_inside_the_network__is_not_connected_to():
    notifier = WebPushNotifier(KEY, CONTACT)
    async with peer(answering(201)) as service:
        to = browser()[2]._replace(endpoint=service.url.replace("http:", "https:"))
        assert await notifier.send(attempt_of(ORDER_ID, "nearby", to)) == "failed"
    await notifier.close()
    assert service.requests == []


def test_vapid_key__same_secret__is_the_same_key():
    assert VapidKey("a").public == VapidKey("a").public != VapidKey("b").public
    assert len(VapidKey("a").public) == 87
