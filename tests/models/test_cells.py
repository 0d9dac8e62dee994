"""The answers that a window should give: checked against a slow reading of the definition."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.tiling import Tiling
from models.training.cells import label_cells

TILING = Tiling()
SHAPE = (160, 240)

coordinate = st.floats(-40, 280, allow_nan=False)


def piece_in_window(trail: list[float], row: int, col: int) -> tuple[float, ...] | None:
    """The part of the trail inside a window, by walking along it."""
    t = np.linspace(0.0, 1.0, 20001)
    x, y = trail[0] + t * (trail[2] - trail[0]), trail[1] + t * (trail[3] - trail[1])
    left, top = TILING.step * col - TILING.margin - 0.5, TILING.step * row - TILING.margin - 0.5
    inside = (x >= left) & (x <= left + TILING.window) & (y >= top) & (y <= top + TILING.window)
    if not inside.any():
        return None
    return x[inside][0], y[inside][0], x[inside][-1], y[inside][-1]


@settings(max_examples=40, deadline=None)
@given(st.tuples(coordinate, coordinate, coordinate, coordinate))
def test_a_window_is_positive_when_the_middle_of_its_piece_lies_in_its_central_cell(ends: tuple[float, ...]) -> None:
    trail = [*ends, 1000.0, 1.0]
    target, _ = label_cells(np.array([trail]), TILING.grid(SHAPE), TILING.window, TILING.step)
    for row, col in zip(*np.nonzero(target[0]), strict=True):
        piece = piece_in_window(list(ends), int(row), int(col))
        assert piece is not None
        origin = np.array([TILING.step * col - TILING.margin, TILING.step * row - TILING.margin] * 2)
        np.testing.assert_allclose(target[1:, row, col] + origin, piece, atol=0.1)
        middle = 0.5 * (piece[0] + piece[2]) + 0.5, 0.5 * (piece[1] + piece[3]) + 0.5
        assert -0.05 <= middle[0] - TILING.step * col <= TILING.step + 0.05
        assert -0.05 <= middle[1] - TILING.step * row <= TILING.step + 0.05


@settings(max_examples=40, deadline=None)
@given(st.floats(45, 190), st.floats(45, 110), st.floats(0, math.pi), st.floats(4, 40))
def test_a_short_streak_belongs_to_the_one_cell_of_its_middle(x: float, y: float, angle: float, length: float) -> None:
    dx, dy = 0.5 * length * math.cos(angle), 0.5 * length * math.sin(angle)
    trail = np.array([[x - dx, y - dy, x + dx, y + dy, 20.0, 1.0]])
    target, weight = label_cells(trail, TILING.grid(SHAPE), TILING.window, TILING.step)
    assert np.argwhere(target[0]).tolist() == [[math.floor((y + 0.5) / 8), math.floor((x + 0.5) / 8)]]
    assert (weight == 0).sum() == 8


def test_two_streaks_in_one_window_belong_to_two_cells_and_of_two_in_one_cell_the_brighter_counts() -> None:
    near = [[100, 60, 110, 60, 10.0, 1.0], [102, 61, 108, 65, 30.0, 1.0], [140, 60, 150, 66, 10.0, 1.0]]
    target, _ = label_cells(np.array(near, float), TILING.grid(SHAPE), TILING.window, TILING.step)
    assert target[0].sum() == 2
    row, col = 63 // 8, 105 // 8
    assert target[2, row, col] + TILING.step * row - TILING.margin == 61


def test_what_is_too_faint_or_too_short_is_neither_positive_nor_negative() -> None:
    trails = np.array([[100, 60, 110, 60, 2.0, 1.0], [50, 100, 51, 100, 50.0, 0.0]])
    target, weight = label_cells(trails, TILING.grid(SHAPE), TILING.window, TILING.step)
    assert target[0].sum() == 0
    assert weight[60 // 8, 105 // 8] == 0
    assert weight[100 // 8, 51 // 8] == 0
