"""What ``needlestream demo`` shows of lenses and mergers: a page of their pixels, and a table beside what was put in.

Everything but the pixels comes from the output topics. On simulated frames a candidate is what lies within
``SAME_ARCSEC`` of it, and false where nothing of its class does: an impostor that was put in, a galaxy of the
field, or a piece of a merger far from its middle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stream.candidatetable import KINDS, rows_of
from stream.picture import binned
from stream.tables import read_columns, replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from detector.frame import Frame
    from detector.streaks import Findings
    from stream.candidatetable import Class

    Truths = Mapping[str, Mapping[str, NDArray[Any]]]

SAME_ARCSEC = 1.0
# Pixels of a picture, of the frame in it (what the network saw: mergers' pixels are twice as large), of its text.
TILE, GAP, LINE = 160, 8, 17
HALF_PX: dict[Class, int] = {"lenses": 32, "mergers": 64}
COLUMNS, MOST_SHOWN = 6, 12
# Sigmas of the sky that are black and white.
DARK, LIGHT = -2.0, 40.0
# The truth's tables, in the order of the words for what is in them.
PLANTED: dict[str, str] = {"lens": "lenses.csv", "merger": "mergers.csv", "impostor": "impostors.csv"}
NUMBERS = {"extension", "x", "y"}


@dataclass(frozen=True, eq=False)
class Shown:
    """One candidate: of which class and frame, where (px), how probable, what it is, and its pixels in grey.

    ``true`` is None where nobody knows.
    """

    name: Class
    frame: str
    x: float
    y: float
    probability: float
    content: float
    true: bool | None
    told: str
    grey: NDArray[np.uint8]


def planted_truth(folder: Path) -> Truths:
    """The tables of what was put into simulated frames, by class."""
    return {label: read_columns(folder / file, NUMBERS) for label, file in PLANTED.items() if (folder / file).exists()}


def candidates_of(frame: Frame, findings: Findings, truths: Truths) -> list[Shown]:
    """The candidates of a frame, with their pixels; ``truths`` is empty for frames that nobody has simulated."""
    label = f"{frame.header.exposure} CCD {frame.header.ccd}"
    shown = []
    for name in KINDS:
        for row in rows_of(findings, name):
            x, y = float(row["x"]), float(row["y"])
            true, told = _verdict(frame, KINDS[name], x, y, truths)
            probability, content = float(row["probability"]), float(row["ic"])
            grey = _tile(frame.pixels, x, y, HALF_PX[name])
            shown.append(Shown(name, label, x, y, probability, content, true, told, grey))
    return shown


def put_in(truths: Truths, label: str, examined: Iterable[tuple[str, int]]) -> int:
    """How often objects of a class lie in the frames that were examined."""
    if label not in truths:
        return 0
    frames = set(examined)
    places = zip(truths[label]["frame"], truths[label]["extension"], strict=True)
    return sum((name, int(extension)) in frames for name, extension in places)


def draw_page(path: Path, candidates: Sequence[Shown]) -> None:
    """Write a PNG of the most probable candidates: lenses above, mergers below, each with what it is."""
    blocks = [best(candidates, name) for name in KINDS]
    lines = [max(1, math.ceil(len(block) / COLUMNS)) for block in blocks]
    high = TILE + 2 * LINE + GAP
    page = Image.new("RGB", (COLUMNS * (TILE + GAP) + GAP, sum(lines) * high + len(blocks) * (LINE + 2 * GAP)))
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    top = GAP
    for name, block, count in zip(KINDS, blocks, lines, strict=True):
        number = sum(one.name == name for one in candidates)
        pen.text((GAP, top), f"{number} candidates of {name}, the best {len(block)} here", fill="white", font=font)
        top += LINE + GAP
        for place, one in enumerate(block):
            x, y = GAP + place % COLUMNS * (TILE + GAP), top + place // COLUMNS * high
            page.paste(Image.fromarray(one.grey), (x, y))
            colour = {True: "lightgreen", False: "orange", None: "white"}[one.true]
            pen.text((x, y + TILE + 1), f"{one.probability:.3f}  {one.frame}", fill="white", font=font)
            pen.text((x, y + TILE + LINE), one.told, fill=colour, font=font)
        top += count * high + GAP
    with replacing(path) as partial:
        page.save(partial, format="PNG")


def best(candidates: Sequence[Shown], name: Class) -> list[Shown]:
    """The most probable ones of a class, those that are shown."""
    of_class = [one for one in candidates if one.name == name]
    return sorted(of_class, key=lambda one: -one.probability)[:MOST_SHOWN]


def _verdict(frame: Frame, label: str, x: float, y: float, truths: Truths) -> tuple[bool | None, str]:
    """Whether a candidate is what it is taken for, and what it is."""
    if not truths:
        return None, ""
    scale = frame.header.pixel_scale_arcsec or frame.header.survey.pixel_scale_arcsec or 1.0
    nearest: dict[str, tuple[float, str]] = {}
    for kind, table in truths.items():
        here = (table["frame"] == frame.header.name.rpartition("/")[2]) & (table["extension"] == frame.header.extension)
        if here.any():
            apart = np.hypot(table["x"][here] - x, table["y"][here] - y) * scale
            nearest[kind] = float(apart.min()), str(table["kind"][here][apart.argmin()])
    near = {kind: what for kind, (apart, what) in nearest.items() if apart <= SAME_ARCSEC}
    if label in near:
        return True, f"true: a {label}"
    if near:
        kind, what = next(iter(near.items()))
        return False, f"false: {what}" if kind == "impostor" else f"false: a {kind}"
    apart = nearest.get("merger", (math.inf, ""))[0]
    if label == "merger" and apart < HALF_PX["mergers"] * scale:
        return False, f"false: {apart:.1f} arcsec off one"
    return False, "false: of the field"


def _tile(pixels: NDArray[np.float32], x: float, y: float, half: int) -> NDArray[np.uint8]:
    """What lies about a place, in sigmas of its own sky, asinh-stretched, y upwards; black where there is nothing."""
    left, bottom = round(x) - half, round(y) - half
    square = np.full((2 * half, 2 * half), np.nan, np.float32)
    x0, y0 = max(left, 0), max(bottom, 0)
    part = pixels[y0 : max(bottom + 2 * half, 0), x0 : max(left + 2 * half, 0)]
    square[y0 - bottom : y0 - bottom + part.shape[0], x0 - left : x0 - left + part.shape[1]] = part
    square = binned(square, half // 32)
    middle = float(np.nanmedian(square))
    below = square[square < middle]  # galaxies are above
    sigma = 1.4826 * float(np.median(middle - below)) if below.size else 1.0
    value = np.nan_to_num((square - middle) / max(sigma, 1e-30), nan=DARK)
    low, high = np.arcsinh(DARK), np.arcsinh(LIGHT)
    grey = (np.clip((np.arcsinh(value) - low) / (high - low), 0.0, 1.0) * 255).astype(np.uint8)
    return np.asarray(Image.fromarray(grey[::-1]).resize((TILE, TILE), Image.Resampling.BICUBIC))
