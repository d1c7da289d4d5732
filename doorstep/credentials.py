"""Secrets: derived from one fleet key, or random.

    fleet key ─┬─ mqtt_password(key, device_id)   drivers and sources, at the broker
               ├─ driver_token(key, driver_id)    a driver, at driver_api
               └─ phone_token(key, driver_id, generation)    a driver's phone app, at both
    random ────┬─ DeviceSecrets.draw(kind)  the first two, rotated or added over the API
               ├─ PhoneSecret.draw()       a new phone's app, at both
               ├─ new_invitation_token()   a driver who sets a phone up, at driver_api
               ├─ new_service_password()   bridge, driver_events and the launcher, at the broker
               ├─ new_staff_token()        a member of staff, at both APIs
               ├─ new_session_token()      a page of a member of staff, at tracking_api
               ├─ new_service_token()      driver_events' PATCH sink, at driver_api
               ├─ new_customer_token()     one order's customer, at tracking_api
               ├─ new_vapid_key()          tracking_api, at browsers' push services
               └─ new_webhook_secret()     signs what `webhooks` sends; the only one stored as it is

A derived secret is never stored, so a fleet of 100,000 needs one file. `rotate` replaces a device's
secrets with random ones, which a leaked fleet key does not reveal. The database keeps only
`token_sha256` of each token and `mqtt_hash` of a random password, and the brokers only the PBKDF2
entry of each password. Pure functions: only `read_fleet_key` reads a file.
"""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from uuid import UUID

from doorstep.errors import SettingsError

FLEET_KEY_BYTES = 32
TOKEN_BYTES = 32
DRIVER_TOKEN_PREFIX = "drv_"  # noqa: S105
PHONE_TOKEN_PREFIX = "phn_"  # noqa: S105
STAFF_TOKEN_PREFIX = "stf_"  # noqa: S105
SESSION_TOKEN_PREFIX = "ses_"  # noqa: S105
SERVICE_TOKEN_PREFIX = "svc_"  # noqa: S105
CUSTOMER_TOKEN_PREFIX = "cst_"  # noqa: S105
INVITATION_TOKEN_PREFIX = "inv_"  # noqa: S105
FOLLOW_TOKEN_PREFIX = "fol_"  # noqa: S105

# A broker disconnects the first of two clients with one id, so each instance of driver_events has
# its own user name. driver-pos has 12 partitions, so there are at most 12 instances.
DRIVER_EVENTS_REPLICAS = tuple(f"driver_events-{number}" for number in range(2, 13))

# One round is enough: stretching protects guessable passwords, and these have 256 random bits. It
# saves the broker 0.1 ms of CPU per connection (10 s for a fleet of 100,000).
PBKDF2_ITERATIONS = 1
PBKDF2_SALT_BYTES = 12  # as mosquitto_passwd


def new_fleet_key() -> bytes:
    """Draw a fleet key: 32 random bytes."""
    return secrets.token_bytes(FLEET_KEY_BYTES)


def encode_fleet_key(key: bytes) -> str:
    """Encode a fleet key for its file: 64 hexadecimal digits and a newline."""
    return key.hex() + "\n"


def decode_fleet_key(text: str) -> bytes:
    """Decode the text of a fleet key's file. Raises SettingsError unless it is 32 bytes."""
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        raise SettingsError("the fleet key is not hexadecimal") from None
    if len(key) != FLEET_KEY_BYTES:
        raise SettingsError(f"the fleet key has {len(key)} bytes, not {FLEET_KEY_BYTES}")
    return key


def read_fleet_key(path: Path) -> bytes:
    """Read a fleet key's file. Raises SettingsError if it is missing, unreadable or malformed."""
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"the fleet key {path} can't be read: {exc}") from exc
    return decode_fleet_key(text)


def mqtt_password(key: bytes, device_id: str) -> str:
    """Derive the first MQTT password of a driver or source."""
    return _base64url(_derive(key, b"mqtt:", device_id))


def driver_token(key: bytes, driver_id: str) -> str:
    """Derive the first bearer token of a driver's phone for driver_api."""
    return DRIVER_TOKEN_PREFIX + _base64url(_derive(key, b"api:", driver_id))


@dataclass(frozen=True, slots=True, repr=False)
class DeviceSecrets:
    """Random secrets of a driver or source. A source has no token."""

    mqtt_password: str
    token: str | None

    @classmethod
    def draw(cls, kind: str) -> Self:
        """Draw the secrets of a `driver` or `source`."""
        token = DRIVER_TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
        return cls(secrets.token_urlsafe(TOKEN_BYTES), token if kind == "driver" else None)

    def hashes(self) -> tuple[str, bytes | None]:
        """Return what the database stores: `mqtt_hash`, and `token_sha256` of the token."""
        salt = secrets.token_bytes(PBKDF2_SALT_BYTES)
        digest = None if self.token is None else token_sha256(self.token)
        return _mqtt_hash(self.mqtt_password, salt), digest


@dataclass(frozen=True, slots=True, repr=False)
class PhoneSecret:
    """A random secret of a phone app: its token, and its MQTT password."""

    token: str

    @classmethod
    def draw(cls) -> Self:
        """Draw a secret."""
        return cls(PHONE_TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES))

    def hashes(self) -> tuple[str, bytes]:
        """Return what the database stores: `mqtt_hash` and `token_sha256`."""
        salt = secrets.token_bytes(PBKDF2_SALT_BYTES)
        return _mqtt_hash(self.token, salt), token_sha256(self.token)


def phone_token(key: bytes, driver_id: str, generation: int = 0) -> str:
    """Derive what a driver's phone app logs in with, at driver_api and as an MQTT password."""
    derived = _derive(key, b"phone:", f"{driver_id}:{generation}")
    return PHONE_TOKEN_PREFIX + _base64url(derived)


def phone_username(driver_id: str) -> str:
    """Return a phone's user name at the brokers. It has a dot, so it is no device's id."""
    return f"{driver_id}.phone"


def new_service_password() -> str:
    """Draw the MQTT password of a service."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def new_staff_token() -> str:
    """Draw a staff token."""
    return STAFF_TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def new_session_token() -> str:
    """Draw the token of a page's session, which the browser keeps as a cookie."""
    return SESSION_TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def new_service_token() -> str:
    """Draw the token with which driver_events calls driver_api."""
    return SERVICE_TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def new_webhook_secret() -> str:
    """Draw the secret of a webhook, in the form of Standard Webhooks: whsec_ and base64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(TOKEN_BYTES)).decode()


def new_customer_token() -> str:
    """Draw the token of one order's customer."""
    return CUSTOMER_TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def retry_customer_token(token: str, order_id: UUID) -> str:
    """Derive, from the token of a failed order's customer, that of the order that tries again.

    The same in each call, so that a repeat makes no further token, and a revoked one stays revoked.
    """
    digest = hmac.new(token.encode(), f"retry of {order_id}".encode(), hashlib.sha256).digest()
    text = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return CUSTOMER_TOKEN_PREFIX + text


def new_vapid_key() -> str:
    """Draw the secret that the key of web push derives from."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def new_invitation_token() -> str:
    """Draw the token of a driver's invitation."""
    return INVITATION_TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def new_follow_token() -> str:
    """Draw the token with which a page waits for a phone's first position."""
    return FOLLOW_TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def token_sha256(token: str) -> bytes:
    """Hash a token as it is stored in the database. Accepts any text, lone surrogates included."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def mosquitto_entry(key: bytes, device_id: str, mqtt_hash: str | None = None) -> str:
    """Build a device's line of Mosquitto's password file: `name:$7$rounds$salt$hash`.

    Without the hash of a random password, password and salt are derived, so that the same fleet
    always gives the same file, and an unchanged file need not be reloaded.
    """
    if mqtt_hash is None:
        salt = _derive(key, b"salt:", device_id)[:PBKDF2_SALT_BYTES]
        mqtt_hash = _mqtt_hash(mqtt_password(key, device_id), salt)
    return f"{device_id}:{mqtt_hash}"


def phone_entry(
    key: bytes, driver_id: str, generation: int = 0, mqtt_hash: str | None = None
) -> str:
    """Build a phone's line of Mosquitto's password file.

    Without the hash of a random secret, secret and salt are derived.
    """
    if mqtt_hash is None:
        token = phone_token(key, driver_id, generation)
        salt = _derive(key, b"phone-salt:", f"{driver_id}:{generation}")[:PBKDF2_SALT_BYTES]
        mqtt_hash = _mqtt_hash(token, salt)
    return f"{phone_username(driver_id)}:{mqtt_hash}"


def service_entry(username: str, password: str) -> str:
    """Build a service's line of Mosquitto's password file, with a derived salt."""
    salt = _derive(password.encode(), b"salt:", username)[:PBKDF2_SALT_BYTES]
    return f"{username}:{_mqtt_hash(password, salt)}"


def _mqtt_hash(password: str, salt: bytes) -> str:
    digest = hashlib.pbkdf2_hmac("sha512", password.encode("ascii"), salt, PBKDF2_ITERATIONS)
    return f"$7${PBKDF2_ITERATIONS}${_base64(salt)}${_base64(digest)}"


def _derive(key: bytes, purpose: bytes, name: str) -> bytes:
    return hmac.digest(key, purpose + name.encode("utf-8"), "sha256")


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")
