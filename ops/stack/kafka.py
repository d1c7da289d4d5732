"""Kafka in KRaft mode, run from its jars: one node is broker and controller."""

from __future__ import annotations

import base64
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from doorstep.kafka.access_control import ADMIN
from ops.console import Echo
from ops.stack.addresses import Addresses, reach
from ops.stack.errors import StackError
from ops.stack.paths import StackPaths
from ops.stack.private_file import replace_file
from ops.stack.settings import PROJECT, StackSettings
from ops.stack.users import SERVICE_USER, as_user, make_data_dir, server_user

FORMAT_TIMEOUT_S = 60
PROPERTIES, DATA = "server.properties", "data"


def prepare(paths: StackPaths, addresses: Addresses, settings: StackSettings, echo: Echo) -> None:
    """Write the broker's properties, and format its log folder once. Idempotent."""
    folder = make_data_dir(server_user(SERVICE_USER), paths.kafka, echo)
    values = {
        "listeners": f"CLIENTS://{addresses.kafka},CONTROLLER://{addresses.kafka_controller}",
        "advertised.listeners": f"CLIENTS://{reach(addresses.kafka)}",
        "controller.quorum.voters": f"1@{addresses.kafka_controller}",
        **authentication(paths.kafka_password(ADMIN)),
    }
    write_properties(folder, values)
    if not is_formatted(folder):
        format_folder(_properties(paths), new_cluster_id(), settings)


def write_properties(folder: Path, values: Mapping[str, str | int]) -> None:
    """Write a node's properties: the project's, then `values`, of which the last counts."""
    template = (PROJECT / "kafka" / "server.properties").read_text(encoding="utf-8")
    values = {**values, "log.dirs": str(folder / DATA)}
    lines = [template.rstrip(), "", *(f"{name}={value}" for name, value in values.items()), ""]
    replace_file(folder / PROPERTIES, "\n".join(lines), user=server_user(SERVICE_USER))


def is_formatted(folder: Path) -> bool:
    """Return whether a node's log folder belongs to a cluster."""
    return (folder / DATA / "meta.properties").exists()


def new_cluster_id() -> str:
    """Draw the id of a cluster."""
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")
    return cluster_id.replace("-", "_")


def authentication(admin_password: str) -> dict[str, str]:
    """Return the properties that hold the administrator's password."""
    plain = (
        "org.apache.kafka.common.security.plain.PlainLoginModule required "
        f'username="{ADMIN}" password="{admin_password}" user_{ADMIN}="{admin_password}";'
    )
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    return {
        "listener.name.clients.plain.sasl.jaas.config": plain,
        "listener.name.clients.scram-sha-256.sasl.jaas.config": scram,
        "listener.name.controller.plain.sasl.jaas.config": plain,
    }


def broker_argv(
    paths: StackPaths, settings: StackSettings, options: Sequence[str] = ()
) -> list[str]:
    """Return the command that runs the stack's broker in the foreground."""
    return node_argv(_properties(paths), settings, options)


def node_argv(properties: Path, settings: StackSettings, options: Sequence[str] = ()) -> list[str]:
    """Return the command that runs a node with these properties and options of Java."""
    command = [
        *_java(settings),
        *options,
        *shlex.split(settings.kafka_heap_opts),
        "-XX:+ExitOnOutOfMemoryError",
        f"-Dlog4j2.configurationFile={PROJECT / 'kafka' / 'log4j2.xml'}",
        "kafka.Kafka",
        str(properties),
    ]
    return as_user(server_user(SERVICE_USER), command)


def format_folder(properties: Path, cluster_id: str, settings: StackSettings) -> None:
    """Format a node's log folder for a cluster. Raises StackError."""
    argv = [*_java(settings), "-Xmx128m", "-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool"]
    argv += ["format", "--ignore-formatted", "-t", cluster_id, "-c", str(properties)]
    done = subprocess.run(
        as_user(server_user(SERVICE_USER), argv),
        capture_output=True,
        text=True,
        check=False,
        timeout=FORMAT_TIMEOUT_S,
    )
    if done.returncode != 0:
        raise StackError(f"cannot format Kafka's log folder: {(done.stdout + done.stderr)[-800:]}")


def _java(settings: StackSettings) -> list[str]:
    java = shutil.which("java")
    libraries = settings.doorstep_tools / "kafka" / "libs"
    if java is None:
        raise StackError("java is not installed: ./run up installs it")
    if not any(libraries.glob("kafka_*.jar")):
        raise StackError(f"Kafka's jars are not in {libraries}: ./run up downloads them")
    return [java, "-Djava.awt.headless=true", "-XX:+UseSerialGC", "-cp", f"{libraries}/*"]


def _properties(paths: StackPaths) -> Path:
    return paths.kafka.resolve() / PROPERTIES
