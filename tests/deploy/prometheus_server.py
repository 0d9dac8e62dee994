"""Debian's Prometheus with our rules and our configuration, but for where it finds whom: ports of this machine."""

import contextlib
import json
import math
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.deploy.debian import program
from tests.kafka_broker import free_port, wait_for_port
from tests.stream.topics import wait_until

DEPLOYED = Path(__file__).parents[2] / "deploy/prometheus"
SCRAPE_S = 0.5


@dataclass(frozen=True)
class Prometheus:
    """A running one; ``ask`` gives what an expression gives."""

    port: int

    def ask(self, expression, at_s=None):
        """Labels and finite values of an instant query, now or at a Unix time."""
        query = urllib.parse.urlencode({"query": expression, "time": time.time() if at_s is None else at_s})
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/query?{query}", timeout=10) as answer:
            result = json.load(answer)["data"]["result"]
        values = [(one["metric"], float(one["value"][1])) for one in result]
        return [(labels, value) for labels, value in values if math.isfinite(value)]

    def sum(self, expression):
        return sum(value for _, value in self.ask(expression))

    def series(self):
        """Names and labels of all that was scraped."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}/api/v1/series?match[]=%7Bjob%3D~%22needlestream.*%22%7D", timeout=10
        ) as answer:
            return json.load(answer)["data"]


def ready(port):
    """Whether it has read its storage: until then it answers with 503."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=10):
            return True
    except urllib.error.HTTPError:
        return False


@contextlib.contextmanager
def prometheus(folder, ports):
    """Prometheus while it runs; ``ports`` are those of the jobs that the configuration has."""
    configuration = yaml.safe_load((DEPLOYED / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": f"{SCRAPE_S * 1000:.0f}ms", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(DEPLOYED / name) for name in configuration["rule_files"]]
    assert {job["job_name"] for job in configuration["scrape_configs"]} == ports.keys()
    configuration["scrape_configs"] = [
        {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]} for name, port in ports.items()
    ]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    port = free_port()
    command = [program("prometheus"), f"--config.file={folder / 'prometheus.yml'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for_port(port, process, folder / "log")
        wait_until(lambda: ready(port), timeout_s=30)
        yield Prometheus(port)
    finally:
        process.terminate()
        process.wait(20)
