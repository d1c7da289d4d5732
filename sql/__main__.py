"""`python -m sql upgrade | passwords | fingerprint | roles`: the database commands of a deployment.

upgrade      migrate to the newest revision; refuses a database that it cannot upgrade
passwords    set the passwords of the service roles
fingerprint  print the digest of the database's definitions, for fingerprints.json
roles        print what each service role may do: docs/reference/database-roles.md

Reads DATABASE_ADMIN_URL, the URL of doorstep_owner; `passwords` reads DRIVER_EVENTS_PASSWORD,
DRIVER_API_PASSWORD, TRACKING_API_PASSWORD, CUSTOMER_PASSWORD, BROKER_SYNC_PASSWORD and
WEBHOOKS_PASSWORD. Retries for a minute while the database is down.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence

import psycopg
import sqlalchemy.exc

from sql import roles
from sql.fingerprint import fingerprint
from sql.migrate import PASSWORD_VARIABLES, UpgradeRefused, set_passwords, upgrade

EX_DATAERR = 65  # sysexits.h: input data error
EX_CONFIG = 78  # sysexits.h: configuration error
RETRY_FOR_S = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sql",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["upgrade", "passwords", "fingerprint", "roles"])
    options = parser.parse_args(arguments)
    admin_url = os.environ.get("DATABASE_ADMIN_URL", "")
    if not admin_url:
        print("sql: set DATABASE_ADMIN_URL: the owner's URL", file=sys.stderr)
        return EX_CONFIG
    if options.command == "upgrade":
        return _retry(lambda: upgrade(admin_url), "upgraded")
    if options.command == "fingerprint":
        with psycopg.connect(admin_url) as conn:
            print(fingerprint(conn))
        return 0
    if options.command == "roles":
        with psycopg.connect(admin_url) as conn:
            print(roles.page(conn), end="")
        return 0
    passwords = {role: os.environ.get(name, "") for role, name in PASSWORD_VARIABLES.items()}
    missing = [PASSWORD_VARIABLES[role] for role, password in passwords.items() if not password]
    if missing:
        print(f"sql: set {', '.join(missing)}", file=sys.stderr)
        return EX_CONFIG
    return _retry(lambda: set_passwords(admin_url, passwords), "passwords set")


def _retry(work: Callable[[], None], done: str) -> int:
    deadline = time.monotonic() + RETRY_FOR_S
    while True:
        try:
            work()
        except UpgradeRefused as exc:
            print(f"sql: upgrade refused: {exc}", file=sys.stderr)
            return EX_DATAERR
        except (psycopg.OperationalError, sqlalchemy.exc.OperationalError) as exc:
            if time.monotonic() > deadline:
                print(f"sql: the database did not answer: {exc}", file=sys.stderr)
                return 1
            print("sql: waiting for the database", file=sys.stderr)
            time.sleep(1)
        else:
            print(f"sql: {done}", file=sys.stderr)
            return 0


if __name__ == "__main__":
    sys.exit(main())
