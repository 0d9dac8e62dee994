"""Nothing but shape tells the stamps of a class from the rest: small samples that leaks of old would have failed."""

import numpy as np
import pytest

from models.evaluate.floor import TRIVIAL, areas, trivial_features
from models.simulate.lenses import recognisable
from models.simulate.mergers import FAINTEST_TIDES
from models.simulate.stamps import draw_stamps


@pytest.fixture(scope="module")
def lenses():
    return draw_stamps("lenses", 240, survey="kids-omegacam", seed=46)


@pytest.fixture(scope="module")
def mergers():
    return draw_stamps("mergers", 96, survey="subaru-hsc", seed=47)


def told(stamps):
    """How far from one half each trivial feature's area is."""
    found = areas(trivial_features(stamps.pixels), stamps.label > 0) - 0.5
    return dict(zip(TRIVIAL, np.abs(found), strict=True))


def test_no_trivial_feature_tells_lenses_from_impostors(lenses):
    assert max(told(lenses).values()) < 0.08  # of 120 pairs; the peak alone once reached 0.10


def test_no_trivial_feature_tells_mergers_from_the_rest(mergers):
    assert max(told(mergers).values()) < 0.12  # of 48 pairs


def test_an_impostor_has_the_light_of_the_lens_beside_it(lenses):
    total = lenses.truth["magnitude"]
    np.testing.assert_allclose(total[0::2], total[1::2])
    light = trivial_features(lenses.pixels)[:, TRIVIAL.index("total")]
    assert abs(np.median(np.log(light[0::2] / light[1::2]))) < 0.1


def test_lenses_and_mergers_can_be_recognised_and_the_rest_says_nothing_of_it(lenses, mergers):
    truth = [{name: float(column[k]) for name, column in lenses.truth.items()} for k in range(1, 240, 2)]
    assert np.mean([recognisable(row) for row in truth]) > 0.97
    tides = mergers.truth["snr"]
    assert np.mean(tides[1::2] >= FAINTEST_TIDES) > 0.8
    assert np.isnan(tides[0::2]).all()
