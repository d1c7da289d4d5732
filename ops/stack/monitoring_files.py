"""What monitoring runs: Debian's programs and the JMX agent, which `./run` unpacks, not installs.

Debian's packages would start system services, so `./run up --observe` unpacks their programs to
.doorstep/bin, and the agent to .doorstep/lib.
"""

from __future__ import annotations

from pathlib import Path

from ops.stack import programs
from ops.stack.addresses import Addresses
from ops.stack.errors import StackError
from ops.stack.settings import PROJECT, StackSettings

FOLDER = PROJECT / "prometheus"
JMX_AGENT = "jmx_prometheus_javaagent-1.0.1.jar"
COMMAND = "./run up --observe"  # downloads them
PROGRAMS = {  # by process
    "prometheus": "prometheus",
    "alertmanager": "prometheus-alertmanager",
    "node_exporter": "prometheus-node-exporter",
    "postgres_exporter": "prometheus-postgres-exporter",
}


def find_program(settings: StackSettings, process: str) -> str:
    """Return the path of one of PROGRAMS. Raises StackError if it is not there."""
    return programs.find_program(settings, PROGRAMS[process], COMMAND)


def find_agent(settings: StackSettings) -> Path:
    """Return the path of the JMX agent. Raises StackError if it is not there."""
    agent = settings.doorstep_tools.absolute() / "lib" / JMX_AGENT
    if not agent.exists():
        raise StackError(f"{agent} is missing: {COMMAND} downloads it")
    return agent


def jmx_agent(addresses: Addresses, settings: StackSettings, number: int = 1) -> list[str]:
    """Return the options of Java that serve one Kafka node's figures; none without monitoring."""
    exporters = addresses.kafka_exporters or (addresses.kafka_exporter,)
    bind = exporters[number - 1] if number <= len(exporters) else None
    if bind is None:
        return []
    return [f"-javaagent:{find_agent(settings)}={bind}:{FOLDER / 'kafka.yml'}"]
