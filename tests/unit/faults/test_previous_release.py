"""The releases from which tests/faults/test_upgrade.py upgrades."""

from __future__ import annotations

import subprocess
import tomllib

import pytest

from ops.stack.settings import PROJECT
from tests.faults import previous_release
from tests.faults.previous_release import (
    RELEASES,
    Release,
    ReleaseMissing,
    git,
    lacking,
    missing_releases,
)
from tests.faults.releases import fetched

UNKNOWN = Release("0.0.9", "0" * 40)


def test_releases__changelog__are_the_two_before_this() -> None:
    lines = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()

    _this, *before = [line for line in lines if line.startswith("## ")]

    assert before[:2] == [f"## {one.version}" for one in RELEASES]


@pytest.mark.parametrize("release", RELEASES, ids=[one.version for one in RELEASES])
def test_release__commit__is_the_tagged_one_and_has_its_version(release: Release) -> None:
    fetched(release)
    tagged = git("rev-parse", "--verify", "--quiet", f"refs/tags/{release.tag}^{{commit}}")
    project = tomllib.loads(git("show", f"{release.commit}:pyproject.toml").stdout)

    if tagged.returncode == 0:  # a clone may have no tags
        assert tagged.stdout.strip() == release.commit
    assert project["project"]["version"] == release.version


def test_fetch__no_such_commit__is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def fails(*arguments: str) -> subprocess.CompletedProcess[str]:
        asked.append(arguments)
        return subprocess.CompletedProcess(arguments, 1, "", "no remote")

    monkeypatch.setattr(previous_release, "git", fails)
    with pytest.raises(ReleaseMissing, match=r"0\.0\.9 is not in this clone.*no remote"):
        UNKNOWN.fetch()
    assert asked[1][0] == "fetch"
    assert asked[1][-1] == UNKNOWN.commit


def test_missing_releases__one_is_not_in_git__is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previous_release, "RELEASES", [*RELEASES, UNKNOWN])
    assert UNKNOWN.version in missing_releases()


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail), ("", pytest.skip)])
def test_fetched__missing__fails_in_ci_and_is_skipped_elsewhere(
    ci: str, outcome: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(_self: Release) -> None:
        raise ReleaseMissing("0.0.9 is not in this clone")

    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(Release, "fetch", fetch)
    with pytest.raises(outcome.Exception, match="not in this clone"):  # type: ignore[attr-defined]
        fetched(UNKNOWN)


def test_lacking__packages_of_an_earlier_release__are_those_that_are_not_installed() -> None:
    kept = "py_vapid==1.9 \\\n    --hash=sha256:01\n"
    gone = 'Web.Push[cli]==2.5 ; python_version > "3" \\\n    --hash=sha256:02 \\\n    --hash=03\n'

    assert lacking(f"# made\n{kept}{gone}    # via doorstep\n", {"py-vapid"}) == (
        f"{gone}    # via doorstep\n"
    )
    assert lacking(kept, {"py-vapid"}) == ""
