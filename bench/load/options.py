"""The command line of `./run load`, and its validation."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

from doorstep.fix import MAX_FIXES

EXAMPLES = """examples:
  ./run load                                             1,000 devices, a fix every 4 s, for 10 s
  ./run load --devices 100000 --interval 4 --duration 60 --report load.json
  ./run load --devices 100000 --fixes-per-message 5      five fixes in a message, every 20 s
  ./run load --devices 100000 --duration 60 --mixed      watched ones send fixes alone
  ./run load --devices 100000 --find-limit               the highest sustained rate
  ./run load --devices 100000 --duration 60 --bare       and the bare chain, for comparison

Starts a temporary stack on free ports, and erases it at the end; a running stack is not affected.
A rate is sustained if no fix is lost, 99 % of the fixes are committed within a second of their due
time, and no backlog grows. The report is JSON, with an SVG plot next to it. The exit status is 0 if
the rate was sustained, 3 if not."""

DEVICES_PER_BROKER = 16_000  # a process may have 20,000 descriptors on many machines
MAX_BROKERS = 64
JIT_WARM_UP_S = 60  # warm-up of a run of LONG_RUN_S or more
LONG_RUN_S = 30
WATCHED_SHARE = 0.5  # of the devices with an open order, with --mixed
UNWATCHED_FIXES = 5  # in a message, with --mixed


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """The options of a run."""

    devices: int = 1000
    interval_s: float = 4.0
    duration_s: int = 10
    viewers: int = 100
    fixes_per_message: int = 1  # of all devices, or with `mixed` of those that are not watched
    mixed: bool = False
    assigned: float = 0.3
    brokers: int = 1
    find_limit: bool = False
    bare: bool = False
    tls: bool = False
    report: Path | None = None
    json: bool = False

    @property
    def rate_per_s(self) -> float:
        """Fixes due per second."""
        return self.devices / self.interval_s

    @property
    def watched_share(self) -> float:
        """The share of all devices whose fixes are sent alone, because their order is watched."""
        return self.assigned * WATCHED_SHARE if self.mixed else 0.0

    @property
    def mean_fixes_per_message(self) -> float:
        """Of all messages of all devices."""
        watched = self.watched_share
        return 1 / (watched + (1 - watched) / self.fixes_per_message)

    @property
    def warm_up_s(self) -> int:
        """Seconds of publishing before the measurement.

        A long run adds a minute for Kafka's JIT compiler (8 s of CPU), counted from the first
        message, which is sent with its last fix.
        """
        compiling_s = JIT_WARM_UP_S if self.duration_s >= LONG_RUN_S else 0
        silent_s = math.ceil(self.interval_s * (self.fixes_per_message - 1))
        return max(self.warm_up_of(self.interval_s), silent_s + compiling_s)

    def warm_up_of(self, interval_s: float) -> int:
        """Seconds until every device has published and the caches are warm."""
        return math.ceil(interval_s * self.fixes_per_message) + 3


def parse(argv: list[str] | None = None) -> LoadOptions:
    """Parse the command line. An invalid argument ends the process with an error line."""
    parser = argparse.ArgumentParser(
        prog="./run load",
        description="A load test of many devices on a temporary stack: CPU time per fix.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--devices",
        type=_whole(1, 1_000_000),
        default=1000,
        metavar="N",
        help="number of devices (1000)",
    )
    add(
        "--interval",
        type=_number(0.1, 3600),
        default=4.0,
        metavar="S",
        help="between two fixes of a device (4)",
    )
    add(
        "--duration",
        type=_whole(2, 86_400),
        default=10,
        metavar="S",
        help="of the measurement, after a warm-up (10)",
    )
    add(
        "--viewers",
        type=_whole(0, 15_000),
        default=100,
        metavar="N",
        help="customers streaming their order (100)",
    )
    add(
        "--fixes-per-message",
        type=_whole(1, MAX_FIXES),
        metavar="K",
        help=f"a device sends K fixes every K intervals (1; with --mixed {UNWATCHED_FIXES})",
    )
    add(
        "--mixed",
        action="store_true",
        help="half of the devices with an order are watched, and send each fix alone",
    )
    add(
        "--assigned",
        type=_number(0, 1),
        default=0.3,
        metavar="SHARE",
        help="of the devices with an open order (0.3)",
    )
    add(
        "--brokers",
        type=_whole(1, MAX_BROKERS),
        metavar="N",
        help=f"and as many generators (one for {DEVICES_PER_BROKER:,} devices)",
    )
    add("--find-limit", action="store_true", help="search for the highest sustained rate")
    add("--bare", action="store_true", help="also measure the bare chain")
    add("--tls", action="store_true", help="connect the devices over TLS")
    add("--report", type=Path, metavar="FILE", help="write the JSON there, and FILE's .svg")
    add("--json", action="store_true", help="print the JSON instead of a summary")
    arguments = parser.parse_args(argv)
    try:
        return _checked(arguments)
    except ValueError as exc:
        parser.error(str(exc))


def _checked(arguments: argparse.Namespace) -> LoadOptions:
    brokers = arguments.brokers or math.ceil(arguments.devices / DEVICES_PER_BROKER)
    if brokers > MAX_BROKERS:
        raise ValueError(
            f"argument --devices: {arguments.devices:,} need more than {MAX_BROKERS} brokers"
        )
    if arguments.devices > brokers * 1.2 * DEVICES_PER_BROKER:
        raise ValueError(
            f"argument --brokers: {brokers} can't hold {arguments.devices:,} connections"
        )
    if brokers > arguments.devices:
        raise ValueError(f"argument --brokers: {brokers} are more than there are devices")
    if arguments.viewers and arguments.assigned * arguments.devices < 1:
        raise ValueError("argument --viewers: there is no order to watch (--assigned)")
    report: Path | None = arguments.report
    if report is not None and not report.absolute().parent.is_dir():
        raise ValueError(f"argument --report: there is no folder {report.absolute().parent}")
    if report is not None and report.suffix == ".svg":
        raise ValueError("argument --report: .svg is used for the plot; give the JSON another name")
    if not sys.platform.startswith("linux"):
        raise ValueError("this needs Linux: it reads /proc and uses epoll")
    return LoadOptions(
        devices=arguments.devices,
        interval_s=arguments.interval,
        duration_s=arguments.duration,
        viewers=arguments.viewers,
        fixes_per_message=arguments.fixes_per_message
        or (UNWATCHED_FIXES if arguments.mixed else 1),
        mixed=arguments.mixed,
        assigned=arguments.assigned,
        brokers=brokers,
        find_limit=arguments.find_limit,
        bare=arguments.bare,
        tls=arguments.tls,
        report=report,
        json=arguments.json,
    )


class _Range:
    """Parses a number within a range."""

    def __init__(self, minimum: float, maximum: float, kind: type[int] | type[float]) -> None:
        self._min, self._max, self._kind = minimum, maximum, kind

    def __call__(self, text: str) -> float:
        try:
            value = self._kind(text)
        except ValueError:
            what = "a whole number" if self._kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None
        if not self._min <= value <= self._max:
            raise argparse.ArgumentTypeError(
                f"{text} is not between {self._min:g} and {self._max:g}"
            )
        return value


def _whole(minimum: int, maximum: int) -> _Range:
    return _Range(minimum, maximum, int)


def _number(minimum: float, maximum: float) -> _Range:
    return _Range(minimum, maximum, float)
