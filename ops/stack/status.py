"""What a running stack tells of each part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from doorstep.credentials import mqtt_password
from ops.stack import probes
from ops.stack.addresses import reach
from ops.stack.postgres import PostgresCluster
from ops.stack.processes import ProcessSpec
from ops.stack.supervisor import Running


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """What `status` tells of one part; `detail` says why it is not ready."""

    part: str
    address: str
    pid: int
    ready: bool
    state: str
    detail: str = ""


def probe_processes(
    parts: Sequence[ProcessSpec],
    running: Mapping[str, Running],
    cluster: PostgresCluster,
    fleet_key: bytes,
) -> list[ProcessStatus]:
    """Ask all parts at once, each in its own way, whether they are ready."""
    password = mqtt_password(fleet_key, "stack")

    def ask(part: ProcessSpec) -> ProcessStatus:
        known = running.get(part.name)
        ready, detail = _probe(part, cluster, password)
        return ProcessStatus(
            part.name,
            str(reach(part.address)),
            known.pid if known else 0,
            ready=ready and known is not None and known.pid > 0,
            state=known.state if known else "UNKNOWN",
            detail=detail,
        )

    with ThreadPoolExecutor(len(parts)) as at_once:
        return list(at_once.map(ask, parts))


def _probe(part: ProcessSpec, cluster: PostgresCluster, password: str) -> tuple[bool, str]:
    if part.kind == "services":
        return probes.service_is_ready(part.address)
    if part.name == "kafka":
        ready = probes.kafka_is_ready(part.address)
    elif part.name == "postgres":
        ready = cluster.is_ready()
    else:
        ready = probes.mqtt_accepts(part.address, "stack", password)
    return ready, "" if ready else "not answering"
