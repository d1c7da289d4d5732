"""Worker threads. Pure: no seam is replaced."""

from __future__ import annotations

import threading

import pytest

from doorstep.errors import StoreUnavailable
from driver_events.worker import Worker


def test_worker__unavailable__is_retried() -> None:
    worked = threading.Event()
    troubles = [StoreUnavailable()]

    def work() -> bool:
        if troubles:
            raise troubles.pop()
        worked.set()
        return False

    worker = Worker("test", work, 0.01)
    worker.start()
    assert worked.wait(30)
    worker.stop()
    worker.check()


def test_worker__any_other_error__is_raised_by_check() -> None:
    def work() -> bool:
        raise KeyError("a mistake")

    worker = Worker("test", work, 0.01)
    worker.start()
    worker.stop()
    with pytest.raises(KeyError):
        worker.check()
    assert not worker.is_healthy


def test_worker__woken__runs_immediately() -> None:
    times = threading.Semaphore(0)

    def work() -> bool:
        times.release()
        return False

    worker = Worker("test", work, 60)
    worker.start()
    assert times.acquire(timeout=30)
    worker.wake()
    assert times.acquire(timeout=30)
    worker.stop()
