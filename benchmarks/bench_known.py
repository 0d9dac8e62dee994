"""Known objects: what it costs to mark the tracks of a night by a table of some million rows."""

import resource
import time

import numpy as np

from detector.astrometry import unit_vectors
from detector.known import Seen, known_objects, matches

DAY = 61_000.0
TRACKS, SIGHTINGS = 1000, 4


def table(objects, rows, seed):
    """Objects all over the sky, each with rows an hour apart, moving by 40 arcsec an hour; unsorted."""
    rng = np.random.default_rng(seed)
    names = np.char.add("A", np.arange(objects).astype(str))
    ra, dec = rng.uniform(0, 360, objects), np.degrees(np.arcsin(rng.uniform(-1, 1, objects)))
    hours = np.arange(rows)[:, None]
    shape = (rows, objects)
    columns = (
        np.broadcast_to(DAY + hours / 24, shape),
        np.broadcast_to(ra, shape),
        np.clip(dec + hours * 40 / 3600, -90, 90),
    )
    return np.tile(names, rows), *(column.reshape(-1).copy() for column in columns)


def main():
    for objects, rows in ((10_000, 10), (100_000, 10), (1_300_000, 2)):
        names, mjd, ra, dec = table(objects, rows, seed=0)
        nothing = np.full(len(ra), np.nan)
        begin = time.perf_counter()
        known = known_objects(names, mjd, ra, dec, nothing, nothing)
        built = time.perf_counter()
        times = DAY + np.linspace(0.1, 0.9, SIGHTINGS) / 24
        chosen = np.random.default_rng(1).choice(objects, TRACKS, replace=False)
        tracks = [
            Seen(
                times,
                unit_vectors(np.full(SIGHTINGS, ra[k]), np.clip(dec[k] + (times - DAY) * 24 * 40 / 3600, -90, 90)),
                np.full(SIGHTINGS, 0.1),
            )
            for k in chosen
        ]
        found = matches(known, tracks, 2.0)
        done = time.perf_counter()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            f"{len(ra):>9,} rows, {TRACKS} tracks: table {built - begin:5.2f} s, matching {done - built:5.2f} s, "
            f"{sum(map(bool, found))} found, {memory:.1f} GB"
        )


if __name__ == "__main__":
    main()
