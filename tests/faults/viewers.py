"""Viewers of live streams: all disconnected, some stalled or half-open, the feed cut off."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ops.servers.waiting import wait_until
from tests.faults.devices import assigned_order, command
from tests.faults.environment import FaultEnvironment
from tests.faults.fault import Fault, Outcome
from tests.faults.network import DEVICES, RoamingDevices
from tests.faults.proxy import Proxy, drop_incoming
from tests.faults.viewer_pool import ViewerPool

VIEWERS = 500
STALLED = VIEWERS // 10
HALF_OPEN = 50
ALL_SEE_WITHIN_S = 90.0
SNAPSHOT_WITHIN_S = 2.0
BUSIEST_S = 0.2  # the server spreads reconnects over 2 s: a tenth if they are uniform
BUSIEST_SHARE = 0.25
CALM_S = 15.0
CUT_WITHIN_S = 10.0
SLOWER_BY = 1.10
GONE_WITHIN_S = 40.0
CUT_OFF_S = 8.0  # longer than the 4 s after which idle orders are polled
IN_SYNC_WITHIN_S = 5.0
PIDFD_OPEN, PIDFD_GETFD = 434, 438  # system calls; the same numbers on all architectures


@contextlib.contextmanager
def orders_under_way(env: FaultEnvironment, *, fast: bool = False) -> Iterator[list[str]]:
    """Devices that report once a second, with an order each. `fast`: the first at 10 Hz."""
    with RoamingDevices(env, env.addresses.mqtt[0].port, fast=fast):
        orders: list[str] = []
        try:
            orders.extend(assigned_order(env, one, 11.27, 43.78) for one in DEVICES)
            yield orders
        finally:
            for order_id in orders:
                command(env.tracking, f"/orders/{order_id}/cancel")


def viewer_pool_of(
    env: FaultEnvironment,
    orders: Sequence[str],
    count: int,
    *,
    port: int = 0,
    may_stall: bool = False,
) -> ViewerPool:
    """Return viewers with the staff token, which has no limit of viewers."""
    port = port or env.addresses.tracking_api.port
    return ViewerPool(port, orders, env.stack.paths.staff_token(), count, may_stall)


def viewers_of(env: FaultEnvironment) -> float:
    """Return the number of open streams of tracking_api."""
    return env.metric("tracking_api", "doorstep_live_viewers")


def tracking_api_killed(env: FaultEnvironment) -> Outcome:
    """Kill -9 tracking_api with 500 viewers, who reconnect as browsers do."""
    with orders_under_way(env) as orders, viewer_pool_of(env, orders, VIEWERS) as pool:
        pool.wait(lambda one: one.is_watching, ALL_SEE_WITHIN_S, "all are watching")
        killed_at = env.kill("tracking_api")
        pool.wait(
            lambda one: one.is_watching and one.first_frame_at > killed_at,
            ALL_SEE_WITHIN_S,
            "all have reconnected",
        )
        back = [one.first_frame_at - killed_at for one in pool.viewers]
        waited = [one.first_frame_at - one.opened_at for one in pool.viewers]
        first = [min(at for at in one.tried_at if at > killed_at) for one in pool.viewers]
        recovery_s = env.wait_healthy(since=killed_at)
    slots = Counter(int((at - killed_at) / BUSIEST_S) for at in first)
    share = max(slots.values()) / VIEWERS
    return Outcome(
        f"{VIEWERS} viewers back after {min(back):.1f} to {max(back):.1f} s; first attempts over "
        f"{max(first) - min(first):.1f} s, {share:.0%} of them in the busiest {BUSIEST_S:g} s; "
        f"from the connection to the snapshot p95 {p95(waited):.2f} s, at most {max(waited):.2f} s",
        recovery_s,
        share <= BUSIEST_SHARE and max(waited) <= SNAPSHOT_WITHIN_S,
    )


def some_stalled(env: FaultEnvironment) -> Outcome:
    """Stall a tenth of 500 viewers: they stop reading."""
    with (
        orders_under_way(env, fast=True) as [fast, *orders],  # so that buffers fill quickly
        viewer_pool_of(env, [fast], STALLED, may_stall=True) as stalled,
        viewer_pool_of(env, orders, VIEWERS - STALLED) as pool,
    ):
        for each in (stalled, pool):
            each.wait(lambda one: one.is_watching, ALL_SEE_WITHIN_S, "all are watching")
        began = time.monotonic()
        time.sleep(CALM_S)
        stalled_at = time.monotonic()
        skipped = env.metric("tracking_api", "doorstep_live_skipped_total")
        stalled.stall()
        wait_until(
            lambda: env.metric("tracking_api", "doorstep_live_skipped_total") > skipped,
            ALL_SEE_WITHIN_S,
            "a stalled viewer's frames are skipped",
        )
        full_at = time.monotonic()
        wait_until(
            lambda: viewers_of(env) <= VIEWERS - STALLED, ALL_SEE_WITHIN_S, "all stalled are closed"
        )
        cut_at = time.monotonic()
        time.sleep(max(0.0, CALM_S - (cut_at - stalled_at)))
        over_at = time.monotonic()
        time.sleep(CALM_S)
        during = p95(pool.lags(stalled_at, over_at))
        calm = pool.lags(began, stalled_at) + pool.lags(over_at, time.monotonic())
        without = p95(calm)
        recovery_s = env.wait_healthy()
    return Outcome(
        f"{STALLED} of {VIEWERS} stalled: frames skipped after {full_at - stalled_at:.1f} s, "
        f"all closed {cut_at - full_at:.1f} s later; the others' p95 from fix to screen "
        f"{without * 1000:.0f} ms before and after, {during * 1000:.0f} ms meanwhile "
        f"({during / without - 1:+.0%})",
        recovery_s,
        cut_at - full_at <= CUT_WITHIN_S and during <= SLOWER_BY * without,
    )


def half_open(env: FaultEnvironment) -> Outcome:
    """Drop every packet of 50 of 100 viewers, as with phones in a tunnel."""
    tracking_port = env.addresses.tracking_api.port
    with (
        orders_under_way(env) as orders,
        Proxy(tracking_port) as tunnel,
        viewer_pool_of(env, orders, HALF_OPEN) as staying,
        viewer_pool_of(env, orders, HALF_OPEN, port=tunnel.port) as leaving,
    ):
        for pool in (staying, leaving):
            pool.wait(lambda one: one.is_watching, ALL_SEE_WITHIN_S, "all are watching")
        opened = viewers_of(env)
        gone_at = time.monotonic()
        tunnel.black_hole()
        wait_until(
            lambda: viewers_of(env) <= opened - HALF_OPEN, 2 * GONE_WITHIN_S, "they are removed"
        )
        took_s = time.monotonic() - gone_at
        stayed = sum(one.is_watching for one in staying.viewers)
        recovery_s = env.wait_healthy()
    return Outcome(
        f"{HALF_OPEN} half-open viewers removed after {took_s:.1f} s; {stayed} of {HALF_OPEN} "
        f"others stayed",
        recovery_s,
        took_s <= GONE_WITHIN_S and stayed == HALF_OPEN,
    )


def feed_cut_off(env: FaultEnvironment) -> Outcome:
    """Drop Kafka's packets to the live feed, then close its connections. Streams stay open."""
    with orders_under_way(env) as orders, viewer_pool_of(env, orders, HALF_OPEN) as pool:
        pool.wait(lambda one: one.is_watching, ALL_SEE_WITHIN_S, "all are watching")
        time.sleep(CALM_S / 3)
        cut_at = time.monotonic()
        pid, kafka_port = env.pid("tracking_api"), env.addresses.kafka.port
        oldest_fix_age_s: list[float] = []
        while time.monotonic() - cut_at < CUT_OFF_S:
            for sock in connections_of(pid, kafka_port):
                drop_incoming(sock, True)
            oldest_fix_age_s.append(_staleness_s(pool))
            time.sleep(0.1)
        broken = 0
        for sock in connections_of(pid, kafka_port):
            sock.shutdown(socket.SHUT_RDWR)
            broken += 1
        healed_at = time.monotonic()
        while _staleness_s(pool) > 2.0 and time.monotonic() - healed_at < ALL_SEE_WITHIN_S:
            time.sleep(0.1)
        in_sync_s = time.monotonic() - healed_at
        stayed = sum(max(one.lost_at, default=0.0) < cut_at for one in pool.viewers)
        recovery_s = env.wait_healthy(since=healed_at)
    return Outcome(
        f"{broken} connections of the feed cut off for {CUT_OFF_S:.0f} s: meanwhile positions "
        f"were {max(oldest_fix_age_s):.1f} s old at most, then current within {in_sync_s:.1f} s; "
        f"{stayed} of {HALF_OPEN} streams stayed open",
        recovery_s,
        broken > 0
        and max(oldest_fix_age_s) <= IN_SYNC_WITHIN_S + 1.0  # a report every second
        and in_sync_s <= IN_SYNC_WITHIN_S
        and stayed == HALF_OPEN,
    )


def _staleness_s(pool: ViewerPool) -> float:
    """Return the age of the oldest position that a viewer shows. Devices report every second."""
    return time.time() - min(one.newest_fix_s for one in pool.viewers)


def connections_of(pid: int, to_port: int) -> Iterator[socket.socket]:
    """Yield another process's connections to a port, one after the other."""
    inodes = {
        fields[9]
        for fields in map(str.split, Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:])
        if fields[2].endswith(f":{to_port:04X}") and fields[3] == "01"  # established
    }
    libc = ctypes.CDLL(None, use_errno=True)
    process = libc.syscall(PIDFD_OPEN, pid, 0)
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(link).removeprefix("socket:[").rstrip("]") not in inodes:
                continue
            copy = libc.syscall(PIDFD_GETFD, process, int(link.name), 0)
            if copy < 0:
                raise OSError(ctypes.get_errno(), "cannot copy a process's socket")
            with socket.socket(fileno=copy) as sock:
                yield sock
    os.close(process)


def p95(values: Sequence[float]) -> float:
    """Return the 95th percentile."""
    return sorted(values)[int(0.95 * (len(values) - 1))]


FAULTS = (
    Fault(
        22,
        "kill -9 of tracking_api with 500 viewers",
        "jittered reconnect, snapshot within 2 s",
        None,
        quick=False,
        run=tracking_api_killed,
    ),
    Fault(
        23,
        "10 % of the viewers stalled",
        "closed within 10 s, the others' p95 + 10 % at most",
        None,
        quick=False,
        run=some_stalled,
    ),
    Fault(
        24,
        "half-open viewers",
        "gone within 40 s",
        None,
        quick=False,
        run=half_open,
    ),
    Fault(
        25,
        "the live feed's consumer cut off",
        "in sync again within 5 s",
        None,
        quick=False,
        run=feed_cut_off,
    ),
)
