"""supervisord: its configuration file, its start, and its XML-RPC interface on a Unix socket.

`python -m ops.stack.supervisor -c FILE` is supervisord with two changes. It restarts a killed
process at once instead of up to a second later. Its backoff for a failing process is at most 3 s
instead of growing by a second with each try.

If supervisord is killed, its processes end with it (`setpriv --pdeathsig`), except the supervisor
guard, which starts it again. If the guard is killed, supervisord restarts it.
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

from ops.stack.errors import StackError
from ops.stack.paths import StackPaths
from ops.stack.pids import process_exists
from ops.stack.private_file import replace_file
from ops.stack.processes import KINDS, ProcessSpec
from ops.stack.settings import PROJECT

MAX_BACKOFF_S = 3
STARTED_AFTER_S = 2  # a process that ends sooner failed to start: back off, then retry
START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 90.0  # about the sum of all stop_wait_s
LOG_BYTES = "10MB"
LOG_BACKUPS = 3
SUPERVISOR_GUARD = "supervisor_guard"

# supervisord outlives the process that started it. subprocess warns about a Popen object that is
# collected while its child runs, so they are kept here.
_started: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True, slots=True)
class Running:
    """A process as supervisord reports it."""

    name: str
    group: str
    state: str
    pid: int
    uptime_s: float


@dataclass(frozen=True, slots=True)
class Supervisor:
    """The supervisord of one stack."""

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
                start_new_session=True,  # Ctrl-C reaches the foreground process only
            )
        _started.append(process)
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                output_text = (self.paths.logs / "supervisord.out").read_text(errors="replace")
                raise StackError(f"supervisord did not start: {output_text[-600:].strip()}")
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
        """Return all processes by name; empty if supervisord does not answer."""
        with contextlib.suppress(OSError, xmlrpc.client.Error), self._rpc() as rpc:
            found = [
                Running(
                    info["name"],
                    info["group"],
                    info["statename"],
                    int(info["pid"]),
                    float(info["now"] - info["start"]),
                )
                for info in rpc.supervisor.getAllProcessInfo()
            ]
            # During an upgrade a process is in two groups, and runs in one of them.
            return {one.name: one for one in sorted(found, key=lambda one: one.pid > 0)}
        return {}

    def signal(self, name: str, kind: str, signal_name: str) -> None:
        """Send a signal, such as HUP, to a process."""
        with contextlib.suppress(xmlrpc.client.Fault), self._rpc() as rpc:
            rpc.supervisor.signalProcess(self._path(name, kind), signal_name)

    def stop_process(self, name: str, kind: str) -> None:
        """Stop a process until `start_process`."""
        with self._rpc() as rpc:
            rpc.supervisor.stopProcess(self._path(name, kind), True)

    def start_process(self, name: str, kind: str) -> None:
        """Start a stopped process. Does not wait for it."""
        with self._rpc() as rpc:
            rpc.supervisor.startProcess(self._path(name, kind), False)

    def read_config(self) -> None:
        """Read supervisord.conf again. Nothing changes until `replace_group`."""
        with self._rpc() as rpc:
            rpc.supervisor.reloadConfig()

    def stop_group(self, kind: str) -> None:
        """Stop all processes of a kind, and wait until they have ended."""
        with self._rpc() as rpc:
            for group in self.groups(kind):
                rpc.supervisor.stopProcessGroup(group, True)

    def replace_group(self, kind: str) -> None:
        """Start a stopped group as supervisord.conf now describes it."""
        with self._rpc() as rpc:
            for group in self.groups(kind):
                rpc.supervisor.removeProcessGroup(group)
            rpc.supervisor.addProcessGroup(kind)

    def groups(self, kind: str) -> list[str]:
        """Return supervisord's groups of a kind: one, but for an upgrade that was interrupted.

        After an upgrade its name is `KIND-NUMBER`, until supervisord starts again.
        """
        with self._rpc() as rpc:
            found = {str(info["group"]) for info in rpc.supervisor.getAllProcessInfo()}
        return sorted(one for one in found if one == kind or one.startswith(f"{kind}-"))

    def add_group(self, group: str) -> None:
        """Add a group of the configuration that was read last."""
        with self._rpc() as rpc:
            rpc.supervisor.addProcessGroup(group)

    def remove_group(self, group: str) -> None:
        """Stop and forget a group."""
        with self._rpc() as rpc:
            rpc.supervisor.stopProcessGroup(group, True)
            rpc.supervisor.removeProcessGroup(group)

    def move(self, name: str, groups: Sequence[str], to: str) -> None:
        """Stop a process in all of `groups`, and start it in the group `to`."""
        with self._rpc() as rpc:
            for group in groups:
                with contextlib.suppress(xmlrpc.client.Fault):  # it has none, or does not run
                    rpc.supervisor.stopProcess(f"{group}:{name}", True)
            rpc.supervisor.startProcess(f"{to}:{name}", False)

    def _path(self, name: str, kind: str) -> str:
        process = self.running().get(name)
        return f"{process.group if process else kind}:{name}"

    def ensure_running(self, specs: Sequence[ProcessSpec]) -> None:
        """Add a kind of processes to a running supervisord, unless it has them."""
        if specs and specs[0].name not in self.running():
            append_to_config(self.paths, specs)
            with self._rpc() as rpc:
                rpc.supervisor.reloadConfig()
                rpc.supervisor.addProcessGroup(specs[0].kind)

    def start_group(self, kind: str) -> None:
        """Start all processes of a stopped kind. Does not wait for them."""
        with self._rpc() as rpc:
            for group in self.groups(kind):
                rpc.supervisor.startProcessGroup(group, False)

    def stop(self) -> None:
        """Stop all processes in order, then supervisord. Raises StackError on a timeout."""
        pid = self.pid()
        if pid is None:
            return
        with contextlib.suppress(OSError, xmlrpc.client.Error), self._rpc() as rpc:
            rpc.supervisor.shutdown()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while time.monotonic() < deadline:
            if not process_exists(pid):
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


def write_config(
    paths: StackPaths,
    specs: Sequence[ProcessSpec],
    owner_pid: int | None,
    *,
    waiting: Mapping[str, str] | None = None,
) -> None:
    """Write supervisord.conf, with mode 0600: it contains passwords.

    With `owner_pid`, the guard stops the stack when that process ends. The processes of the kinds
    in `waiting` are in a group of another name, and start one by one.
    """
    others = waiting or {}
    guard = [sys.executable, "-m", "ops.stack.supervisor_guard", "--home", str(paths.root)]
    if owner_pid is not None:
        guard += ["--owner", str(owner_pid)]
    sections = [_global_section(paths)]
    sections += [_program(paths, spec, starts=spec.kind not in others) for spec in specs]
    sections.append(
        _section(
            f"program:{SUPERVISOR_GUARD}",
            command=shlex.join(guard),
            directory=str(PROJECT),
            priority=90,  # started last and stopped first
            autorestart="true",
            startsecs=0,
            stopwaitsecs=5,
            stdout_logfile="NONE",  # it outlives supervisord's pipe, so it writes its own file
            stderr_logfile="NONE",
        )
    )
    sections += _groups(specs, others)
    replace_file(paths.supervisor_config, "\n".join(sections))


def append_to_config(paths: StackPaths, specs: Sequence[ProcessSpec]) -> None:
    """Add processes of a new kind to supervisord.conf. Other sections stay as they are."""
    text = paths.supervisor_config.read_text(encoding="utf-8")
    sections = [_program(paths, spec) for spec in specs]
    replace_file(paths.supervisor_config, "\n".join([text, *sections, *_groups(specs, {})]))


def _groups(specs: Sequence[ProcessSpec], others: Mapping[str, str]) -> list[str]:
    sections = []
    for order, kind in enumerate(KINDS, start=1):
        names = ",".join(spec.name for spec in specs if spec.kind == kind)
        if names:
            group = others.get(kind, kind)
            sections.append(_section(f"group:{group}", programs=names, priority=10 * order))
    return sections


def replace_in_config(paths: StackPaths, renewed: Mapping[str, str]) -> None:
    """Replace secrets, by the old ones, in supervisord.conf. Other settings stay as they are."""
    text = paths.supervisor_config.read_text(encoding="utf-8")
    for old, new in renewed.items():
        text = text.replace(old, new)
    replace_file(paths.supervisor_config, text)


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
        daemon["user"] = "root"  # on purpose: the servers switch to users of their own
    rpc = "supervisor.rpcinterface:make_main_rpcinterface"
    return "\n".join(
        (
            _section("unix_http_server", file=str(paths.supervisor_socket), chmod="0700"),
            _section("supervisord", **daemon),
            _section("rpcinterface:supervisor", **{"supervisor.rpcinterface_factory": rpc}),
        )
    )


def _program(paths: StackPaths, spec: ProcessSpec, *, starts: bool = True) -> str:
    values: dict[str, object] = {
        "command": shlex.join(spec.argv),
        "directory": spec.directory,
        "autorestart": "true",
        "startsecs": STARTED_AFTER_S,
        "startretries": 1_000_000,
        "stopsignal": spec.stop_signal,
        "stopwaitsecs": spec.stop_wait_s,
        "redirect_stderr": "true",
        "stdout_logfile": paths.logs / f"{spec.name}.log",
        "stdout_logfile_maxbytes": LOG_BYTES,
        "stdout_logfile_backups": LOG_BACKUPS,
    }
    if not starts:
        values["autostart"] = "false"
    if spec.environment:
        values["environment"] = ",".join(
            f'{name}="{_quotable(value)}"' for name, value in spec.environment.items()
        )
    return _section(f"program:{spec.name}", **values)


def _quotable(value: str) -> str:
    if '"' in value or "\\" in value or "\n" in value:
        raise StackError(f"supervisord.conf cannot hold this value: {value!r}")
    return value


def _section(_title: str, **values: object) -> str:
    lines = (f"{key} = {str(value).replace('%', '%%')}" for key, value in values.items())
    return "\n".join((f"[{_title}]", *lines, ""))


def limit_backoff() -> None:
    """Bound supervisord's retry counter, which is also its backoff in seconds."""

    def get(self: Any) -> int:
        return int(self.__dict__.get("_backoff", 0))

    def put(self: Any, value: int) -> None:
        self.__dict__["_backoff"] = min(value, MAX_BACKOFF_S)

    Subprocess.backoff = property(get, put)


def restart_without_delay() -> None:
    """Run the state transition of an ended process at once, not in the next poll."""
    finish = Subprocess.finish

    def finish_and_transition(self: Any, pid: int, status: int) -> None:
        finish(self, pid, status)
        self.transition()

    Subprocess.finish = finish_and_transition


def raise_open_file_limit() -> None:
    """Raise the limit of open files to the hard limit: a broker needs one per device."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    limit_backoff()
    restart_without_delay()
    raise_open_file_limit()
    supervisord_main()
