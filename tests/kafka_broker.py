"""One Apache Kafka broker (KRaft) on free loopback ports, from a folder with its jars: what the Kafka tests run on."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

START_S = 120
JAVA = ("java", "-Xmx512m", "-XX:+UseSerialGC")
# Nothing is replicated, groups do not wait for further members, sessions may be short, frames may be large, and a dead
# worker's transaction is aborted soon after its time is over. The largest request is smaller than the 369 MB that the
# first bytes of TLS read as: who speaks TLS to a plain listener must not take the broker's memory.
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
socket.request.max.bytes=335544320
"""
LOGGING = """\
Configuration:
  Appenders:
    Console:
      name: stderr
      target: SYSTEM_ERR
      PatternLayout: {pattern: "%d %p %m (%c)%n"}
  Loggers:
    Root: {level: WARN, AppenderRef: [{ref: stderr}]}
"""


class NoKafkaError(Exception):
    """Why there is no Kafka here."""


def find_libs() -> Path:
    """The folder of Kafka's jars: of KAFKA_HOME, else beside the checkout, else what `make kafka` fetched."""
    checkout = Path(__file__).resolve().parents[1]
    homes = [checkout.parent / "shared" / "kafka", checkout / ".kafka"]
    if os.environ.get("KAFKA_HOME"):
        homes = [Path(os.environ["KAFKA_HOME"])]
    for home in homes:
        if any((home / "libs").glob("kafka-server-[0-9]*.jar")):
            return home / "libs"
    raise NoKafkaError(
        f"no Kafka: no libs/kafka-server-*.jar under {', '.join(map(str, homes))}; `make kafka` fetches it"
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port: int, process: subprocess.Popen, log: Path) -> None:
    """Return when something listens; raise with the log's end when it does not, or when the process ends."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"the broker did not come up: {log.read_text()[-2000:]}")


@dataclass
class KafkaBroker:
    """A broker that can be started, stopped, killed and started again on its data."""

    folder: Path
    libs: Path = field(default_factory=find_libs)
    port: int = field(default_factory=free_port)
    controller: int = field(default_factory=free_port)
    properties: str = ""  # more lines for its properties; the last of a name counts
    format_options: tuple[str, ...] = ()
    process: subprocess.Popen | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        if not (self.folder / "server.properties").exists():
            self._format()
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._java("kafka.Kafka", str(self.folder / "server.properties")), stdout=log, stderr=log
            )
        wait_for_port(self.port, self.process, self.folder / "log")

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(20)

    def _format(self) -> None:
        if shutil.which("java") is None:
            raise NoKafkaError("no Kafka: there is no java; install a Java 17 runtime")
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "log4j2.yaml").write_text(LOGGING)
        (self.folder / "server.properties").write_text(
            PROPERTIES.format(port=self.port, controller=self.controller, folder=self.folder) + self.properties
        )
        # An id that begins with a dash would be taken for an option.
        cluster = "N" + secrets.token_urlsafe(16)[1:]
        properties = str(self.folder / "server.properties")
        tool = "kafka.tools.StorageTool", "format", "--standalone", "--cluster-id", cluster, "--config", properties
        done = subprocess.run(
            self._java(*tool, *self.format_options), capture_output=True, text=True, timeout=START_S, check=False
        )
        assert done.returncode == 0, f"the storage of the broker could not be made: {done.stdout}{done.stderr}"

    def _java(self, *arguments: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={self.folder / 'log4j2.yaml'}"
        return [*JAVA, "-cp", f"{self.libs}/*", logging, *arguments]
