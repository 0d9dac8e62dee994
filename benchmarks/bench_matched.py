"""How long the classical detector takes for a frame, against a machine that does its additions and nothing else.

``python benchmarks/bench_matched.py [height width]``. The limit is the bank's arithmetic done on rows that stay in the
cache: for every line that is tried, one sum of two rows and one comparison with the best so far, timed in the same run
on the same threads. The second frame has ten times the cosmic rays of the first: the cost must not follow. CPU seconds
are of all threads together.
"""

import sys
import time

import numpy as np
from numba import get_num_threads, njit, prange

from detector.linesums import DOUBLINGS, SHORTEST_ROWS
from detector.matched import filtered_frame, matched_proposals
from detector.psf import Psf

SHAPE = (4132, 4096)
ROW = 1024


def draw_frame(shape, cosmic_rays, seed=1):
    rng = np.random.default_rng(seed)
    frame = rng.normal(size=shape).astype(np.float32)
    for _ in range(cosmic_rays):
        y, x = rng.uniform(30, shape[0] - 30), rng.uniform(30, shape[1] - 30)
        angle, length = rng.uniform(0, np.pi), rng.uniform(2, 28)
        along = np.arange(0.0, length, 0.7)
        frame[(y + along * np.sin(angle)).astype(int), (x + along * np.cos(angle)).astype(int)] += rng.exponential(50.0)
    return frame


def lines_per_pixel():
    """Sums that the bank makes for each pixel, tiles' borders left out."""
    total = 0.0
    for doubling in range(DOUBLINGS + 1):
        rows = SHORTEST_ROWS << doubling
        total += 2 * 2 * (2 * rows + 1) / max(1, rows // 4)
    return total


@njit(parallel=True, fastmath={"contract", "nsz", "nnan"})
def additions(rows, repeats):
    for n in prange(rows.shape[0]):
        a, b, best = rows[n, 0], rows[n, 1], rows[n, 2]
        for k in range(repeats):
            for x in range(ROW):
                total = a[x] + b[x] * np.float32(k)
                best[x] = max(best[x], total)


def seconds(function, repeats=3):
    function()
    best = (np.inf, np.inf)
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        function()
        best = tuple(np.minimum(best, (time.perf_counter() - wall, time.process_time() - cpu)))
    return best


def main():
    shape = tuple(map(int, sys.argv[1:3])) if len(sys.argv) > 2 else SHAPE
    threads, psf = get_num_threads(), Psf.gaussian(1.8)
    sums = lines_per_pixel() * shape[0] * shape[1]
    rows = np.zeros((threads, 3, ROW), np.float32)
    repeats = int(sums / threads / ROW / 10)
    wall, cpu = (10.0 * s for s in seconds(lambda: additions(rows, repeats)))
    print(f"frame {shape[0]} x {shape[1]}, {threads} threads, {sums / 1e9:.1f}e9 lines tried")
    print(f"{'limit: as many additions, in the cache':<44}{wall:8.2f} s {cpu:8.2f} CPU s")
    area = shape[0] * shape[1] / (SHAPE[0] * SHAPE[1])
    for cosmic_rays in (1_000, 10_000):
        frame = draw_frame(shape, int(cosmic_rays * area))
        spent, work = seconds(lambda frame=frame: matched_proposals(filtered_frame(frame, psf)), 1)
        name = f"matched_proposals, {cosmic_rays:,} cosmic rays a CCD"
        print(f"{name:<44}{spent:8.2f} s {work:8.2f} CPU s {work / cpu:8.1f} x the limit")


if __name__ == "__main__":
    main()
