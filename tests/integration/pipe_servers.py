"""Mosquitto and Kafka for tests that kill them: own folders, free ports, started by hand."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from ops.stack.addresses import any_free_port

PROJECT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 60.0
MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/opt/homebrew/sbin")
TOPICS = {
    "driver-pos": 4,
    "driver-status": 1,
    "series": 1,
    "tracking-updates": 1,
    "tracking-positions": 1,
    "dead-letter": 1,
}


def wait_until(holds: Callable[[], object], timeout_s: float = 30.0, what: str = "") -> None:
    """Wait until `holds()` is true, or fail."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what or holds}")
        time.sleep(0.05)


def listens(port: int) -> bool:
    """Whether anything accepts connections on the port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Server:
    """A server process that can be killed and started again on its own data."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or any_free_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def argv(self) -> list[str]:
        """The command that runs it in the foreground."""
        raise NotImplementedError

    def launch(self) -> None:
        """Start the process and return at once."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self.argv(), stdout=log, stderr=log)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.launch()
        self.await_ready()

    def is_ready(self) -> bool:
        """Whether it answers."""
        return listens(self.port)

    def await_ready(self) -> None:
        """Wait until it answers."""
        wait_until(self._is_up, START_TIMEOUT_S, f"{type(self).__name__} on {self.port}")

    def _is_up(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            log = (self.folder / "log").read_text(errors="replace")[-2000:]
            raise AssertionError(f"{type(self).__name__} ended: {log}")
        return self.is_ready()

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, and wait for the end where the signal means it."""
        assert self._process is not None
        self._process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            self._process.wait(30)

    def kill(self) -> None:
        """kill -9."""
        self.signal(signal.SIGKILL)

    def stop(self) -> None:
        """End it, gently if it is still there."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(5)


class Mosquitto(Server):
    """Without passwords: who may do what is tested elsewhere."""

    def argv(self) -> list[str]:
        assert MOSQUITTO is not None
        config = self.folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n"
            "max_queued_messages 1000000\nmax_inflight_messages 5000\nmax_packet_size 65792\n"
            f"persistence true\npersistence_location {self.folder}/\nautosave_interval 1\n"
            "sys_interval 1\n" + ("user root\n" if os.geteuid() == 0 else "")
        )
        return [MOSQUITTO, "-c", str(config)]

    @property
    def url(self) -> str:
        """As MQTT_URL has it."""
        return f"mqtt://127.0.0.1:{self.port}"


class Kafka(Server):
    """One KRaft node with the project's own properties."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        super().__init__(folder, port)
        self._controller_port = any_free_port()

    @property
    def bootstrap_servers(self) -> str:
        """As KAFKA_BOOTSTRAP_SERVERS has it."""
        return f"127.0.0.1:{self.port}"

    def argv(self) -> list[str]:
        properties = self.folder / "server.properties"
        if not properties.exists():
            own = (
                f"listeners=PLAINTEXT://127.0.0.1:{self.port},"
                f"CONTROLLER://127.0.0.1:{self._controller_port}\n"
                f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}\n"
                f"controller.quorum.voters=1@127.0.0.1:{self._controller_port}\n"
                f"log.dirs={self.folder}/data\n"
            )
            template = (PROJECT / "kafka" / "server.properties").read_text()
            properties.write_text(f"{template}\n{own}")
            cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            format_it = ["kafka.tools.StorageTool", "format", "-c", str(properties), "-t"]
            subprocess.run(
                [*self._java("-Xmx128m"), *format_it, cluster_id.replace("-", "_")],
                check=True,
                capture_output=True,
                timeout=60,
            )
        logging = f"-Dlog4j2.configurationFile={PROJECT / 'kafka' / 'log4j2.xml'}"
        return [*self._java("-Xmx384m", logging), "kafka.Kafka", str(properties)]

    def is_ready(self) -> bool:
        if not listens(self.port):
            return False
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        try:
            return bool(admin.list_topics(timeout=2).brokers)
        except KafkaException:
            return False

    def create_topics(self) -> None:
        """Create the topics of the contract, with few partitions."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
        wanted = [NewTopic(name, partitions, 1) for name, partitions in TOPICS.items()]
        for answer in admin.create_topics(wanted).values():
            answer.result(30)

    @staticmethod
    def _java(*options: str) -> list[str]:
        tools = Path(os.environ.get("DOORSTEP_TOOLS", PROJECT / ".doorstep"))
        # It lives for a minute or two: compiling it well costs more CPU time than it saves.
        quick = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
        return ["java", *quick, *options, "-cp", f"{tools / 'kafka' / 'libs'}/*"]
