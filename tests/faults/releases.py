"""What tests do without an earlier release: they fail in CI, and are skipped elsewhere."""

from __future__ import annotations

import os

import pytest

from tests.faults.previous_release import Release, ReleaseMissing


def fetched(release: Release) -> Release:
    """Return a release that this clone has, or has fetched now."""
    try:
        release.fetch()
    except ReleaseMissing as exc:
        if os.environ.get("CI") == "true":
            pytest.fail(str(exc))
        pytest.skip(str(exc))
    return release
