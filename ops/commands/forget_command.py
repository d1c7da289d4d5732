"""`./run forget`: erases a driver, or makes an order anonymous."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from doorstep.provision import owner_connection
from doorstep.store.personal_data import Erased, forget_driver, forget_order, held_in_kafka
from ops.commands.runner import as_order_id, run_command
from ops.commands.settings import OperatorSettings
from ops.console import operator

EXAMPLES = """examples:
  ./run forget driver anna
  ./run forget order 3f0f6a52-6f1c-4a52-a1a5-5c51b3f1a9d4
  ./run forget driver anna --json

A driver is disconnected; positions, commands, tokens and credentials are deleted, and orders name
`forgotten` instead. An order loses its customer's name, destination and links; its states and
times stay. A driver with an open order, and an order that is open or ended less than 24 hours
ago, are refused. The audit and the list of used ids keep the id. The command says what Kafka and
backups still hold. It cannot be undone: `./run export` first, if the data are wanted.
The exit status is 0, 2 for an unknown id, or 1 on another error."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the return value is the exit status."""
    options = _parser().parse_args(argv)
    return run_command("forget", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    settings = OperatorSettings.load()
    with owner_connection(settings.database_admin_url.get_secret_value()) as conn:
        if options.kind == "driver":
            erased = forget_driver(conn, options.id, operator())
        else:
            erased = forget_order(conn, as_order_id(options.id), operator())
    topics = held_in_kafka() if options.kind == "driver" else []
    if options.json:
        held = {name: until and until.isoformat() for name, until in topics}
        print(json.dumps({"erased": [_as_dict(one) for one in erased], "kafka_until": held}))
        return 0
    for one in erased:
        if one.row_count:
            print(f"{one.table_name}: {one.row_count:,} {one.what}")
    for name, until in topics:
        ends = f"until {until:%Y-%m-%d %H:%M}Z" if until else "until a newer record replaces it"
        print(f"Kafka {name}: may hold records {ends}; they cannot be stored again")
    if topics:
        print("Mosquitto: may retain the id's last status (online, offline) and sampling policy")
    print("backups: hold what they held until they expire; ./run restore erases it again")
    return 0


def _as_dict(one: Erased) -> dict[str, object]:
    return {"table": one.table_name, "what": one.what, "rows": one.row_count}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./run forget",
        description="Erase a driver's personal data, or make an order anonymous.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=["driver", "order"])
    parser.add_argument("id", metavar="ID")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
