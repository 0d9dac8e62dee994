"""A Kafka broker that can be killed in mid-transaction without losing what it had promised: its controller lives apart.

One process that is both loses transactions when it is killed and comes back at once: it takes itself for the leader of
its partitions from what it has on disk, is then fenced as its own former incarnation, and drops the marks of
transactions that were just ending ("Couldn't find leader endpoint ... can be skipped", Kafka 4.4): they hang for ever,
whoever the clients are. With several brokers, or with a controller that outlives the broker and has fenced it before it
is back, this does not happen. So here the broker stays away for longer than its session with the controller, and a
pause is shorter than that.
"""

import secrets
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.kafka_broker import JAVA, LOGGING, PROPERTIES, START_S, find_libs, free_port, wait_for_port

SESSION_S = 6.0
CONTROLLER = """\
process.roles=controller
node.id=2
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/data
broker.session.timeout.ms={session_ms}
"""
BROKER = """
process.roles=broker
broker.heartbeat.interval.ms=500
broker.session.timeout.ms={session_ms}
listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxied}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxy}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT
"""


@dataclass
class ProxiedBroker:
    """A broker with two listeners: ``port`` is its own, clients of ``proxied`` are told the proxy's address."""

    folder: Path
    port: int = field(default_factory=free_port)
    proxied: int = field(default_factory=free_port)
    proxy: int = field(default_factory=free_port)
    controller: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen] = field(default_factory=dict)

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def create(self):
        """Make the storage of both, and start them."""
        session = {"session_ms": int(SESSION_S * 1000)}
        ports = {"port": self.port, "proxied": self.proxied, "proxy": self.proxy, "controller": self.controller}
        cluster = "N" + secrets.token_urlsafe(16)[1:]
        for name, text, option in (
            ("controller", CONTROLLER, "--standalone"),
            ("broker", PROPERTIES + BROKER, "--no-initial-controllers"),
        ):
            folder = self.folder / name
            folder.mkdir(parents=True)
            (folder / "log4j2.yaml").write_text(LOGGING)
            properties = folder / "server.properties"
            properties.write_text(text.format(folder=folder, **ports, **session))
            tool = ("kafka.tools.StorageTool", "format", option, "--cluster-id", cluster, "--config", str(properties))
            subprocess.run(self._java(folder, *tool), check=True, capture_output=True, timeout=START_S)
        self._start("controller", self.controller)
        self.start()

    def start(self):
        self._start("broker", self.port)
        wait_for_port(self.proxied, self.processes["broker"], self.folder / "broker" / "log")

    def kill(self):
        self.processes["broker"].kill()
        self.processes["broker"].wait()

    def pause(self, seconds):
        self.processes["broker"].send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.processes["broker"].send_signal(signal.SIGCONT)

    def destroy(self):
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def _start(self, name, port):
        folder = self.folder / name
        with (folder / "log").open("ab") as log:
            command = self._java(folder, "kafka.Kafka", str(folder / "server.properties"))
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for_port(port, self.processes[name], folder / "log")

    def _java(self, folder, *arguments):
        logging = f"-Dlog4j2.configurationFile={folder / 'log4j2.yaml'}"
        return [*JAVA, "-cp", f"{find_libs()}/*", logging, *arguments]
