"""How long a full frame takes from electrons to sky-sigma, defects and PSF, against one copy of it.

``python benchmarks/bench_sky.py``. A Euclid-sized frame of whole counts with 10,000 cosmic rays and 200 stars. CPU
seconds are of all threads together: on a machine that others use they say more than the clock.
"""

import time

import numpy as np
from numba import get_num_threads

from detector.defects import find_defects
from detector.psfmeasurement import measure_psf
from detector.sky import measure_sky
from detector.tiling import Tiling, unpadded
from detector.whitening import binned, whiten

SHAPE = (4132, 4096)


def draw_frame(seed=1):
    rng = np.random.default_rng(seed)
    frame = rng.normal(103.0, 11.06, SHAPE).astype(np.float32)
    y, x = np.mgrid[-12:13, -12:13]
    for _ in range(200):
        row, col = rng.integers(20, SHAPE[0] - 20), rng.integers(20, SHAPE[1] - 20)
        star = np.exp(-((x - rng.uniform(-0.5, 0.5)) ** 2 + (y - rng.uniform(-0.5, 0.5)) ** 2) / 0.92)
        frame[row - 12 : row + 13, col - 12 : col + 13] += 10 ** rng.uniform(3, 5) * star
    for _ in range(10_000):
        row, col, length = rng.integers(0, SHAPE[0] - 30), rng.integers(0, SHAPE[1] - 30), rng.integers(2, 28)
        along = np.arange(length)
        frame[row + along // rng.integers(1, 5), col + along] += rng.exponential(600.0)
    return (np.round(frame / 3.48) * 3.48).astype(np.float32)


def timed(name, function, copy=None, repeats=5):
    function()
    best = (np.inf, np.inf)
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        function()
        best = tuple(np.minimum(best, (time.perf_counter() - wall, time.process_time() - cpu)))
    ratio = "" if copy is None else f"{best[0] / copy:8.1f} copies"
    print(f"{name:<36}{best[0]:8.3f} s {best[1]:8.3f} CPU s {ratio}")
    return best[0]


def main():
    frame, mask = draw_frame(), np.zeros(SHAPE, np.uint8)
    print(f"frame {SHAPE[0]} x {SHAPE[1]} float32, {get_num_threads()} threads")
    copy = timed("copy of the frame (numpy)", frame.copy)
    timed("find_defects", lambda: find_defects(frame, mask, saturation_e=200_000.0), copy)
    sky = measure_sky(frame, mask)
    spent = timed("measure_sky", lambda: measure_sky(frame, mask), copy)
    spent += timed("whiten", lambda: whiten(frame, mask, sky, window=96, step=8), copy)
    print(f"{'sky to sky-sigma, together':<36}{spent:8.3f} s")
    view = unpadded(whiten(frame, mask, sky, window=96, step=8), SHAPE, Tiling(96, 8))
    timed("binned", lambda: binned(view), copy)
    timed("measure_psf", lambda: measure_psf(frame, mask, sky, fallback_fwhm_px=2.0), copy)
    psf = measure_psf(frame, mask, sky, fallback_fwhm_px=2.0)
    noise = float(np.median(sky.noise))
    bias = (float(np.median(sky.background)) - 103.0) / noise
    print(f"background {bias:+.3f} sigma off, noise {noise:.2f} e-, PSF {psf.fwhm_px:.2f} px of {psf.n_stars} stars")


if __name__ == "__main__":
    main()
