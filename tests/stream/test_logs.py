"""Logs: where they go, which is what standard error is when something is written."""

import contextlib
import io
import logging

import pytest
import structlog

from stream.logs import configure_logs


@pytest.fixture
def handlers():
    """The root's handlers are given back."""
    before = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = before


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("style", ["console", "json"])
def test_logs_go_to_what_standard_error_is_now_also_when_that_of_before_is_closed(style):
    """Both ours and those of the standard library, from loggers that were made before."""
    ours, theirs = structlog.get_logger(), logging.getLogger("kafka.somewhere")
    first, second = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(first):
        configure_logs(style)
        ours.info("begun")
        theirs.warning("away")
        said = first.getvalue()
    first.close()
    with contextlib.redirect_stderr(second):
        ours.info("ended")
        theirs.warning("back")
    assert all(word in said for word in ("begun", "away"))
    assert all(word in second.getvalue() for word in ("ended", "back"))
    assert "Logging error" not in second.getvalue()
