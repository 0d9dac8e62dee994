"""Workers as processes that are started again whenever they end, as systemd or Kubernetes would."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).parents[3]
TOLD = ("bootstrap_servers", "topic_prefix", "group_id", "partitions", "delivery", "session_timeout_s")
TOLD += ("request_timeout_s", "transaction_timeout_s", "max_poll_interval_s")


@dataclass
class Life:
    """One process of a worker; what was done to it, and how it ended."""

    process: subprocess.Popen
    log: Path
    frozen: bool = False
    told_to_end_s: float | None = None
    killed: bool = False
    ended_after_s: float | None = None

    def send(self, number):
        if self.process.poll() is None:
            os.kill(self.process.pid, number)

    def complaint(self):
        """Say what was wrong with its end, or nothing."""
        status = self.process.returncode
        said = self.log.read_text(errors="replace")
        last = said[-1500:]
        if "Traceback" in said:
            return f"a traceback in {self.log}: {said[said.index('Traceback') :][-2500:]}"
        if self.killed:
            return None if status == -signal.SIGKILL else f"{self.log}: status {status} after SIGKILL: {last}"
        if (
            self.told_to_end_s is not None
            and status == -signal.SIGTERM
            and ("error: " in last or "worker started" not in said)
        ):
            return None  # it had nothing in hand: not begun yet, or already over
        if self.told_to_end_s is not None and status not in {0, 1}:
            return f"{self.log}: status {status} after SIGTERM: {last}"
        if status == 1 and "error: " in last:
            return None
        if status == 0 and self.told_to_end_s is not None:
            return None
        return f"{self.log}: status {status}, unasked: {last}"


@dataclass
class Crew:
    """So many workers, each in a place of its own; a thread starts a place again when its worker has ended."""

    folder: Path
    settings: object
    command: list[str]
    places: int
    lives: list[Life] = field(default_factory=list)
    past: list[Life] = field(default_factory=list)
    closing: bool = False

    def __post_init__(self):
        self.lock = threading.Lock()
        self.lives = [self._start() for _ in range(self.places)]
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def running(self):
        """The workers that can be hurt: alive, not stopped, not told to end."""
        with self.lock:
            return [
                life
                for life in self.lives
                if life.process.poll() is None and not life.frozen and life.told_to_end_s is None
            ]

    def kill(self, life):
        life.killed = True
        life.send(signal.SIGKILL)

    def end(self, life):
        life.told_to_end_s = time.monotonic()
        life.send(signal.SIGTERM)

    def freeze(self, life, seconds):
        """Stop a worker, and let it go on after a time."""
        life.frozen = True
        life.send(signal.SIGSTOP)

        def thaw():
            life.send(signal.SIGCONT)
            life.frozen = False

        timer = threading.Timer(seconds, thaw)
        timer.daemon = True
        timer.start()

    def close(self, timeout_s):
        """Tell all to end, and wait for that; gives those that did not in time."""
        self.closing = True
        self.thread.join()
        for life in self.lives:
            life.send(signal.SIGCONT)
            self.end(life)
        late = []
        deadline = time.monotonic() + timeout_s
        for life in self.lives:
            try:
                life.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                late.append(life.log)
                life.process.kill()
                life.process.wait()
        self.past += self.lives
        return late

    def _watch(self):
        while not self.closing:
            for place, life in enumerate(self.lives):
                if life.process.poll() is not None:
                    if life.told_to_end_s is not None:
                        life.ended_after_s = time.monotonic() - life.told_to_end_s
                    self.past.append(life)
                    with self.lock:
                        self.lives[place] = self._start()
            time.sleep(0.1)

    def _start(self):
        log = self.folder / f"worker-{len(self.past) + len(self.lives):04d}-{time.monotonic_ns() % 10**9}.log"
        told = {f"NEEDLESTREAM_{name.upper()}": str(getattr(self.settings, name)) for name in TOLD}
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.command, env={**os.environ, **told}, cwd=CHECKOUT, stdout=output, stderr=subprocess.STDOUT
            )
        return Life(process, log)


def stand_in_command():
    return [sys.executable, "-m", "tests.stream.faults.worker"]
