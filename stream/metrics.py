"""Every metric of the worker and the linker, in base units; served for Prometheus on a port of its own.

Received = examined + rejected, counted by HDU: ``needlestream_frames_received_total`` is the sum of the other two, and
a reader that finds it otherwise has found a bug. Counters move when a message's answers are acknowledged and committed,
never before, so that what they say is what the topics hold. A series that an alert or a panel asks for is there from
the start, at 0: nothing rejected is not the same as nobody there to say so.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import structlog

from stream.broker import BrokerError
from stream.health import Pulse
from stream.registry import Bounded, Registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from prometheus_client import Histogram

    from detector.frame import BadFrame
    from detector.streaks import Findings
    from models.evaluate.sensitivity import Trial
    from stream.settings import Settings

log = structlog.get_logger()

STAGE_BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
# Rubin's 60 s and ZTF's 10 s are bounds of buckets, so that their quotas can be read off.
LATENCY_BUCKETS_S = (0.3, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 1800.0, 7200.0)
LINK_BUCKETS_S = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
SCORE_BUCKETS = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
SNR_BUCKETS = (5.0, 6.0, 7.0, 8.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0, 300.0)
# What arrives later than this after its shutter closed comes from an archive: its age says nothing about the stream.
LIVE_WITHIN_S = 86_400.0
# Rubin has 189 CCDs, Euclid VIS 144 quadrants.
MOST_CCDS = 256
MOST_REASONS = 64
MOST_FILTERS = 32
# There from the start: of a series that appears at 1, `increase` says 0, and the first refusal would not be seen.
REASONS = (
    *("all-nan", "bad-header", "checksum", "claim-missing", "claim-refused", "constant", "cube", "damaged", "empty"),
    *("expired", "killed-worker", "no-image", "not-fits", "one-dimensional", "too-large", "truncated", "unsupported"),
    "zero-size",
)
SECONDS_PER_DAY = 86_400.0


class LinkerMetrics:
    """The linker's metrics, in a registry of their own."""

    def __init__(self) -> None:
        own = self.registry = Registry()
        self.pulse = Pulse()
        self.sightings = own.counter("sightings", "Streaks and candidates taken in.")
        self.unreadable = own.counter("unreadable", "Messages without streaks, passed over.")
        self.tracks = own.counter("tracks", "Published: new, again, withdrawn.", "kind")
        for kind in ("new", "again", "withdrawn"):
            self.tracks.labels(kind)
        self.link_seconds = own.histogram("link_seconds", "To link what changed of a partition.", LINK_BUCKETS_S)
        self.open_fields = own.gauge("open_fields", "Fields that may still get exposures.")
        self.lag = own.gauge("lag_messages", "Messages still to come.", "topic", "partition")
        self.lag_sum = own.gauge("lag", "Messages still to come in this program's partitions, 0 without any.")
        self._behind: dict[tuple[str, int], int] = {}

    def serve(self, port: int, address: str, *, stuck_after_s: float) -> int:
        """Serve metrics and health over HTTP in a thread of its own; gives the port (0 asks for any free one)."""
        return self.registry.serve(port, address, self.pulse, stuck_after_s)

    def show(self, *, open_fields: int) -> None:
        """Show how many fields are open."""
        self.open_fields.set(open_fields)

    def show_lag(self, topic: str, partition: int, messages: int) -> None:
        """Show the lag of one partition that is this linker's."""
        self.lag.labels(topic, str(partition)).set(messages)
        self._behind[topic, partition] = messages
        self.lag_sum.set(sum(self._behind.values()))

    def forget_lag(self) -> None:
        """Show no lag: the partitions are somebody else's now."""
        self.lag.clear()
        self._behind.clear()
        self.lag_sum.set(0)


class Metrics:
    """The worker's metrics, in a registry of their own."""

    def __init__(self) -> None:
        own = self.registry = Registry()
        self.pulse = Pulse()
        self.received = own.counter("frames_received", "Science HDUs received.")
        self.examined = own.counter("frames_examined", "Science HDUs examined.")
        self.rejected = own.counter("frames_rejected", "Science HDUs that could not be read.", "reason")
        self.messages = own.counter("messages", "Frame messages done: answered and committed.")
        self.message_bytes = own.counter("message_bytes", "Bytes of the frame messages done.")
        self.streaks = own.counter("streaks", "Streaks published.")
        self.candidates = own.counter("candidates", "Candidates published, by what may come of them.", "kind")
        for kind in ("track", "lens", "merger"):
            self.candidates.labels(kind)
        self.dropped = own.counter("dropped", "What the filters took away.", "reason")
        self.stage_seconds = own.histogram("stage_seconds", "Time spent per frame.", STAGE_BUCKETS_S, "stage")
        self.latency_seconds = own.histogram(
            "latency_seconds", "From a message's time stamp to its committed answer.", LATENCY_BUCKETS_S
        )
        self.shutter_seconds = own.histogram(
            "shutter_latency_seconds", "From the end of a live exposure to its committed answer.", LATENCY_BUCKETS_S
        )
        self.archived = own.counter("frames_archived", "HDUs whose exposure was over a day old: replayed ones.")
        self.score = own.histogram("score", "Scores of what was published.", SCORE_BUCKETS, "table")
        self.snr = own.histogram("streak_snr", "SNR of the streaks published.", SNR_BUCKETS)
        for table in ("streaks", "candidates"):
            self.score.labels(table)
        self.background = own.gauge("background_electrons", "Sky a pixel, median, of the last frame.", "ccd")
        self.noise = own.gauge("noise_electrons", "Sigma a pixel, median, of the last frame.", "ccd")
        self.psf = own.gauge("psf_fwhm_pixels", "PSF of the last frame.", "ccd")
        self.lag = own.gauge("lag_messages", "Messages still to come.", "partition")
        self.lag_sum = own.gauge("lag", "Messages still to come in this program's partitions, 0 without any.")
        self.queue_messages = own.gauge("queue_messages", "Messages fetched and waiting in this worker.")
        self.queue_bytes = own.gauge("queue_bytes", "Their bytes.")
        self.gpu_memory = own.gauge("gpu_memory_bytes", "Memory of the GPU, 0 without one.", "kind")
        for kind in ("used", "reserved", "total"):
            self.gpu_memory.labels(kind)
        self.sensitivity = SensitivityMetrics(own)
        self._ccds, self._reasons = Bounded(MOST_CCDS), Bounded(MOST_REASONS)
        for reason in REASONS:
            self.rejected.labels(self._reasons(reason))
        self._shown: set[int] = set()

    def serve(self, port: int, address: str, *, stuck_after_s: float) -> int:
        """Serve metrics and health over HTTP in a thread of its own; gives the port (0 asks for any free one)."""
        return self.registry.serve(port, address, self.pulse, stuck_after_s)

    def count(
        self,
        findings: Sequence[Findings],
        rejects: Sequence[BadFrame],
        *,
        seconds: Mapping[str, float],
        latency_s: float | None,
        size_bytes: int,
        now_mjd_tai: float,
    ) -> None:
        """Take one committed message into account; ``seconds`` are its own stages, besides the findings'."""
        self.received.inc(len(findings) + len(rejects))
        self.examined.inc(len(findings))
        for bad in rejects:
            self.rejected.labels(self._reasons(bad.reason)).inc()
        for found in findings:
            self._count_findings(found, now_mjd_tai)
        for stage, duration_s in seconds.items():
            self.stage_seconds.labels(stage).observe(duration_s)
        if latency_s is not None:
            self.latency_seconds.observe(max(0.0, latency_s))
        self.messages.inc()
        self.message_bytes.inc(size_bytes)

    def _count_findings(self, found: Findings, now_mjd_tai: float) -> None:
        """Take one examined HDU into account."""
        self.streaks.inc(len(found.streaks))
        for kind, rows in (("track", found.candidates), ("lens", found.lenses), ("merger", found.mergers)):
            self.candidates.labels(kind).inc(len(rows))
        for reason, number in found.dropped.items():
            self.dropped.labels(reason).inc(number)
        for stage, duration_s in found.seconds.items():
            self.stage_seconds.labels(stage).observe(duration_s)
        for table, rows in (("streaks", found.streaks), ("candidates", found.candidates)):
            _observe(self.score.labels(table), rows["score"])
        _observe(self.snr, found.streaks["snr"])
        ccd = self._ccds(found.header.ccd)
        self.background.labels(ccd).set(found.background_e)
        self.noise.labels(ccd).set(found.noise_e)
        self.psf.labels(ccd).set(found.psf_fwhm_px)
        self._observe_shutter(found, now_mjd_tai)

    def _observe_shutter(self, found: Findings, now_mjd_tai: float) -> None:
        """Take the time since the shutter closed into account, where the header says when that was."""
        header = found.header
        if header.mid_time_mjd_tai is None or header.exposure_s is None:
            return
        since_s = (now_mjd_tai - header.mid_time_mjd_tai) * SECONDS_PER_DAY - 0.5 * header.exposure_s
        if since_s > LIVE_WITHIN_S:
            self.archived.inc()
        else:
            self.shutter_seconds.observe(max(0.0, since_s))

    def show_lag(self, behind: Mapping[int, int]) -> None:
        """Show the lag of the partitions that are this worker's now, and of no others."""
        for gone in self._shown - behind.keys():
            self.lag.remove(str(gone))
        for partition, messages in behind.items():
            self.lag.labels(str(partition)).set(messages)
        self.lag_sum.set(sum(behind.values()))
        self._shown = set(behind)

    def show_queue(self, messages: int, size_bytes: int) -> None:
        """Show how much was fetched and waits."""
        self.queue_messages.set(messages)
        self.queue_bytes.set(size_bytes)

    def show_gpu_memory(self, bytes_by_kind: Mapping[str, int]) -> None:
        """Show the GPU's memory: used, reserved, total."""
        for kind, size_bytes in bytes_by_kind.items():
            self.gpu_memory.labels(kind).set(size_bytes)


def serve_metrics(metrics: Metrics | LinkerMetrics, settings: Settings) -> None:
    """Serve them where ``metrics_port`` says, if it does. Raises ``BrokerError`` when the port cannot be had."""
    if settings.metrics_port is None:
        return
    where = settings.metrics_address
    try:
        port = metrics.serve(settings.metrics_port, where, stuck_after_s=settings.max_poll_interval_s)
    except OSError as error:
        raise BrokerError(
            f"metrics_address {where}, metrics_port {settings.metrics_port}: {error.strerror or error}; is another "
            "worker or linker of this machine there? Each needs a port of its own (NEEDLESTREAM_METRICS_PORT), or 0"
        ) from None
    log.info("metrics served", url=f"http://{where}:{port}/metrics")


def _observe(histogram: Histogram, values: NDArray[np.float64]) -> None:
    """Put the finite values into a histogram: one NaN would make its sum NaN for good."""
    for value in values:
        if math.isfinite(value):
            histogram.observe(float(value))


class SensitivityMetrics:
    """How much is missed: streaks that were put into copies of frames, and how many of them came out again."""

    def __init__(self, own: Registry) -> None:
        where = ("survey", "filter", "system")
        self.frames = own.counter("sensitivity_frames", "Frames chosen for injection, by what came of it.", "outcome")
        for outcome in ("measured", "no-room", "refused", "behind"):
            self.frames.labels(outcome)
        self.seconds = own.histogram("sensitivity_seconds", "To measure one frame's completeness.", STAGE_BUCKETS_S)
        self.injected = own.counter(
            "injected_streaks", "Synthetic streaks put in; magnitude is the bin's middle.", *where, "magnitude"
        )
        self.found = own.counter("injected_found", "Those of them that were found.", *where, "magnitude")
        self.half_magnitude = own.gauge("half_magnitude", "Magnitude at which half of the injected are found.", *where)
        self.half_snr = own.gauge("half_snr", "Matched-filter SNR at which half of the injected are found.", *where)
        self._filters = Bounded(MOST_FILTERS)
        self._shown: set[tuple[str, str, str]] = set()

    def count(self, trial: Trial) -> None:
        """Take one measured frame into account."""
        where = (trial.survey, self._filters(trial.filter_name), trial.system)
        self.seconds.observe(trial.seconds)
        for middle, injected, found in trial.by_magnitude():
            self.injected.labels(*where, f"{middle:g}").inc(injected)
            self.found.labels(*where, f"{middle:g}").inc(found)
        for gauge, value in ((self.half_magnitude, trial.half_magnitude), (self.half_snr, trial.half_snr)):
            if value is not None:
                gauge.labels(*where).set(value)
            elif where in self._shown:
                # Where hardly anything is found the curve has no half: the last good one must not stay on the wall.
                gauge.remove(*where)
        self._shown.add(where)
        self.frames.labels("measured").inc()
