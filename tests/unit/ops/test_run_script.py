"""`./run` before anything is installed: its messages, and what it installs.

A PATH of stubs replaces the machine, so that nothing is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ops.cli import launcher_commands

PROJECT = Path(__file__).resolve().parents[3]
# the programs of a bare Debian that `run` uses: coreutils, sed, findutils, util-linux
BARE = """
    bash cat cd chmod cut dirname env find flock head mkdir mktemp mv printf readlink rm sed sh
    sha256sum sort tail tr
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A project without `.doorstep`: only the files that `run` reads before its set-up."""
    root = tmp_path / "project"
    (root / "kafka").mkdir(parents=True)
    for name in ("run", "pyproject.toml", "kafka/pom.xml"):
        shutil.copy(PROJECT / name, root / name)
    return root


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A PATH with a bare Debian's programs only; the user is not root."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in BARE.split():
        found = shutil.which(name)
        if found:
            (folder / name).symlink_to(found)
    _stub(folder, "id", "echo 1000")
    _stub(folder, "apt-get", 'echo "apt-get $*" >> "$0.called"; exit 1')
    _stub(folder, "apt-cache", "echo '  Depends: postgresql-15'")
    return folder


def _stub(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!{shutil.which('bash')}\n{body}\n")
    path.chmod(0o755)


def _run(checkout: Path, path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [shutil.which("bash") or "bash", str(checkout / "run"), *arguments],
        env={"PATH": str(path), "HOME": str(checkout)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_run__neither_root_nor_sudo__prints_the_apt_command_and_stops(
    checkout: Path, bare_path: Path
) -> None:
    done = _run(checkout, bare_path, "up")

    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    assert line.startswith("apt-get update && apt-get install -y --no-install-recommends ")
    assert {"mosquitto-clients", "default-jre-headless", "maven"} <= set(line.split())
    assert not (bare_path / "apt-get.called").exists()
    assert not (checkout / ".doorstep" / "venv").exists()


def test_run__old_java__installs_a_newer_one(checkout: Path, bare_path: Path) -> None:
    _stub(bare_path, "java", """echo 'openjdk version "11.0.2" 2019-01-15' >&2""")
    assert "default-jre-headless" in _run(checkout, bare_path, "up").stdout

    _stub(bare_path, "java", """echo 'openjdk version "21.0.4" 2024-07-16' >&2""")
    assert "default-jre-headless" not in _run(checkout, bare_path, "up").stdout


def test_run__test__installs_a_browser_and_no_prometheus_server(
    checkout: Path, bare_path: Path
) -> None:
    packages = _run(checkout, bare_path, "test").stdout.split()
    assert "chromium" in packages
    assert "prometheus" not in packages  # promtool is unpacked from the package instead
    assert "chromium" not in _run(checkout, bare_path, "demo").stdout.split()


def test_run__backups__install_pgbackrest_only_where_they_are_used(
    checkout: Path, bare_path: Path
) -> None:
    assert "pgbackrest" in _run(checkout, bare_path, "backup").stdout.split()
    assert "pgbackrest" in _run(checkout, bare_path, "restore").stdout.split()
    assert "pgbackrest" not in _run(checkout, bare_path, "up").stdout.split()

    (checkout / ".doorstep" / "stack").mkdir(parents=True)
    (checkout / ".doorstep" / "stack" / "backup_dir").touch()
    assert "pgbackrest" in _run(checkout, bare_path, "up").stdout.split()


def test_run__faults__install_what_their_stacks_and_their_clock_need(
    checkout: Path, bare_path: Path
) -> None:
    needed = {"gcc", "libc6-dev", "openssl", "patroni", "pgbackrest"}
    assert needed <= set(_run(checkout, bare_path, "faults").stdout.split())
    assert not needed & set(_run(checkout, bare_path, "up").stdout.split())


def test_run__sudo_without_a_password__is_used(checkout: Path, bare_path: Path) -> None:
    _stub(bare_path, "sudo", '[ "$1" = -n ] && exit 0; echo "sudo $*" >> "$0.called"; exit 1')
    done = _run(checkout, bare_path, "up")

    assert done.returncode == 1
    assert "apt cannot install them" in done.stderr
    assert (bare_path / "sudo.called").read_text().startswith("sudo apt-get update")


def test_run__no_apt__names_the_missing_packages(checkout: Path, bare_path: Path) -> None:
    (bare_path / "apt-get").unlink()
    done = _run(checkout, bare_path, "up")

    assert done.returncode == 1
    assert "missing: " in done.stderr
    assert "default-jre-headless" in done.stderr


@pytest.mark.parametrize("command", ["down", "status", "logs", "backups"])
def test_run__nothing_installed__read_only_commands_install_nothing(
    checkout: Path, bare_path: Path, command: str
) -> None:
    done = _run(checkout, bare_path, command)

    assert done.returncode == 1
    assert "nothing is installed yet" in done.stderr
    assert not (bare_path / "apt-get.called").exists()


def test_run__help_and_unknown_commands__start_no_set_up(checkout: Path, bare_path: Path) -> None:
    shown = _run(checkout, bare_path, "--help")
    unknown = _run(checkout, bare_path, "fly")

    assert shown.returncode == 0
    assert unknown.returncode == 1
    assert unknown.stderr == "unknown command: fly; see ./run --help\n"
    assert not (checkout / ".doorstep").exists()


def test_run__help__names_every_command(checkout: Path, bare_path: Path) -> None:
    _stub(bare_path, "id", "exit 1")  # ends a known command in its set-up
    shown = _run(checkout, bare_path, "--help").stdout
    named = {
        word
        for line in shown.splitlines()
        if re.match("  [a-z]", line)
        for word in re.split(r"  +", line.strip())[0].split()
    }
    commands = launcher_commands()

    assert {"demo", "sources"} <= commands
    assert commands - named == set()
    for command in sorted(commands):
        assert "unknown command" not in _run(checkout, bare_path, command).stderr


def test_ci__its_script__runs_the_test_command() -> None:
    lines = [
        line
        for line in (PROJECT / ".ci" / "run").read_text().splitlines()
        if line and not line.startswith("#")
    ]

    assert lines[-1] == 'exec ./run test "$@"'
    assert os.access(PROJECT / ".ci" / "run", os.X_OK)
