"""The point spread function of a frame, from its own stars.

The fit of a streak needs the width of the line, and a profile's seeing is a guess. Stars have to be told from what
looks like them: an undersampled frame holds ten thousand cosmic rays, sharper than any star, and galaxies wider than
all. Stars are what has one size at every brightness. At night a frame may show too few (a dark cloud, a small cut-out,
stars trailed by the telescope itself): then ``n_stars`` is 0 and the profile's width stands, and the rows of the frame
are flagged so.

Method: adaptive Gaussian-weighted second moments (Bernstein & Jarvis 2002, AJ 123, 583, section 3) of each isolated
maximum; the densest place of the distribution of sizes; the chosen stars' pixels stacked in radius about sub-pixel
centres; circular Gaussians through the stack by non-negative least squares. What these miss (rings, ellipticity, coma,
spikes, faint wings with several per cent of the light) comes from a second fit to all pixels of the stars: Gaussians
times the polynomials of the first angular orders, their coefficients held small where the stars do not say otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numba import njit, prange
from scipy.optimize import nnls

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.sky import Sky

GAUSSIAN_FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))  # of one sigma

PEAK_SIGMA = 15.0  # of the highest pixel: the moments are then good to a few per cent
REACH_PX = 13  # half the side of the stamp in which moments are taken; its rim is the local sky
SIGMA_RANGE_PX = (0.45, 5.0)  # FWHM of 1.1 to 12 px
# Mean of two opposite neighbours over the peak, sky taken off, along the narrower axis: 0.34 in Euclid frames
# (FWHM 1.6 px), near 0 across a cosmic ray.
NEIGHBOUR_RATIO = 0.15
AXIS_RATIO = 0.35  # of those means along two axes at right angles: a star between two pixels has 0.6
ROUND = 0.12  # largest ellipticity of the weighted moments
CANDIDATES = 4000
PEAKS_PER_ROW = 64
SIZE_WIDTH = 0.05  # natural logarithm of the size: half the width of the window that looks for the stars
MIN_STARS = 8
MOST_STARS = 300
STACK_FWHM = 4.0  # radius of the stack
SAMPLES_PER_FWHM = 8.0  # of the image: a cubic spline through a Gaussian is then good to 1e-4 of its peak
RECENTRINGS = 2  # of the stars on the profile itself: moments miss the centre of an undersampled star
IMAGE_FWHM = 12.0  # radius out to which the stars' pixels are fitted: three per cent of the light lie beyond five FWHM
IMAGE_RADII_PX = (12, 30)  # and its limits
IMAGE_PIXELS = 40_000  # of all stars together: more teach nothing
IMAGE_ROUNDS = 3  # of shape, centres and weights
# Sizes of the Gaussians of each angular order, in units of the core's sigma: coma, ellipticity, three spikes, pixel.
ORDER_SIZES = {1: (0.7, 1.1, 1.7, 2.6), 2: (0.7, 1.1, 1.7, 2.6), 3: (0.9, 1.5, 2.5), 4: (0.9, 1.5, 2.5)}
ROUND_SIZES = 13  # Gaussians of order 0, from half the core's sigma to half the radius
# How large coefficients may be, in units of the peak: a prior that gives way to a few good stars.
ROUND_PRIOR, ORDER_PRIOR = 3.0, 0.05
CENTROID_FWHM = 2.5  # centroids are taken within this many FWHM of the source, as those of faint stars are
STAR_ERROR = 0.02  # of a star's pixel beyond its noise, while its PSF is being measured
OUTLIER_SIGMA = 4.0
MODEL_ERRORS = (0.002, 0.1)  # what a PSF of many good stars is still wrong by, and the most that is believed


@dataclass(frozen=True, eq=False)
class Psf:
    """The effective PSF, the pixel included, as a sum of circular Gaussians.

    ``sigmas`` [k] in pixels and ``weights`` [k], which add up to 1: a star of flux 1 has
    ``sum(weights / (2 pi sigmas**2) * exp(-r**2 / (2 sigmas**2)))`` in the pixel at distance ``r``, nearly.
    ``fwhm_px`` is its width; ``n_stars`` the number of stars measured, 0 when the width is somebody's guess.

    Stars are not round: where there were enough of them, ``image`` ``[n, n]`` (n odd, the source in the middle, y up
    the rows) is what they really look like: the light in a pixel whose centre is so far from the source, every
    ``image_step_px`` pixels. ``model_error`` is what a star's pixel scatters about it beyond the noise, relative.
    """

    sigmas: NDArray[np.float64]
    weights: NDArray[np.float64]
    fwhm_px: float
    n_stars: int
    image: NDArray[np.float64] | None = None
    image_step_px: float = 1.0
    model_error: float = 0.0

    def sampled(self) -> tuple[NDArray[np.float64], float]:
        """The PSF on a square grid about the source, ``[n, n]`` of odd n, and the pixels from one sample to the next.

        Where there is no ``image`` it is drawn from the Gaussians, eight samples a FWHM out to five.
        """
        if self.image is not None:
            return self.image, self.image_step_px
        step = self.fwhm_px / SAMPLES_PER_FWHM
        axis = step * np.arange(-5 * int(SAMPLES_PER_FWHM), 5 * int(SAMPLES_PER_FWHM) + 1)
        square = (axis[:, None] ** 2 + axis[None, :] ** 2)[..., None] / self.sigmas**2
        drawn: NDArray[np.float64] = np.exp(-0.5 * square) @ (self.weights / (2.0 * np.pi * self.sigmas**2))
        return drawn, step

    @classmethod
    def gaussian(cls, fwhm_px: float) -> Psf:
        """A single Gaussian of that width, measured on no star."""
        return cls(np.array([fwhm_px / GAUSSIAN_FWHM]), np.ones(1), fwhm_px, 0)


def measure_psf(
    pixels: NDArray[np.float32],
    mask: NDArray[np.uint8],
    sky: Sky,
    *,
    fallback_fwhm_px: float,
) -> Psf:
    """PSF of ``pixels`` [h, w] where ``mask`` [h, w] is 0; a Gaussian of ``fallback_fwhm_px`` with too few stars."""
    fallback = Psf.gaussian(fallback_fwhm_px)
    if min(pixels.shape) <= 2 * REACH_PX + 2:
        return fallback
    stars = _chosen(_moments_of(pixels, mask, _candidates(pixels, mask, sky)))
    if len(stars) < MIN_STARS:
        return fallback
    sigmas, weights = _gaussians(*_stack(pixels, mask, stars))
    for _ in range(RECENTRINGS):
        stars = _recentred(pixels, mask, stars, sigmas, weights)
        sigmas, weights = _gaussians(*_stack(pixels, mask, stars))
    round_one = Psf(sigmas, weights, _fwhm(sigmas, weights), len(stars))
    return _as_it_is(pixels, mask, stars, round_one, sky)


def _candidates(pixels: NDArray[np.float32], mask: NDArray[np.uint8], sky: Sky) -> NDArray[np.int64]:
    """Maxima [n, 2] (y, x) that are neither cut by the border nor by the mask, nor as sharp as a cosmic ray."""
    columns = np.empty((pixels.shape[0], PEAKS_PER_ROW), np.int32)
    counts = np.zeros(pixels.shape[0], np.int32)
    _find_peaks(pixels, mask, sky.background, sky.noise, sky.pattern, columns, counts)
    rows = np.repeat(np.arange(pixels.shape[0]), counts)
    found = np.stack([rows, columns[np.arange(PEAKS_PER_ROW) < counts[:, None]]], axis=1)
    return found[:: max(1, -(-len(found) // CANDIDATES))]


@njit(cache=True, parallel=True)
def _find_peaks(pixels, mask, background, noise, pattern, columns, counts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    height, width = pixels.shape
    rows, cols = background.shape
    for y in prange(REACH_PX + 1, height - REACH_PX - 1):
        i = min((2 * y + 1) * rows // (2 * height), rows - 1)
        n = 0
        for x in range(REACH_PX + 1, width - REACH_PX - 1):
            j = min((2 * x + 1) * cols // (2 * width), cols - 1)
            level = background[i, j] + pattern[y & 1, x & 1]
            peak = pixels[y, x] - level
            if peak < PEAK_SIGMA * noise[i, j] or n == PEAKS_PER_ROW:
                continue
            highest = True
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    value = pixels[y + dy, x + dx]
                    before = dy < 0 or (dy == 0 and dx < 0)  # of equal pixels the first counts
                    if mask[y + dy, x + dx] != 0 or value > pixels[y, x] or (before and value == pixels[y, x]):
                        highest = False
            if not highest:
                continue
            across = 0.5 * (pixels[y, x - 1] + pixels[y, x + 1]) - level
            along = 0.5 * (pixels[y - 1, x] + pixels[y + 1, x]) - level
            rising = 0.5 * (pixels[y - 1, x - 1] + pixels[y + 1, x + 1]) - level
            falling = 0.5 * (pixels[y - 1, x + 1] + pixels[y + 1, x - 1]) - level
            if min(across, along) < max(NEIGHBOUR_RATIO * peak, AXIS_RATIO * max(across, along)):
                continue
            if min(rising, falling) < 0.5 * AXIS_RATIO * max(rising, falling):
                continue
            columns[y, n] = x
            n += 1
        counts[y] = n


def _moments_of(
    pixels: NDArray[np.float32],
    mask: NDArray[np.uint8],
    candidates: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Rows ``x, y, sigma, ellipticity, amplitude, sky, misfit`` [n, 7] of the candidates whose moments converged."""
    moments = np.empty((len(candidates), 7))
    _adapt(pixels, mask, candidates, moments)
    return moments[np.isfinite(moments).all(axis=1)]


@njit(cache=True, parallel=True)
def _adapt(pixels, mask, candidates, moments):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for n in prange(candidates.shape[0]):
        y0, x0 = candidates[n, 0], candidates[n, 1]
        moments[n, :] = np.nan
        rim = np.empty(16 * REACH_PX)
        count = 0
        clean = True
        for y in range(y0 - REACH_PX, y0 + REACH_PX + 1):
            for x in range(x0 - REACH_PX, x0 + REACH_PX + 1):
                distance = max(abs(y - y0), abs(x - x0))
                if mask[y, x] != 0:
                    clean = clean and distance > 4
                elif distance >= REACH_PX - 1:
                    rim[count] = pixels[y, x]
                    count += 1
        if not clean or count < 4 * REACH_PX:
            continue
        level = np.median(rim[:count])
        xc, yc, sigma = float(x0), float(y0), 1.2
        done = False
        for _ in range(40):
            reach = int(np.ceil(3.0 * sigma))
            reach = min(max(reach, 3), REACH_PX)
            flux = sx = sy = sxx = syy = sxy = squares = 0.0
            for y in range(y0 - reach, y0 + reach + 1):
                for x in range(x0 - reach, x0 + reach + 1):
                    if mask[y, x] != 0:
                        continue
                    dx, dy = x - xc, y - yc
                    weight = np.exp(-0.5 * (dx * dx + dy * dy) / (sigma * sigma))
                    value = weight * (pixels[y, x] - level)
                    flux += value
                    squares += weight * weight
                    sx += value * dx
                    sy += value * dy
                    sxx += value * dx * dx
                    syy += value * dy * dy
                    sxy += value * dx * dy
            if flux <= 0.0:
                break
            mx, my = sx / flux, sy / flux
            xx, yy, xy = sxx / flux - mx * mx, syy / flux - my * my, sxy / flux - mx * my
            if not xx + yy > 0.0:
                break
            # The weight halves both the offset and the second moment of a Gaussian as wide as itself.
            new = np.sqrt(xx + yy)
            change = abs(new - sigma) / sigma + abs(mx) + abs(my)
            sigma, xc, yc = new, xc + 2.0 * mx, yc + 2.0 * my
            if not SIGMA_RANGE_PX[0] < sigma < SIGMA_RANGE_PX[1] or max(abs(xc - x0), abs(yc - y0)) > 1.5:
                break
            if change < 2e-3:
                done = True
                break
        if not done:
            continue
        amplitude = flux / squares
        misfit = 0.0
        near = 0
        for y in range(y0 - reach, y0 + reach + 1):
            for x in range(x0 - reach, x0 + reach + 1):
                square = ((x - xc) ** 2 + (y - yc) ** 2) / (sigma * sigma)
                if mask[y, x] == 0 and square < 9.0:
                    misfit += ((pixels[y, x] - level) / amplitude - np.exp(-0.5 * square)) ** 2
                    near += 1
        moments[n, 0], moments[n, 1], moments[n, 2] = xc, yc, sigma
        moments[n, 3] = np.hypot(xx - yy, 2.0 * xy) / (xx + yy)
        moments[n, 4], moments[n, 5] = amplitude, level
        moments[n, 6] = np.sqrt(misfit / near)


def _chosen(moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """Those of the rows [n, 7] that are stars: round, of the size that is most common for its surroundings, alone.

    Sizes are counted in a sliding window of the logarithm; what both sides hold (galaxies, blends, cosmic rays, which
    have every size) is taken off. The brightest ``MOST_STARS`` are kept.
    """
    rows = moments[moments[:, 3] < ROUND]
    if len(rows) < MIN_STARS:
        return rows[:0]
    size = np.log(rows[:, 2])
    distance = np.abs(size[:, None] - size[None, :])
    inside = (distance < SIZE_WIDTH).sum(axis=1)
    beside = ((distance >= SIZE_WIDTH) & (distance < 4.0 * SIZE_WIDTH)).sum(axis=1) / 3.0
    best = int(np.argmax((inside - beside) / np.sqrt(inside)))
    centre = np.median(size[distance[best] < SIZE_WIDTH])
    stars = rows[np.abs(size - centre) < SIZE_WIDTH]
    stars = stars[stars[:, 6] <= 2.0 * np.median(stars[:, 6])]
    return stars[np.argsort(-stars[:, 4])][:MOST_STARS]


def _stack(
    pixels: NDArray[np.float32],
    mask: NDArray[np.uint8],
    stars: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Radius [px], value and error of the stars' stacked radial profile, 1 in the middle; a row for each ring.

    Medians over the pixels of a ring: a neighbour or a cosmic ray at one star does not show.
    """
    sigma = float(np.median(stars[:, 2]))
    reach = min(int(np.ceil(STACK_FWHM * GAUSSIAN_FWHM * sigma)), REACH_PX)
    grid = np.arange(-reach, reach + 1)
    x = np.rint(stars[:, 0]).astype(np.int64)[:, None, None] + grid[None, None, :]
    y = np.rint(stars[:, 1]).astype(np.int64)[:, None, None] + grid[None, :, None]
    inside = (x >= 0) & (y >= 0) & (x < pixels.shape[1]) & (y < pixels.shape[0])
    x, y = np.clip(x, 0, pixels.shape[1] - 1), np.clip(y, 0, pixels.shape[0] - 1)
    radius = np.hypot(x - stars[:, 0, None, None], y - stars[:, 1, None, None])
    value = (pixels[y, x] - stars[:, 5, None, None]) / stars[:, 4, None, None]
    good = inside & (mask[y, x] == 0) & (radius <= reach)
    radius, value = radius[good], value[good].astype(np.float64)
    # Rings of a sixth of a sigma in the core, wider where the profile is smooth.
    edges = sigma * np.concatenate([np.arange(0.0, 2.5, 1.0 / 6.0), np.geomspace(2.5, reach / sigma + 0.1, 14)])
    rings = [np.flatnonzero((radius >= low) & (radius < high)) for low, high in pairwise(edges)]
    rings = [ring for ring in rings if ring.size >= 5]
    middles = np.array([radius[ring].mean() for ring in rings])
    medians = np.array([np.median(value[ring]) for ring in rings])
    scatter = np.array([np.median(np.abs(value[ring] - np.median(value[ring]))) for ring in rings])
    errors = 1.2533 * 1.4826 * scatter / np.sqrt([ring.size for ring in rings])
    return middles, medians, np.maximum(errors, 1e-3)


def _recentred(
    pixels: NDArray[np.float32],
    mask: NDArray[np.uint8],
    stars: NDArray[np.float64],
    sigmas: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The rows [n, 7] with centres and amplitudes moved to where the profile fits best (one Gauss-Newton step)."""
    reach = min(max(2, int(np.ceil(2.0 * np.median(stars[:, 2])))), REACH_PX)
    grid = np.arange(-reach, reach + 1)
    x, y = (a.ravel() for a in np.meshgrid(grid, grid))
    columns = np.rint(stars[:, 0]).astype(np.int64)[:, None] + x
    rows = np.rint(stars[:, 1]).astype(np.int64)[:, None] + y
    dx, dy = columns - stars[:, :1], rows - stars[:, 1:2]
    heights = weights / sigmas**2
    terms = heights / heights.sum() * np.exp(-0.5 * ((dx**2 + dy**2)[..., None] / sigmas**2))  # n, pixels, k
    profile, fall = terms.sum(axis=-1), (terms / sigmas**2).sum(axis=-1)
    left = (pixels[rows, columns] - stars[:, 5:6]) / stars[:, 4:5] - profile
    # Bright stars are all photon noise; the faintest pixels have the sky's.
    inverse = np.where(mask[rows, columns] == 0, 1.0 / (profile + 0.05), 0.0)
    design = np.stack([profile, fall * dx, fall * dy], axis=-1)
    normal = np.einsum("npi,np,npj->nij", design, inverse, design)
    step = np.linalg.solve(normal, np.einsum("npi,np,np->ni", design, inverse, left)[..., None])[..., 0]
    moved = stars.copy()
    moved[:, 4] *= np.clip(1.0 + step[:, 0], 0.5, 2.0)
    moved[:, :2] += np.clip(step[:, 1:], -0.5, 0.5)
    return moved


def _gaussians(
    radius: NDArray[np.float64],
    value: NDArray[np.float64],
    error: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sigmas [k] and weights [k] of the circular Gaussians whose sum fits the profile."""
    sigmas = np.geomspace(SIGMA_RANGE_PX[0], max(radius.max() / 2.0, 1.0), 16)
    model = np.exp(-0.5 * (radius[:, None] / sigmas) ** 2)
    # Neighbouring Gaussians are nearly alike: a small ridge keeps the search from going in circles.
    system = np.concatenate([model / error[:, None], np.eye(len(sigmas))])
    heights, _ = nnls(system, np.concatenate([value / error, np.zeros(len(sigmas))]), maxiter=100 * len(sigmas))
    weights = heights * 2.0 * np.pi * sigmas**2
    used = weights > 1e-4 * weights.max()  # the profile is 1 in the middle: some Gaussian always fits
    return sigmas[used], weights[used] / weights[used].sum()


def _as_it_is(
    pixels: NDArray[np.float32],
    mask: NDArray[np.uint8],
    stars: NDArray[np.float64],
    guess: Psf,
    sky: Sky,
) -> Psf:
    """The round ``guess`` with the image of the stars ``[n, 7]``, out of round as they are, and its error."""
    core = guess.fwhm_px / GAUSSIAN_FWHM
    radius = int(np.clip(np.ceil(IMAGE_FWHM * guess.fwhm_px), *IMAGE_RADII_PX))
    grid = np.arange(-radius, radius + 1)
    dx, dy = (a.ravel() for a in np.meshgrid(grid, grid))
    disc = np.hypot(dx, dy) <= radius
    dx, dy = dx[disc], dy[disc]
    stars = stars[: max(MIN_STARS, IMAGE_PIXELS // dx.size)]
    x = np.rint(stars[:, :1]).astype(np.int64) + dx
    y = np.rint(stars[:, 1:2]).astype(np.int64) + dy
    inside = (x >= 0) & (y >= 0) & (x < pixels.shape[1]) & (y < pixels.shape[0])
    x, y = np.clip(x, 0, pixels.shape[1] - 1), np.clip(y, 0, pixels.shape[0] - 1)
    good = inside & (mask[y, x] == 0)
    noise = float(np.median(sky.noise))
    rows, columns = sky.background.shape
    level = sky.background[
        (stars[:, 1] * rows / pixels.shape[0]).astype(np.int64).clip(0, rows - 1),
        (stars[:, 0] * columns / pixels.shape[1]).astype(np.int64).clip(0, columns - 1),
    ]
    values = pixels[y, x].astype(np.float64) - sky.pattern[y & 1, x & 1] - level[:, None]
    centres = stars[:, :2].copy()
    heights = guess.weights / (2.0 * np.pi * guess.sigmas**2)
    square = ((x - centres[:, :1]) ** 2 + (y - centres[:, 1:]) ** 2)[..., None]
    model = np.exp(-0.5 * square / guess.sigmas**2) @ heights
    peak = float(heights.sum())
    flux = stars[:, 4] / peak
    prior = _prior(peak)
    near = np.hypot(dx, dy) < 2.0 * guess.fwhm_px
    for turn in range(IMAGE_ROUNDS):
        shape = values / flux[:, None]
        light = np.maximum(model, 0.0)
        variance = (noise**2 + flux[:, None] * light) / flux[:, None] ** 2 + (STAR_ERROR * light) ** 2
        square = (shape - model) ** 2 / variance
        inverse = np.where(good, np.maximum(1.0 - square / OUTLIER_SIGMA**2, 0.0) ** 2, 0.0) / variance
        if turn == 0:
            inverse = np.where(good, 1.0 / (1.0 + square / OUTLIER_SIGMA**2), 0.0) / variance
        terms = _terms(x - centres[:, :1], y - centres[:, 1:], core, radius)
        flat, weight = terms.reshape(-1, terms.shape[-1]), inverse.ravel()
        normal = flat.T @ (flat * weight[:, None]) + np.diag(1.0 / prior**2)
        coefficients = np.linalg.solve(normal, flat.T @ (weight * shape.ravel()))
        # Centres and fluxes anew, by the slopes of the new model near the middle.
        model = terms @ coefficients
        step = 0.02 * core
        east, north = (
            (
                _terms(x[:, near] + a - centres[:, :1], y[:, near] + b - centres[:, 1:], core, radius)
                - _terms(x[:, near] - a - centres[:, :1], y[:, near] - b - centres[:, 1:], core, radius)
            )
            @ coefficients
            / (2.0 * step)
            for a, b in ((step, 0.0), (0.0, step))
        )
        design = np.stack([model[:, near], -east, -north], axis=-1)
        left = (shape - model)[:, near]
        inverse = np.maximum(1.0 - left**2 / variance[:, near] / OUTLIER_SIGMA**2, 0.0) ** 2 / variance[:, near]
        inverse = np.where(good[:, near], inverse, 0.0)
        info = np.einsum("npi,np,npj->nij", design, inverse, design) + 1e-9 * np.eye(3)
        moved = np.linalg.solve(info, np.einsum("npi,np,np->ni", design, inverse, left)[..., None])[..., 0]
        centres += np.clip(moved[:, 1:], -0.3, 0.3)
        flux = flux * np.clip(1.0 + moved[:, 0], 0.7, 1.4)
    square = (shape - model) ** 2 / variance
    bright = good & (model > 0.2 * model.max()) & (square < OUTLIER_SIGMA**2)
    return _drawn(guess, coefficients, core, radius, _excess((shape - model)[bright], model[bright], variance[bright]))


def _terms(x: NDArray[np.float64], y: NDArray[np.float64], core: float, radius: int) -> NDArray[np.float64]:
    """The functions ``[..., k]`` of which the PSF is made up, at offsets from the source; each at most about 1."""
    square = x * x + y * y
    sizes = np.geomspace(0.5 * core, 0.5 * radius, ROUND_SIZES)
    terms = [np.exp(-0.5 * square / size**2) for size in sizes]
    turned = x + 1j * y
    for order, factors in ORDER_SIZES.items():
        power = turned**order
        for factor in factors:
            size = factor * core
            # Largest at r = sqrt(order) * size.
            scaled = power * np.exp(0.5 * order - 0.5 * square / size**2) / (size * np.sqrt(order)) ** order
            terms += [scaled.real, scaled.imag]
    return np.stack(terms, axis=-1)


def _prior(peak: float) -> NDArray[np.float64]:
    """How large the coefficients of ``_terms`` may be."""
    others = 2 * sum(len(factors) for factors in ORDER_SIZES.values())
    return peak * np.concatenate([np.full(ROUND_SIZES, ROUND_PRIOR), np.full(others, ORDER_PRIOR)])


def _excess(left: NDArray[np.float64], model: NDArray[np.float64], variance: NDArray[np.float64]) -> float:
    """By how much, relative, pixels scatter about the model beyond their noise; ``variance`` holds ``STAR_ERROR``."""
    if left.size < MIN_STARS:
        return STAR_ERROR
    noise = variance - (STAR_ERROR * model) ** 2
    scatter = (1.4826 * np.median(np.abs(left / model))) ** 2 - np.median(noise / model**2)
    return float(np.clip(np.sqrt(max(scatter, 0.0)), *MODEL_ERRORS))


def _drawn(guess: Psf, coefficients: NDArray[np.float64], core: float, radius: int, error: float) -> Psf:
    """The PSF with its image, moved so that its centroid is the source, as star catalogues have it."""
    step = guess.fwhm_px / SAMPLES_PER_FWHM
    half = int(np.ceil(radius / step))
    axis = step * np.arange(-half, half + 1)
    x, y = np.meshgrid(axis, axis)
    image = _terms(x, y, core, radius) @ coefficients
    near = image * (np.hypot(x, y) < CENTROID_FWHM * guess.fwhm_px)
    image = _terms(x + (near * x).sum() / near.sum(), y + (near * y).sum() / near.sum(), core, radius) @ coefficients
    sizes = np.geomspace(0.5 * core, 0.5 * radius, ROUND_SIZES)
    total = float(np.sum(coefficients[:ROUND_SIZES] * 2.0 * np.pi * sizes**2))
    inside = float(image.sum() * step**2)
    if not 0.8 * inside < total < 1.25 * inside or image[half, half] <= 0.0:
        return guess
    r = np.linspace(0.0, radius, 64 * radius + 1)
    profile = _terms(r, np.zeros_like(r), core, radius)[:, :ROUND_SIZES] @ coefficients[:ROUND_SIZES]
    if profile[0] <= 0.0:
        return guess
    shape = profile[::8] / profile[0]
    try:
        sigmas, weights = _gaussians(r[::8], shape, np.hypot(0.01 * shape, 1e-4))
    except RuntimeError:  # nnls gave up: the round ones of before do
        sigmas, weights = guess.sigmas, guess.weights
    fwhm_px = 2.0 * float(r[np.argmax(profile < 0.5 * profile[0])])
    return Psf(sigmas, weights, fwhm_px, guess.n_stars, image / total, step, error)


def _fwhm(sigmas: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Full width in pixels at half the maximum of the sum of Gaussians, by bisection."""
    heights = weights / sigmas**2
    low, high = 0.0, 3.0 * float(sigmas.max())
    for _ in range(60):
        middle = 0.5 * (low + high)
        above = float(np.sum(heights * np.exp(-0.5 * (middle / sigmas) ** 2))) > 0.5 * float(heights.sum())
        low, high = (middle, high) if above else (low, middle)
    return 2.0 * low
