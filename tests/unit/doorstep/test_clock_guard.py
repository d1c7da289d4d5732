"""The clock guard. The seams replaced: the clocks, and what the kernel says of NTP."""

from __future__ import annotations

import time

import pytest

from doorstep.clock_guard import (
    CONFIRM_AFTER_S,
    ClockGuard,
    Clocks,
    kernel_confirms,
    read_clocks,
)
from doorstep.errors import ClockStepped

HOUR_S = 3600.0


class Server:
    """A server's clocks, and whether NTP keeps the wall clock."""

    def __init__(self) -> None:
        self.uptime_s = 1000.0
        self.wall_s = 1_800_000_000.0
        self.is_synchronised = False

    def read(self) -> Clocks:
        return Clocks(self.uptime_s, self.wall_s)

    def pass_s(self, seconds: float) -> None:
        self.uptime_s += seconds
        self.wall_s += seconds


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def guard(server: Server) -> ClockGuard:
    return ClockGuard(server.read, lambda _: server.is_synchronised)


@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S, 61, -61])
def test_clock_guard__clock_stepped__not_trusted_until_it_is_back(
    server: Server, guard: ClockGuard, step_s: float
) -> None:
    server.pass_s(100)
    assert guard.is_trusted()
    server.wall_s += step_s
    assert not guard.is_trusted()
    server.pass_s(10 * HOUR_S)
    with pytest.raises(ClockStepped):
        guard.check()
    server.wall_s -= step_s
    guard.check()
    assert guard.is_trusted()


def test_clock_guard__small_corrections__are_followed(server: Server, guard: ClockGuard) -> None:
    for _ in range(10):
        server.pass_s(1)
        server.wall_s += 50
        assert guard.is_trusted()


def test_clock_guard__ntp_corrects_the_clock__trusted_once_the_kernel_confirms(
    server: Server, guard: ClockGuard
) -> None:
    server.wall_s += HOUR_S
    server.is_synchronised = True  # of before the step
    assert not guard.is_trusted()
    server.is_synchronised = False
    server.pass_s(CONFIRM_AFTER_S)
    assert not guard.is_trusted()
    server.is_synchronised = True
    assert guard.is_trusted()
    server.is_synchronised = False
    assert guard.is_trusted()
    server.wall_s -= HOUR_S
    assert not guard.is_trusted()


def test_clock_guard__stepped_while_idle__seen_at_the_next_use(
    server: Server, guard: ClockGuard
) -> None:
    server.pass_s(30 * 86_400)
    server.wall_s -= HOUR_S
    assert not guard.is_trusted()


def test_kernel_confirms__another_clock_than_the_kernels__never() -> None:
    assert not kernel_confirms(time.time() + HOUR_S)
    assert not kernel_confirms(time.time() - HOUR_S)


def test_read_clocks__twice__both_clocks_advance_alike() -> None:
    first, second = read_clocks(), read_clocks()
    assert second.uptime_s >= first.uptime_s
    assert abs((second.wall_s - second.uptime_s) - (first.wall_s - first.uptime_s)) < 1
