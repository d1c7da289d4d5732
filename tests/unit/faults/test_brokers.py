"""The fault that is injected into the bridge. The bridge's module is real, its process is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.faults.brokers import POISON, SITECUSTOMIZE, python_path

PROBE = f"""
from bridge.kafka_publisher import Publisher

for headers in ([], None):
    try:
        Publisher.produce(object(), "t", b"k", {POISON!r}, None, headers)
    except Exception as exc:
        print(type(exc).__name__)
"""


def test_poison__injected_by_sitecustomize__raises_except_as_a_dead_letter(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-c", PROBE],
        env=os.environ | {"PYTHONPATH": python_path(str(tmp_path))},
        capture_output=True,
        text=True,
        check=True,
    )
    # with headers the real method is reached, which a bare object can't serve
    assert ran.stdout.split() == ["AttributeError", "ZeroDivisionError"]
    assert ran.stderr == ""
