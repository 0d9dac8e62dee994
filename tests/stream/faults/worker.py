"""Frames for the fault runs, and the worker that examines them: `needlestream run` but for the networks.

Frames are real FITS of 256 x 256 pixels, read by the real reader; how many streaks are in one, and how long it takes,
is written in its header. As a program (`python -m tests.stream.faults.worker`) it is a worker with settings from the
environment, that leaves as the command does: status 0, or 1 with a sentence.
"""

import sys
import time
from dataclasses import dataclass, replace

import numpy as np
from astropy.io import fits

from detector.fits import read_frames
from stream.broker import BrokerError
from stream.logs import configure_logs
from stream.machine import MachineError
from stream.messages import FRAMES, Output
from stream.service import Limits, run_worker
from stream.settings import load_settings
from tests.detector.fitsmaker import file_of
from tests.stream.stand_in import EXAMINER, findings, streaks

SIZE = 256


@dataclass(frozen=True)
class Sent:
    """A frame message, and what has to come of it: HDU -> streaks, and the reasons of dead letters."""

    output: Output
    examined: dict[int, int]
    rejected: tuple[str, ...]


def image(exposure, ccd, count, busy_s, rng, *, kind):
    pixels = rng.poisson(300, (SIZE, SIZE)).astype("i2") if rng.random() < 0.9 else np.zeros((SIZE, SIZE), "i2")
    header = fits.Header([("EXPNUM", exposure), ("CCDNUM", ccd), ("EXPTIME", busy_s), ("FILTER", str(count))])
    return kind(pixels, header), bool(pixels.any())


def make_frame(number, rng, busy_s):
    """Give one frame message: mostly a frame, some of several HDUs, some with an HDU that is constant, some rubbish."""
    name = (("name", f"{number}".encode()),)
    draw = rng.random()
    if draw < 0.05:
        return Sent(Output(FRAMES, b"rubbish", rng.bytes(2000), name), {}, ("not-fits",))
    hdus, examined, rejected = [], {}, []
    layers = [fits.PrimaryHDU] if draw < 0.8 else [fits.PrimaryHDU] + [fits.ImageHDU] * int(rng.integers(1, 3))
    for extension, kind in enumerate(layers):
        count = int(rng.integers(0, 4))
        hdu, good = image(number, extension, count, float(rng.uniform(0, 2 * busy_s)), rng, kind=kind)
        hdus.append(hdu)
        if good:
            examined[extension] = count
        else:
            rejected.append("constant")
    return Sent(Output(FRAMES, f"{number}".encode(), file_of(*hdus), name), examined, tuple(rejected))


def read(source, *, name, survey, extension):
    assert survey is None
    return read_frames(source, name=name, extension=extension)


def examine(frame):
    """As many streaks as its header says, after as long."""
    time.sleep(frame.header.exposure_s)
    return findings(frame.header, streaks(int(frame.header.filter_name), seed=3))


def examiner():
    return replace(EXAMINER, read=read, examine=examine)


def main():
    configure_logs("json")
    try:
        run_worker(load_settings(None, {}), examiner(), Limits())
    except (BrokerError, MachineError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
