"""supervisord: its configuration, its start, and talking to it over its Unix socket.

`python -m ops.stack.supervisor -c FILE` is supervisord itself with two changes: a part that
was killed is started again at once, not at the next turn a second later; and the pause before it
tries a failing part again stays at 3 s or less, instead of growing by a second each time.

If supervisord is killed, its parts end with it (`setpriv --pdeathsig`) and the keeper, a part of
its own that doesn't, starts it again. If the keeper is killed, supervisord starts that again.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shlex
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from supervisor.process import Subprocess
from supervisor.supervisord import main as supervisord_main
from supervisor.xmlrpc import SupervisorTransport

from ops.stack.paths import StackError, StackPaths, process_runs
from ops.stack.processes import KINDS, ProcessSpec
from ops.stack.settings import PROJECT

LONGEST_PAUSE_S = 3
STARTED_AFTER_S = 2  # a part that ends sooner failed to start: pause, then try again
START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 90.0  # the sum of the parts' own stop_wait_s, roughly
LOG_BYTES = "10MB"
LOG_BACKUPS = 3
SUPERVISOR_GUARD = "keeper"

# supervisord is meant to outlive whoever started it: subprocess warns about a child that is
# forgotten while it runs, so it isn't forgotten.
_started: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True, slots=True)
class Running:
    """What supervisord knows about one part."""

    name: str
    state: str
    pid: int


@dataclass(frozen=True, slots=True)
class Supervisor:
    """The supervisord of one home."""

    paths: StackPaths

    def start(self, environment: Mapping[str, str]) -> None:
        """Start supervisord in the background and wait until it answers. Raises StackError."""
        argv = [sys.executable, "-m", "ops.stack.supervisor"]
        argv += ["-n", "-c", str(self.paths.supervisor_config)]
        with (self.paths.logs / "supervisord.out").open("wb") as output:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=PROJECT,
                start_new_session=True,  # Ctrl-C is for the foreground, which stops it in order
            )
        _started.append(process)
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                said = (self.paths.logs / "supervisord.out").read_text(errors="replace")
                raise StackError(f"supervisord ended at once: {said[-600:].strip()}")
            if self.pid() == process.pid:
                return
            time.sleep(0.05)
        raise StackError(f"supervisord did not answer within {START_TIMEOUT_S:.0f} s")

    def pid(self) -> int | None:
        """Return supervisord's pid if it answers, else None."""
        with contextlib.suppress(OSError, xmlrpc.client.Error), self._rpc() as rpc:
            return int(rpc.supervisor.getPID())
        return None

    def running(self) -> dict[str, Running]:
        """Return what runs, by part; empty if supervisord doesn't answer."""
        with contextlib.suppress(OSError, xmlrpc.client.Error), self._rpc() as rpc:
            return {
                info["name"]: Running(info["name"], info["statename"], int(info["pid"]))
                for info in rpc.supervisor.getAllProcessInfo()
            }
        return {}

    def signal(self, part: str, kind: str, signal_name: str) -> None:
        """Send a part a signal, such as HUP."""
        with contextlib.suppress(xmlrpc.client.Fault), self._rpc() as rpc:
            rpc.supervisor.signalProcess(f"{kind}:{part}", signal_name)

    def stop_process(self, part: str, kind: str) -> None:
        """Stop one part and leave it stopped."""
        with self._rpc() as rpc:
            rpc.supervisor.stopProcess(f"{kind}:{part}", True)

    def start_process(self, part: str, kind: str) -> None:
        """Start a part that was stopped, without waiting for it."""
        with self._rpc() as rpc:
            rpc.supervisor.startProcess(f"{kind}:{part}", False)

    def stop(self) -> None:
        """Stop every part in order, then supervisord. Raises StackError if it doesn't end."""
        pid = self.pid()
        if pid is None:
            return
        with contextlib.suppress(OSError, xmlrpc.client.Error), self._rpc() as rpc:
            rpc.supervisor.shutdown()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while time.monotonic() < deadline:
            if not process_runs(pid):
                for child in _started:
                    child.poll()
                return
            time.sleep(0.05)
        raise StackError(f"supervisord (pid {pid}) did not stop within {STOP_TIMEOUT_S:.0f} s")

    @contextlib.contextmanager
    def _rpc(self) -> Iterator[Any]:
        socket_url = f"unix://{self.paths.supervisor_socket}"
        transport = SupervisorTransport(None, None, serverurl=socket_url)
        try:
            yield xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        finally:
            transport.close()


def write_config(paths: StackPaths, parts: Sequence[ProcessSpec], owner_pid: int | None) -> None:
    """Write supervisord.conf; it holds passwords, so that only its owner may read it.

    With `owner_pid` the keeper stops the stack when that process is gone.
    """
    keeper = [sys.executable, "-m", "ops.stack.supervisor_guard", "--home", str(paths.root)]
    if owner_pid is not None:
        keeper += ["--owner", str(owner_pid)]
    sections = [_global_section(paths)]
    sections += [_program(paths, part) for part in parts]
    sections.append(
        _section(
            f"program:{SUPERVISOR_GUARD}",
            command=shlex.join(keeper),
            directory=str(PROJECT),
            priority=90,  # started last and stopped first
            autorestart="true",
            startsecs=0,
            stopwaitsecs=5,
            stdout_logfile="NONE",  # it outlives the pipe, so it writes its own file
            stderr_logfile="NONE",
        )
    )
    for place, kind in enumerate(KINDS):
        names = ",".join(part.name for part in parts if part.kind == kind)
        if names:
            sections.append(_section(f"group:{kind}", programs=names, priority=10 * (place + 1)))
    text = "\n".join(sections)
    part_file = paths.supervisor_config.with_suffix(".part")
    with open(os.open(part_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    part_file.replace(paths.supervisor_config)


def _global_section(paths: StackPaths) -> str:
    daemon: dict[str, object] = {
        "logfile": paths.logs / "supervisord.log",
        "logfile_maxbytes": LOG_BYTES,
        "logfile_backups": LOG_BACKUPS,
        "loglevel": "info",
        "pidfile": paths.supervisor_pid_file,
        "childlogdir": paths.logs,
        "identifier": f"doorstep-{paths.digest}",
    }
    if os.geteuid() == 0:
        daemon["user"] = "root"  # meant: it hands the servers to users of their own
    rpc = "supervisor.rpcinterface:make_main_rpcinterface"
    return "\n".join(
        (
            _section("unix_http_server", file=str(paths.supervisor_socket), chmod="0700"),
            _section("supervisord", **daemon),
            _section("rpcinterface:supervisor", **{"supervisor.rpcinterface_factory": rpc}),
        )
    )


def _program(paths: StackPaths, part: ProcessSpec) -> str:
    values: dict[str, object] = {
        "command": shlex.join(part.argv),
        "directory": part.directory,
        "autorestart": "true",
        "startsecs": STARTED_AFTER_S,
        "startretries": 1_000_000,
        "stopsignal": part.stop_signal,
        "stopwaitsecs": part.stop_wait_s,
        "redirect_stderr": "true",
        "stdout_logfile": paths.logs / f"{part.name}.log",
        "stdout_logfile_maxbytes": LOG_BYTES,
        "stdout_logfile_backups": LOG_BACKUPS,
    }
    if part.environment:
        values["environment"] = ",".join(
            f'{name}="{_quotable(value)}"' for name, value in part.environment.items()
        )
    return _section(f"program:{part.name}", **values)


def _quotable(value: str) -> str:
    if '"' in value or "\\" in value or "\n" in value:
        raise StackError(f"supervisord can't pass on this value: {value!r}")
    return value


def _section(_name: str, **values: object) -> str:
    lines = (f"{key} = {str(value).replace('%', '%%')}" for key, value in values.items())
    return "\n".join((f"[{_name}]", *lines, ""))


def keep_pauses_short() -> None:
    """Bound the number of pauses that supervisord counts, which is also their length in s."""

    def get(self: Any) -> int:
        return int(self.__dict__.get("_pauses", 0))

    def put(self: Any, value: int) -> None:
        self.__dict__["_pauses"] = min(value, LONGEST_PAUSE_S)

    Subprocess.backoff = property(get, put)


def start_again_at_once() -> None:
    """Let a part that ended take its next step right away: usually it is started again."""
    finish = Subprocess.finish

    def finish_and_go_on(self: Any, pid: int, status: int) -> None:
        finish(self, pid, status)
        self.transition()

    Subprocess.finish = finish_and_go_on


def raise_open_files() -> None:
    """Allow as many open files as we may have: a broker needs one per device."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    keep_pauses_short()
    start_again_at_once()
    raise_open_files()
    supervisord_main()
