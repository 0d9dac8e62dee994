"""A stand-in for pixels and networks: frames are JSON, so that the stream is tested without FITS and without torch.

As a program (`python -m tests.stream.stand_in`) it is a worker with settings from the environment.
"""

import argparse
import errno
import json
import os
import signal
import sys
import time
from dataclasses import replace

import numpy as np
import structlog

from detector.classtable import empty_candidates
from detector.frame import BadFrame, Frame, FrameHeader
from detector.streaks import Findings, StreakFlag, empty
from detector.survey import GENERIC, SURVEYS
from stream.broker import BrokerError
from stream.logs import configure_logs
from stream.machine import MachineError
from stream.service import Examiner, Limits, run_worker
from stream.settings import load_settings


def frame_bytes(exposure="E1", ccd="7", *, hdus=({},), padding=0):
    """A frame message: each HDU may say `streaks` (how many), `bad` (why it cannot be read), `sleep_s` and `fails`."""
    return json.dumps({"exposure": exposure, "ccd": ccd, "hdus": list(hdus), "padding": "x" * padding}).encode()


def read(source, *, name, survey, extension):
    content = source if isinstance(source, bytes) else source.read()
    try:
        told = json.loads(content)
    except ValueError:
        raise BadFrame("not-fits", "this is no frame") from None
    for number, hdu in enumerate(told["hdus"]):
        if extension is not None and number != extension:
            continue
        if "bad" in hdu:
            yield BadFrame(hdu["bad"], "told to be bad", extension=number)
            continue
        header = FrameHeader(
            name=name,
            extension=number,
            shape=(1, 3),
            survey=SURVEYS.get(survey, GENERIC),
            exposure=told["exposure"],
            ccd=told["ccd"],
            mid_time_mjd_tai=60_000.125,
        )
        fails = [None, *FAULTS].index(hdu.get("fails"))
        numbers = [hdu.get("streaks", 1), hdu.get("sleep_s", 0), fails]
        yield Frame(header, np.array([numbers], np.float32), np.zeros((1, 3), np.uint8))


def fail(error):
    raise error


# What `fails` may say: how the machine, or we, let a worker down.
FAULTS = {
    "memory": lambda: fail(MemoryError("Unable to allocate 1.00 TiB for an array")),
    "gpu": lambda: fail(RuntimeError("CUDA error: an illegal memory access was encountered")),
    "gpu-memory": lambda: fail(RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")),
    "disk": lambda: fail(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/var/cache")),
    "defect": lambda: fail(IndexError("index 7 is out of bounds")),
    "crash": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


def examine(frame):
    """As many streaks as the frame says, after as long as it says; a fault of the machine when it says so."""
    structlog.get_logger().info("examining", frame=frame.header.name)
    count, sleep_s, fails = frame.pixels[0]
    time.sleep(float(sleep_s))
    if fails:
        FAULTS[list(FAULTS)[int(fails) - 1]]()
    return findings(frame.header, streaks(int(count), seed=3))


def findings(header, rows):
    return Findings(header, rows, 100.0, 11.0, 2.5, {"edge": 2}, {"fit": 0.25}, ("no-wcs",))


def streaks(count, seed):
    """A table in which everything is known, but for what is NaN in the last row."""
    rng = np.random.default_rng(seed)
    rows = empty(count)
    for name in rows.dtype.names:
        rows[name] = rng.uniform(0.1, 90, count)
    rows["flags"] = int(StreakFlag.EDGE | StreakFlag.PSF_FROM_PROFILE)
    if count:
        rows[-1]["ra"] = rows[-1]["mag"] = np.nan
        rows[-1]["flags"] = 0
    return rows


EXAMINER = Examiner(read=read, examine=examine, program_version="0", weights_versions={"stand-in": "1"})


def objects(count, seed):
    """A table of lenses or mergers: places and probabilities alone."""
    rng = np.random.default_rng(seed)
    rows = empty_candidates(count)
    rows["x"], rows["y"] = rng.uniform(20, 90, (2, count))
    rows["probability"], rows["probability_err"] = np.linspace(0.99, 0.9, count), 0.01
    return rows


def fits_examiner(count, found=0):
    """Reads real FITS; finds so many streaks, and of lenses and mergers so many, in each frame, whatever it shows."""
    from detector.fits import read_frames  # noqa: PLC0415 - astropy and numba: seconds that most tests need not wait

    def read_fits(source, *, name, survey, extension):
        assert survey is None
        return read_frames(source, name=name, extension=extension)

    def examine_fits(frame):
        with_streaks = findings(frame.header, streaks(count, seed=3))
        return replace(with_streaks, lenses=objects(found, seed=4), mergers=objects(found, seed=5))

    return replace(EXAMINER, read=read_fits, examine=examine_fits)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int)
    parser.add_argument("--idle-timeout", type=float)
    parser.add_argument("--fits", action="store_true", help="read real FITS")
    parser.add_argument("--streaks", type=int, default=0, help="in each frame of real FITS")
    parser.add_argument("--objects", type=int, default=0, help="lenses, and mergers, in each frame of real FITS")
    given = parser.parse_args()
    configure_logs("json")
    try:
        examiner = fits_examiner(given.streaks, given.objects) if given.fits else EXAMINER
        run_worker(load_settings(None, {}), examiner, Limits(given.count, given.idle_timeout))
    except (BrokerError, MachineError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
