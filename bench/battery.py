"""Radio use and position error of adaptive sampling, on recorded traces: `python -m bench.battery`.

Recorded fixes go through the device's sampler, policy by policy. The position that the server shows
is compared with the full trace, second by second. `--plot FILE` draws error against radio use. The
last line is one JSON object.

  uses       messages at least 1 s apart: each is one use of the radio
  radio_on   seconds that the radio is on: after a message, or an ack from the server, it stays on
             for its tail (5 s and 10 s)
  wakes_5s   wake-ups with a tail of 5 s. A fix every 4 or 5 s prevents sleep, so this grows as
             sampling gets sparser
  error      metres between the displayed and the true position: `shown` is the last position, as
             on the pages; `reckoned` is extrapolated at the last speed and heading
  arrivals   of those proved by the full trace, the number not proved by the sampled one
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from bench.recorded_drives import Drive, missed_arrivals, read_drives
from device.sampling import Sampler
from doorstep.geo import M_PER_DEG
from doorstep.sampling import SamplingPolicy

ACK_EVERY_S, ACK_AFTER_S = 30.0, 1.0  # as driver_events sends them
ENVELOPE = 2 + 2 + 36 + 2 + 4 + 2 * 22  # bytes: PUBLISH head, topic, id, PUBACK, TLS records
IDENTITY = 38  # bytes of boot and seq in a fix
TAILS_S = (5.0, 10.0)
MAX_GAP_S = 30.0  # a longer gap in a trace has no known position
MAX_EXTRAPOLATION_S = 30.0  # limit of extrapolation

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Message:
    """One publish: its instant and its fixes."""

    at_s: float
    fixes: Sequence[dict[str, Any]]


@dataclass(slots=True)
class Tally:
    """Sums over the drives of one data set."""

    seconds: float = 0.0
    fixes: int = 0
    messages: int = 0
    bytes: int = 0
    uses: int = 0
    wakes_5s: int = 0
    radio_on_5s: float = 0.0
    radio_on_10s: float = 0.0
    arrivals: int = 0
    missed: int = 0


def policies() -> dict[str, SamplingPolicy]:
    """The compared policies by name; the first is the default."""
    policies_by_name: dict[str, SamplingPolicy] = {"all": SamplingPolicy()}
    for every_s in (10, 20, 30):
        policies_by_name[f"time {every_s} s"] = SamplingPolicy(mode="time", every_s=every_s)
    for distance_m in (25, 30, 40, 50, 100, 200):
        policies_by_name[f"distance {distance_m} m"] = SamplingPolicy(
            mode="distance", distance_m=distance_m
        )
    policies_by_name["accuracy"] = SamplingPolicy(mode="accuracy")
    for off_by_m in (10, 15, 25, 40, 60, 100):
        policies_by_name[f"dead reckoning {off_by_m} m"] = SamplingPolicy(
            mode="dead_reckoning", off_by_m=off_by_m
        )
    for batch_s in (20, 30):
        policies_by_name[f"batch {batch_s} s"] = SamplingPolicy(batch_s=batch_s)
    reckoning = SamplingPolicy(mode="dead_reckoning", off_by_m=25)
    for keep_every_s in (0, 10):
        name = f"dead reckoning 25 m, keep {keep_every_s} s"
        policies_by_name[name] = replace(reckoning, keep_every_s=keep_every_s)
    policies_by_name["dead reckoning 25 m, batch 20 s"] = replace(reckoning, batch_s=20)
    return policies_by_name


def replay(drive: Drive, policy: SamplingPolicy) -> list[Message]:
    """The messages that a device sends of a drive."""
    return replay_by(drive, lambda _: policy)


def replay_by(
    drive: Drive, policy_at: Callable[[Mapping[str, Any]], SamplingPolicy]
) -> list[Message]:
    """The same of a device whose policy may be another one with each fix."""
    sampler = Sampler()
    messages: list[Message] = []
    waiting: list[dict[str, Any]] = []
    since_s = 0.0
    for fix in [*drive.fixes, drive.trailing_fix()]:
        at_s = fix["fix_at"] / 1000
        policy = sampler.policy = policy_at(fix)
        if waiting and at_s >= since_s + policy.batch_s:
            messages.append(Message(min(at_s, since_s + policy.batch_s), waiting))
            waiting = []
        due = [dict(one) for one in sampler.observe(fix)]
        if due and not waiting:
            since_s = at_s
        waiting += due
        if waiting and policy.batch_s == 0:
            messages.append(Message(at_s, waiting))
            waiting = []
    if waiting:
        messages.append(Message(since_s + sampler.policy.batch_s, waiting))
    return _until(drive.fixes[-1]["fix_at"], messages)


def _until(last_at: int, messages: Sequence[Message]) -> list[Message]:
    """Drop the trailing fix, which only flushed the last batch."""
    kept = [[fix for fix in one.fixes if fix["fix_at"] <= last_at] for one in messages]
    return [Message(one.at_s, fixes) for one, fixes in zip(messages, kept, strict=True) if fixes]


def add(tally: Tally, drive: Drive, messages: Sequence[Message]) -> None:
    """Add a drive's radio use."""
    sent = np.array([message.at_s for message in messages])
    tally.seconds += drive.seconds
    tally.fixes += sum(len(message.fixes) for message in messages)
    tally.messages += len(messages)
    for message in messages:
        sizes = [len(json.dumps(fix, separators=(",", ":"))) + IDENTITY for fix in message.fixes]
        tally.bytes += ENVELOPE + sum(sizes) + len(sizes)
    tally.uses += 1 + int((np.diff(sent) >= 1.0).sum())
    active = np.sort(np.concatenate([sent, _acks(sent)]))
    gaps = np.append(np.diff(active), np.inf)
    tally.wakes_5s += 1 + int((np.diff(active) > TAILS_S[0]).sum())
    tally.radio_on_5s += float(np.minimum(gaps, TAILS_S[0]).sum())
    tally.radio_on_10s += float(np.minimum(gaps, TAILS_S[1]).sum())


def _acks(sent: Floats) -> Floats:
    """The instants of watermark messages: with the first change after 30 s, or after 60 s."""
    acks: list[float] = []
    waiting = False
    for at_s in sent:
        if waiting and at_s > acks[-1] + 2 * ACK_EVERY_S:
            acks.append(acks[-1] + 2 * ACK_EVERY_S)
            waiting = False
        if not acks or at_s + ACK_AFTER_S >= acks[-1] + ACK_EVERY_S:
            acks.append(at_s + ACK_AFTER_S)
            waiting = False
        else:
            waiting = True
    return np.array([*acks, acks[-1] + 2 * ACK_EVERY_S] if waiting else acks)


def errors(drive: Drive, messages: Sequence[Message]) -> tuple[Floats, Floats]:
    """Position error per second of the drive, in metres: (shown, reckoned)."""
    at, east, north = drive.truth(MAX_GAP_S)
    newest: list[tuple[float, float, float, float, float, float]] = []
    for message in messages:
        fix = message.fixes[-1]
        x, y = drive.to_metres(fix["lon_deg"], fix["lat_deg"])
        known = fix.get("heading_deg") is not None
        heading = np.radians(fix["heading_deg"]) if known else 0.0
        speed = (fix.get("speed_mps") or 0.0) if known else 0.0
        there_s = fix["fix_at"] / 1000
        east_mps, north_mps = speed * np.sin(heading), speed * np.cos(heading)
        newest.append((message.at_s, there_s, x, y, east_mps, north_mps))
    table = np.array(newest)
    index = np.searchsorted(table[:, 0], at, side="right") - 1
    seen = index >= 0
    at, east, north, row = at[seen], east[seen], north[seen], table[index[seen]]
    shown = np.hypot(row[:, 2] - east, row[:, 3] - north)
    on_s = np.minimum(at - row[:, 1], MAX_EXTRAPOLATION_S)
    reckoned = np.hypot(row[:, 2] + row[:, 4] * on_s - east, row[:, 3] + row[:, 5] * on_s - north)
    return shown, reckoned


def measure(drives: Sequence[Drive], policy: SamplingPolicy) -> dict[str, Any]:
    """Replay one policy on one data set."""
    tally = Tally()
    shown: list[Floats] = []
    reckoned: list[Floats] = []
    for drive in drives:
        messages = replay(drive, policy)
        add(tally, drive, messages)
        one, other = errors(drive, messages)
        shown.append(one)
        reckoned.append(other)
        arrivals, missed = missed_arrivals(drive, [fix for m in messages for fix in m.fixes])
        tally.arrivals += arrivals
        tally.missed += len(missed)
        for place in missed:
            print(f"missed: {drive.name}: {place}", file=sys.stderr)
    figures = {name: round(value, 1) for name, value in asdict(tally).items()}
    for name, values in (("shown", shown), ("reckoned", reckoned)):
        whole = np.concatenate(values)
        for share in (50, 95, 99):
            figures[f"{name}_p{share}_m"] = round(float(np.percentile(whole, share)), 1)
    return figures


def compare(
    drives: Sequence[Drive], policies_by_name: dict[str, SamplingPolicy]
) -> dict[str, dict[str, Any]]:
    """Replay every policy, with its savings compared with the first."""
    results: dict[str, dict[str, Any]] = {}
    for name, policy in policies_by_name.items():
        results[name] = measure(drives, policy)
        base = next(iter(results.values()))
        for what in ("messages", "bytes", "uses", "radio_on_5s", "radio_on_10s"):
            saved = 1 - results[name][what] / base[what]
            results[name][f"saved_{what}_percent"] = round(100 * saved, 1)
    return results


def draw(results: dict[str, dict[str, dict[str, Any]]], path: Path) -> None:
    """Plot error against radio use: a panel per data set, a curve per kind of policy."""
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(results), figsize=(5 * len(results), 4.6), sharey=True)
    styles = {"time": "#999999", "distance": "#2f6fed", "dead reckoning": "#1f8a4c"}
    for panel, (data_set, rows) in zip(np.atleast_1d(panels), results.items(), strict=True):
        panel.axvspan(60, 100, color="#1f8a4c", alpha=0.07, lw=0)
        panel.axhline(50, color="#bb3333", lw=1, ls=":")
        panel.grid(alpha=0.25, which="both")
        for kind, colour in styles.items():
            names = [n for n in rows if n.startswith(f"{kind} ") and "," not in n]
            for error, style in (("shown", "--"), ("reckoned", "-")):
                if kind != "dead reckoning" and error == "reckoned":
                    continue
                panel.plot(
                    [rows[n]["saved_uses_percent"] for n in names],
                    [rows[n][f"{error}_p95_m"] for n in names],
                    style, marker="o", ms=4, color=colour, label=f"{kind}, {error}",
                )  # fmt: skip
        for name, marker in (("all", "s"), ("accuracy", "^"), ("batch 20 s", "D")):
            row = rows[name]
            panel.plot(
                row["saved_uses_percent"], row["shown_p95_m"], marker, color="#444", label=name
            )
        panel.set(title=data_set, xlabel="fewer uses of the radio, %", yscale="log")
        panel.set_xlim(-12, 100)
    np.atleast_1d(panels)[0].set_ylabel("position error on the server, p95, m")
    np.atleast_1d(panels)[0].legend(fontsize=7, handlelength=4)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> int:
    """Run the benchmark and print its result."""
    parser = argparse.ArgumentParser(
        prog="bench.battery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the figure (matplotlib)")
    parser.add_argument("--goal-runs", type=int, default=805, metavar="N", help="the first N (805)")
    options = parser.parse_args()
    results = {}
    for name, drives in read_drives(options.goal_runs).items():
        results[name] = compare(drives, policies())
        for policy, row in results[name].items():
            print(
                f"{name:22} {policy:32} uses -{row['saved_uses_percent']:5.1f} %"
                f"  radio 5 s -{row['saved_radio_on_5s_percent']:5.1f} %"
                f"  bytes -{row['saved_bytes_percent']:5.1f} %"
                f"  p95 shown {row['shown_p95_m']:6.1f} m, reckoned {row['reckoned_p95_m']:6.1f} m"
                f"  missed {row['missed']}/{row['arrivals']}",
                file=sys.stderr,
                flush=True,
            )
    if options.plot:
        draw(results, options.plot)
    print(json.dumps({"bench": "battery", "degree_m": M_PER_DEG, "results": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
