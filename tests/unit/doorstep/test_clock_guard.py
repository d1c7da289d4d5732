"""The clock guard. The seams replaced: the clocks, and what the kernel says of NTP."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from doorstep.clock_guard import (
    ACCEPT_AFTER_S,
    EXIT_STATUS,
    ClockGuard,
    Clocks,
    kernel_confirms,
    read_clocks,
    watched_clock,
)
from doorstep.errors import ClockStepped

HOUR_S = 3600.0
SOON_S = 60.0


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
def test_clock_guard__clock_stepped__not_trusted_again(
    server: Server, guard: ClockGuard, step_s: float
) -> None:
    server.pass_s(100)
    assert guard.is_trusted()
    server.wall_s += step_s
    assert not guard.is_trusted()
    server.pass_s(10 * HOUR_S)
    assert not guard.is_trusted()
    server.wall_s -= step_s
    with pytest.raises(ClockStepped):
        guard.check()


@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S])
def test_clock_guard__clock_is_back__right_again(
    server: Server, guard: ClockGuard, step_s: float
) -> None:
    assert not guard.is_right_again()
    server.wall_s += step_s
    assert not guard.is_right_again()
    server.wall_s -= step_s - 5
    assert guard.is_right_again()


def test_clock_guard__small_corrections__are_followed(server: Server, guard: ClockGuard) -> None:
    for _ in range(10):
        server.pass_s(1)
        server.wall_s += 50
        assert guard.is_trusted()


def test_clock_guard__ntp_corrects_the_clock__right_once_the_kernel_confirms(
    server: Server, guard: ClockGuard
) -> None:
    server.is_synchronised = True
    assert not guard.is_right_again()
    server.wall_s += HOUR_S
    assert not guard.is_right_again()  # what the kernel says is of before the step
    server.is_synchronised = False
    server.pass_s(10 * HOUR_S)
    assert not guard.is_right_again()
    server.is_synchronised = True
    assert guard.is_right_again()
    assert not guard.is_trusted()


def test_clock_guard__without_ntp__the_new_clock_is_accepted_after_a_while(
    server: Server, guard: ClockGuard
) -> None:
    server.wall_s -= HOUR_S
    assert not guard.is_right_again()
    server.pass_s(ACCEPT_AFTER_S - 1)
    assert not guard.is_right_again()
    server.wall_s += 3 * HOUR_S
    assert not guard.is_right_again()
    server.pass_s(ACCEPT_AFTER_S - 1)
    assert not guard.is_right_again()
    server.pass_s(1)
    assert guard.is_right_again()
    assert not guard.is_trusted()


def test_clock_guard__stepped_while_idle__seen_at_the_next_use(
    server: Server, guard: ClockGuard
) -> None:
    server.pass_s(30 * 86_400)
    server.wall_s -= HOUR_S
    assert not guard.is_trusted()


def test_watched_clock__right_again__ends_the_process_once(
    server: Server, guard: ClockGuard
) -> None:
    ended = threading.Event()
    assert watched_clock(guard, ended.set, every_s=0.001) is guard
    server.wall_s -= HOUR_S
    while guard.is_trusted():
        pass
    assert not ended.wait(0.05)
    server.wall_s += HOUR_S
    assert ended.wait(SOON_S)


def test_end_process__a_thread_that_does_not_end__is_left_behind() -> None:
    code = (
        "import signal, time\n"
        "from doorstep import clock_guard\n"
        "signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "clock_guard.END_WITHIN_S = 0.1\n"
        "clock_guard.end_process()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=SOON_S)
    assert done.returncode == EXIT_STATUS


def test_kernel_confirms__another_clock_than_the_kernels__never() -> None:
    assert not kernel_confirms(time.time() + HOUR_S)
    assert not kernel_confirms(time.time() - HOUR_S)


def test_read_clocks__twice__both_clocks_advance_alike() -> None:
    first, second = read_clocks(), read_clocks()
    assert second.uptime_s >= first.uptime_s
    assert abs((second.wall_s - second.uptime_s) - (first.wall_s - first.uptime_s)) < 1
