"""Peers find a bright trail on a plain sky, and only there."""

import numpy as np
import pytest

from detector.frame import Frame, FrameHeader
from detector.psf import Psf
from detector.survey import GENERIC
from models.evaluate.injection import unit_streak
from models.evaluate.matching import accepted_pairs
from models.evaluate.peers import PEERS, installed

LINE = np.array([[60.0, 50.0], [95.0, 70.0]])


def one_trail():
    rng = np.random.default_rng(4)
    pixels = rng.normal(1000.0, 10.0, (160, 200))
    (top, left), light = unit_streak(LINE, Psf.gaussian(2.2))
    pixels[top : top + light.shape[0], left : left + light.shape[1]] += 12_000.0 * light
    for x, y in ((150, 30), (30, 120), (120, 120)):
        rows, columns = np.mgrid[:160, :200]
        pixels += 1500.0 * np.exp(-0.5 * ((columns - x) ** 2 + (rows - y) ** 2) / 0.95**2)
    header = FrameHeader("a.fits", 0, pixels.shape, GENERIC, read_noise_e=5.0)
    return Frame(header, pixels.astype(np.float32), np.zeros(pixels.shape, np.uint8))


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_finds_the_bright_trail_first_and_no_star(name):
    for package in PEERS[name].packages:
        if not installed(package):
            pytest.skip(f"no {package}")
    found = PEERS[name].find(one_trail())
    ends = found[:, :4].reshape(-1, 2, 2)
    on_trail = accepted_pairs(LINE[None], ends)[:, 1]
    assert int(np.argmax(found[:, 4])) in on_trail
    assert len(found) - len(on_trail) <= 2
