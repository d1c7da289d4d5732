"""`./run replay`: publishes a recorded track as a device.

The whole track is shifted in time, so that its last fix is dated at the time it is sent. The
intervals stay as recorded: at a higher speed, earlier fixes are dated before they are sent.
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
from datetime import datetime
from pathlib import Path
from typing import Any

from device.device_session import DeviceSession, open_device_session
from device.settings import DeviceSettings, FleetSecrets
from doorstep.errors import DoorstepError
from doorstep.telemetry import configure_logging
from simulators.api import Api
from simulators.outcomes import read_outcomes
from simulators.tracks import (
    SPEED_UNITS,
    FieldNames,
    TrackPoint,
    parse_column,
    parse_instant,
    read_recording,
)

LATENESS_WINDOW_S = 86_400.0  # the platform accepts fixes up to 24 h late
CONNECT_TIMEOUT_S = 30.0
PROGRESS_EVERY_S = 3.0
COMMIT_TIMEOUT_PERIODS = 4  # ack periods: three until the ack timeout, then a resend
EXAMPLES = """examples:
  ./run replay track.gpx --driver bus304                 at the recorded speed
  ./run replay track.gpx --driver bus304 --speedup 60    sixty times as fast
  ./run replay monday.csv tuesday.csv --driver anna      several files as one track
  ./run replay log.csv --driver anna --column time=seen --column speed=v --speed-unit km/h
  ./run replay Timeline.json --driver anna --from 2024-05-01 --to 2024-05-02

Reads GPX, KML (gx:Track), KMZ, Google Timeline (exported on Android or iOS), GeoJSON, FIT, NMEA and
CSV, also in gzip or ZIP; the content decides. A point that is not usable is skipped, counted and
explained. Points that are weeks away from the rest, such as after a GPS week rollover, are named
and left out.

--column NAME=FIELD says that FIELD of the file is NAME: time, lat, lon, accuracy, speed, heading,
altitude or battery. A unit in a name counts: speed_kmh, "Speed (mph)", altitude_ft.

Registers the driver if there is none of that name. At the end it reports the outcome of all fixes;
the exit status is 0 if every outcome is known."""


@dataclass(frozen=True, slots=True)
class PlannedFix:
    """A point of the track. Both times are seconds after the start of the replay."""

    send_after_s: float
    dated_after_s: float  # of its `fix_at`; negative before the start
    point: TrackPoint

    @property
    def lateness_s(self) -> float:
        """How long before its sending the fix is dated."""
        return self.send_after_s - self.dated_after_s


def plan_replay(points: Sequence[TrackPoint], speedup: float) -> list[PlannedFix]:
    """Plan when to send each point, at `speedup` times the recorded speed."""
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
    """Describe the plan, and the fixes that will be rejected as too old."""
    pace = "at real speed" if speedup == 1 else f"{speedup:g} times as fast"
    length_s = plan[-1].dated_after_s - plan[0].dated_after_s
    lines = [
        f"{len(plan):,} fixes over {_format_duration(length_s)}, "
        f"sent within {_format_duration(plan[-1].send_after_s)} ({pace})"
    ]
    too_old = sum(fix.lateness_s > LATENESS_WINDOW_S for fix in plan)
    if too_old:
        lines.append(
            f"{too_old:,} of them will be dated more than 24 h before they are sent, and rejected "
            f"as too_old: replay a track that is longer than a day at --speedup 1"
        )
    return lines


async def play(session: DeviceSession, plan: Sequence[PlannedFix]) -> list[dict[str, Any]]:
    """Send every fix when it is due, and return them as sent."""
    sent: list[dict[str, Any]] = []
    started_at, wall_clock = time.monotonic(), time.time()
    reported_at = started_at
    for fix in plan:
        while (wait_s := started_at + fix.send_after_s - time.monotonic()) > 0:
            await asyncio.sleep(min(wait_s, PROGRESS_EVERY_S))
            reported_at = _report_progress(session, len(sent), len(plan), reported_at)
        body = {
            "fix_at": round((wall_clock + fix.dated_after_s) * 1000),
            **fix.point.values,
        }
        seq = session.report(body)
        sent.append({"boot": session.device.boot, "seq": seq, **body})
        if len(sent) % 64 == 0:
            await asyncio.sleep(0)  # lets the connection work even if no fix has to wait
            reported_at = _report_progress(session, len(sent), len(plan), reported_at)
    _report_progress(session, len(sent), len(plan), 0)
    return sent


async def replay(options: argparse.Namespace, settings: DeviceSettings) -> int:
    """Replay the track, wait for the watermark, and report the outcomes."""
    names = FieldNames(dict(options.column), SPEED_UNITS[options.speed_unit])
    recording = read_recording(options.files, names, options.from_at, options.to_at)
    plan = plan_replay(recording.points, options.speedup)
    for line in [*recording.lines(), *describe(plan, options.speedup)]:
        _print(line)
    fleet = FleetSecrets(settings)
    async with open_device_session(options.driver, settings, mqtt_5=options.mqtt_5) as session:
        await session.wait_connected(CONNECT_TIMEOUT_S)
        sent = await play(session, plan)
        _print("waiting for the committed watermark")
        committed = await session.wait_committed(COMMIT_TIMEOUT_PERIODS * settings.ack_every_s)
        pending = session.device.pending
    async with Api(settings.driver_api_url, settings.tracking_api_url) as api:
        outcomes = await read_outcomes(api, options.driver, fleet.staff_token(), sent)
    for line in summarize(options.driver, len(sent), pending, outcomes):
        print(line)
    print("\n".join(recording.lines()))
    return 0 if committed and sum(outcomes.values()) == len(sent) else 1


def summarize(driver_id: str, sent: int, pending: int, outcomes: Counter[str]) -> list[str]:
    """Format the outcomes, the most frequent first."""
    lines = [f"{driver_id}: {sent:,} fixes published"]
    lines += [f"  {count:>9,} {name}" for name, count in outcomes.most_common()]
    if pending:
        lines.append(f"  {pending:>9,} not covered by the watermark yet: they stay in the journal")
    return lines


def _report_progress(session: DeviceSession, sent: int, total: int, reported_at: float) -> float:
    """Print the progress every PROGRESS_EVERY_S, and return when it was printed last."""
    now = time.monotonic()
    if now - reported_at < PROGRESS_EVERY_S:
        return reported_at
    device = session.device
    link = "" if device.connected else f", no connection: {device.last_failure}"
    _print(f"{sent:,} of {total:,} sent, {device.pending:,} not yet committed{link}")
    return now


def _format_duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """Run the command; the return value is the exit status."""
    parser = argparse.ArgumentParser(
        prog="./run replay",
        description="Publish a recorded track over MQTT, as the device of a driver.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a recorded track")
    parser.add_argument("--driver", required=True, metavar="ID", help="the driver")
    parser.add_argument(
        "--speedup", type=_positive, default=1.0, metavar="X", help="speed, 1 is as recorded (1)"
    )
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        type=_column,
        metavar="NAME=FIELD",
        help="the file's name for a field, as in time=tracked_at; repeatable",
    )
    parser.add_argument(
        "--speed-unit",
        choices=list(SPEED_UNITS),
        default="m/s",
        help="the unit of a speed whose name and format say none (m/s)",
    )
    parser.add_argument(
        "--from", dest="from_at", type=_instant, metavar="TIME", help="leave out points before it"
    )
    parser.add_argument(
        "--to", dest="to_at", type=_instant, metavar="TIME", help="leave out points from it on"
    )
    parser.add_argument("--mqtt-5", action="store_true", help="use MQTT 5 instead of 3.1.1")
    options = parser.parse_args()
    configure_logging("replay")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        return asyncio.run(replay(options, DeviceSettings.load_or_exit()))
    except DoorstepError as exc:
        _print(f"replay: {exc}")
        return 1
    except KeyboardInterrupt:
        return 130


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def _column(text: str) -> tuple[str, str]:
    try:
        return parse_column(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _instant(text: str) -> datetime:
    try:
        return parse_instant(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time") from exc


if __name__ == "__main__":
    sys.exit(main())
