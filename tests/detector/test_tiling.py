"""The grid of windows: every pixel has one, and nothing is lost on the way there and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from detector.tiling import Tiling, cells_at, pad, strips, to_frame, to_window, unpadded, windows

tilings = st.builds(
    lambda step, margin: Tiling(window=step + 2 * margin, step=step),
    st.integers(1, 12),
    st.integers(0, 20),
)
shapes = st.tuples(st.integers(1, 90), st.integers(1, 90))
unhurried = settings(deadline=None, max_examples=30)  # numba compiles in the first example


def padded_by_numpy(frame, tiling):
    rows, cols = tiling.padded_shape(frame.shape)
    m = tiling.margin
    around = ((m, rows - m - frame.shape[0]), (m, cols - m - frame.shape[1]))
    return np.pad(frame.astype(np.float32), around, constant_values=np.nan)


def windows_by_numpy(padded, tiling):
    every = sliding_window_view(padded, (tiling.window, tiling.window))
    return every[:: tiling.step, :: tiling.step].reshape(-1, tiling.window, tiling.window)


@unhurried
@given(tilings, shapes)
def test_each_pixel_lies_in_the_central_cell_of_exactly_one_window(tiling, shape):
    rows, cols = tiling.grid(shape)
    seen = np.zeros(shape, int)
    for row in range(rows):
        for col in range(cols):
            first = to_frame(np.array([tiling.margin, tiling.margin]), row, col, tiling).astype(int)
            seen[first[1] : first[1] + tiling.step, first[0] : first[0] + tiling.step] += 1
    assert (seen == 1).all()


@unhurried
@given(tilings, shapes)
def test_the_window_of_a_pixels_cell_shows_that_pixel_at_its_centre(tiling, shape):
    frame = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape)
    x, y = shape[1] // 2, shape[0] // 3
    row, col = cells_at(np.array([x, y]), tiling)
    cut = windows(pad(frame, tiling), tiling, range(row, row + 1))[col]
    inside = to_window(np.array([x, y]), row, col, tiling).astype(int)
    assert cut[inside[1], inside[0]] == frame[y, x]
    assert (tiling.margin <= inside).all()
    assert (inside < tiling.margin + tiling.step).all()


@unhurried
@given(tilings, st.integers(0, 600), st.integers(0, 600), st.floats(-50, 5000), st.floats(-50, 5000))
def test_window_to_frame_to_window_is_the_identity(tiling, row, col, x, y):
    xy = np.array([x, y])
    there = to_frame(xy, row, col, tiling)
    assert np.allclose(to_window(there, row, col, tiling), xy, rtol=0, atol=1e-9)


@unhurried
@given(tilings, shapes)
def test_padding_and_windows_are_those_of_plain_numpy(tiling, shape):
    frame = np.random.default_rng(shape[0]).normal(size=shape).astype(np.float32)
    padded = pad(frame, tiling)
    assert padded.shape == tiling.padded_shape(shape)
    assert np.array_equal(padded, padded_by_numpy(frame, tiling), equal_nan=True)
    assert np.array_equal(unpadded(padded, shape, tiling), frame)
    assert np.array_equal(windows(padded, tiling), windows_by_numpy(padded, tiling), equal_nan=True)


@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (100, 100), (95, 97), (4132, 40)])
def test_a_frame_of_any_size_has_a_window_for_each_cell(shape):
    tiling = Tiling(window=96, step=8)
    padded = pad(np.zeros(shape, np.float32), tiling)
    rows, cols = tiling.grid(shape)
    assert (rows, cols) == (-(-shape[0] // 8), -(-shape[1] // 8))
    assert tiling.grid_of_padded(padded.shape) == (rows, cols)
    assert windows(padded, tiling, range(rows - 1, rows)).shape == (cols, 96, 96)


@unhurried
@given(tilings, shapes, st.integers(1, 9))
def test_strips_are_views_that_hold_each_row_of_windows_once(tiling, shape, cells):
    padded = pad(np.random.default_rng(1).normal(size=shape).astype(np.float32), tiling)
    rows = []
    for first, strip in strips(padded, tiling, cells):
        assert strip.base is padded
        rows.extend(range(first, first + tiling.grid_of_padded(strip.shape)[0]))
        assert np.array_equal(windows(strip, tiling)[0], windows(padded, tiling)[first * tiling.grid(shape)[1]], True)
    assert rows == list(range(tiling.grid(shape)[0]))


def test_a_uint16_frame_is_padded_without_a_copy_in_between():
    frame = np.arange(12, dtype=np.uint16).reshape(3, 4)
    padded = pad(frame, Tiling(window=6, step=2))
    assert padded.dtype == np.float32
    assert np.array_equal(padded[2:5, 2:6], frame)


@pytest.mark.parametrize(("window", "step"), [(96, 0), (7, 8), (95, 8), (96, 7)])
def test_a_tiling_without_a_central_cell_is_refused(window, step):
    with pytest.raises(ValueError, match="central cell"):
        Tiling(window=window, step=step)


def test_rows_outside_the_grid_are_refused():
    padded = pad(np.zeros((32, 32), np.float32), Tiling(window=24, step=8))
    with pytest.raises(ValueError, match="not consecutive rows"):
        windows(padded, Tiling(window=24, step=8), range(3, 5))
