"""How far the workers are behind, as a replay asks it between two frames, so that it does not bury them.

The broker counts offsets, and each transaction leaves a mark that takes one; those of the replay's own frames are taken
off. Of a group that nobody is in the lag stays, and the replay waits: it says so, with the numbers, every minute.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog
from kafka import KafkaAdminClient, TopicPartition

from stream.broker import client_options
from stream.messages import FRAMES
from stream.topics import group_offsets, partition_offsets

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream.manifest import Run
    from stream.settings import Settings

log = structlog.get_logger()

ASK_S = 0.25  # how often, at most
SAY_S = 60.0


class WorkersLag:
    """Asks the broker how many frame messages the workers' group has not done yet."""

    def __init__(self, settings: Settings, run: Run) -> None:
        self.settings = settings
        self.run = run
        self.admin = KafkaAdminClient(**client_options(settings))
        (described,) = self.admin.describe_topics([settings.topic(FRAMES)])
        self.partitions = [
            TopicPartition(settings.topic(FRAMES), part["partition_index"]) for part in described["partitions"]
        ]

    def __call__(self) -> int:
        """Give the number of messages; raises Kafka's errors."""
        ends = partition_offsets(self.admin, self.partitions, latest=True)
        committed = group_offsets(self.admin, self.settings, self.partitions)
        starts = partition_offsets(self.admin, self.partitions, latest=False)
        behind = 0
        for partition in self.partitions:
            done = max(committed.get(partition, 0), starts[partition])
            # The mark of a frame stands behind it: that of the last one that is done is still ahead.
            marks = self.run.sent.count_from(partition.partition, done - 1) if self.run.transactional else 0
            behind += max(0, ends[partition] - done - marks)
        return behind

    def close(self) -> None:
        """Let go of the broker."""
        self.admin.close()


class Gate:
    """Lets a frame through when fewer than ``most`` messages are waiting for the workers; None: always."""

    def __init__(self, behind: Callable[[], int], most: int | None, stopping: Callable[[], bool]) -> None:
        self.behind = behind
        self.most = most
        self.stopping = stopping
        self.lag = 0
        self.asked = -ASK_S

    def wait(self) -> None:
        """Return when the next frame may go, or when it is to be stopped."""
        if self.most is None:
            return
        if time.monotonic() - self.asked < ASK_S:
            self.lag += 1  # what was sent since then waits, at most
            if self.lag < self.most:
                return
        said = -SAY_S
        while not self.stopping():
            self.lag, self.asked = self.behind(), time.monotonic()
            if self.lag < self.most:
                return
            if self.asked - said > SAY_S:
                log.info("waiting for the workers", behind=self.lag, max_lag=self.most)
                said = self.asked
            time.sleep(ASK_S)
