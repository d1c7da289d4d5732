"""The status of a running stack's processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from doorstep.kafka.access import KafkaAccess
from ops.stack import probes
from ops.stack.addresses import reach
from ops.stack.postgres import PostgresCluster
from ops.stack.processes import ProcessSpec
from ops.stack.supervisor import Running


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """One line of `./run status`. `detail` is why the process is not ready, or its role."""

    name: str
    address: str
    pid: int
    ready: bool
    state: str
    detail: str = ""

    def to_json(self) -> dict[str, object]:
        """Return the members of `./run status --json`."""
        return {
            "part": self.name,
            "address": self.address,
            "pid": self.pid,
            "ready": self.ready,
            "state": self.state,
            "detail": self.detail,
        }


def probe_processes(
    specs: Sequence[ProcessSpec],
    running: Mapping[str, Running],
    cluster: PostgresCluster,
    stack_password: str,
    kafka: KafkaAccess,
) -> list[ProcessStatus]:
    """Probe all processes in parallel. `stack_password` is that of the MQTT user `stack`."""

    def probe(spec: ProcessSpec) -> ProcessStatus:
        process = running.get(spec.name)
        ready, detail = _probe(spec, cluster, stack_password, kafka)
        return ProcessStatus(
            spec.name,
            str(reach(spec.address)),
            process.pid if process else 0,
            ready=ready and process is not None and process.pid > 0,
            state=process.state if process else "UNKNOWN",
            detail=detail,
        )

    with ThreadPoolExecutor(len(specs)) as pool:
        return list(pool.map(probe, specs))


def _probe(
    spec: ProcessSpec, cluster: PostgresCluster, password: str, kafka: KafkaAccess
) -> tuple[bool, str]:
    if spec.probe is not None:
        return spec.probe()
    if spec.kind in ("services", "backups"):
        return probes.service_is_ready(spec.address)
    if spec.kind in ("proxies", "monitoring"):
        ready = probes.listens(spec.address)
    elif spec.name == "kafka":
        ready = probes.kafka_is_ready(spec.address, kafka)
    elif spec.name == "postgres":
        ready = cluster.is_ready()
    else:
        ready = probes.mqtt_accepts(spec.address, "stack", password)
    return ready, "" if ready else "does not answer"
