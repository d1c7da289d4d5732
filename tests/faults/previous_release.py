"""The release before this code: its files, and its own code against a stack.

The files come from Git. In a clone without that commit, such as a shallow one, this code takes its
place: the restarts are tested and the migration is not. `name` says which one it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from ops.stack.settings import PROJECT

VERSION, COMMIT = "0.4.0", "09d6c04b67f1a8ba7d54b23460ab4d70bb70d696"
BUILT = (".doorstep/kafka", "web/dist")  # what `./run` makes, and Git does not have
RUN = """
import os, sys
from pathlib import Path
from ops.stack.settings import FREE_PORTS, StackSettings
from ops.stack.stack import Stack

stack = Stack(
    StackSettings(doorstep_home=Path(sys.argv[1]), **FREE_PORTS), echo=lambda line: print(line)
)
arguments = sys.argv[2:]
"""


class PreviousRelease:
    """A copy of the release below `folder`, which the servers' users can enter."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "release"
        self.project.mkdir()
        known = subprocess.run(
            ["git", "-C", str(PROJECT), "cat-file", "-e", f"{COMMIT}^{{commit}}"],
            capture_output=True,
            check=False,
        )
        self.is_earlier = known.returncode == 0
        self.name = VERSION if self.is_earlier else f"this code, because {VERSION} is not in Git"
        if self.is_earlier:
            self._unpack()
        else:
            self.project.rmdir()
            shutil.copytree(
                PROJECT, self.project, ignore=shutil.ignore_patterns(".doorstep", "node_modules",
                                                                     ".git", "dist")
            )  # fmt: skip
        for name in BUILT:
            (self.project / name).parent.mkdir(parents=True, exist_ok=True)
            (self.project / name).symlink_to((PROJECT / name).resolve())

    def _unpack(self) -> None:
        archive = ["git", "-C", str(PROJECT), "archive", COMMIT]
        with subprocess.Popen(archive, stdout=subprocess.PIPE) as process:
            subprocess.run(["tar", "-x", "-C", str(self.project)], stdin=process.stdout, check=True)
        if process.returncode != 0:
            raise subprocess.CalledProcessError(process.returncode, archive)

    def run(
        self, home: Path, statement: str, *arguments: str, environment: Mapping[str, str]
    ) -> None:
        """Run a statement of the release's code, with `stack` and `arguments`."""
        done = subprocess.run(
            [sys.executable, "-c", RUN + statement, str(home), *arguments],
            env={**environment, "PYTHONPATH": str(self.project)},
            cwd=self.project, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"{self.name}: {(done.stdout + done.stderr)[-3000:]}")


def runs_from(pid: int) -> Path:
    """Return the folder in which a process was started."""
    return Path(os.readlink(f"/proc/{pid}/cwd"))
