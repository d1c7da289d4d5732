"""`./run dead-letters`: lists, shows and resends inputs that were rejected."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from doorstep.kafka.topic_reader import TopicReader
from doorstep.provision import owner_connection
from ops.commands.dead_letter_reader import (
    DeadLetterFilter,
    StoredDeadLetter,
    find_letters,
    read_letters,
    time_text,
)
from ops.commands.dead_letter_replay import record_again, resend_of
from ops.commands.runner import BadArgument, run_command
from ops.commands.settings import OperatorSettings
from ops.commands.times import parse_time
from ops.console import print_line

NAME = "dead-letters"
MAX_RESENT = 10_000

EXAMPLES = """examples:
  ./run dead-letters                                  the 50 newest
  ./run dead-letters --reason not_json --since 2h     or --driver anna, --source mqtt
  ./run dead-letters show 2:17                        its headers and all of its bytes
  ./run dead-letters resend 2:17                      send it to driver-pos again
  ./run dead-letters resend 2:17 --payload fixed.json with a corrected payload
  ./run dead-letters resend --reason refused_by_database --since 3h --yes

A resent letter keeps its first time of arrival: what was too old then stays too old, and what was
refused by mistake does not become too old by waiting."""

Options = argparse.Namespace


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the return value is the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    options = _parser().parse_args(_with_default_command(arguments))
    return run_command(NAME, lambda: _run(options))


def _run(options: Options) -> int:
    settings = OperatorSettings.load()
    with TopicReader(settings.kafka, settings.kafka_dead_letter_topic) as letters:
        status: int = options.command(letters, settings, options)
        return status


def _with_default_command(argv: Sequence[str]) -> list[str]:
    """Insert `list` if no command is named."""
    named = argv[:1] and argv[0] in ("list", "show", "resend", "-h", "--help")
    return [*argv] if named else ["list", *argv]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./run dead-letters",
        description="List, show or resend inputs that were rejected.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")

    listing = commands.add_parser("list", help="the newest letters, newest first")
    _add_filters(listing)
    listing.add_argument("--limit", type=_positive, default=50, metavar="N", help="how many (50)")
    listing.set_defaults(command=_list)

    showing = commands.add_parser("show", help="headers and payload")
    showing.add_argument("letter_ids", nargs="+", metavar="ID", help="partition:offset")
    showing.set_defaults(command=_show)

    sending = commands.add_parser("resend", help="send letters to driver-pos again")
    sending.add_argument("letter_ids", nargs="*", metavar="ID", help="partition:offset")
    _add_filters(sending)
    sending.add_argument(
        "--payload", type=Path, metavar="FILE", help="send these bytes instead; for one letter"
    )
    sending.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    sending.set_defaults(command=_resend)
    for one in (listing, showing, sending):
        one.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add_filters(parser: argparse.ArgumentParser) -> None:
    for name, metavar in (("reason", "not_json"), ("driver", "ID"), ("source", "mqtt")):
        parser.add_argument(f"--{name}", action="append", default=[], metavar=metavar)
    parser.add_argument(
        "--since", metavar="T", help="an age such as 2h, 30min or 3d, or an instant"
    )
    parser.add_argument("--until", metavar="T")


def _positive(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError("must be from 1 to 1,000,000")
    return value


def _filter(options: Options) -> DeadLetterFilter:
    now = datetime.now(UTC)
    return DeadLetterFilter(
        reasons=tuple(options.reason),
        sources=tuple(options.source),
        driver_ids=tuple(options.driver),
        since_ms=parse_time(options.since, now) if options.since else None,
        until_ms=parse_time(options.until, now) if options.until else None,
    )


def _list(letters: TopicReader, _settings: OperatorSettings, options: Options) -> int:
    selection = _filter(options)
    found, matches = find_letters(letters, selection, options.limit, _echo)
    if options.json:
        print(json.dumps([letter.to_json() for letter in found]))
        return 0
    if not found:
        print("there is no dead letter" if selection.is_empty else "no dead letter matches")
        return 0
    for line in table(found):
        print(line)
    if matches > len(found):
        print(f"the newest {len(found)} of {matches:,}; --limit shows more")
    return 0


def table(letters: Sequence[StoredDeadLetter]) -> list[str]:
    """Format letters as lines of aligned columns."""
    rows = [("id", "written", "reason", "source", "driver", "bytes", "begins with")]
    rows += [
        (
            one.letter_id,
            time_text(one.written_at_ms),
            one.reason,
            one.source,
            one.driver_id or "-",
            f"{len(one.payload):,}",
            one.preview(),
        )
        for one in letters
    ]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]) - 1)]
    return [
        "  ".join(
            [*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)), row[-1]]
        )
        for row in rows
    ]


def _show(letters: TopicReader, _settings: OperatorSettings, options: Options) -> int:
    found = read_letters(letters, options.letter_ids)
    if options.json:
        print(json.dumps([letter.to_json() for letter in found]))
        return 0
    for letter in found:
        members = letter.to_json()
        payload = members.pop("payload", None)
        payload_hex = members.pop("payload_hex", None)
        for name, value in members.items():
            print(f"{name:<12} {value}")
        if payload is None:
            print(f"payload, not UTF-8, in hex:\n{payload_hex}")
        else:
            print("payload:\n" + "".join(_escape(one) for one in str(payload)))
    return 0


def _escape(char: str) -> str:
    """Escape a control character, except line feeds: a terminal would execute it."""
    return char if char.isprintable() or char == "\n" else repr(char)[1:-1]


def _resend(letters: TopicReader, settings: OperatorSettings, options: Options) -> int:
    chosen = _choose(letters, options)
    if not chosen:
        print("[]" if options.json else "no dead letter matches")
        return 0
    payload = _payload(options, chosen)
    resent = [resend_of(letter, payload) for letter in chosen]
    reasons = Counter(letter.reason for letter in chosen).most_common()
    counts = ", ".join(f"{reason} {count}" for reason, count in reasons)
    _echo(f"{len(chosen)} letters of {len({one.driver_id for one in resent})} drivers: {counts}")
    if not options.yes and not _confirmed(len(chosen)):
        return 1
    with ExitStack() as stack:
        conn = stack.enter_context(owner_connection(settings.database_admin_url.get_secret_value()))
        conn.autocommit = True
        record_again(conn, resent)
    if options.json:
        print(json.dumps([one.to_json() for one in resent]))
    else:
        for one in resent:
            print(f"{one.letter.letter_id}  {one.summary()}")
    return 0


def _choose(letters: TopicReader, options: Options) -> list[StoredDeadLetter]:
    """Return the letters named, or those that match, oldest first. Raises BadArgument."""
    selection = _filter(options)
    if options.letter_ids:
        if not selection.is_empty:
            raise BadArgument("name ids, or filter by --reason, --driver, --source: not both")
        return read_letters(letters, options.letter_ids)
    if selection.is_empty:
        raise BadArgument("which letters? Name ids, or filter by --reason, --driver, --source")
    found, matches = find_letters(letters, selection, MAX_RESENT, _echo)
    if matches > len(found):
        raise BadArgument(f"{matches:,} letters match, {MAX_RESENT:,} can be sent: use --until")
    return found[::-1]


def _payload(options: Options, chosen: Sequence[StoredDeadLetter]) -> bytes | None:
    if options.payload is None:
        return None
    if len(chosen) != 1:
        raise BadArgument(f"--payload is for one letter, but {len(chosen)} are chosen")
    try:
        payload: bytes = options.payload.read_bytes()
    except OSError as exc:
        raise BadArgument(f"cannot read {options.payload}: {exc.strerror}") from exc
    return payload


def _confirmed(count: int) -> bool:
    if not sys.stdin.isatty():
        raise BadArgument("stdin is not a terminal: add --yes to send them")
    sys.stderr.write(f"send {count} again? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _echo(line: str) -> None:
    print_line(f"{NAME}: {line}")


if __name__ == "__main__":
    sys.exit(main())
