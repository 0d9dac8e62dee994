import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from detector.frame import MaskBit
from detector.pixels import Bits, Scaling, flagged, to_electrons


def plain_electrons(stored, scaling):
    """The definition of ``to_electrons`` in plain numpy."""
    value = stored.astype(np.float64) * scaling.factor + scaling.offset
    with np.errstate(invalid="ignore"):
        bad = ~(np.abs(value) <= 1e18)
        if scaling.blank is not None and stored.dtype.kind != "f":
            bad |= stored == scaling.blank
        mask = np.where(bad, MaskBit.BAD, np.where(value >= scaling.saturation_e, MaskBit.SATURATED, 0))
    return np.where(bad, 0.0, value).astype(np.float32), mask.astype(np.uint8)


def plain_flagged(mask, flags, offset, bits):
    """The definition of ``flagged`` in plain numpy."""
    value = flags.astype(np.int64) + offset
    if not any(bits):
        return mask | np.where(value != 0, MaskBit.BAD, 0).astype(np.uint8)
    marks = zip(bits, (MaskBit.BAD, MaskBit.SATURATED, MaskBit.COSMIC_RAY), strict=True)
    return mask | sum(np.where(value & bit, int(mark), 0) for bit, mark in marks).astype(np.uint8)


shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_the_kernel_gives_what_numpy_gives(data):
    kind = data.draw(st.sampled_from([">u1", ">i2", ">i4", ">f4", "<f4", ">f8"]))
    stored = data.draw(hnp.arrays(kind, data.draw(shapes)))
    saturation = data.draw(st.sampled_from([np.inf, 100.0, 0.0]))
    scaling = Scaling(data.draw(st.sampled_from([1.0, 3.5])), data.draw(st.sampled_from([0.0, 32768.0])), 7, saturation)
    pixels, mask, counts = to_electrons(stored, scaling)
    expected, expected_mask = plain_electrons(stored, scaling)
    np.testing.assert_array_equal(pixels, expected)
    np.testing.assert_array_equal(mask, expected_mask)
    good = expected_mask != MaskBit.BAD
    assert counts.good == good.sum()
    assert counts.saturated == (expected_mask == MaskBit.SATURATED).sum()
    if counts.good:
        assert np.float32(counts.lowest) == expected[good].min()
        assert np.float32(counts.highest) == expected[good].max()


@pytest.mark.parametrize("bits", [Bits(), Bits(1 | 4, 2, 8), Bits(bad=64)])
@given(st.data())
@settings(deadline=None, max_examples=30)
def test_flags_become_the_mask_that_numpy_gives(bits, data):
    shape = data.draw(shapes)
    flags = data.draw(hnp.arrays(st.sampled_from([">i2", ">i4", "|u1"]), shape))
    mask = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 15)))
    before = mask.copy()
    offset = data.draw(st.sampled_from([0, 32768]))
    np.testing.assert_array_equal(flagged(mask, flags, offset, bits), plain_flagged(mask, flags, offset, bits))
    np.testing.assert_array_equal(mask, before)
