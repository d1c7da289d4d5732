"""etcd: holds the lock of the primary. Three members, mutual TLS, an authority of its own.

.doorstep/stack/
├── secrets/etcd/           the authority, the certificate of members and clients
└── etcd-N/                 the member's copies of both, data/, joined
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from doorstep.settings import Bind
from ops.console import Echo
from ops.stack.addresses import Addresses
from ops.stack.certificates import AUTHORITY_DAYS, LOCAL_NAMES, CertificateAuthority
from ops.stack.errors import StackError
from ops.stack.paths import StackPaths
from ops.stack.private_file import replace_file
from ops.stack.programs import find_program
from ops.stack.settings import StackSettings
from ops.stack.users import SERVICE_USER, as_user, make_data_dir, server_user

COMMAND = "./run up --ha"
CERTIFICATE, AUTHORITY = "server.pem", "ca.crt"  # the certificate's file holds its key too
JOINED = "joined"  # says that the cluster has this member: without its data it must be replaced
CONTROL_TIMEOUT_S = 10
# What is known of a database that a restore replaces. Its settings stay.
REPLACED = ("leader", "optime/leader", "status", "sync", "history", "failover", "failsafe")
ANSWER_TIMEOUT = "3s"
# A busy disk or processor delays heartbeats. The lock of the primary lasts 20 s.
HEARTBEAT_MS, ELECTION_MS = 250, 2500


def prepare(paths: StackPaths, addresses: Addresses, echo: Echo) -> None:
    """Create the members' folders and certificates. Idempotent."""
    hosts = {one.host for one in (*addresses.etcd, *addresses.etcd_peers)}
    authority = CertificateAuthority(
        paths.etcd_authority, usage="serverAuth,clientAuth", days=AUTHORITY_DAYS
    )
    authority.prepare(tuple(dict.fromkeys((*LOCAL_NAMES, *sorted(hosts)))))
    for number, _ in enumerate(addresses.etcd, start=1):
        prepare_member(paths, number, echo)


def prepare_member(paths: StackPaths, number: int, echo: Echo) -> None:
    """Create one member's folder, with its certificate. Idempotent."""
    folder = make_data_dir(server_user(SERVICE_USER), paths.etcd_node(number), echo)
    install_certificate(paths, folder, server_user(SERVICE_USER))


def install_certificate(paths: StackPaths, folder: Path, user: str | None) -> None:
    """Give a member or a client its copies of the certificates."""
    authority = CertificateAuthority(paths.etcd_authority)
    for name, source in ((CERTIFICATE, authority.server), (AUTHORITY, authority.certificate)):
        replace_file(folder / name, source.read_bytes(), user=user)


def member_argv(
    paths: StackPaths, addresses: Addresses, settings: StackSettings, number: int, initial: str
) -> list[str]:
    """Return the command of one member. `initial` names the cluster's first or present members."""
    folder = paths.etcd_node(number).resolve()
    client, peer = (
        f"https://{binds[number - 1]}" for binds in (addresses.etcd, addresses.etcd_peers)
    )
    joins = was_joined(paths, number)
    options = {
        "name": member_name(number),
        "data-dir": folder / "data",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": initial,
        "initial-cluster-state": "existing" if joins else "new",
        "initial-cluster-token": f"doorstep-{paths.digest}",
        "heartbeat-interval": HEARTBEAT_MS,
        "election-timeout": ELECTION_MS,
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": "1h",
        "logger": "zap",
        "log-level": "warn",
        "cert-file": folder / CERTIFICATE,
        "key-file": folder / CERTIFICATE,
        "trusted-ca-file": folder / AUTHORITY,
        "peer-cert-file": folder / CERTIFICATE,
        "peer-key-file": folder / CERTIFICATE,
        "peer-trusted-ca-file": folder / AUTHORITY,
    }
    if addresses.etcd_metrics:
        options["listen-metrics-urls"] = f"http://{addresses.etcd_metrics[number - 1]}"
    argv = [
        find_program(settings, "etcd", COMMAND),
        "--client-cert-auth",
        "--peer-client-cert-auth",
    ]
    argv += [f"--{name}={value}" for name, value in options.items()]
    return as_user(server_user(SERVICE_USER), argv)


def initial_cluster(addresses: Addresses) -> str:
    """Return the members of a new cluster, as etcd reads them."""
    return ",".join(
        f"{member_name(number)}=https://{peer}"
        for number, peer in enumerate(addresses.etcd_peers, start=1)
    )


def replace_member(
    paths: StackPaths, addresses: Addresses, settings: StackSettings, number: int
) -> str:
    """Let the others forget a member that lost its data, and accept it as a new one.

    Returns the present members. Raises StackError without a majority.
    """
    others = [bind for at, bind in enumerate(addresses.etcd, start=1) if at != number]
    peer = f"https://{addresses.etcd_peers[number - 1]}"

    def control(*arguments: str) -> str:
        return _control(paths, settings, others, *arguments)

    for line in control("member", "list").splitlines():
        member_id, _state, _name, peers = (field.strip() for field in line.split(",")[:4])
        if peers == peer:
            control("member", "remove", member_id)
    control("member", "add", member_name(number), f"--peer-urls={peer}")
    names = {f"https://{bind}": member_name(at) for at, bind in enumerate(addresses.etcd_peers, 1)}
    present = [line.split(",")[3].strip() for line in control("member", "list").splitlines()]
    return ",".join(f"{names[one]}={one}" for one in present)


def forget_database(
    paths: StackPaths, addresses: Addresses, settings: StackSettings, scope: str
) -> None:
    """Let a restored database, which may be older, have a primary. Raises StackError."""
    for key in (*REPLACED, "initialize"):
        _control(paths, settings, list(addresses.etcd), "del", f"/service/{scope}/{key}")


def probe(paths: StackPaths, settings: StackSettings, bind: Bind) -> tuple[bool, str]:
    """Return whether a member answers and has a leader, else the reason."""
    try:
        _control(paths, settings, [bind], "endpoint", "health")
    except StackError:
        return False, "does not answer"
    return True, ""


def member_name(number: int) -> str:
    """Return a member's name, from 1."""
    return f"etcd-{number}"


def _control(
    paths: StackPaths, settings: StackSettings, members: list[Bind], *arguments: str
) -> str:
    """Run etcdctl with one member or several. Raises StackError."""
    authority = CertificateAuthority(paths.etcd_authority)
    argv = [find_program(settings, "etcdctl", COMMAND)]
    argv += ["--endpoints=" + ",".join(f"https://{one}" for one in members)]
    argv += [f"--cert={authority.server}", f"--key={authority.server}"]
    argv += [f"--cacert={authority.certificate}", f"--command-timeout={ANSWER_TIMEOUT}"]
    try:
        done = subprocess.run(
            [*argv, *arguments],
            env={"ETCDCTL_API": "3"},
            capture_output=True,
            text=True,
            timeout=CONTROL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StackError("etcd does not answer") from None
    if done.returncode != 0:
        raise StackError(f"etcdctl {' '.join(arguments[:2])}: {done.stderr.strip()[-400:]}")
    return done.stdout


def was_joined(paths: StackPaths, number: int) -> bool:
    """Return whether the cluster had this member before."""
    return (paths.etcd_node(number).resolve() / JOINED).exists()


def mark_joined(paths: StackPaths, number: int) -> None:
    """Note that the cluster has this member."""
    folder = paths.etcd_node(number).resolve()
    replace_file(folder / JOINED, "", user=server_user(SERVICE_USER))


def has_data(paths: StackPaths, number: int) -> bool:
    """Return whether a member has data."""
    return (paths.etcd_node(number).resolve() / "data" / "member").exists()


def drop_partial_data(paths: StackPaths, number: int) -> None:
    """Delete what an interrupted start has left."""
    shutil.rmtree(paths.etcd_node(number).resolve() / "data", ignore_errors=True)


def exec_argv(argv: list[str]) -> None:
    """Become another program, with the same process id."""
    os.execvp(argv[0], argv)  # noqa: S606 - no shell is wanted
