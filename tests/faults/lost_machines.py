"""A node of a stack with --ha is lost with its disk, under load.

It is away until the others have gone on for AWAY_S, and then comes back with an empty disk.

`python -m tests.faults.lost_machines [--only NODE …] [--times 3] [--rate 200] [--json]` loses the
primary database, each Kafka node and one etcd, one after the other, and prints what was seen. Ends
with 1 if an acknowledged fix or PATCH is lost, or a node does not join again. `./run faults --only
36 37` does so once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg

from doorstep.errors import Unavailable
from ops.stack.replicas import etcd, kafka_nodes, patroni
from ops.stack.settings import StackSettings
from tests.faults.apis import Callers, Response
from tests.faults.checker import Checker
from tests.faults.environment import (
    EnvironmentSettings,
    FaultEnvironment,
    Unhealthy,
)
from tests.faults.fault import Fault, Outcome
from tests.faults.fault_stack import FaultStack

ERASE_TRIES = 50  # processes that end may still write
WHOLE_WITHIN_S = 300.0
WRITING_WITHIN_S = 40.0  # the lock of a lost primary lasts 20 s
AWAY_S = 5.0
MAX_WAITING = 1000  # requests that wait for the standby to take over


class ReplicatedEnvironment(FaultEnvironment):
    """A stack with --ha under load."""

    def make_stack(self, settings: StackSettings, environment: Mapping[str, str]) -> FaultStack:
        with_replicas = settings.model_copy(update={"doorstep_ha": True})
        # All requests come from one address, and no token can be checked without a primary.
        many = {**environment, "HTTP_MAX_UNAUTHENTICATED": str(MAX_WAITING)}
        return FaultStack(with_replicas, many, two_kafkas=False)

    def primary(self) -> int:
        """Return the number of the database server that takes writes, from 1."""
        return self.stack.primary() + 1


@dataclass(frozen=True, slots=True)
class Loss:
    """What became of one loss. Times are seconds since the node was killed."""

    node: str
    writing_s: float  # until fixes are committed and a PATCH succeeds again, without the node
    whole_s: float  # until the node has joined again, and everything is ready
    lost_patches: int
    refused: int  # requests, with 503 and Retry-After
    unanswered: int  # within the caller's patience: more on a busy machine
    strange: int  # other errors

    @property
    def ok(self) -> bool:
        """Whether no acknowledged PATCH is lost, and each error said to try again."""
        return not (self.lost_patches or self.strange)

    def __str__(self) -> str:
        return (
            f"{self.node}: writing after {self.writing_s:.1f} s, whole after {self.whole_s:.1f} s,"
            f" {self.refused} requests refused, {self.unanswered} unanswered, {self.strange} with"
            f" other errors, {self.lost_patches} acked PATCHes lost"
        )


Lose = Callable[["ReplicatedEnvironment"], str]


def lose_primary(env: ReplicatedEnvironment) -> str:
    """Kill the primary database server with its Patroni, and erase its data."""
    number = env.primary()
    data = env.stack.database_nodes()[number - 1].data_dir
    postmaster = int((data / "postmaster.pid").read_text(encoding="ascii").split()[0])
    keep_down(env, patroni.member_name(number))
    os.kill(postmaster, signal.SIGKILL)
    erase(data)
    return patroni.member_name(number)


def lose_kafka(number: int) -> Lose:
    """Return what kills a Kafka node and erases its folder."""

    def lose(env: ReplicatedEnvironment) -> str:
        name = f"kafka-{number}"
        keep_down(env, name)
        erase(kafka_nodes.properties_file(env.stack.paths, number).parent / "data")
        return name

    return lose


def lose_etcd(env: ReplicatedEnvironment) -> str:
    """Kill one etcd and erase its data."""
    name = etcd.member_name(2)
    keep_down(env, name)
    erase(env.stack.paths.etcd_node(2).resolve() / "data")
    return name


def keep_down(env: ReplicatedEnvironment, name: str) -> None:
    """Kill a process, and keep supervisord from starting it again."""
    env.kill(name)
    env.stack.stop_process(name)


def erase(folder: Path) -> None:
    """Erase a folder whose processes are ending."""
    for _ in range(ERASE_TRIES):
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
        if not folder.exists():
            return
        time.sleep(0.02)
    raise OSError(f"{folder} is not empty")


KAFKA_LOSSES: tuple[Lose, ...] = tuple(lose_kafka(number) for number in (1, 2, 3))
LOSSES: dict[str, Lose] = {
    "primary": lose_primary,
    **{f"kafka-{number}": lose for number, lose in enumerate(KAFKA_LOSSES, start=1)},
    "etcd": lose_etcd,
}


def lose_one(env: ReplicatedEnvironment, lose: Lose) -> Loss:
    """Lose a node under load, let it join again, and wait until the stack is whole."""
    with Callers(env.stack) as callers:
        callers.wait_steady()
        killed_at = time.monotonic()
        node = lose(env)
        committing_s = wait_committing(env, killed_at)
        time.sleep(AWAY_S)
        env.stack.start_process(node)
        whole_s = env.wait_healthy(WHOLE_WITHIN_S, since=killed_at)
        callers.wait_steady()
        responses, lost_patches = callers.since(killed_at), callers.lost()
    failed = [one for one in responses if one.failed]
    refused = sum(one.status == 503 and one.retry_after for one in failed)
    unanswered = sum(one.status == 0 for one in failed)
    patched_s = _patched_again_s(responses, killed_at, committing_s)
    return Loss(
        node, max(committing_s, patched_s), whole_s, lost_patches,
        refused, unanswered, len(failed) - refused - unanswered,
    )  # fmt: skip


def _patched_again_s(responses: Sequence[Response], killed_at: float, within_s: float) -> float:
    """Return when a PATCH succeeded after the first that failed; 0 if none failed.

    Only failures before `within_s` count: later ones have another cause, such as busy cores.
    """
    patches = sorted(
        (one.at_s + one.took_s - killed_at, one.failed) for one in responses if one.driver_id
    )
    first_failed_s = next((at_s for at_s, failed in patches if failed), float("inf"))
    if first_failed_s > within_s:
        return 0.0
    later = (at_s for at_s, failed in patches if at_s > first_failed_s and not failed)
    return next(later, float("inf"))


def wait_committing(env: ReplicatedEnvironment, since: float) -> float:
    """Wait until every driver has a fix that was committed after `since`; return the seconds."""
    while time.monotonic() - since < WHOLE_WITHIN_S:
        with contextlib.suppress(psycopg.Error, Unavailable):
            took_s = time.monotonic() - since
            if env.oldest_fix_age_s() < min(took_s, env.settings.normal_s):
                return took_s
        time.sleep(0.2)
    raise Unhealthy(f"no fix was committed for {WHOLE_WITHIN_S:.0f} s")


def lose_in_turn(*losses: Lose) -> Callable[[FaultEnvironment], Outcome]:
    """Return a fault that loses nodes one after the other."""

    def run(env: FaultEnvironment) -> Outcome:
        assert isinstance(env, ReplicatedEnvironment)
        seen = [lose_one(env, one) for one in losses]
        slowest_s = max(one.writing_s for one in seen)
        return Outcome("; ".join(map(str, seen)), slowest_s, all(one.ok for one in seen))

    return run


NOT_HERE = "" if shutil.which("patroni") else "patroni is not installed"
FAULTS = (
    Fault(
        36, "the primary database, then an etcd, lost with their disks (--ha)",
        "0 lost, writing <= 40 s, both join again",
        WRITING_WITHIN_S, False, lose_in_turn(lose_primary, lose_etcd), environment="replicas",
        not_here=NOT_HERE,
    ),
    Fault(
        37, "each Kafka node lost with its disk (--ha)",
        "0 lost, writing <= 40 s, each joins again",
        WRITING_WITHIN_S, False, lose_in_turn(*KAFKA_LOSSES), environment="replicas",
        not_here=NOT_HERE,
    ),
)  # fmt: skip


def main() -> int:
    """Lose each node in turn."""
    parser = argparse.ArgumentParser(
        prog="tests.faults.lost_machines",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=LOSSES, default=[*LOSSES], metavar="NODE")
    parser.add_argument("--times", type=int, default=3, help="rounds of all losses; 3 by default")
    parser.add_argument("--rate", type=float, default=200.0, help="fixes/s; 200 by default")
    parser.add_argument(
        "--normal", type=float, default=3.0, help="as of ./run faults; a busy machine needs more"
    )
    parser.add_argument("--json", action="store_true", help="end with the table as JSON")
    options = parser.parse_args()
    results: list[dict[str, object]] = []
    with ReplicatedEnvironment(
        EnvironmentSettings(rate=options.rate, normal_s=options.normal)
    ) as env:
        checker = Checker(env)
        for node in options.only * options.times:
            before = env.load.published()
            loss = lose_one(env, LOSSES[node])
            found = checker.check(before)
            ok = loss.ok and found.ok and loss.writing_s <= WRITING_WITHIN_S
            results.append({"ok": ok, **asdict(loss), **asdict(found)})
            line = f"{'ok ' if ok else 'BAD'} {loss}; {found.commit_acked} fixes acknowledged, "
            line += f"{found.lost} lost, {found.duplicates} twice, {found.orders} orders compared"
            print("; ".join([line, *found.violations]), file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps({"losses": results}))
    return 0 if all(one["ok"] for one in results) else 1


if __name__ == "__main__":
    sys.exit(main())
