"""`python -m simulators.replay FILE… --driver ID`: a recorded track, published as a device.

The track is moved in time, as a whole and with its true spacing, so that its last fix is dated
when it is published. Played faster, its earlier fixes are dated further back than they are sent.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device.device_session import DeviceSession, open_device_session
from device.settings import DeviceSettings, FleetSecrets
from doorstep.errors import DoorstepError
from doorstep.telemetry import configure_logging
from simulators.api import Api
from simulators.outcomes import ask_outcomes
from simulators.tracks import TrackPoint, read_tracks

WINDOW_S = 86_400.0  # the platform takes fixes up to 24 h late
CONNECT_WITHIN_S = 30.0
TICK_S = 0.02
PROGRESS_EVERY_S = 3.0
SETTLE_PERIODS = 4  # ack periods to wait for the watermark: three silent ones, then a resend


@dataclass(frozen=True, slots=True)
class PlannedFix:
    """A point of the track: when to send it, seconds after the start, and how it is dated then."""

    send_after_s: float
    dated_after_s: float  # negative: dated before the replay's start
    point: TrackPoint

    @property
    def lateness_s(self) -> float:
        """How much older than its sending the fix is dated."""
        return self.send_after_s - self.dated_after_s


def plan_replay(points: Sequence[TrackPoint], speedup: float) -> list[PlannedFix]:
    """Plan when to send each point: its pace `speedup` times as fast, its dates as far apart."""
    first, last = points[0].at, points[-1].at
    end_s = (last - first).total_seconds() / speedup
    return [
        PlannedFix(
            send_after_s=(point.at - first).total_seconds() / speedup,
            dated_after_s=end_s - (last - point.at).total_seconds(),
            point=point,
        )
        for point in points
    ]


def describe(plan: Sequence[PlannedFix], speedup: float) -> list[str]:
    """Say what will happen, and what can't: fixes dated too far back."""
    pace = "at real speed" if speedup == 1 else f"{speedup:g} times as fast"
    length_s = plan[-1].dated_after_s - plan[0].dated_after_s
    lines = [
        f"{len(plan):,} fixes over {_duration(length_s)}, "
        f"sent within {_duration(plan[-1].send_after_s)} ({pace})"
    ]
    too_old = sum(fix.lateness_s > WINDOW_S for fix in plan)
    if too_old:
        lines.append(
            f"{too_old:,} of them will be dated more than 24 h before they are sent, and so be "
            f"rejected as too_old: the track is longer than a day, play it at --speedup 1"
        )
    return lines


async def play(phone: DeviceSession, plan: Sequence[PlannedFix]) -> list[dict[str, Any]]:
    """Send every fix when it is due; returns them as they were sent."""
    sent: list[dict[str, Any]] = []
    began, began_at = time.monotonic(), time.time()
    said = began
    for fix in plan:
        while (wait_s := began + fix.send_after_s - time.monotonic()) > 0:
            await asyncio.sleep(min(wait_s, PROGRESS_EVERY_S))
            said = _progress(phone, len(sent), len(plan), said)
        body = {
            "fix_at": round((began_at + fix.dated_after_s) * 1000),
            **fix.point.values,
        }
        seq = phone.report(body)
        sent.append({"boot": phone.device.boot, "seq": seq, **body})
        if len(sent) % 64 == 0:
            await asyncio.sleep(0)  # a track played very fast still lets the connection work
            said = _progress(phone, len(sent), len(plan), said)
    _progress(phone, len(sent), len(plan), 0)
    return sent


async def replay(options: argparse.Namespace, settings: DeviceSettings) -> int:
    """Play the track, wait for the watermark, tell what became of each fix."""
    plan = plan_replay(read_tracks(options.files), options.speedup)
    for line in describe(plan, options.speedup):
        _say(line)
    fleet = FleetSecrets(settings)
    async with open_device_session(options.driver, settings, mqtt_5=options.mqtt_5) as phone:
        await phone.connected(CONNECT_WITHIN_S)
        sent = await play(phone, plan)
        _say("waiting for the committed watermark")
        settled = await phone.settled(SETTLE_PERIODS * settings.ack_every_s)
        pending = phone.device.pending
    async with Api(settings.driver_api_url, settings.tracking_api_url) as api:
        outcomes = await ask_outcomes(api, options.driver, fleet.staff_token(), sent)
    for line in summarize(options.driver, len(sent), pending, outcomes):
        print(line)
    return 0 if settled and sum(outcomes.values()) == len(sent) else 1


def summarize(driver_id: str, sent: int, pending: int, outcomes: Counter[str]) -> list[str]:
    """What became of the fixes, the most frequent first."""
    lines = [f"{driver_id}: {sent:,} fixes published"]
    lines += [f"  {count:>9,} {name}" for name, count in outcomes.most_common()]
    if pending:
        lines.append(f"  {pending:>9,} not passed by the watermark yet: they stay in the journal")
    return lines


def _progress(phone: DeviceSession, sent: int, of: int, said: float) -> float:
    now = time.monotonic()
    if now - said < PROGRESS_EVERY_S:
        return said
    link = "" if phone.device.connected else f", no connection: {phone.device.last_failure}"
    _say(f"{sent:,} of {of:,} sent, {phone.device.pending:,} not yet committed{link}")
    return now


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """Replay the files of the command line."""
    parser = argparse.ArgumentParser(prog="./run replay", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="GPX, CSV or GeoJSON")
    parser.add_argument("--driver", required=True, metavar="ID", help="publish as this driver")
    parser.add_argument("--speedup", type=_positive, default=1.0, metavar="X", help="its pace (1)")
    parser.add_argument("--mqtt-5", action="store_true", help="speak MQTT 5 instead of 3.1.1")
    options = parser.parse_args()
    configure_logging("replay")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        return asyncio.run(replay(options, DeviceSettings.load_or_exit()))
    except DoorstepError as exc:
        _say(f"replay: {exc}")
        return 1
    except KeyboardInterrupt:
        return 130


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError("a number above 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
