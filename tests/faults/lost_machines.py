"""A node of a stack with --ha is lost with its disk, under load.

`python -m tests.faults.lost_machines [--times 3] [--rate 200] [--json]` loses the primary database,
each Kafka node and one etcd, one after the other, and prints what was seen. Ends with 1 if an
acknowledged fix or PATCH is lost, or a node does not join again.
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
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ops.stack.replicas import etcd, kafka_nodes, patroni
from ops.stack.replicas.specs import database_nodes
from ops.stack.settings import StackSettings
from tests.faults.apis import Callers
from tests.faults.checker import Checker
from tests.faults.environment import EnvironmentSettings, FaultEnvironment, FaultStack

ERASE_TRIES = 50  # processes that end may still write
WHOLE_WITHIN_S = 300.0


class ReplicatedEnvironment(FaultEnvironment):
    """A stack with --ha under load."""

    def make_stack(self, settings: StackSettings, environment: Mapping[str, str]) -> FaultStack:
        with_replicas = settings.model_copy(update={"doorstep_ha": True})
        return FaultStack(with_replicas, environment, two_kafkas=False)

    def primary(self) -> int:
        """Return the number of the database server that takes writes, from 1."""
        roles = [patroni.probe(bind)[1] for bind in self.addresses.patroni]
        return roles.index("primary") + 1


@dataclass(frozen=True)
class Loss:
    """What became of one loss. Times are seconds since the node was killed."""

    node: str
    writing_s: float  # until the last PATCH that failed was answered; 0 if none failed
    whole_s: float  # until every node is back, and the newest fixes are committed
    commit_acked: int
    lost: int
    twice: int
    lost_patches: int
    failed: int  # requests
    violations: list[str]

    @property
    def ok(self) -> bool:
        """Whether nothing that was acknowledged is lost."""
        return not (self.lost or self.twice or self.lost_patches or self.violations)


def lose_primary(env: ReplicatedEnvironment) -> str:
    """Kill the primary database server with its Patroni, and erase its data."""
    number = env.primary()
    data = database_nodes(env.stack.paths, env.addresses)[number - 1].data_dir
    postmaster = int((data / "postmaster.pid").read_text(encoding="ascii").split()[0])
    os.kill(env.pid(patroni.member_name(number)), signal.SIGKILL)
    os.kill(postmaster, signal.SIGKILL)
    erase(data)
    return patroni.member_name(number)


def lose_kafka(number: int) -> Callable[[ReplicatedEnvironment], str]:
    """Return what kills a Kafka node and erases its data."""

    def lose(env: ReplicatedEnvironment) -> str:
        name = f"kafka-{number}"
        os.kill(env.pid(name), signal.SIGKILL)
        erase(kafka_nodes.properties_file(env.stack.paths, number).parent / "data")
        return name

    return lose


def lose_etcd(env: ReplicatedEnvironment) -> str:
    """Kill one etcd and erase its data."""
    name = etcd.member_name(2)
    os.kill(env.pid(name), signal.SIGKILL)
    erase(env.stack.paths.etcd_node(2).resolve() / "data")
    return name


def erase(folder: Path) -> None:
    """Erase a folder whose processes are ending."""
    for _ in range(ERASE_TRIES):
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
        if not folder.exists():
            return
        time.sleep(0.02)
    raise OSError(f"{folder} is not empty")


LOSSES: tuple[Callable[[ReplicatedEnvironment], str], ...] = (
    lose_primary,
    *(lose_kafka(number) for number in (1, 2, 3)),
    lose_etcd,
)


def lose_one(
    env: ReplicatedEnvironment, checker: Checker, lose: Callable[[ReplicatedEnvironment], str]
) -> Loss:
    """Lose a node under load, wait until the stack is whole, and compare with the journals."""
    published = env.load.published()
    with Callers(env.stack) as callers:
        callers.wait_steady()
        killed_at = time.monotonic()
        node = lose(env)
        whole_s = env.wait_healthy(WHOLE_WITHIN_S, since=killed_at)
        callers.wait_steady()
        responses, lost_patches = callers.since(killed_at), callers.lost()
    result = checker.check(published)
    failed = [one for one in responses if one.failed]
    patches = [one.at_s + one.took_s - killed_at for one in failed if one.driver_id]
    return Loss(
        node, max(patches, default=0.0), whole_s, result.commit_acked, result.lost,
        result.duplicates, lost_patches, len(failed), result.violations,
    )  # fmt: skip


def main() -> int:
    """Lose each node in turn."""
    parser = argparse.ArgumentParser(
        prog="tests.faults.lost_machines",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--times", type=int, default=3, help="rounds of all losses; 3 by default")
    parser.add_argument("--rate", type=float, default=200.0, help="fixes/s; 200 by default")
    parser.add_argument("--json", action="store_true", help="end with the table as JSON")
    options = parser.parse_args()
    losses: list[Loss] = []
    with ReplicatedEnvironment(EnvironmentSettings(rate=options.rate)) as env:
        checker = Checker(env)
        for _ in range(options.times):
            for lose in LOSSES:
                one = lose_one(env, checker, lose)
                losses.append(one)
                print(
                    f"{'ok ' if one.ok else 'BAD'} {one.node}: PATCHes again after"
                    f" {one.writing_s:.1f} s ({one.failed} requests failed), whole after"
                    f" {one.whole_s:.1f} s; {one.commit_acked} fixes acknowledged,"
                    f" {one.lost} lost, {one.twice} twice, {one.lost_patches} PATCHes lost"
                    f" {' '.join(one.violations)}",
                    file=sys.stderr,
                    flush=True,
                )
    if options.json:
        print(json.dumps({"losses": [asdict(one) for one in losses]}, indent=2))
    return 0 if all(one.ok for one in losses) else 1


if __name__ == "__main__":
    sys.exit(main())
