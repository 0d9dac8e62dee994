"""Where metrics are made and served: base units, one prefix, and labels that cannot grow without end.

A label's value may come from a header that anybody wrote, and each new value is a series that Prometheus keeps: so the
values of such a label are counted, and from ``most`` on all further ones are called ``other``.
"""

from __future__ import annotations

import socket
import threading
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, make_wsgi_app

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from wsgiref.types import StartResponse, WSGIEnvironment

    from stream.health import Pulse

PREFIX = "needlestream_"
OTHER = "other"
LONGEST_VALUE = 64


class Registry:
    """Makes metrics of one program, in a registry of their own, so that several live in one test.

    The process itself (memory, processor time, open files, start) is in it from the beginning.
    """

    def __init__(self) -> None:
        self.collector = CollectorRegistry()
        ProcessCollector(registry=self.collector)

    def counter(self, name: str, documentation: str, *labels: str) -> Counter:
        """Give a counter; ``_total`` is put behind its name."""
        return Counter(PREFIX + name, documentation, labels, registry=self.collector)

    def gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        """Give a gauge."""
        return Gauge(PREFIX + name, documentation, labels, registry=self.collector)

    def histogram(self, name: str, documentation: str, buckets: Sequence[float], *labels: str) -> Histogram:
        """Give a histogram with these upper bounds."""
        return Histogram(PREFIX + name, documentation, labels, buckets=buckets, registry=self.collector)

    def show_build(self, program: str, version: str, weights: Mapping[str, str]) -> None:
        """Show what runs: the program, its version, and the networks' names and hashes (or versions)."""
        build = self.gauge("build_info", "1; what runs is in the labels.", "program", "version", "weights")
        told = " ".join(f"{name}:{value[:12]}" for name, value in sorted(weights.items()))
        build.labels(program, version, told).set(1)

    def serve(self, port: int, address: str, pulse: Pulse, stuck_after_s: float) -> int:
        """Serve ``/metrics`` and ``/healthz`` in a thread of their own; gives the port (0 asks for any free one)."""
        metrics = make_wsgi_app(self.collector)

        def answer(environment: WSGIEnvironment, begin: StartResponse) -> Iterable[bytes]:
            if environment["PATH_INFO"] != "/healthz":
                return metrics(environment, begin)
            status, sentence = pulse.told(stuck_after_s)
            begin(f"{status.value} {status.phrase}", [("Content-Type", "text/plain; charset=utf-8")])
            return [sentence.encode() + b"\n"]

        class Server(ThreadingMixIn, WSGIServer):
            """Threads that do not keep the process."""

            daemon_threads = True
            address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

        class Quiet(WSGIRequestHandler):
            """One request."""

            def log_message(self, *_: object) -> None:
                """Keep quiet: somebody asks every few seconds."""

        server = make_server(address, port, answer, Server, Quiet)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return int(server.server_port)


class Bounded:
    """Label values of which only the first ``most`` stand for themselves."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.known: set[str] = set()

    def __call__(self, value: str | None) -> str:
        """Give the label's value for ``value``: itself shortened, ``unknown``, or ``other``."""
        short = (value or "unknown")[:LONGEST_VALUE]
        if short not in self.known:
            if len(self.known) >= self.most:
                return OTHER
            self.known.add(short)
        return short
