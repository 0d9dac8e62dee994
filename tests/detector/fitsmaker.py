"""Small FITS files, made in memory by astropy, for the tests that read them with our own eyes."""

import io

import numpy as np
from astropy.io import fits

HEADER = {
    "TELESCOP": "TEST 1m",
    "INSTRUME": "CAM",
    "DATE-OBS": "2020-01-02T03:04:05.5",
    "EXPTIME": 100.0,
    "GAIN": 2.0,
    "RDNOISE": 5.0,
    "SATURATE": 50_000.0,
    "FILTER": "r",
    "MAGZERO": 25.0,
    "EXPNUM": 12,
    "CCDNUM": 3,
    "FIELD": "F1",
    "BUNIT": "ADU",
}
TAN = {
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRVAL1": 150.0,
    "CRVAL2": 2.0,
    "CRPIX1": 32.5,
    "CRPIX2": 24.5,
    "CD1_1": -1e-4,
    "CD1_2": 0.0,
    "CD2_1": 0.0,
    "CD2_2": 1e-4,
}


def header(**changes):
    """A good header with some keywords changed; None removes one."""
    cards = {**HEADER, **TAN, **{name.replace("_OBS", "-OBS"): value for name, value in changes.items()}}
    return fits.Header([(name, value) for name, value in cards.items() if value is not None])


def sky(seed=1, shape=(48, 64), kind="u2"):
    """Poisson noise around 300 counts."""
    return np.random.default_rng(seed).poisson(300, shape).astype(kind)


def file_of(*hdus, checksum=False):
    """The bytes of these HDUs; the first has to be a primary."""
    out = io.BytesIO()
    fits.HDUList(list(hdus)).writeto(out, checksum=checksum)
    return out.getvalue()


def image(pixels=None, cards=None, **kwargs):
    """The bytes of one image."""
    return file_of(fits.PrimaryHDU(sky() if pixels is None else pixels, header() if cards is None else cards), **kwargs)


def compressed(pixels=None, cards=None, **kwargs):
    """The bytes of one tile-compressed image."""
    pixels = sky() if pixels is None else pixels
    return file_of(fits.PrimaryHDU(), fits.CompImageHDU(pixels, header() if cards is None else cards, **kwargs))


def with_card(data, name, value, nth=0):
    """The bytes with the value of a keyword overwritten as it is, right or wrong."""
    place = -1
    for _ in range(nth + 1):
        place = data.index(f"{name:<8}=".encode(), place + 1)
    card = f"{name:<8}= {value:>20}".ljust(80).encode()
    return data[:place] + card + data[place + 80 :]
