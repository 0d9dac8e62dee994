"""A small frame for a worker to begin with, so that nothing is compiled or loaded while a message waits.

On a machine where no frame was examined before, numba compiles the kernels, which takes minutes: before the worker
joins its group nobody waits for it, and no partition is held that another worker could serve.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import structlog

from detector.frame import BadFrame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from detector.frame import Frame
    from detector.preparation import Prepared
    from detector.streaks import Findings

log = structlog.get_logger()

SIDE_PX = 320
STARS, TRAILS = 70, 6
SKY_ADU, NOISE_ADU, FWHM_PX, FULL_ADU = 500.0, 12.0, 2.4, 65_535.0


def warm_up(
    read: Callable[..., Iterable[Frame | BadFrame]],
    prepare: Callable[[Frame], Prepared],
    examine: Callable[..., Findings],
) -> None:
    """Read, prepare and examine two exposures of one drawn sky; what they show is nobody's."""
    started = time.perf_counter()
    log.info("warming up", hint="kernels are compiled once on a machine, which takes some minutes")
    frames = [
        frame
        for minutes in (0, 10)
        for frame in read(warming_frame(minutes), name="warm-up", survey=None, extension=None)
        if not isinstance(frame, BadFrame)
    ]
    ready = [prepare(frame) for frame in frames]
    for number, frame in enumerate(frames):
        examine(frame, others=tuple(other for k, other in enumerate(ready) if k != number))
    log.info("warmed up", seconds=round(time.perf_counter() - started, 1))


def warming_frame(minutes: int) -> bytes:
    """Give a FITS file of a drawn sky, so many minutes into a night: stars, one of them full, and trails."""
    sky, exposure = np.random.default_rng(1), np.random.default_rng(2 + minutes)
    places = sky.uniform(0.0, SIDE_PX, (STARS, 2))
    heights = np.exp(sky.uniform(np.log(60.0), np.log(20_000.0), STARS))
    heights[0] = 10.0 * FULL_ADU
    image = SKY_ADU + exposure.normal(0.0, NOISE_ADU, (SIDE_PX, SIDE_PX))
    for (x, y), height in zip(places, heights, strict=True):
        image += height * _dots(np.array([x]), np.array([y]))
    for _ in range(TRAILS):
        x, y = exposure.uniform(40.0, SIDE_PX - 40.0, 2)
        length, angle = exposure.uniform(5.0, 110.0), exposure.uniform(0.0, np.pi)
        along = np.arange(-0.5 * length, 0.5 * length, 0.5)
        image += 150.0 * _dots(x + along * np.cos(angle), y + along * np.sin(angle))
    stored = (np.clip(np.round(image), 0.0, FULL_ADU) - 32_768.0).astype(">i2")
    return _header(minutes) + stored.tobytes() + bytes(-stored.nbytes % 2880)


def _dots(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """The light of round sources of height 1, as an image."""
    pixel = np.arange(SIDE_PX)
    width = 2.0 * (FWHM_PX / 2.355) ** 2
    columns = np.exp(-((pixel[None, :] - x[:, None]) ** 2) / width)  # n w
    rows = np.exp(-((pixel[None, :] - y[:, None]) ** 2) / width)  # n h
    return np.asarray(rows.T @ columns)


def _header(minutes: int) -> bytes:
    """The header of the frame: unsigned 16 bits, 0.2 arcsec a pixel."""
    middle, scale = 0.5 * (SIDE_PX + 1), 0.2 / 3600.0
    cards = {
        "SIMPLE": "T",
        "BITPIX": 16,
        "NAXIS": 2,
        "NAXIS1": SIDE_PX,
        "NAXIS2": SIDE_PX,
        "BSCALE": 1,
        "BZERO": 32_768,
        "GAIN": 2.0,
        "EXPTIME": 60.0,
        "DATE-OBS": f"'2026-01-01T00:{minutes:02d}:00'",
        "CTYPE1": "'RA---TAN'",
        "CTYPE2": "'DEC--TAN'",
        "CRVAL1": 150.0,
        "CRVAL2": 2.0,
        "CRPIX1": middle,
        "CRPIX2": middle,
        "CD1_1": -scale,
        "CD1_2": 0.0,
        "CD2_1": 0.0,
        "CD2_2": scale,
    }
    lines = [f"{name:<8}= {value:>20}" for name, value in cards.items()]
    text = "".join(f"{line:<80}" for line in [*lines, "END"])
    return text.encode("ascii").ljust(-(-len(text) // 2880) * 2880)
