"""What the command line asks for, and whether this machine can do it."""

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
  ./run load --devices 100000 --find-limit               the highest rate that is held
  ./run load --devices 100000 --duration 60 --bare       and a bare chain, for comparison

It brings a stack of its own, on free ports and in a temporary folder, and erases it at the end. The
one that may be up is left alone. A rate is held if nothing is lost, 99 % of the fixes are committed
within a second of when they were due, and the stack keeps up. The report is JSON; the picture
beside it is SVG. The exit status is 0 if the rate was held, 3 if not."""

DEVICES_PER_BROKER = 16_000  # of 20,000 descriptors that a process may have on many machines
MOST_BROKERS = 64
KEEPALIVE_MOST_S = 3600.0
COMPILING_S = 60  # before the measurement, if that takes LONG_S and more
LONG_S = 30


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """A run's shape."""

    devices: int = 1000
    interval_s: float = 4.0
    duration_s: int = 10
    viewers: int = 100
    fixes_per_message: int = 1
    assigned: float = 0.3
    brokers: int = 1
    find_limit: bool = False
    bare: bool = False
    report: Path | None = None
    json: bool = False

    @property
    def rate_per_s(self) -> float:
        """Fixes that fall due each second."""
        return self.devices / self.interval_s

    @property
    def warm_up_s(self) -> int:
        """How long the devices publish before the measurement.

        A long one is of a warm chain: a fresh Kafka's JIT compiles for a minute, 8 s of CPU. It
        begins with the first message, which waits for its last fix.
        """
        compiling_s = COMPILING_S if self.duration_s >= LONG_S else 0
        silent_s = math.ceil(self.interval_s * (self.fixes_per_message - 1))
        return max(self.warm_up_of(self.interval_s), silent_s + compiling_s)

    def warm_up_of(self, interval_s: float) -> int:
        """Until every device has sent something and the caches are warm, s."""
        return math.ceil(interval_s * self.fixes_per_message) + 3


def parse(argv: list[str] | None = None) -> LoadOptions:
    """Read the command line; a bad argument ends the process with a line that says so."""
    parser = argparse.ArgumentParser(
        prog="./run load",
        description="Many devices on a stack of its own, and what one fix costs there.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--devices", type=_whole(1, 1_000_000), default=1000, metavar="N", help="how many (1000)")
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
        help="customers who watch their order (100)",
    )
    add(
        "--fixes-per-message",
        type=_whole(1, MAX_FIXES),
        default=1,
        metavar="K",
        help="a device sends K fixes every K intervals (1)",
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
        type=_whole(1, MOST_BROKERS),
        metavar="N",
        help=f"and as many generators (one for {DEVICES_PER_BROKER:,} devices)",
    )
    add("--find-limit", action="store_true", help="search for the highest rate that is held")
    add("--bare", action="store_true", help="measure a bare chain beside it")
    add("--report", type=Path, metavar="FILE", help="write the JSON there, and FILE's .svg")
    add("--json", action="store_true", help="print the JSON instead of a summary")
    asked = parser.parse_args(argv)
    try:
        return _checked(asked)
    except ValueError as exc:
        parser.error(str(exc))


def _checked(asked: argparse.Namespace) -> LoadOptions:
    brokers = asked.brokers or math.ceil(asked.devices / DEVICES_PER_BROKER)
    if brokers > MOST_BROKERS:
        raise ValueError(
            f"argument --devices: {asked.devices:,} need more than {MOST_BROKERS} brokers"
        )
    if asked.devices > brokers * 1.2 * DEVICES_PER_BROKER:
        raise ValueError(f"argument --brokers: {brokers} can't hold {asked.devices:,} connections")
    if brokers > asked.devices:
        raise ValueError(f"argument --brokers: {brokers} are more than there are devices")
    if asked.viewers and asked.assigned * asked.devices < 1:
        raise ValueError("argument --viewers: nobody has an order to watch (--assigned)")
    report: Path | None = asked.report
    if report is not None and not report.absolute().parent.is_dir():
        raise ValueError(f"argument --report: there is no folder {report.absolute().parent}")
    if report is not None and report.suffix == ".svg":
        raise ValueError("argument --report: the picture takes .svg; give the JSON another name")
    if not sys.platform.startswith("linux"):
        raise ValueError("this needs Linux: it reads /proc and uses epoll")
    return LoadOptions(
        devices=asked.devices,
        interval_s=asked.interval,
        duration_s=asked.duration,
        viewers=asked.viewers,
        fixes_per_message=asked.fixes_per_message,
        assigned=asked.assigned,
        brokers=brokers,
        find_limit=asked.find_limit,
        bare=asked.bare,
        report=report,
        json=asked.json,
    )


class _Between:
    """Reads a number between two others."""

    def __init__(self, least: float, most: float, kind: type[int] | type[float]) -> None:
        self._least, self._most, self._kind = least, most, kind

    def __call__(self, text: str) -> float:
        try:
            value = self._kind(text)
        except ValueError:
            what = "a whole number" if self._kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None
        if not self._least <= value <= self._most:
            raise argparse.ArgumentTypeError(
                f"{text} is not between {self._least:g} and {self._most:g}"
            )
        return value


def _whole(least: int, most: int) -> _Between:
    return _Between(least, most, int)


def _number(least: float, most: float) -> _Between:
    return _Between(least, most, float)
