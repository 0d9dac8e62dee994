"""Every metric of the worker, in base units; served for Prometheus on a port of its own.

Received = examined + rejected, counted by HDU: ``needlestream_frames_received_total`` is the sum of the other two, and
a reader that finds it otherwise has found a bug. Counters move when a message's answers are acknowledged and committed,
never before, so that what they say is what the topics hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from detector.frame import BadFrame
    from detector.streaks import Findings

STAGE_BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
# Rubin's 60 s and ZTF's 10 s are bounds of buckets, so that their quotas can be read off.
LATENCY_BUCKETS_S = (0.3, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 1800.0, 7200.0)


LINK_BUCKETS_S = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


class LinkerMetrics:
    """The linker's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.sightings = Counter("needlestream_sightings", "Streaks and candidates taken in.", registry=own)
        self.unreadable = Counter("needlestream_unreadable", "Messages without streaks, passed over.", registry=own)
        self.tracks = Counter("needlestream_tracks", "Published: new, again, withdrawn.", ("kind",), registry=own)
        self.link_seconds = Histogram(
            "needlestream_link_seconds", "To link what changed of a partition.", buckets=LINK_BUCKETS_S, registry=own
        )
        self.open_fields = Gauge("needlestream_open_fields", "Fields that may still get exposures.", registry=own)
        self.lag = Gauge("needlestream_lag_messages", "Messages still to come.", ("topic", "partition"), registry=own)

    def serve(self, port: int, address: str) -> int:
        """Serve the registry over HTTP in a thread of its own; gives the port (0 asks for any free one)."""
        server, _ = start_http_server(port, address, registry=self.registry)
        return int(server.server_port)

    def show(self, *, open_fields: int) -> None:
        """Show how many fields are open."""
        self.open_fields.set(open_fields)

    def show_lag(self, topic: str, partition: int, messages: int) -> None:
        """Show the lag of one partition that is this linker's."""
        self.lag.labels(topic, str(partition)).set(messages)

    def forget_lag(self) -> None:
        """Show no lag: the partitions are somebody else's now."""
        self.lag.clear()


class Metrics:
    """The worker's metrics in a registry of their own, so that several workers live in one test."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.received = self._counter("frames_received", "Science HDUs received.")
        self.examined = self._counter("frames_examined", "Science HDUs examined.")
        self.rejected = self._counter("frames_rejected", "Science HDUs that could not be read.", "reason")
        self.messages = self._counter("messages", "Frame messages done: answered and committed.")
        self.message_bytes = self._counter("message_bytes", "Bytes of the frame messages done.")
        self.streaks = self._counter("streaks", "Streaks published.")
        self.dropped = self._counter("dropped", "What the filters took away.", "reason")
        self.stage_seconds = self._histogram("stage_seconds", "Time spent per frame.", STAGE_BUCKETS_S, "stage")
        self.latency_seconds = self._histogram(
            "latency_seconds", "From a message's time stamp to its committed answer.", LATENCY_BUCKETS_S
        )
        self.lag = Gauge("needlestream_lag_messages", "Messages still to come.", ("partition",), registry=self.registry)
        self._shown: set[int] = set()

    def serve(self, port: int, address: str) -> int:
        """Serve the registry over HTTP in a thread of its own; gives the port (0 asks for any free one)."""
        server, _ = start_http_server(port, address, registry=self.registry)
        return int(server.server_port)

    def count(
        self,
        findings: Sequence[Findings],
        rejects: Sequence[BadFrame],
        *,
        seconds: Mapping[str, float],
        latency_s: float,
        size_bytes: int,
    ) -> None:
        """Take one committed message into account; ``seconds`` are its own stages, besides the findings'."""
        self.received.inc(len(findings) + len(rejects))
        self.examined.inc(len(findings))
        for bad in rejects:
            self.rejected.labels(bad.reason).inc()
        for found in findings:
            self.streaks.inc(len(found.streaks))
            for reason, number in found.dropped.items():
                self.dropped.labels(reason).inc(number)
            for stage, duration_s in found.seconds.items():
                self.stage_seconds.labels(stage).observe(duration_s)
        for stage, duration_s in seconds.items():
            self.stage_seconds.labels(stage).observe(duration_s)
        self.latency_seconds.observe(max(0.0, latency_s))
        self.messages.inc()
        self.message_bytes.inc(size_bytes)

    def show_lag(self, behind: Mapping[int, int]) -> None:
        """Show the lag of the partitions that are this worker's now, and of no others."""
        for gone in self._shown - behind.keys():
            self.lag.remove(str(gone))
        for partition, messages in behind.items():
            self.lag.labels(str(partition)).set(messages)
        self._shown = set(behind)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"needlestream_{name}", documentation, labels, registry=self.registry)

    def _histogram(self, name: str, documentation: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"needlestream_{name}", documentation, labels, buckets=buckets, registry=self.registry)
