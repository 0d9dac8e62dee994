"""A page of stamps of each class, for an astronomer to judge by eye whether they look like the sky.

What no figure shows is seen here at once: grains, edges, a class that is always rounder or cleaner than nature. Each
stamp is stretched by itself, as a person would look at it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from models.simulate.stamps import SURVEYS, draw_stamps
from models.simulate.viewing import STAMP_PX

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS, ROWS = 14, 4
ENLARGED = 2
HEADING_PX = 22
FONT_SIZE = 14
# Sigmas at which the stretch turns from linear to logarithmic, and how much of the noise is shown below the sky.
SOFTNESS, BELOW = 3.0, 0.6
SECTIONS: tuple[tuple[str, Literal["lenses", "mergers"], bool], ...] = (
    ("Strong lenses", "lenses", True),
    ("What is taken for lenses", "lenses", False),
    ("Mergers", "mergers", True),
    ("What is taken for mergers", "mergers", False),
)


def draw_gallery(survey: str, seed: int) -> Image.Image:
    """The page of ``survey`` (or ``all``): four sections of ``ROWS`` times ``COLUMNS`` stamps."""
    surveys = SURVEYS if survey == "all" else (survey,)
    count = 2 * -(-ROWS * COLUMNS // len(surveys))
    sections = []
    for title, task, positive in SECTIONS:
        kinds: set[str] = set()
        parts = []
        for one in surveys:
            stamps = draw_stamps(task, count, survey=one, seed=seed)
            chosen = np.flatnonzero((stamps.label > 0) == positive)
            kinds |= {stamps.kind[k] for k in chosen}
            parts.append(stamps.pixels[chosen])
        told = title if positive else f"{title}: {', '.join(sorted(kinds))}"
        sections.append(_section(told, np.concatenate(parts)))
    page = Image.new("L", (sections[0].width, sum(section.height for section in sections)))
    top = 0
    for section in sections:
        page.paste(section, (0, top))
        top += section.height
    return page


def stretched(stamp: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A stamp in grey as a person looks at it: the noise visible, the brightest light white; masked pixels as sky."""
    level = np.arcsinh(np.nan_to_num(stamp) / SOFTNESS)
    white = max(0.9 * float(level.max()), 2.0)
    return (np.clip((level + BELOW) / (white + BELOW), 0.0, 1.0) * 255.0).astype(np.uint8)


def _section(title: str, stamps: NDArray[np.float32]) -> Image.Image:
    """A heading and stamps ``[n, 64, 64]`` in rows below it."""
    side = STAMP_PX * ENLARGED + 2
    section = Image.new("L", (COLUMNS * side, HEADING_PX + ROWS * side))
    ImageDraw.Draw(section).text((4, 2), title, fill=255, font=ImageFont.load_default(FONT_SIZE))
    for k, stamp in enumerate(stamps[: ROWS * COLUMNS]):
        row, column = divmod(k, COLUMNS)
        tile = Image.fromarray(stretched(stamp)[::-1]).resize((side - 2, side - 2))
        section.paste(tile, (column * side + 1, HEADING_PX + row * side + 1))
    return section
