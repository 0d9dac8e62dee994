"""Point-spread functions as cameras really have them: pupils with struts, seeing with wings, and the pixel.

A network that knew only round Gaussians would take the spikes of every bright star for streaks, and one that knew one
width only would be lost at any other telescope. So the optics are drawn for each frame: diffraction at an obscured
pupil over a broad band (Euclid), Moffat and Kolmogorov seeing, Gaussians with wings; out of round, with coma.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

from models.simulate.asteroids import Kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

# VIS passes 550-900 nm: five wavelengths over +-22 % of the middle blur the rings that a single one would show.
WAVELENGTHS = (0.78, 0.89, 1.0, 1.11, 1.22)
# Samples across the FWHM: bilinear interpolation between them then errs by less than a per cent at the peak.
SAMPLES_PER_FWHM = 8.0
# Centroids are taken within this many sizes of the source, as those of faint stars are.
CENTROID_RADIUS = 3.0


@dataclass(frozen=True)
class Optics:
    """What forms the PSF of one frame.

    ``kind`` is ``pupil``, ``moffat``, ``kolmogorov`` or ``gaussian``; ``size_px`` is lambda / D for a pupil, else the
    FWHM before the pixel, in pixels. ``jitter_px`` is the sigma of a further Gaussian blur. ``obscuration``,
    ``strut_width`` (both in units of the pupil's diameter), ``struts`` and ``strut_angle_deg`` describe the pupil, or
    where there is none the spikes, which then hold ``spike_share`` of the light. ``coma`` is the share of light in a
    one-sided tail, ``wing_share`` that in a halo of a Moffat of exponent 1.6 (scattering, aureole).
    """

    kind: str
    size_px: float
    jitter_px: float = 0.0
    beta: float = 3.0
    obscuration: float = 0.0
    struts: int = 0
    strut_width: float = 0.0
    strut_angle_deg: float = 0.0
    spike_share: float = 0.0
    ellipticity: float = 0.0
    angle_deg: float = 0.0
    coma: float = 0.0
    wing_share: float = 0.0

    @property
    def fwhm_px(self) -> float:
        """The FWHM with jitter and pixel, added in quadrature: for choices of scale, not for truth tables."""
        return float(np.sqrt(self.size_px**2 + (2.35 * self.jitter_px) ** 2 + 0.8))


@dataclass(frozen=True, eq=False)
class PointSpread:
    """A PSF for drawing: ``core`` is finely sampled and sums to 1 pixel-wise; ``wings`` are what lies beyond it.

    ``wings`` is sampled once a pixel, and sums to ``wing_share``, the part of a star's light outside the core.
    """

    core: Kernel
    wings: Kernel
    wing_share: float


def point_spread(optics: Optics, *, extent_px: int) -> PointSpread:
    """The effective PSF (pixel included) of ``optics`` out to ``extent_px`` pixels."""
    oversampling = int(np.clip(np.ceil(SAMPLES_PER_FWHM / optics.fwhm_px), 3, 7))
    n = fft.next_fast_len(2 * extent_px * oversampling, real=True)
    n += n % 2
    light = _pupil_light(optics, n, oversampling) if optics.kind == "pupil" else _seeing_light(optics, n, oversampling)
    light = _with_wings(light, optics, oversampling)
    full = _through_the_pixel(light, optics, oversampling)
    fwhm = 2.0 * float(np.sqrt(np.count_nonzero(full > 0.5 * full.max()) / np.pi)) / oversampling
    return _split(full, oversampling, fwhm, extent_px)


def _offsets(n: int, oversampling: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """X and y offsets from the middle sample, in pixels, as a row and a column."""
    axis = (np.arange(n) - n // 2) / oversampling
    return axis[None, :], axis[:, None]


def _pupil_light(optics: Optics, n: int, oversampling: int) -> NDArray[np.float64]:
    """Diffraction at an annular pupil with struts and a little coma and astigmatism, over a band of wavelengths."""
    light = np.zeros((n, n))
    for wavelength in WAVELENGTHS:
        diameter = n / (oversampling * optics.size_px * wavelength)  # in samples of the pupil's plane
        axis = (np.arange(n) - n // 2) / (0.5 * diameter)
        inside = np.flatnonzero(np.abs(axis) < 1.1)
        x, y = axis[None, inside], axis[inside, None]
        r = np.hypot(x, y)
        edge = 0.25 * diameter
        pupil = np.clip((1.0 - r) * edge + 0.5, 0, 1) * np.clip((r - optics.obscuration) * edge + 0.5, 0, 1)
        for k in range(optics.struts):
            angle = np.radians(optics.strut_angle_deg + 360.0 * k / optics.struts)
            along, across = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
            pupil *= 1.0 - (along > 0) * np.clip((optics.strut_width - np.abs(across)) * edge + 0.5, 0, 1)
        angle = np.radians(optics.angle_deg)
        tilt = x * np.cos(angle) + y * np.sin(angle)
        waves = (optics.coma * (3.0 * r**2 - 2.0) * tilt + optics.ellipticity * (2.0 * tilt**2 - r**2)) / wavelength
        field = np.zeros((n, n), np.complex64)
        field[np.ix_(inside, inside)] = pupil * np.exp(2j * np.pi * waves)
        # Where the pupil lies in its plane changes the phase of its transform only, which the intensity forgets.
        transform = fft.fft2(field)
        light += transform.real**2 + transform.imag**2
    return fft.fftshift(light / light.sum())


def _seeing_light(optics: Optics, n: int, oversampling: int) -> NDArray[np.float64]:
    """Seeing: an elliptical Moffat, Gaussian or Kolmogorov profile, and the spikes of the struts."""
    x, y = _offsets(n, oversampling)
    angle = np.radians(optics.angle_deg)
    stretch = np.sqrt((1.0 + optics.ellipticity) / (1.0 - optics.ellipticity))
    u = (x * np.cos(angle) + y * np.sin(angle)) / np.sqrt(stretch)
    v = (-x * np.sin(angle) + y * np.cos(angle)) * np.sqrt(stretch)
    r2 = (u * u + v * v) / (0.5 * optics.size_px) ** 2  # in half widths
    if optics.kind == "moffat":
        light = (1.0 + (2.0 ** (1.0 / optics.beta) - 1.0) * r2) ** -optics.beta
    elif optics.kind == "gaussian":
        light = 0.5**r2
    elif optics.kind == "kolmogorov":
        # Two Moffats stand for Kolmogorov's profile to a per cent out to ten half widths (Racine 1996, PASP 108, 699).
        light = 0.86 * (1.0 + 0.0989 * r2) ** -7.0 + 0.14 * (1.0 + 0.374 * r2) ** -2.0
    else:
        raise ValueError(f"no such kind of PSF: {optics.kind!r}; known are pupil, moffat, kolmogorov, gaussian")
    light /= light.sum()
    if optics.coma:
        shift = round(0.6 * optics.size_px * oversampling)
        columns, rows = round(shift * np.cos(angle)), round(shift * np.sin(angle))
        light = (1.0 - optics.coma) * light + optics.coma * np.roll(light, (rows, columns), axis=(0, 1))
    if optics.spike_share:
        spikes = _spikes(optics, x, y)
        light = (1.0 - optics.spike_share) * light + optics.spike_share * spikes / spikes.sum()
    return light


def _spikes(optics: Optics, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Diffraction spikes: a star's width across, fading as the square of the distance along."""
    spikes = np.zeros(np.broadcast_shapes(x.shape, y.shape))
    for angle in np.radians(spike_angles_deg(optics)):
        along, across = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
        spikes += 0.5 ** ((across / (0.5 * optics.size_px)) ** 2) / (1.0 + (along / (2.0 * optics.size_px)) ** 2)
    return spikes


def spike_angles_deg(optics: Optics) -> list[float]:
    """Directions of the lines that spikes make through a star: opposite struts of an even number share theirs."""
    across = 90.0 if optics.kind == "pupil" else 0.0  # light is diffracted at right angles to a strut
    lines = optics.struts // 2 if optics.struts % 2 == 0 else optics.struts
    return [optics.strut_angle_deg + across + 360.0 * k / optics.struts for k in range(lines)]


def _with_wings(light: NDArray[np.float64], optics: Optics, oversampling: int) -> NDArray[np.float64]:
    x, y = _offsets(light.shape[0], oversampling)
    halo = (1.0 + (x * x + y * y) / (2.0 * optics.size_px) ** 2) ** -1.6
    mixed: NDArray[np.float64] = (1.0 - optics.wing_share) * light + optics.wing_share * halo / halo.sum()
    return mixed


def _through_the_pixel(light: NDArray[np.float64], optics: Optics, oversampling: int) -> NDArray[np.float64]:
    """``light`` integrated over the pixel, blurred by the jitter, and moved so that its centroid is the source.

    An astrometric solution does the same: it cannot know where a comatic image "really" was.
    """
    n = light.shape[0]
    x, y = _offsets(n, oversampling)
    inner = light * (np.hypot(x, y) < CENTROID_RADIUS * optics.size_px)
    dx, dy = (float((inner * axis).sum() / inner.sum()) for axis in (x, y))
    fx, fy = fft.rfftfreq(n, 1.0 / oversampling)[None, :], fft.fftfreq(n, 1.0 / oversampling)[:, None]
    along_x, along_y = (
        np.sinc(f) * np.exp(-2.0 * (np.pi * optics.jitter_px * f) ** 2 + 2j * np.pi * f * d)
        for f, d in ((fx, dx), (fy, dy))
    )
    blurred: NDArray[np.float64] = fft.irfft2(fft.rfft2(fft.ifftshift(light)) * along_x * along_y, s=light.shape)
    return np.maximum(fft.fftshift(blurred), 0.0)


def _split(full: NDArray[np.float64], oversampling: int, fwhm_px: float, extent_px: int) -> PointSpread:
    """Core and wings, with a smooth passage from one to the other so that no star shows a rim."""
    middle = full.shape[0] // 2
    radius = int(min(np.clip(np.ceil(12.0 * fwhm_px), 16, 32), extent_px - 1))
    x, y = _offsets(full.shape[0], oversampling)
    passage = np.clip((radius - np.hypot(x, y)) / (0.3 * radius), 0.0, 1.0)
    inner = slice(middle - radius * oversampling, middle + radius * oversampling + 1)
    core = (full * passage)[inner, inner]
    core *= oversampling**2 / core.sum()
    coarse = slice(middle % oversampling, None, oversampling)
    wings = (full * (1.0 - passage))[coarse, coarse] * oversampling**2
    reach = min(extent_px, wings.shape[0] // 2 - 1)
    centre = middle // oversampling
    wings = wings[centre - reach : centre + reach + 1, centre - reach : centre + reach + 1] / full.sum()
    distance = np.hypot(*np.ogrid[-reach : reach + 1, -reach : reach + 1])
    wings = wings * np.clip(4.0 * (1.0 - distance / reach), 0.0, 1.0)  # no square about a bright star
    return PointSpread(
        core=Kernel(core.astype(np.float32), oversampling, fwhm_px),
        wings=Kernel(wings.astype(np.float32), 1, fwhm_px),
        wing_share=float(wings.sum()),
    )


def draw_optics(rng: np.random.Generator, kind: str) -> Optics:
    """The optics of one frame of a camera: ``euclid-vis``, ``kids-omegacam``, ``subaru-hsc`` or ``generic``."""
    if kind == "euclid-vis":
        return _draw_pupil(rng, lambda_over_d_px=rng.uniform(1.25, 1.6), struts=3)
    if kind == "kids-omegacam":
        return _draw_seeing(rng, fwhm_px=rng.uniform(0.5, 1.2) / 0.214, struts=4)
    if kind == "subaru-hsc":
        return _draw_seeing(rng, fwhm_px=rng.uniform(0.45, 1.0) / 0.168, struts=4)
    if kind == "generic":
        if rng.random() < 0.25:
            return _draw_pupil(rng, lambda_over_d_px=rng.uniform(0.8, 3.0), struts=int(rng.integers(3, 5)))
        fwhm_px = np.exp(rng.uniform(np.log(1.2), np.log(5.0)))
        return _draw_seeing(rng, fwhm_px=fwhm_px, struts=int(rng.choice([0, 0, 3, 4])))
    raise ValueError(f"no such kind of frame: {kind!r}; known are euclid-vis, kids-omegacam, subaru-hsc, generic")


def _draw_pupil(rng: np.random.Generator, *, lambda_over_d_px: float, struts: int) -> Optics:
    return Optics(
        kind="pupil",
        size_px=lambda_over_d_px,
        jitter_px=rng.uniform(0.3, 0.55),
        obscuration=rng.uniform(0.25, 0.4),
        struts=struts,
        strut_width=rng.uniform(0.008, 0.025),
        strut_angle_deg=rng.uniform(0.0, 360.0),
        ellipticity=abs(rng.normal(0.0, 0.04)),
        angle_deg=rng.uniform(0.0, 360.0),
        coma=abs(rng.normal(0.0, 0.02)),
        wing_share=rng.uniform(0.0, 0.04),
    )


def _draw_seeing(rng: np.random.Generator, *, fwhm_px: float, struts: int) -> Optics:
    return Optics(
        kind=str(rng.choice(["moffat", "moffat", "moffat", "kolmogorov", "gaussian"])),
        size_px=float(np.sqrt(max(fwhm_px**2 - 0.8, 0.5))),
        beta=rng.uniform(2.5, 4.5),
        struts=struts,
        strut_angle_deg=float(rng.choice([0.0, 45.0, rng.uniform(0.0, 90.0)])),
        spike_share=rng.uniform(0.001, 0.01) if struts else 0.0,
        ellipticity=min(0.2, abs(rng.normal(0.0, 0.05))),
        angle_deg=rng.uniform(0.0, 360.0),
        coma=float(rng.choice([0.0, 0.0, rng.uniform(0.0, 0.25)])),
        wing_share=rng.uniform(0.0, 0.04),
    )
