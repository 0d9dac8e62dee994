"""A frame as a person wants to see it: a PNG with its streaks drawn, so that a night can be judged by eye.

Each streak stands in a frame of its own instead of under a line, for what is to be judged is the light inside. The
picture is turned as DS9 shows it: y upwards. Lenses and mergers stand in circles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from astropy.visualization import ZScaleInterval
from PIL import Image, ImageDraw, ImageFont

from detector.streaks import StreakFlag
from stream.candidatetable import KINDS, rows_of
from stream.tables import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from detector.frame import Frame
    from detector.streaks import Findings
    from stream.candidatetable import Class

LARGEST_SIDE = 2048  # pixels of the picture: more does not fit on a screen
SMALLEST_SIDE = 768  # smaller frames are enlarged, else the labels cover them
MOST_LABELS = 200  # more than that is a wall of text; the table has them all
FONT_SIZE = 13
_MARGIN = 5.0  # picture pixels between a streak and its box
_WHOLE = (90, 240, 120)
_AT_BORDER = (255, 180, 60)
_CLASSES: dict[Class, tuple[int, int, int]] = {"lenses": (255, 240, 80), "mergers": (90, 220, 255)}
_RADIUS = 26.0  # picture pixels of the circle about a candidate


def draw_picture(path: Path, frame: Frame, findings: Findings) -> None:
    """Write ``path`` (PNG): the frame in grey, each streak boxed with its score, orange where it touches the border.

    Lenses are circled in yellow, mergers in blue, each with its probability.
    """
    scale, grey = scaled(frame.pixels)  # masked ones too: a saturated star is white, not a hole
    height = grey.shape[0]
    picture = Image.fromarray(grey[::-1]).convert("RGB")
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(FONT_SIZE)
    for rank, row in enumerate(findings.streaks):
        ends = (np.array([[row["x0"], row["y0"]], [row["x1"], row["y1"]]]) + 0.5) * scale
        ends[:, 1] = height - ends[:, 1]
        border = StreakFlag(int(row["flags"])) & (StreakFlag.EDGE | StreakFlag.CROSSES)
        colour = _AT_BORDER if border else _WHOLE
        corners = box(ends, _MARGIN)
        pen.polygon([tuple(corner) for corner in corners.tolist()], outline=colour)
        if rank < MOST_LABELS:
            _label(pen, f"{row['score']:.2f}", corners, colour=colour, font=font, size=picture.size)
    header = findings.header
    told = [f"{len(findings.streaks)} streaks"]
    for name in _CLASSES:
        if name in findings.models:
            _draw_candidates(pen, findings, name, scale, size=picture.size, font=font)
            told.append(f"{len(rows_of(findings, name))} {name}")
    title = f"{header.name} [{header.extension}]  {', '.join(told)}  {' '.join(findings.flags)}"
    captioned = Image.new("RGB", (picture.width, picture.height + FONT_SIZE + 7))
    captioned.paste(picture, (0, FONT_SIZE + 7))
    ImageDraw.Draw(captioned).text((4, 2), title, fill=(255, 255, 255), font=font)
    with replacing(path) as partial:
        captioned.save(partial, format="PNG")


def _draw_candidates(
    pen: ImageDraw.ImageDraw,
    findings: Findings,
    name: Class,
    scale: float,
    *,
    size: tuple[int, int],
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> None:
    """A circle about each candidate of a class, with its probability."""
    colour = _CLASSES[name]
    for row in rows_of(findings, name):
        x, y = (row["x"] + 0.5) * scale, size[1] - (row["y"] + 0.5) * scale
        pen.ellipse((x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS), outline=colour)
        corners = np.array([[x + _RADIUS, y]])
        _label(pen, f"{KINDS[name]} {row['probability']:.2f}", corners, colour=colour, font=font, size=size)


def scaled(pixels: NDArray[np.float32]) -> tuple[float, NDArray[np.uint8]]:
    """Picture pixels per frame pixel, and the grey picture ``[y, x]``: binned or enlarged, zscale stretch, NaN black.

    ``pixels`` is ``[h, w]``; what is not finite is left out.
    """
    side = max(pixels.shape)
    binning = -(-side // LARGEST_SIDE)
    enlarged = max(1, SMALLEST_SIDE // side)
    values = binned(pixels, binning)
    good = values[np.isfinite(values)]
    low, high = ZScaleInterval().get_limits(good) if good.size else (0.0, 1.0)
    grey = np.clip((values - low) / max(high - low, 1e-30), 0.0, 1.0)
    whole = np.nan_to_num(grey * 255.0).astype(np.uint8)
    return enlarged / binning, whole.repeat(enlarged, axis=0).repeat(enlarged, axis=1)


def binned(pixels: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """The mean of the finite pixels of each ``factor`` x ``factor`` block; NaN where there is none.

    The last blocks of a side may hold fewer pixels.
    """
    height, width = (-(-size // factor) for size in pixels.shape)
    padded = np.full((height * factor, width * factor), np.nan, np.float32)
    padded[: pixels.shape[0], : pixels.shape[1]] = pixels
    blocks = padded.reshape(height, factor, width, factor)
    count = np.isfinite(blocks).sum(axis=(1, 3))
    total = np.nansum(blocks, axis=(1, 3))
    mean: NDArray[np.float32] = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
    return mean


def box(ends: NDArray[np.float64], margin: float) -> NDArray[np.float64]:
    """The corners ``[4, 2]`` of the rectangle that keeps ``margin`` from the line between ``ends`` ``[2, 2]``."""
    along = ends[1] - ends[0]
    length = float(np.hypot(*along))
    unit = along / length if length > 0 else np.array([1.0, 0.0])
    across = np.array([-unit[1], unit[0]])
    a, b = ends[0] - margin * unit, ends[1] + margin * unit
    return np.array([a + margin * across, b + margin * across, b - margin * across, a - margin * across])


def _label(
    pen: ImageDraw.ImageDraw,
    text: str,
    corners: NDArray[np.float64],
    *,
    colour: tuple[int, int, int],
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    size: tuple[int, int],
) -> None:
    """Write ``text`` right of the box, moved back into the picture where it would leave it."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    x = min(max(float(corners[:, 0].max()) + 3, 0.0), size[0] - (right - left) - 2)
    y = min(max(float(corners[:, 1].mean()) - (bottom - top), 0.0), size[1] - bottom - 2)
    pen.text((x, y), text, fill=colour, font=font, stroke_width=1, stroke_fill=(0, 0, 0))
