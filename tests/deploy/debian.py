"""Programs that Debian has: a test that needs one is skipped where it is missing, or fails where all must be there."""

import os
import shutil

import pytest


def program(name):
    found = shutil.which(name)
    if found is None:
        reason = f"no {name}: install Debian's package that has it"
        if os.environ.get("NEEDLESTREAM_REQUIRE_DEBIAN"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found
