"""Pictures for the page: a frame as a grey JPEG, the surroundings of an alert as a small PNG.

Both are turned as DS9 shows them, y upwards. They are made when somebody looks, and kept as long as there is room.
"""

from __future__ import annotations

import io
import textwrap
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

import numpy as np
from astropy.visualization import ZScaleInterval
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from numpy.typing import NDArray

SIDES = {"small": 420, "large": 1400}  # pixels of a frame's picture, at most
CUTOUT_SIDE = 160
ROOM = 1.6  # of a cut-out's side around a streak, in its lengths
LEAST_PX, MOST_PX = 40, 1024  # of the frame in a cut-out
ADDED_PX = 24
CACHE_BYTES = 64 << 20
_JPEG, _PNG = "image/jpeg", "image/png"


class PictureCache:
    """Pictures by what they show; the least looked-at go when they take more than ``most_bytes``."""

    def __init__(self, most_bytes: int = CACHE_BYTES) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._held: OrderedDict[Hashable, tuple[str, bytes]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable, make: Callable[[], tuple[str, bytes]]) -> tuple[str, bytes]:
        """Give kind and bytes of a picture, made now if it is not there."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        made = make()
        with self._lock:
            if key not in self._held:
                self._held[key] = made
                self._bytes += len(made[1])
            while self._bytes > self._most_bytes:
                self._bytes -= len(self._held.popitem(last=False)[1][1])
        return made


def told(sentence: str) -> tuple[str, bytes]:
    """Give an SVG that says, in the place of a picture, why there is none."""
    lines = textwrap.wrap(sentence, 38)[:9]
    words = "".join(f'<tspan x="12" dy="1.25em">{escape(line)}</tspan>' for line in lines)
    return "image/svg+xml", (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 200" width="320" height="200">'
        '<rect width="320" height="200" fill="#20262c"/>'
        f'<text y="8" fill="#fff" font-family="sans-serif" font-size="15">{words}</text></svg>'
    ).encode()


def frame_picture(pixels: NDArray[np.float32], side: int) -> tuple[str, bytes]:
    """Give a frame ``[y, x]`` as a JPEG of at most so many pixels a side, zscale stretch, black where not finite."""
    good = np.isfinite(pixels)
    filled = np.where(good, pixels, np.float32(np.median(pixels[good]) if good.any() else 0.0))
    reduced = np.asarray(_reduced(filled, side))
    low, high = ZScaleInterval().get_limits(reduced)
    holes = np.asarray(_reduced((~good).astype(np.float32), side)) > 0.5
    grey = np.where(holes, 0, _grey(reduced, float(low), float(high)))
    return _JPEG, _encoded(grey.astype(np.uint8), "JPEG", quality=82)


def cut_out(pixels: NDArray[np.float32], ends: tuple[float, float, float, float]) -> tuple[str, bytes]:
    """Give the square around a streak's ends x0, y0, x1, y1 as a PNG; black outside the frame and where not finite."""
    left, bottom, side = cut_out_square(ends)
    square = np.full((side, side), np.nan, np.float32)
    height, width = pixels.shape
    x0, x1 = max(left, 0), min(left + side, width)
    y0, y1 = max(bottom, 0), min(bottom + side, height)
    if x0 < x1 and y0 < y1:
        square[y0 - bottom : y1 - bottom, x0 - left : x1 - left] = pixels[y0:y1, x0:x1]
    good = np.isfinite(square)
    if not good.any():
        return _PNG, _encoded(np.zeros((side, side), np.uint8), "PNG")
    middle = float(np.median(square[good]))
    sigma = 1.4826 * float(np.median(np.abs(square[good] - middle))) or 1.0
    reduced = np.asarray(_reduced(np.where(good, square, middle), CUTOUT_SIDE))
    # A little below the sky to well above it: a faint streak shows, a bright one is white.
    grey = _grey(reduced, middle - 2.0 * sigma, middle + 9.0 * sigma)
    holes = np.asarray(_reduced((~good).astype(np.float32), CUTOUT_SIDE)) > 0.5
    return _PNG, _encoded(np.where(holes, 0, grey).astype(np.uint8), "PNG")


def cut_out_square(ends: tuple[float, float, float, float]) -> tuple[int, int, int]:
    """Give the first column, the first row and the side of the square that shows a streak, in pixels of the frame."""
    x0, y0, x1, y1 = ends
    side = int(min(max(ROOM * float(np.hypot(x1 - x0, y1 - y0)) + ADDED_PX, LEAST_PX), MOST_PX))
    return int(round((x0 + x1) / 2 - (side - 1) / 2)), int(round((y0 + y1) / 2 - (side - 1) / 2)), side


def _reduced(values: NDArray[np.float32], side: int) -> Image.Image:
    """The values ``[y, x]`` as an image of at most so many pixels a side: each the mean of what it covers."""
    picture = Image.fromarray(values.astype(np.float32))
    scale = side / max(picture.size)
    if scale >= 1:
        return picture
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.BOX)


def _grey(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    grey: NDArray[np.float32] = np.clip((values - low) / max(high - low, 1e-30), 0.0, 1.0) * 255.0
    return grey


def _encoded(grey: NDArray[np.uint8], kind: str, **how: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(grey[::-1]).save(buffer, format=kind, **how)
    return buffer.getvalue()
