"""Galaxies in encounters, and what is none: isolated ones and chance pairs, drawn by the same painter."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from models.simulate.scenes import (
    Scene,
    add_spiral,
    draw_magnitude,
    draw_radius_arcsec,
    empty,
    near_middle,
    spread_evenly,
)

if TYPE_CHECKING:
    import numpy as np

    from models.simulate.viewing import View

NON_MERGERS = {"isolated": 0.6, "chance-pair": 0.4}


def draw_merger(view: View, rng: np.random.Generator, *, settings: str = "training") -> Scene:
    """Two discs in contact, with open one-armed tails."""
    del settings
    magnitude = draw_magnitude(rng, view.conditions.kind)
    flux = view.conditions.electrons(magnitude)
    radius = draw_radius_arcsec(rng, magnitude)
    light = empty(view)
    place = near_middle(view, rng)
    share = rng.uniform(0.1, 0.5)
    separation = radius * rng.uniform(0.3, 3.0) * view.points_per_arcsec
    turn = rng.uniform(0.0, 2.0 * math.pi)
    add_spiral(view, light, rng, place, flux * (1.0 - share), radius, ratio=rng.uniform(0.3, 1.0), contrast=0.9)
    other = place[0] + separation * math.cos(turn), place[1] + separation * math.sin(turn)
    add_spiral(
        view, light, rng, other, flux * share, radius * rng.uniform(0.4, 1.0), ratio=rng.uniform(0.3, 1.0), contrast=0.9
    )
    truth = {"magnitude": magnitude, "separation_arcsec": separation / view.points_per_arcsec, "stage": rng.random()}
    return Scene("merger", light, truth=truth)


def draw_non_merger(view: View, rng: np.random.Generator, kind: str, *, settings: str = "training") -> Scene:
    """A galaxy of its own, or two that happen to be near each other on the sky."""
    del settings
    magnitude = draw_magnitude(rng, view.conditions.kind)
    flux = view.conditions.electrons(magnitude)
    radius = draw_radius_arcsec(rng, magnitude)
    light = empty(view)
    place = near_middle(view, rng)
    share = spread_evenly(rng, 0.05, 0.5) if kind == "chance-pair" else 0.0
    add_spiral(
        view,
        light,
        rng,
        place,
        flux * (1.0 - share),
        radius,
        ratio=rng.uniform(0.15, 1.0),
        contrast=rng.uniform(0.0, 0.9),
    )
    if share:
        separation = rng.uniform(1.0, 5.0) * view.points_per_arcsec
        turn = rng.uniform(0.0, 2.0 * math.pi)
        other = place[0] + separation * math.cos(turn), place[1] + separation * math.sin(turn)
        add_spiral(
            view,
            light,
            rng,
            other,
            flux * share,
            radius * rng.uniform(0.4, 1.5),
            ratio=rng.uniform(0.15, 1.0),
            contrast=rng.uniform(0.0, 0.9),
        )
    return Scene(kind, light, truth={"magnitude": magnitude})
