"""Web push (RFC 8030, 8291, 8292): encrypted for the browser, signed with the stack's VAPID key.

An endpoint comes from a browser, and may name any host. All of an order has one topic, by which a
push service replaces what it still holds, and one tag, by which the browser replaces what it shows.
"""

from __future__ import annotations

import hashlib
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from urllib.parse import urlsplit
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from doorstep.notification_texts import title_of
from doorstep.outbound.destination import DestinationRules, RequestFailed
from doorstep.outbound.poster import Poster
from doorstep.telemetry import get_logger
from tracking_api.push.notifier import Notification, Outcome, Recipient

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
TIMEOUT_S = 10.0
TTL_S = {"nearby": 300, "delivered": 3600}  # a phone that comes back later gets no old news
SIGNED_FOR_S = 43_200  # RFC 8292 allows 24 h
GONE = (404, 410)


class VapidKey:
    """The key that signs requests to push services, derived from a secret of the stack."""

    def __init__(self, secret: str) -> None:
        digest = hashlib.sha256(b"doorstep web push " + secret.encode()).digest()
        scalar = int.from_bytes(digest) % (P256_ORDER - 1) + 1
        self.private = ec.derive_private_key(scalar, ec.SECP256R1())

    @property
    def public(self) -> str:
        """The public key as browsers take it (`applicationServerKey`)."""
        point = self.private.public_key().public_bytes(
            Encoding.X962, PublicFormat.UncompressedPoint
        )
        return urlsafe_b64encode(point).rstrip(b"=").decode()


class WebPushNotifier:
    """Sends notifications to browsers' push services."""

    def __init__(
        self,
        key: VapidKey,
        contact: str,
        rules: DestinationRules | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """`contact` is a mailto: or https: URL, by which a push service reaches the operator.

        Without `rules`, sends to public addresses only. `timeout_s` bounds a whole request.
        """
        self._key = key
        self._contact = contact
        self._poster = Poster(rules or DestinationRules(), timeout_s)

    async def send(self, notification: Notification) -> Outcome:
        """Send over a connection of its own, so that no endpoint delays another."""
        recipient = notification.recipient
        try:
            body = _encrypt(recipient, _payload(notification))
        except ValueError:  # 65 bytes that are no point of the curve
            return "gone"
        try:
            headers = {
                "content-encoding": "aes128gcm",
                "content-type": "application/octet-stream",
                "ttl": str(TTL_S[notification.kind]),
                "urgency": "high",
                "topic": topic_of(notification.order_id),
                "authorization": self._authorization(recipient.endpoint),
            }
            async with self._poster.new_client() as client:
                answer = await self._poster.post(client, recipient.endpoint, headers, body)
        except RequestFailed as exc:
            get_logger().info("push_failed", reason=type(exc.__cause__ or exc).__name__)
            return "failed"
        if 200 <= answer.status < 300:
            return "sent"
        return "gone" if answer.status in GONE else "failed"

    def _authorization(self, endpoint: str) -> str:
        # Imported here, as http_ece is: many processes send nothing.
        from py_vapid import Vapid02, VapidException

        parts = urlsplit(endpoint)
        claims = {
            "aud": f"{parts.scheme}://{parts.netloc}",
            "exp": int(time.time()) + SIGNED_FOR_S,
            "sub": self._contact,
        }
        try:
            return str(Vapid02(private_key=self._key.private).sign(claims)["Authorization"])
        except VapidException as exc:  # the contact is neither mailto: nor https:
            raise RequestFailed(str(exc)) from exc

    async def close(self) -> None:
        """Stop looking names up."""
        self._poster.close()


def topic_of(order_id: UUID) -> str:
    """Return an order's topic, 32 characters of base64. A push service learns no order by it."""
    return urlsafe_b64encode(hashlib.sha256(order_id.bytes).digest()[:24]).decode()


def _payload(notification: Notification) -> bytes:
    language = notification.recipient.language
    payload = {
        "title": title_of(notification.kind, language),
        "tag": str(notification.order_id),
        "url": f"/t/{notification.order_id}",
        "language": language,
    }
    return json.dumps(payload).encode()


def _encrypt(recipient: Recipient, payload: bytes) -> bytes:
    """Encrypt for a browser (RFC 8291). Raises ValueError for keys that are none."""
    import http_ece

    return bytes(
        http_ece.encrypt(
            payload,
            private_key=ec.generate_private_key(ec.SECP256R1()),
            dh=_decode(recipient.p256dh),
            auth_secret=_decode(recipient.auth),
            version="aes128gcm",
        )
    )


def _decode(key: str) -> bytes:
    return urlsafe_b64decode(key + "=" * (-len(key) % 4))
