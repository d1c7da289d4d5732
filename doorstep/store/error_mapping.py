"""Psycopg's errors in Doorstep's words, translated once, at the edge."""

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


# The SQLSTATEs that the functions of sql/schema raise; the list stands in sql/README.md too.
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
    "DS015": _plain(errors.BadLink),
}

# The same call may go through later: a server or connection that went away, is starting, is
# full, cancelled us or made us lose a deadlock.
_TRANSIENT_CLASSES = ("08", "40", "53", "57")
_TRANSIENT_STATES = (
    "25P03",  # idle_in_transaction_session_timeout: the server closed our session
    "3D000",  # the database is not there (yet)
    "55P03",  # lock_timeout: a row was not free in time
)


def from_sqlstate(exc: psycopg.Error) -> Exception:
    """Name a psycopg error. Returns the error itself where it can only be a fault of ours."""
    state = exc.sqlstate
    if state in _OURS:
        return _OURS[state](_detail(exc), exc.diag.message_primary or str(exc))
    if state is None:
        # No answer from the server at all: it never came about, or the connection broke.
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
    """Turn every psycopg error raised inside into a DoorstepError."""
    try:
        yield
    except psycopg_pool.PoolTimeout as exc:
        raise errors.StoreUnavailable("no database connection became free in time") from exc
    except psycopg.Error as exc:
        error = from_sqlstate(exc)
        if error is exc:
            raise
        raise error from exc
