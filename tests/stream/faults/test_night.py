"""The shorter night of faults, as CI runs it; `make faults` runs the long one."""

import os
import random

import pytest

from tests.kafka_broker import NoKafkaError, find_libs
from tests.stream.faults.night import run

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(1200)]

FAULTS = 20


def test_nothing_is_lost_or_doubled_whatever_is_hurt(tmp_path, capsys):
    try:
        find_libs()
    except NoKafkaError as reason:
        if os.environ.get("NEEDLESTREAM_REQUIRE_KAFKA"):
            raise
        pytest.skip(str(reason))
    seed = random.SystemRandom().randrange(10**6)
    with capsys.disabled():
        verdict = run(tmp_path, faults=FAULTS, seed=seed, pause_s=1.5)
        print(verdict.table())  # noqa: T201 - the times are what a person wants to see
    assert verdict.lost == []
    assert verdict.doubled == []
    assert verdict.audit.problems == ()
    assert verdict.audit.messages == verdict.frames
    assert verdict.audit.pending == 0
    assert verdict.complaints == []
