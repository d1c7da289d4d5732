"""Breaks the database on purpose, and shows that the comparison with the model finds each break.

`python -m tests.property.mutations [--cases N] [--json] [name …]`; needs no running stack. Ends
with 1 if a mutation was not found, or if the unbroken schema is.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass

import psycopg
from hypothesis import HealthCheck, Phase, settings
from hypothesis.strategies import SearchStrategy

from doorstep.errors import DoorstepError
from ops.servers.postgres import running_cluster
from ops.stack.postgres import PostgresCluster
from tests.database import cloned_database, create_template
from tests.property.cases import cases
from tests.property.draws import check_each
from tests.property.fleet import Fleet
from tests.property.mutation_catalog import MUTATIONS, Mutation
from tests.property.play import Difference, play
from tests.property.play_shift import open_restaurants, play_shift
from tests.property.shifts import Shift, shifts
from tests.property.steps import Case

GENERATED = settings(
    deadline=None,
    database=None,
    phases=(Phase.generate,),
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def broken(mutation: Mutation, fleet: Fleet) -> None:
    """Apply a mutation. Raises ValueError where a text to be replaced is not there any more."""
    fleet.owner.execute("SET check_function_bodies = off")  # `also` may make what they call
    for function, old, new in mutation.edits:
        [(text,)] = fleet.rows(
            "SELECT pg_get_functiondef(oid) FROM pg_proc"
            " WHERE proname = %s AND pronamespace = 'doorstep'::regnamespace",
            function,
        )
        if old not in text:
            raise ValueError(f"{mutation.name}: {function} has no {old!r}")
        fleet.owner.execute(text.replace(old, new))
    if mutation.also:
        fleet.owner.execute(mutation.also)


def find(fleet: Fleet, at_most: int, *, in_shifts: bool) -> tuple[int, str]:
    """Play cases until one differs; return how many were played and what differed, or ''."""
    played, found = 0, ""
    drawn: SearchStrategy[Case] | SearchStrategy[Shift] = shifts if in_shifts else cases

    def search(case: Case | Shift) -> None:
        nonlocal played, found
        if found:  # Hypothesis plays it once more
            raise Difference(found)
        played += 1
        try:
            if isinstance(case, Shift):
                play_shift(fleet, case)
            else:
                play(fleet, case)
        except (Difference, DoorstepError, psycopg.Error) as exc:
            found = f"{type(exc).__name__}: {exc}".split("\n")[0]
            raise Difference(found) from exc

    with suppress(Difference):
        check_each(drawn, at_most, search, GENERATED, first_seed=0)
    return played, found


@dataclass(frozen=True)
class Trial:
    """What became of one mutation."""

    name: str
    found: bool
    cases: int
    seconds: float
    difference: str
    ok: bool


def run(cluster: PostgresCluster, mutation: Mutation, at_most: int) -> Trial:
    """Try one mutation."""
    started = time.monotonic()
    with cloned_database(cluster) as database:
        fleet = Fleet(database)
        try:
            open_restaurants(fleet)
            broken(mutation, fleet)
            played, difference = find(fleet, at_most, in_shifts=mutation.shifts)
        finally:
            fleet.close()
    is_fine = bool(difference) == (mutation is not MUTATIONS[0])
    seconds = round(time.monotonic() - started, 1)
    return Trial(mutation.name, bool(difference), played, seconds, difference, is_fine)


def line_of(trial: Trial) -> str:
    verdict = ("ok " if trial.ok else "BAD") + (" red  " if trial.found else " green")
    return (
        f"{verdict} {trial.cases:5} cases"
        f" {trial.seconds:6.1f} s  {trial.name:76} {trial.difference[:60]}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="parts of names of mutations; all by default")
    parser.add_argument("--cases", type=int, help="at most so many each; 300 by default")
    parser.add_argument("--json", action="store_true", help="end with the table as JSON")
    options = parser.parse_args()
    chosen = [
        mutation
        for mutation in MUTATIONS
        if not options.names or any(name in mutation.name for name in options.names)
    ]
    trials = []
    with running_cluster() as cluster:
        create_template(cluster)
        for n, mutation in enumerate(chosen, 1):
            trials.append(run(cluster, mutation, options.cases or mutation.cases))
            line = f"{n:2}/{len(chosen)} {line_of(trials[-1])}"
            print(line, file=sys.stderr if options.json else sys.stdout, flush=True)
    as_they_should = sum(trial.ok for trial in trials)
    if options.json:
        print(json.dumps({"mutations": [asdict(trial) for trial in trials]}, indent=2))
    else:
        print(f"{as_they_should} of {len(trials)} as they should be")
    return 0 if as_they_should == len(trials) else 1


if __name__ == "__main__":
    sys.exit(main())
