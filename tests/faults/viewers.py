"""Viewers of the live streams: all thrown out, some stalled or vanished, their feed cut off."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.faults.audience import Audience
from tests.faults.devices import assigned_order, command
from tests.faults.fault import Fault, Seen
from tests.faults.lab import Lab
from tests.faults.network import PHONES, Phones
from tests.faults.proxy import Proxy, deafen
from tests.faults.waiting import wait_until

VIEWERS = 500
STALLED = VIEWERS // 10
VANISHED = 50
ALL_SEE_WITHIN_S = 90.0
SNAPSHOT_WITHIN_S = 2.0
BUSIEST_S = 0.2  # of the 2 s over which the server spreads them: a tenth if even
BUSIEST_SHARE = 0.25
CALM_S = 15.0
CUT_WITHIN_S = 10.0
SLOWER_BY = 1.10
GONE_WITHIN_S = 40.0
CUT_OFF_S = 8.0  # longer than the 4 s after which an order is looked at anyway
IN_SYNC_WITHIN_S = 5.0
PIDFD_OPEN, PIDFD_GETFD = 434, 438  # system calls, the same numbers everywhere


@contextlib.contextmanager
def orders_under_way(lab: Lab, *, hasty: bool = False) -> Iterator[list[str]]:
    """Phones that report once a second, each with an order; a `hasty` first, ten times as fast."""
    with Phones(lab, lab.addresses.mqtt[0].port, hasty=hasty):
        orders: list[str] = []
        try:
            orders.extend(assigned_order(lab, one, 11.27, 43.78) for one in PHONES)
            yield orders
        finally:
            for order_id in orders:
                command(lab.tracking, f"/orders/{order_id}/cancel")


def audience_of(
    lab: Lab, orders: Sequence[str], count: int, *, port: int = 0, may_stall: bool = False
) -> Audience:
    """Staff looking on: no limit of viewers to a token."""
    port = port or lab.addresses.tracking_api.port
    return Audience(port, orders, lab.stack.paths.staff_token(), count, may_stall)


def viewers_of(lab: Lab) -> float:
    """How many streams tracking_api has open."""
    return lab.metric("tracking_api", "doorstep_live_viewers")


def tracking_api_killed(lab: Lab) -> Seen:
    """Kill -9 tracking_api with 500 viewers, who come back as browsers do."""
    with orders_under_way(lab) as orders, audience_of(lab, orders, VIEWERS) as audience:
        audience.wait(lambda one: one.sees, ALL_SEE_WITHIN_S, "they look on")
        killed_at = lab.kill("tracking_api")
        audience.wait(
            lambda one: one.sees and one.first_frame_at > killed_at,
            ALL_SEE_WITHIN_S,
            "all are back",
        )
        back = [one.first_frame_at - killed_at for one in audience.viewers]
        waited = [one.first_frame_at - one.opened_at for one in audience.viewers]
        first = [min(at for at in one.tried_at if at > killed_at) for one in audience.viewers]
        recovery_s = lab.wait_healthy(since=killed_at)
    slots = Counter(int((at - killed_at) / BUSIEST_S) for at in first)
    share = max(slots.values()) / VIEWERS
    return Seen(
        f"{VIEWERS} viewers back after {min(back):.1f} to {max(back):.1f} s; first tries over "
        f"{max(first) - min(first):.1f} s, {share:.0%} of them in the busiest {BUSIEST_S:g} s; "
        f"from the connection to the snapshot p95 {p95(waited):.2f} s, at most {max(waited):.2f} s",
        recovery_s,
        share <= BUSIEST_SHARE and max(waited) <= SNAPSHOT_WITHIN_S,
    )


def some_stalled(lab: Lab) -> Seen:
    """Let a tenth of 500 viewers read nothing any more."""
    with (
        orders_under_way(lab, hasty=True) as [fast, *orders],  # so that buffers fill soon
        audience_of(lab, [fast], STALLED, may_stall=True) as stalling,
        audience_of(lab, orders, VIEWERS - STALLED) as audience,
    ):
        for each in (stalling, audience):
            each.wait(lambda one: one.sees, ALL_SEE_WITHIN_S, "they look on")
        began = time.monotonic()
        time.sleep(CALM_S)
        stalled_at = time.monotonic()
        skipped = lab.metric("tracking_api", "doorstep_live_skipped_total")
        stalling.stall()
        wait_until(
            lambda: lab.metric("tracking_api", "doorstep_live_skipped_total") > skipped,
            ALL_SEE_WITHIN_S,
            "a stalled viewer takes no more",
        )
        full_at = time.monotonic()
        wait_until(
            lambda: viewers_of(lab) <= VIEWERS - STALLED, ALL_SEE_WITHIN_S, "all stalled are cut"
        )
        cut_at = time.monotonic()
        time.sleep(max(0.0, CALM_S - (cut_at - stalled_at)))
        over_at = time.monotonic()
        time.sleep(CALM_S)
        during = p95(audience.lags(stalled_at, over_at))
        calm = audience.lags(began, stalled_at) + audience.lags(over_at, time.monotonic())
        without = p95(calm)
        recovery_s = lab.wait_healthy()
    return Seen(
        f"{STALLED} of {VIEWERS} stalled: took no more after {full_at - stalled_at:.1f} s, all cut "
        f"{cut_at - full_at:.1f} s later; the others' p95 from fix to screen "
        f"{without * 1000:.0f} ms before and after, {during * 1000:.0f} ms meanwhile "
        f"({during / without - 1:+.0%})",
        recovery_s,
        cut_at - full_at <= CUT_WITHIN_S and during <= SLOWER_BY * without,
    )


def vanished(lab: Lab) -> Seen:
    """Let 50 of 100 viewers vanish without a word, as phones in a tunnel do."""
    tracking_port = lab.addresses.tracking_api.port
    with (
        orders_under_way(lab) as orders,
        Proxy(tracking_port) as tunnel,
        audience_of(lab, orders, VANISHED) as staying,
        audience_of(lab, orders, VANISHED, port=tunnel.port) as leaving,
    ):
        for audience in (staying, leaving):
            audience.wait(lambda one: one.sees, ALL_SEE_WITHIN_S, "they look on")
        opened = viewers_of(lab)
        gone_at = time.monotonic()
        tunnel.black_hole()
        wait_until(
            lambda: viewers_of(lab) <= opened - VANISHED, 2 * GONE_WITHIN_S, "they are forgotten"
        )
        took_s = time.monotonic() - gone_at
        stayed = sum(one.sees for one in staying.viewers)
        recovery_s = lab.wait_healthy()
    return Seen(
        f"{VANISHED} vanished viewers forgotten after {took_s:.1f} s; {stayed} of {VANISHED} "
        f"others stayed",
        recovery_s,
        took_s <= GONE_WITHIN_S and stayed == VANISHED,
    )


def feed_cut_off(lab: Lab) -> Seen:
    """Make the live feed deaf to Kafka, then break its connections; all others keep theirs."""
    with orders_under_way(lab) as orders, audience_of(lab, orders, VANISHED) as audience:
        audience.wait(lambda one: one.sees, ALL_SEE_WITHIN_S, "they look on")
        time.sleep(CALM_S / 3)
        cut_at = time.monotonic()
        pid, kafka_port = lab.pid("tracking_api"), lab.addresses.kafka.port
        oldest_s: list[float] = []
        while time.monotonic() - cut_at < CUT_OFF_S:
            for sock in connections_of(pid, kafka_port):
                deafen(sock, True)
            oldest_s.append(_staleness_s(audience))
            time.sleep(0.1)
        broken = 0
        for sock in connections_of(pid, kafka_port):
            sock.shutdown(socket.SHUT_RDWR)
            broken += 1
        healed_at = time.monotonic()
        while _staleness_s(audience) > 2.0 and time.monotonic() - healed_at < ALL_SEE_WITHIN_S:
            time.sleep(0.1)
        in_sync_s = time.monotonic() - healed_at
        stayed = sum(max(one.lost_at, default=0.0) < cut_at for one in audience.viewers)
        recovery_s = lab.wait_healthy(since=healed_at)
    return Seen(
        f"{broken} connections of the feed deaf for {CUT_OFF_S:.0f} s: meanwhile what viewers saw "
        f"was {max(oldest_s):.1f} s old at most, then current within {in_sync_s:.1f} s; "
        f"{stayed} of {VANISHED} streams stayed open",
        recovery_s,
        broken > 0
        and max(oldest_s) <= IN_SYNC_WITHIN_S + 1.0  # a report every second
        and in_sync_s <= IN_SYNC_WITHIN_S
        and stayed == VANISHED,
    )


def _staleness_s(audience: Audience) -> float:
    """How old the position is that the worst-off viewer sees; the phones report every second."""
    return time.time() - min(one.newest_fix_s for one in audience.viewers)


def connections_of(pid: int, to_port: int) -> Iterator[socket.socket]:
    """Another process's own connections to a port, one after the other."""
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
                raise OSError(ctypes.get_errno(), "a process's socket can't be had")
            with socket.socket(fileno=copy) as sock:
                yield sock
    os.close(process)


def p95(values: Sequence[float]) -> float:
    """The 95th percentile."""
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
        run=vanished,
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
