"""Maps psycopg errors to DoorstepErrors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import psycopg_pool

from doorstep import errors


def _illegal_transition(detail: dict[str, Any], _message: str) -> errors.DoorstepError:
    return errors.IllegalTransition(
        str(detail.get("subject_id", "")),
        str(detail.get("command", "")),
        str(detail.get("current_state", "")),
        list(detail.get("allowed", [])),
    )


def _plain(error: type[errors.DoorstepError]) -> Callable[[dict[str, Any], str], Exception]:
    return lambda _detail, message: error(message)


# The SQLSTATEs that the functions of sql/schema raise.
_OURS: dict[str, Callable[[dict[str, Any], str], Exception]] = {
    "DS001": _illegal_transition,
    "DS002": _plain(errors.UnknownOrder),
    "DS003": _plain(errors.UnknownDriver),
    "DS004": _plain(errors.UnknownRestaurant),
    "DS005": _plain(errors.UnknownPolicy),
    "DS006": _plain(errors.DriverUnavailable),
    "DS007": _plain(errors.NoDriverAvailable),
    "DS008": _plain(errors.IdempotencyConflict),
    "DS009": _plain(errors.OffsetLost),
    "DS022": _plain(errors.UnknownStaff),
    "DS023": _plain(errors.StaffExists),
    "DS025": _plain(errors.DeviceExists),
    "DS015": _plain(errors.BadLink),
    "DS026": _plain(errors.Unauthenticated),
    "DS016": _plain(errors.OrderOpen),
    "DS017": _plain(errors.IdForgotten),
    "DS030": _plain(errors.OfferClosed),
    "DS031": _plain(errors.OfferOpen),
    "DS032": _plain(errors.ExternalIdTaken),
    "DS033": _plain(errors.StopsChanged),
    "DS034": _plain(errors.StopBehind),
    "DS040": _plain(errors.Retired),
    "DS041": _plain(errors.NameTaken),
    "DS042": _plain(errors.DefaultPolicy),
    "DS043": _plain(errors.UnknownServiceArea),
    "DS051": _plain(errors.SwappedCoordinates),
    "DS070": _plain(errors.UnknownAlert),
    "DS071": _plain(errors.UnknownWebhook),
    "DS072": _plain(errors.TooManyWebhooks),
    "DS073": _plain(errors.UnknownDelivery),
}

# Retriable: connection lost, server starting or full, statement cancelled, deadlock.
_TRANSIENT_CLASSES = ("08", "40", "53", "57")
_TRANSIENT_STATES = (
    "25006",  # a write on a standby: its server was the primary when the connection was made
    "25P03",  # idle_in_transaction_session_timeout
    "3D000",  # the database does not exist (yet)
    "55P03",  # lock_timeout
)


def from_sqlstate(exc: psycopg.Error) -> Exception:
    """Map a psycopg error. Returns the error itself if it is a defect, such as a missing column."""
    state = exc.sqlstate
    if state in _OURS:
        return _OURS[state](_detail(exc), exc.diag.message_primary or str(exc))
    if state is None:
        # No answer from the server: the connection failed or broke.
        broken = isinstance(exc, (psycopg.OperationalError, psycopg.InterfaceError))
        return errors.StoreUnavailable() if broken else exc
    if state.startswith(_TRANSIENT_CLASSES) or state in _TRANSIENT_STATES:
        return errors.StoreUnavailable()
    return exc


def _detail(exc: psycopg.Error) -> dict[str, Any]:
    try:
        detail = json.loads(exc.diag.message_detail or "{}")
    except ValueError:
        return {}
    return detail if isinstance(detail, dict) else {}


@contextmanager
def translated() -> Iterator[None]:
    """Raise psycopg errors of the block as DoorstepErrors."""
    try:
        yield
    except psycopg_pool.PoolTimeout as exc:
        raise errors.StoreUnavailable("no database connection became free in time") from exc
    except psycopg.Error as exc:
        error = from_sqlstate(exc)
        if error is exc:
            raise
        raise error from exc
