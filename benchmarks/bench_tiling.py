"""How fast frames become windows, against what the memory of this machine allows.

``python benchmarks/bench_tiling.py``. The limit is a parallel copy kernel that moves the same bytes (uint16 in, padded
float32 out) and does nothing else, timed in the same run on the same threads.
"""

import time

import numpy as np
from numba import get_num_threads, njit, prange

from detector.tiling import Tiling, pad, strips, windows

SHAPE = (4132, 4096)


@njit(parallel=True)
def copy(array, out):
    for y in prange(array.shape[0]):
        for x in range(array.shape[1]):
            out[y, x] = array[y, x]


def seconds(function, repeats=9):
    """Shortest time of several: the others waited for somebody else's work."""
    function()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return min(times)


def row(name, spent, limit, n_bytes):
    print(f"{name:<44}{1e3 * spent:9.2f} ms {n_bytes / spent / 1e9:8.1f} GB/s   {spent / limit:6.2f} x the limit")


def main():
    tiling = Tiling(window=96, step=8)
    frame = np.random.default_rng(1).integers(0, 1000, SHAPE, dtype=np.uint16)
    n_bytes = frame.nbytes + 4 * int(np.prod(tiling.padded_shape(SHAPE)))
    print(f"frame {SHAPE[0]} x {SHAPE[1]} uint16, {get_num_threads()} threads")
    # Both write into memory that is fresh from the system each time, as a frame's buffer is.
    limit = seconds(lambda: copy(frame, np.empty(SHAPE, np.float32)))
    row("limit: copy uint16 -> float32", limit, limit, n_bytes)
    row("pad (one read, one write)", seconds(lambda: pad(frame, tiling)), limit, n_bytes)
    padded = pad(frame, tiling)
    views = seconds(lambda: list(strips(padded, tiling, 32)))
    print(f"{'strips (views)':<44}{1e3 * views:9.2f} ms")
    some = range(2)
    n_windows = 2 * tiling.grid(SHAPE)[1]
    out = np.empty((n_windows, 96, 96), np.float32)
    window_bytes = 2 * out.nbytes
    copy_limit = seconds(lambda: copy(out.reshape(-1, 96), np.empty((n_windows * 96, 96), np.float32)))
    row("limit: copy of 1,024 windows", copy_limit, copy_limit, window_bytes)
    row("windows cut out (1,024 of 264,704)", seconds(lambda: windows(padded, tiling, some)), copy_limit, window_bytes)


if __name__ == "__main__":
    main()
