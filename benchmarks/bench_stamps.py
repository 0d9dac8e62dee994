"""How many labelled stamps one core draws a second.

``python benchmarks/bench_stamps.py``. The second time is told: the first compiles, draws the PSF of a group and the
encounters that are in turn. CPU seconds: on a machine that others use they say more than the clock.
"""

import time

import numba

from models.simulate.stamps import TASKS, draw_stamps

COUNT = 256


def main():
    numba.set_num_threads(1)
    for task in TASKS:
        for survey in ("euclid-vis", "kids-omegacam"):
            for _ in range(2):
                wall, cpu = time.perf_counter(), time.process_time()
                draw_stamps(task, COUNT, survey=survey, seed=900_440)
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            print(f"{task:14s} {survey:14s} {COUNT / cpu:6.0f} stamps a CPU second, {COUNT / wall:6.0f} a second")


if __name__ == "__main__":
    main()
