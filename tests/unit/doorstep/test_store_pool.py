"""The patience of the APIs' connections, as numbers that must fit together."""

from __future__ import annotations

from doorstep.store import deadline, pool
from driver_api import queries


def test_waits__a_request_that_needs_two_connections__is_refused_within_2_s() -> None:
    assert 2 * pool.WAIT_S < 2.0


def test_waits__no_connection_became_free__is_not_waited_for_again() -> None:
    assert queries.RETRY_WITHIN_S < pool.WAIT_S


def test_waits__a_silent_database__is_given_up_below_5_s_and_after_any_wait() -> None:
    assert pool.WAIT_S + pool.LOCK_TIMEOUT_MS / 1000 < deadline.ANSWER_WITHIN_S < 5.0


def test_connection_options__vanished_peer__is_noticed_by_both_sides() -> None:
    options = pool.connection_options()
    assert options["keepalives_idle"] == 2
    assert options["tcp_user_timeout"] == 5_000
    assert "-c tcp_keepalives_idle=30 " in str(options["options"])
