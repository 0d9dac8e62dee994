"""What hand-made features know of stamps: a leak is seen, and shapes are told apart without any network."""

import numpy as np
import pytest

from models.evaluate.floor import (
    LEAK,
    MORPHOLOGY,
    TRIVIAL,
    area,
    areas,
    boosted_scores,
    morphology_features,
    trivial_features,
)

POSITIVE = np.arange(120) % 2 == 1


def stamps(*, ring: bool = False, offset_px: float = 0.0):
    """Blobs in noise, half of them with a ring of the blob's own light, or moved off the middle."""
    rng = np.random.default_rng(3)
    rows, columns = np.indices((64, 64))
    made = rng.normal(0.0, 1.0, (len(POSITIVE), 64, 64))
    for k, positive in enumerate(POSITIVE):
        x, y = 31.5 + rng.normal(0.0, 0.5, 2) + (offset_px if positive else 0.0)
        r = np.hypot(columns - x, rows - y)
        blob, around = np.exp(-0.5 * (r / 4.0) ** 2), np.exp(-0.5 * ((r - 11.0) / 1.5) ** 2)
        light = blob / blob.sum() if not (ring and positive) else 0.6 * blob / blob.sum() + 0.4 * around / around.sum()
        made[k] += 2_000.0 * light
    return made.astype(np.float32)


def test_a_class_that_lies_off_the_middle_leaks_and_one_that_does_not_is_clean() -> None:
    leaking = dict(zip(TRIVIAL, areas(trivial_features(stamps(offset_px=4.0)), POSITIVE), strict=True))
    assert leaking["peak_offset"] > 0.95
    clean = areas(trivial_features(stamps()), POSITIVE)
    assert np.abs(clean - 0.5).max() < 0.15  # 120 stamps tell no better; LEAK is for thousands
    assert LEAK < 0.15


def test_rings_are_told_from_blobs_of_the_same_light_by_their_shape() -> None:
    pytest.importorskip("lightgbm")
    features = morphology_features(stamps(ring=True))
    assert features.shape == (120, len(MORPHOLOGY))
    assert np.isfinite(features).all()
    assert area(boosted_scores(features, POSITIVE), POSITIVE) > 0.95
    assert area(boosted_scores(morphology_features(stamps()), POSITIVE), POSITIVE) < 0.75


def test_an_area_needs_both_classes() -> None:
    assert area(np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, True, False, True])) == 0.875
    with pytest.raises(ValueError, match="0 positives and 4 negatives"):
        area(np.ones(4), np.zeros(4, np.bool_))
