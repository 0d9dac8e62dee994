"""How fast proposals are fitted and forced fluxes taken, against one look at the same pixels through the line's model.

``python benchmarks/bench_fitting.py``. The limit is a parallel kernel that computes the model and its derivatives once
at each pixel within reach of each line and does nothing else: no fit can do with less than one such pass. 20,000
proposals are what a frame gives at threshold 0; one in ten of these is a streak, the others noise and cosmic rays.
"""

import time

import numpy as np
from numba import get_num_threads, njit, prange

from detector.fitting import fit_lines
from detector.forcing import forced_flux
from detector.lineprofile import half_width_px, line_frame, line_profile, line_tables
from detector.psf import Psf

SIDE, PROPOSALS, MARGIN = 4096, 20_000, 44
PSF = Psf(np.array([0.75, 1.7]), np.array([0.75, 0.25]), 1.9, 50)


@njit(parallel=True)
def one_pass(lines, half_width, tables, sums):
    for n in prange(len(lines)):
        ux, uy, length, direction = line_frame(lines[n])
        x0, y0, x1, y1 = lines[n]
        total = 0.0
        for y in range(int(min(y0, y1) - half_width), int(max(y0, y1) + half_width) + 1):
            left, right = min(x0, x1) - half_width, max(x0, x1) + half_width
            if abs(uy) > 1e-6:
                centre, reach = x0 + (y - y0) * ux / uy, half_width / abs(uy)
                left, right = max(left, centre - reach), min(right, centre + reach)
            for x in range(int(left), int(right) + 1):
                for value in line_profile(x - x0, y - y0, ux, uy, length, direction, tables):
                    total += value
        sums[n] = total


@njit
def paint(image, lines, flux, margin, half_width, tables):
    for n in range(len(lines)):
        ux, uy, length, direction = line_frame(lines[n])
        x0, y0, x1, y1 = lines[n]
        for y in range(int(min(y0, y1) - half_width), int(max(y0, y1) + half_width) + 1):
            for x in range(int(min(x0, x1) - half_width), int(max(x0, x1) + half_width) + 1):
                light = line_profile(x - x0, y - y0, ux, uy, length, direction, tables)[0]
                image[y + margin, x + margin] += flux[n] * light


def draw(rng, tables, half_width):
    """A whitened frame with its margin, and proposals ``[n, 4]``, the first tenth of them near streaks."""
    length = np.exp(rng.uniform(np.log(5.0), np.log(60.0), PROPOSALS))
    angle = rng.uniform(0.0, 2.0 * np.pi, PROPOSALS)
    half = 0.5 * length[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    middle = rng.uniform(50.0, SIDE - 50.0, (PROPOSALS, 2))
    lines = np.concatenate([middle - half, middle + half], axis=1)
    frame = rng.normal(size=(SIDE + 2 * MARGIN, SIDE + 2 * MARGIN)).astype(np.float32)
    real = PROPOSALS // 10
    snr = np.exp(rng.uniform(np.log(4.0), np.log(100.0), real))
    paint(frame, lines[:real], snr * np.sqrt(3.5 * (length[:real] + 2.0) * 1.0), MARGIN, half_width, tables)
    for k in range(real, real + PROPOSALS // 3):
        steps = np.arange(rng.exponential(12.0) + 2.0)
        x = np.rint(middle[k, 0] + steps * np.cos(angle[k])).astype(int) + MARGIN
        y = np.rint(middle[k, 1] + steps * np.sin(angle[k])).astype(int) + MARGIN
        frame[y.clip(0, SIDE), x.clip(0, SIDE)] += rng.exponential(40.0)
    return frame, lines + rng.uniform(-1.5, 1.5, lines.shape)


def seconds(function, repeats=3):
    """Shortest time of several, after one that compiles: the others waited for somebody else's work."""
    function()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return min(times)


def row(name, spent, limit, count):
    print(f"{name:<44}{spent:8.3f} s {count / spent:10.0f} a second {spent / limit:8.1f} x the limit")


def main():
    half_width = half_width_px(PSF.fwhm_px)
    tables = line_tables(PSF).arrays
    frame, lines = draw(np.random.default_rng(1), tables, half_width)
    unknown, noise_e, sums = np.full(PROPOSALS, 1.5), np.full(PROPOSALS, 11.0), np.zeros(PROPOSALS)
    print(f"{PROPOSALS} proposals of 5 to 60 px, {get_num_threads()} threads")
    limit = seconds(lambda: one_pass(lines, half_width, tables, sums))
    row("limit: the model once at each pixel", limit, limit, PROPOSALS)
    row("fit_lines", seconds(lambda: fit_lines(frame, MARGIN, lines, unknown, noise_e, PSF), 1), limit, PROPOSALS)
    row("forced_flux", seconds(lambda: forced_flux(frame, MARGIN, lines, PSF)), limit, PROPOSALS)
    print(f"tables of the PSF{1e3 * seconds(lambda: line_tables(PSF)):35.1f} ms a frame")


if __name__ == "__main__":
    main()
