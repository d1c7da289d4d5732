"""Earlier releases: their own code against a stack. Their files come from Git.

Packages that a release needs and this environment does not have are installed beside it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from doorstep.errors import DoorstepError
from ops.stack.settings import PROJECT

FETCH_TIMEOUT_S = 300
REQUIREMENTS = "requirements/development.txt"
PINNED = re.compile(r"^([A-Za-z0-9._-]+)\S*==.*(?:\n[ \t].*)*\n", re.MULTILINE)
INSTALL = (
    *("-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet"),
    *("--require-hashes", "--no-deps", "--only-binary", ":all:"),
)
# What `./run` makes, and Git does not have. `bin` and `lib` are of options: --observe, --ha.
BUILT = (".doorstep/kafka", ".doorstep/bin", ".doorstep/lib", "web/dist")
RUN = """
import os, sys
from pathlib import Path
from ops.stack import addresses
from ops.stack.settings import FREE_PORTS, StackSettings
from ops.stack.stack import Stack

if ports := os.environ.get("DOORSTEP_ANY_PORTS"):  # 0.3.0 and 0.4.0 do not read it
    first, last = map(int, ports.split("-"))
    addresses.ANY_PORTS = range(first, last + 1)
stack = Stack(
    StackSettings(doorstep_home=Path(sys.argv[1]), **FREE_PORTS), echo=lambda line: print(line)
)
arguments = sys.argv[2:]
"""


class ReleaseMissing(DoorstepError):
    """Git does not have a release's commit: this clone is shallow, or not a clone."""


@dataclass(frozen=True, slots=True)
class Release:
    """A release that can be upgraded to this code."""

    version: str
    commit: str

    @property
    def tag(self) -> str:
        """Its tag in Git, which a clone may lack."""
        return f"v{self.version}"

    def is_in_git(self) -> bool:
        """Return whether this clone has the commit."""
        return git("cat-file", "-e", f"{self.commit}^{{commit}}").returncode == 0

    def fetch(self) -> None:
        """Fetch the commit if this clone does not have it. Raises ReleaseMissing."""
        if self.is_in_git():
            return
        fetched = git("fetch", "--quiet", "--no-tags", "--depth=1", "origin", self.commit)
        if fetched.returncode != 0 or not self.is_in_git():
            raise ReleaseMissing(
                f"{self.version} is not in this clone: git fetch --unshallow "
                f"({fetched.stderr.strip() or 'fetched without the commit'})"
            )


# The two before this one, the newest first: what the database may drop depends on them
# (sql/README.md, "Upgrades").
RELEASES = (
    Release("0.4.0", "09d6c04b67f1a8ba7d54b23460ab4d70bb70d696"),
    Release("0.3.0", "9254db7c2f8c917abcb6ad1bfc27f55dfd4796cd"),
)


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Git in the project, without questions."""
    return subprocess.run(
        ["git", "-C", str(PROJECT), *arguments],
        env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=FETCH_TIMEOUT_S,
        check=False,
    )


def missing_releases() -> str:
    """Say why not each of RELEASES can be started here; empty if each can."""
    if shutil.which("git") is None:
        return "git, which has the earlier releases, is not installed"
    missing = [one.version for one in RELEASES if not one.is_in_git()]
    return f"not in this clone (git fetch --unshallow): {', '.join(missing)}" if missing else ""


class PreviousRelease:
    """A copy of a release below `folder`, which the servers' users can enter."""

    def __init__(self, folder: Path, release: Release) -> None:
        """Raises ReleaseMissing."""
        release.fetch()
        self.name = release.version
        self.project = folder / "release"
        self.project.mkdir()
        archive = ["git", "-C", str(PROJECT), "archive", release.commit]
        with subprocess.Popen(archive, stdout=subprocess.PIPE) as process:
            subprocess.run(["tar", "-x", "-C", str(self.project)], stdin=process.stdout, check=True)
        if process.returncode != 0:
            raise subprocess.CalledProcessError(process.returncode, archive)
        for name in BUILT:
            (self.project / name).parent.mkdir(parents=True, exist_ok=True)
            (self.project / name).symlink_to((PROJECT / name).resolve())
        self._install(folder / "packages")

    def _install(self, packages: Path) -> None:
        self.python_path = f"{self.project}{os.pathsep}{packages}"
        pinned = (self.project / REQUIREMENTS).read_text(encoding="utf-8")
        packages.mkdir()
        missing = packages / "missing.txt"
        missing.write_text(lacking(pinned, {normalized(one.name) for one in distributions()}))
        subprocess.run(
            [sys.executable, *INSTALL, "--target", str(packages), "--requirement", str(missing)],
            stdin=subprocess.DEVNULL, timeout=FETCH_TIMEOUT_S, check=True,
        )  # fmt: skip

    def run(
        self, home: Path, statement: str, *arguments: str, environment: Mapping[str, str]
    ) -> None:
        """Run a statement of the release's code, with `stack` and `arguments`."""
        self._python(home, ["-c", RUN + statement, str(home), *arguments], environment)

    def command(self, home: Path, *arguments: str, environment: Mapping[str, str]) -> None:
        """Run one of the release's commands, as its `./run` does."""
        named = {**environment, "DOORSTEP_HOME": str(home)}
        self._python(home, ["-m", "ops", *arguments], named)

    def _python(self, home: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        done = subprocess.run(
            [sys.executable, *arguments],
            env={**environment, "PYTHONPATH": self.python_path},
            cwd=self.project, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            said = (done.stdout + done.stderr)[-3000:]
            logs = (f"{one.name}: {one.read_text()[-1500:]}" for one in named_logs(home, said))
            raise RuntimeError("\n".join((f"{self.name}: {said}", *logs)))


def lacking(pinned: str, installed: Container[str]) -> str:
    """Return those of a release's pinned requirements that are not installed, in any version."""
    return "".join(
        one.group() for one in PINNED.finditer(pinned) if normalized(one[1]) not in installed
    )


def normalized(name: str) -> str:
    """Return a package's name as registries compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def named_logs(home: Path, said: str) -> list[Path]:
    """Return the logs of the processes that a message names."""
    return [one for one in sorted((home / "logs").glob("*.log")) if one.stem in said]


def runs_from(pid: int) -> Path:
    """Return the folder in which a process was started."""
    return Path(os.readlink(f"/proc/{pid}/cwd"))
