"""The classical way to find what moves: a catalogue of each exposure, and what moves linearly stays.

After the pipeline of Mahlke et al. 2018 (A&A 610, A21), plainly: sources of every exposure by SExtractor's method;
those with a counterpart at the same place in another exposure are dropped, three or more of the rest kept where they
lie on a path of constant rate and are about equally bright. It needs no trails, and every cosmic ray takes part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import cKDTree

from detector.astrometry import east_north, to_sky, unit_vectors
from detector.sightings import onto

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from detector.frame import Frame

    F8 = NDArray[np.float64]

SIGMA, MIN_PIXELS = 1.5, 5
SAME_PLACE_PX = 2.5
FASTEST_ARCSEC_H = 80.0
ON_PATH_PX = 1.0
LEAST_SHIFT_PX = 2.0
ALIKE_MAG = 0.5
LEAST_SIGHTINGS = 3


def sources(frame: Frame) -> F8:
    """Sources ``[n, 6]`` of a frame as SExtractor's method has them: x, y, half the trail in x and y, mag, peak SNR."""
    import sep  # noqa: PLC0415 - installed for comparisons only

    sep.set_extract_pixstack(20_000_000)
    sep.set_sub_object_limit(100_000)
    masked = frame.mask != 0
    pixels = np.ascontiguousarray(np.where(masked, 0.0, frame.pixels), np.float32)
    background = sep.Background(pixels, mask=masked)
    found = sep.extract(pixels - background, SIGMA, err=background.globalrms, mask=masked, minarea=MIN_PIXELS)
    found = found[(found["flux"] > 0) & np.isfinite(found["theta"])]
    half = np.sqrt(np.maximum(12.0 * (found["a"] ** 2 - found["b"] ** 2), 0.0)) / 2.0
    columns = (
        found["x"],
        found["y"],
        half * np.cos(found["theta"]),
        half * np.sin(found["theta"]),
        -2.5 * np.log10(found["flux"]),
        found["peak"] / background.globalrms,
    )
    return np.stack(columns, axis=-1).astype(np.float64)


def multi_epoch_tracks(frames: Sequence[Frame]) -> dict[str, NDArray[Any]]:
    """The table of tracks of the frames of one CCD and field, one an exposure, in the columns that are judged.

    The score ranks only: how well the sources lie on the path.
    """
    frames = sorted(
        (frame for frame in frames if frame.header.wcs is not None and frame.header.mid_time_mjd_tai is not None),
        key=lambda frame: frame.header.mid_time_mjd_tai or 0.0,
    )
    found = [sources(frame) for frame in frames]
    skies = [
        np.stack(to_sky(frame.header.wcs, one[:, 0], one[:, 1]), axis=1)
        for frame, one in zip(frames, found, strict=True)
    ]
    if not frames or not sum(len(sky) for sky in skies):
        return _table([], frames, found, [])
    vectors = [unit_vectors(sky[:, 0], sky[:, 1]) for sky in skies]
    centre = np.concatenate(vectors).mean(axis=0)
    centre /= np.linalg.norm(centre)
    longitude, latitude = np.degrees(np.arctan2(centre[1], centre[0])), np.degrees(np.arcsin(centre[2]))
    axes = np.stack([*east_north(np.array(longitude), np.array(latitude)), centre])
    places = [onto(axes, one) for one in vectors]
    scale = float(frames[0].header.pixel_scale_arcsec or 1.0)
    moving = [_not_standing(places, k, SAME_PLACE_PX * scale) for k in range(len(frames))]
    hours = np.array([24.0 * (frame.header.mid_time_mjd_tai or 0.0) for frame in frames])
    sets = _linear(
        [place[kept] for place, kept in zip(places, moving, strict=True)],
        [one[kept, 4] for one, kept in zip(found, moving, strict=True)],
        hours,
        scale,
    )
    members = [(score, {k: int(moving[k][j]) for k, j in rows.items()}) for score, rows in sets]
    return _table(members, frames, found, skies)


def _not_standing(places: Sequence[F8], mine: int, within: float) -> NDArray[np.int64]:
    """The sources of one exposure that no other exposure has at their place."""
    kept = np.ones(len(places[mine]), np.bool_)
    for other, place in enumerate(places):
        if other != mine and len(place) and len(kept):
            kept &= cKDTree(place).query(places[mine], distance_upper_bound=within)[0] > within
    return np.flatnonzero(kept)


def _linear(places: Sequence[F8], mags: Sequence[F8], hours: F8, scale: float) -> list[tuple[float, dict[int, int]]]:
    """Sets of at least three sources on a straight path at constant rate; best first, each source once."""
    trees = [cKDTree(place) if len(place) else None for place in places]
    found: list[tuple[float, dict[int, int]]] = []
    for a in range(len(places)):
        for b in range(a + 1, len(places)):
            first, second = trees[a], trees[b]
            others = [k for k in range(len(places)) if k not in (a, b)]
            if first is None or second is None or len(others) < LEAST_SIGHTINGS - 2:
                continue
            reach = FASTEST_ARCSEC_H * (hours[b] - hours[a])
            near = first.query_ball_tree(second, reach)
            one = np.repeat(np.arange(len(near)), [len(row) for row in near])
            two = np.array([j for row in near for j in row], np.int64)
            step = places[b][two] - places[a][one]
            alike = np.abs(mags[a][one] - mags[b][two]) < ALIKE_MAG
            alike &= np.hypot(step[:, 0], step[:, 1]) > LEAST_SHIFT_PX * scale
            one, two, step = one[alike], two[alike], step[alike]
            hits = np.full((len(one), len(others)), -1, np.int64)
            apart = np.zeros((len(one), len(others)))
            for column, k in enumerate(others):
                tree = trees[k]
                if tree is None or not len(one):
                    continue
                wanted = places[a][one] + step * ((hours[k] - hours[a]) / (hours[b] - hours[a]))
                distance, index = tree.query(wanted, distance_upper_bound=ON_PATH_PX * scale)
                there = np.isfinite(distance)
                there[there] &= np.abs(mags[k][index[there]] - mags[a][one[there]]) < ALIKE_MAG
                hits[there, column], apart[there, column] = index[there], distance[there]
            for row in np.flatnonzero((hits >= 0).sum(axis=1) >= LEAST_SIGHTINGS - 2).tolist():
                members = {a: int(one[row]), b: int(two[row])}
                members |= {k: int(hits[row, column]) for column, k in enumerate(others) if hits[row, column] >= 0}
                found.append((len(members) - float(apart[row].sum()) / (2 * ON_PATH_PX * scale), members))
    found.sort(key=lambda one: -one[0])
    used: set[tuple[int, int]] = set()
    kept = []
    for score, members in found:
        if not used & set(members.items()):
            used |= set(members.items())
            kept.append((score, members))
    return kept


def _table(
    sets: Sequence[tuple[float, dict[int, int]]], frames: Sequence[Frame], found: Sequence[F8], skies: Sequence[F8]
) -> dict[str, NDArray[Any]]:
    rows = [
        (number, score, len(members), k, j)
        for number, (score, members) in enumerate(sets)
        for k, j in sorted(members.items())
    ]
    ends = np.array(
        [[*(found[k][j, :2] - found[k][j, 2:4]), *(found[k][j, :2] + found[k][j, 2:4])] for *_, k, j in rows]
    ).reshape(-1, 4)
    sky = np.array([skies[k][j] for *_, k, j in rows]).reshape(-1, 2)
    name = frames[0].header.name if frames else ""
    return {
        "track": np.array([f"{name}/{number}" for number, *_ in rows], np.str_),
        "track_score": np.array([score for _, score, *_ in rows], np.float64),
        "n_sightings": np.array([count for _, _, count, *_ in rows], np.float64),
        "frame": np.array([frames[k].header.name for *_, k, _ in rows], np.str_),
        "extension": np.array([frames[k].header.extension for *_, k, _ in rows], np.float64),
        **{column: ends[:, k] for k, column in enumerate(("x0", "y0", "x1", "y1"))},
        "ra": sky[:, 0],
        "dec": sky[:, 1],
    }
