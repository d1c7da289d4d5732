"""The progress of a run. The seams replaced: the terminal and the clock."""

from __future__ import annotations

import io

from tests.faults.progress import CLEAR_LINE, Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress__on_a_terminal__the_bar_stays_below_the_lines() -> None:
    now_s, screen = [0.0], Terminal()
    progress = Progress(4, screen, lambda: now_s[0])
    progress.begin("1 kill -9 mosquitto")
    now_s[0] = 60.0
    progress.finish(ok=False)
    progress.say("a line")
    assert screen.getvalue().endswith(
        f"{CLEAR_LINE}a line\n{CLEAR_LINE}[######..................] 1/4, 1 failed, "
        "about 3 min left"
    )
    progress.close()
    assert screen.getvalue().endswith(CLEAR_LINE)


def test_progress__the_fault_that_runs__is_named() -> None:
    progress = Progress(2, io.StringIO())
    progress.begin("9 kill -9 Kafka")
    assert progress.text() == f"[{'.' * 24}] 0/2, 0 failed: 9 kill -9 Kafka"
    progress.finish(ok=True)
    progress.finish(ok=True)
    assert progress.text() == f"[{'#' * 24}] 2/2, 0 failed"


def test_progress__elsewhere__plain_lines_only() -> None:
    log = io.StringIO()
    progress = Progress(1, log)
    progress.begin("1 kill -9 mosquitto")
    progress.say("a line")
    progress.finish(ok=True)
    progress.close()
    assert log.getvalue() == "a line\n"
