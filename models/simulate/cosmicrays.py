"""Cosmic rays: charge laid down in the silicon itself, and therefore never blurred by the optics.

They are the impostors that outnumber asteroids a thousand to one in space: some 10,000 tracks in a Euclid frame of
565 s, with 1.4 % of its pixels (the default of ESA's VIS simulator). What tells them from a streak is that their
edges are sharper than the PSF; a simulator that blurred them, or made them all bright, would train a network to
shrug at the real ones. Muons go straight (their projected length follows from an isotropic flux through a slab),
slow electrons curl, and many hits are a pixel or two; charge diffuses a little before it is collected.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, cos, erf, exp, floor, log, pi, sin, sqrt
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Tracks are started in a rim around the image too, so that some enter it from outside.
RIM_PX = 48
LONGEST_PX = 1500.0
# Deposits along a track: so close that a pixel is never skipped.
DEPOSITS_PER_PX = 5.0


@dataclass(frozen=True)
class Rays:
    """The mix of tracks in one frame.

    ``median_length_px`` is that of the straight tracks, ``electrons_per_px`` their median charge for each pixel of
    length, ``spread`` its natural-logarithmic scatter from track to track. ``worm_share`` and ``hit_share`` are the
    fractions of curling tracks and of hits of a pixel or two. A ``fixed_charge_share`` of the straight ones carries a
    charge that does not grow with length (as in the VIS simulator's tables), which makes long faint tracks.
    ``diffusion_px`` is the sigma of the charge cloud at the far side of the silicon.
    """

    median_length_px: float = 10.0
    electrons_per_px: float = 500.0
    spread: float = 0.8
    worm_share: float = 0.1
    hit_share: float = 0.15
    fixed_charge_share: float = 0.3
    diffusion_px: float = 0.2


def add_cosmic_rays(image: NDArray[np.float32], count: float, seed: int, *, rays: Rays | None = None) -> None:
    """Cosmic-ray charge (electrons) added to the float32 ``image`` ``[h, w]`` in place, which the caller must own.

    ``count`` is the expected number of tracks whose middle lies in the image; the number is drawn from a Poisson law.
    """
    mix = Rays() if rays is None else rays
    _add_cosmic_rays(
        image,
        np.random.default_rng(seed),
        float(count),
        mix.median_length_px,
        mix.electrons_per_px,
        mix.spread,
        mix.worm_share,
        mix.hit_share,
        mix.fixed_charge_share,
        mix.diffusion_px,
    )


@njit(cache=True, nogil=True)
def _add_cosmic_rays(
    image: NDArray[np.float32],
    rng: np.random.Generator,
    count: float,
    median_length: float,
    electrons_per_px: float,
    spread: float,
    worm_share: float,
    hit_share: float,
    fixed_share: float,
    diffusion: float,
) -> None:
    height, width = image.shape
    grown = count * (height + 2 * RIM_PX) * (width + 2 * RIM_PX) / (height * width)
    for _ in range(rng.poisson(grown)):
        x = rng.uniform(-RIM_PX - 0.5, width + RIM_PX - 0.5)
        y = rng.uniform(-RIM_PX - 0.5, height + RIM_PX - 0.5)
        angle = rng.uniform(0.0, 2.0 * pi)
        charge_px = electrons_per_px * exp(spread * rng.standard_normal())
        kind = rng.random()
        if kind < worm_share:
            _add_worm(image, rng, x, y, angle, charge_px, median_length, diffusion)
        elif kind < worm_share + hit_share:
            _add_straight(image, rng, x, y, angle, 0.7 * rng.random(), charge_px, diffusion)
        else:
            # An isotropic flux crosses a slab of thickness d at tan(theta) = l / d: P(< l) = l^2 / (l^2 + d^2).
            u = rng.random()
            length = min(LONGEST_PX, median_length * sqrt(u / (1.0 - u + 1e-12)))
            if rng.random() < fixed_share:
                charge_px *= median_length / max(length, 1.0)
            _add_straight(image, rng, x, y, angle, length, charge_px, diffusion)


@njit(cache=True, nogil=True)
def _add_straight(
    image: NDArray[np.float32],
    rng: np.random.Generator,
    x: float,
    y: float,
    angle: float,
    length: float,
    charge_px: float,
    diffusion: float,
) -> None:
    """A straight track about (x, y), its energy loss jumping along it, its charge cloud widest at the far side."""
    n = max(1, ceil(length * DEPOSITS_PER_PX))
    dx, dy = cos(angle), sin(angle)
    per_deposit = charge_px * max(length, 1.0) / n
    loss = 1.0
    for m in range(n):
        if m % int(DEPOSITS_PER_PX) == 0:
            loss = _energy_loss(rng)
        t = (m + 0.5) / n
        s = (t - 0.5) * length
        _deposit(image, x + s * dx, y + s * dy, per_deposit * loss, diffusion * sqrt(t))


@njit(cache=True, nogil=True)
def _add_worm(
    image: NDArray[np.float32],
    rng: np.random.Generator,
    x: float,
    y: float,
    angle: float,
    charge_px: float,
    median_length: float,
    diffusion: float,
) -> None:
    """A slow electron: it scatters ever more as it loses energy, and leaves most of its charge at the end."""
    length = median_length * exp(0.7 * rng.standard_normal())
    n = max(2, ceil(min(length, 200.0) * DEPOSITS_PER_PX))
    per_deposit = charge_px / DEPOSITS_PER_PX
    bend = rng.uniform(0.05, 0.35)
    for m in range(n):
        left = 1.0 - m / n
        angle += bend * rng.standard_normal() / sqrt(left + 0.02)
        x += cos(angle) / DEPOSITS_PER_PX
        y += sin(angle) / DEPOSITS_PER_PX
        _deposit(image, x, y, per_deposit / (left + 0.15), diffusion)


@njit(cache=True, nogil=True)
def _energy_loss(rng: np.random.Generator) -> float:
    """A Landau-like factor of mean near 1 (Moyal's form): mostly 0.8, sometimes several."""
    z = rng.standard_normal()
    moyal = -log(max(z * z, 1e-4))  # the negative logarithm of a chi-squared of one degree is Moyal-distributed
    return max(0.3, 0.75 + 0.2 * moyal)


@njit(cache=True, nogil=True)
def _deposit(image: NDArray[np.float32], x: float, y: float, charge: float, sigma: float) -> None:
    """A Gaussian cloud of charge integrated over the 3 x 3 pixels about it; a point when it is narrower than 0.05."""
    height, width = image.shape
    cx, cy = floor(x + 0.5), floor(y + 0.5)
    if sigma < 0.05:
        if 0 <= cx < width and 0 <= cy < height:
            image[cy, cx] += np.float32(charge)
        return
    if cx < -1 or cy < -1 or cx > width or cy > height:
        return
    scale = 1.0 / (sqrt(2.0) * sigma)
    left, right = 0.5 * (1.0 + erf((cx - 0.5 - x) * scale)), 0.5 * (1.0 + erf((cx + 0.5 - x) * scale))
    below, above = 0.5 * (1.0 + erf((cy - 0.5 - y) * scale)), 0.5 * (1.0 + erf((cy + 0.5 - y) * scale))
    for j in range(3):
        row = cy - 1 + j
        if row < 0 or row >= height:
            continue
        share_y = below if j == 0 else (above - below if j == 1 else 1.0 - above)
        for i in range(3):
            column = cx - 1 + i
            if 0 <= column < width:
                share_x = left if i == 0 else (right - left if i == 1 else 1.0 - right)
                image[row, column] += np.float32(charge * share_x * share_y)
