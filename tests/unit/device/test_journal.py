"""The devices' journal: what is on disk after kill -9, and what the ledger reads."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from device.journal import Journal, JournalInUse, read_published

# Writes fixes for two drivers, and prints each seq after its commit.
WRITER = """
import sys
from pathlib import Path
from device.journal import Journal
journal = Journal(Path(sys.argv[1]))
boots = [journal.open_boot("anna"), journal.open_boot("bruno")]
for seq in range(1, 1_000_000):
    journal.append([(boot.boot_id, seq, b"x" * 150) for boot in boots])
    journal.commit()
    print(seq, flush=True)
"""


def fill(journal: Journal, driver_id: str, count: int) -> int:
    found = journal.open_boot(driver_id)
    journal.append([(found.boot_id, seq, b"%d" % seq) for seq in range(1, count + 1)])
    journal.commit()
    return found.boot_id


def test_open_boot__same_journal__continues_its_boot(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        first = journal.open_boot("anna")
        fill(journal, "anna", 3)
    with Journal(tmp_path / "j.sqlite") as journal:
        again = journal.open_boot("anna")
    assert (again.boot, again.last_seq) == (first.boot, 3)


def test_open_boot__another_journal__is_another_boot(tmp_path: Path) -> None:
    with Journal(tmp_path / "a.sqlite") as one, Journal(tmp_path / "b.sqlite") as other:
        assert one.open_boot("anna").boot != other.open_boot("anna").boot


def test_pending_after__all_but_a_gap_deleted__is_the_gap(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        boot_id = fill(journal, "anna", 10)
        journal.delete(boot_id, [(1, 3), (6, 10)])
        assert journal.pending_after(boot_id, 0, 100) == [(4, b"4"), (5, b"5")]
        assert journal.count_pending(boot_id) == 2


def test_delete__one_driver__leaves_another_s_fixes(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        fill(journal, "anna", 5)
        bruno = fill(journal, "bruno", 2)
        journal.delete(bruno, [(1, 5)])
        assert journal.count_pending(journal.open_boot("anna").boot_id) == 5


def test_journal__opened_twice__the_second_is_refused(tmp_path: Path) -> None:
    with (
        Journal(tmp_path / "j.sqlite"),
        pytest.raises(JournalInUse, match="another process"),
    ):
        Journal(tmp_path / "j.sqlite")


def test_journal__kill_9_while_writing__keeps_every_committed_fix(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    printed = 0
    for line in writer.stdout:
        printed = int(line)
        if printed == 200:
            writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert writer.returncode == -signal.SIGKILL
    for found in read_published(path):  # as the ledger does, before the file is recovered
        assert printed <= found.last_seq <= printed + 1
    with Journal(path) as journal:
        for driver_id in ("anna", "bruno"):
            reopened = journal.open_boot(driver_id)
            assert printed <= reopened.last_seq <= printed + 1  # a seq is never used a second time
            pending = [seq for seq, _ in journal.pending_after(reopened.boot_id, 0, 10_000)]
            assert pending == list(range(1, reopened.last_seq + 1))


def test_read_published__while_the_device_runs__counts_pending_and_voids(
    tmp_path: Path,
) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        boot_id = fill(journal, "anna", 7)
        journal.open_boot("unused")
        journal.delete(boot_id, [(1, 4)])
        journal.give_up(boot_id, 5)
        journal.commit()
        (found,) = read_published(tmp_path / "j.sqlite")
    assert (found.driver_id, found.last_seq, found.pending, found.voids) == ("anna", 7, 2, 1)


def test_read_published__file_without_tables__is_empty(tmp_path: Path) -> None:
    (tmp_path / "j.sqlite").touch()
    assert read_published(tmp_path / "j.sqlite") == []


def test_note__rewritten__keeps_the_newest(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.set_note("positions", "old")
        journal.set_note("positions", "new")
    with Journal(tmp_path / "j.sqlite") as journal:
        assert journal.notes() == {"positions": "new"}


def test_append__full__gives_up_the_oldest_and_counts_them(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite", max_fixes=10) as journal:
        boot_id = journal.open_boot("anna").boot_id
        given_up = [journal.append([(boot_id, seq, b"x")]) for seq in range(1, 26)]
        journal.commit()
        assert given_up == [{}] * 10 + [{boot_id: 1}] * 15
        assert [seq for seq, _ in journal.pending_after(boot_id, 0, 99)] == list(range(16, 26))
        assert journal.count_pending(boot_id) == 10
        assert [seq for seq in range(1, 26) if journal.is_given_up(boot_id, seq)] == [*range(1, 16)]
    (found,) = read_published(tmp_path / "j.sqlite")
    assert (found.last_seq, found.pending, found.voids) == (25, 10, 15)
    with Journal(tmp_path / "j.sqlite", max_fixes=10) as journal:
        assert journal.open_boot("anna").boot == found.boot  # it was not taken for a damaged one


def test_append__one_driver_full__leaves_another_s_fixes(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite", max_fixes=3) as journal:
        fill(journal, "anna", 3)
        bruno = fill(journal, "bruno", 9)
        assert journal.count_pending(journal.open_boot("anna").boot_id) == 3
        assert (journal.count_pending(bruno), journal.count_given_up(bruno)) == (3, 6)


@pytest.mark.parametrize("damage", ["header", "page", "not_sqlite"])
def test_journal__unreadable_file__is_renamed_and_a_new_boot_begins(
    tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(path) as journal:
        boot = journal.open_boot("anna").boot
        fill(journal, "anna", 2_000)
    content = path.read_bytes()
    if damage == "header":
        path.write_bytes(b"\0" * 100 + content[100:])
    elif damage == "page":
        path.write_bytes(content[:8192] + b"\xff" * 8192 + content[16384:])
    else:
        path.write_bytes(b"what is this?")
    with Journal(path) as journal:
        assert journal.open_boot("anna").boot != boot
    assert len(list(tmp_path.glob("j.sqlite.unreadable-*"))) == 1
