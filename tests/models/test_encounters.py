import itertools

import numpy as np
import pytest

from models.simulate.encounters import (
    DISC_PARTICLES,
    _carry,
    _pull,
    carry_plainly,
    encounter,
    isolated,
    pull_plainly,
    rotation,
)
from models.simulate.mergers import _add_particles, bank_of


@pytest.fixture(scope="module")
def snapshots():
    return encounter("training", 3)


def test_the_two_centres_end_as_one(snapshots):
    separations = [float(np.linalg.norm(s.centres[1] - s.centres[0])) for s in snapshots]
    assert separations[0] > 2.0
    assert separations[-1] < 0.8
    assert snapshots[0].stage < 0.3
    assert snapshots[-1].stage > 1.0
    assert all(a.stage < b.stage for a, b in itertools.pairwise(snapshots))


def test_tides_draw_tails_that_no_isolated_galaxy_has(snapshots):
    def far(snapshot):
        mine = (snapshot.galaxy == 0) & ~snapshot.bulge
        return float((np.linalg.norm(snapshot.places[mine] - snapshot.centres[0], axis=1) > 8.0).mean())

    assert far(isolated("training", 0)) == 0.0
    assert max(far(s) for s in snapshots) > 0.01


def test_the_force_is_that_of_the_mass_inside():
    radii = np.geomspace(0.1, 40.0, 20)
    fast = np.array([_pull(r, 0.4) for r in radii])
    np.testing.assert_allclose(fast, pull_plainly(radii, 0.4), rtol=1e-9)


def test_particles_move_as_their_plain_twin_says():
    rng = np.random.default_rng(8)
    places, speeds = rng.normal(0.0, 4.0, (3, 300)), rng.normal(0.0, 0.5, (3, 300))
    path = np.column_stack([np.linspace(20.0, 3.0, 60), np.linspace(0.0, 5.0, 60), np.full(60, 1.0)])
    plain = carry_plainly(places, speeds, path, 0.6)
    _carry(places, speeds, path, 0, len(path), 0.6)
    np.testing.assert_allclose(places, plain[0], atol=1e-8)
    np.testing.assert_allclose(speeds, plain[1], atol=1e-8)


def test_an_isolated_disc_is_thin_and_as_large_as_its_scale_length_says():
    galaxy = isolated("evaluation", 1)
    disc = galaxy.places[~galaxy.bulge]
    assert len(disc) == DISC_PARTICLES
    # Half of an exponential disc lies within 1.68 scale lengths.
    assert np.median(np.hypot(disc[:, 0], disc[:, 1])) == pytest.approx(1.68, abs=0.1)
    assert np.abs(disc[:, 2]).mean() < 0.15


def test_rotations_keep_lengths_and_handedness():
    turn = rotation(np.random.default_rng(4))
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1.0)


def test_particles_keep_their_light_however_smooth_they_are():
    image = np.zeros((60, 60), np.float32)
    place = np.array([30.3, 20.7, 40.0], np.float32)
    _add_particles(
        image, place, place[::-1].copy(), np.array([5.0, 7.0, 11.0], np.float32), np.array([1.0, 3.3, 9.0], np.float32)
    )
    assert image.sum() == pytest.approx(23.0, rel=0.02)


def test_encounters_of_evaluation_were_never_trained_with():
    assert bank_of(899_999, "training") == "training"
    assert bank_of(900_000, "training") == "evaluation"
    assert bank_of(12, "hard") == "hard"
