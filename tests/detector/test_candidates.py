"""Lenses and mergers of a frame, with networks that are told the answers."""

from dataclasses import dataclass

import numpy as np
import pytest
from astropy.wcs import WCS

from detector.candidates import (
    LEAST_PEAKS,
    ClassNetworks,
    class_map,
    cut_stamps,
    find_candidates,
    levels_of,
    peaks,
    shortlist,
    shoulders,
)
from detector.classtable import CandidateFlag
from detector.frame import FrameHeader
from detector.survey import GENERIC
from detector.tiling import Tiling

SHAPE = (400, 480)


@dataclass
class Sees:
    """Log-odds of a class that are the light in the middle of a window, less 3."""

    window: int = 58
    step: int = 8
    layer: int = 1

    def floor(self, name):
        assert name in {"lens", "merger"}
        return 0.0

    def __call__(self, strip):
        rows, cols = Tiling(self.window, self.step).grid_of_padded(strip.shape)
        out = np.full((rows, cols, 4), -9.0, np.float32)
        for row in range(rows):
            for col in range(cols):
                cell = strip[8 * row + 25 : 8 * row + 33, 8 * col + 25 : 8 * col + 33]
                out[row, col, self.layer] = np.nan_to_num(cell).max() - 3.0
        return out


@dataclass
class Judges:
    """Believes in what is bright in the middle of its stamp; the content is that brightness."""

    threshold: float = 0.5
    model: str = "told@0"

    def judge(self, stamps):
        light = np.nan_to_num(stamps)[:, 30:35, 30:35].max(axis=(1, 2)).astype(float)
        return 1.0 / (1.0 + np.exp(-(light - 5.0))), np.full(len(stamps), 0.01)

    def content(self, stamps):
        return np.nan_to_num(stamps)[:, 30:35, 30:35].max(axis=(1, 2)).astype(float), np.full(len(stamps), 0.5)


def sky_with(objects, shape=SHAPE, seed=1, width=2.0):
    """A whitened frame with round objects: x, y, height."""
    frame = 0.3 * np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for cx, cy, height in objects:
        frame += (height * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * width**2))).astype(np.float32)
    return frame


def header(shape=SHAPE, scale=0.2):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150.0, 2.0], [1.0, 1.0]
    wcs.wcs.cd = np.array([[-1.0, 0.0], [0.0, 1.0]]) * (scale or 0.2) / 3600.0
    return FrameHeader("a.fits", 0, shape, GENERIC, pixel_scale_arcsec=scale, wcs=wcs)


OBJECTS = [(100.3, 120.2, 12.0), (300.0, 90.0, 30.0), (210.0, 310.0, 20.0)]


def test_what_stands_out_of_the_map_is_found_where_it_is_and_ranked_by_its_content():
    found = find_candidates(sky_with(OBJECTS), header(), ClassNetworks(Sees(), lens=Judges(), merger=Judges()))
    assert len(found.mergers) == 0
    order = np.argsort(-np.array(OBJECTS)[:, 2])
    np.testing.assert_allclose(found.lenses["x"], np.array(OBJECTS)[order, 0], atol=0.3)
    np.testing.assert_allclose(found.lenses["y"], np.array(OBJECTS)[order, 1], atol=0.3)
    assert found.lenses["rank"].tolist() == [1, 2, 3]
    np.testing.assert_allclose(found.lenses["dec"] - 2.0, found.lenses["y"] * 0.2 / 3600.0, atol=1e-5)
    assert found.lenses["flags"].tolist() == [0, 0, 0]


def test_of_a_merger_s_peaks_the_likeliest_is_published_and_lenses_are_left_as_they_are():
    # Three places within 5 arcsec of the brightest or of each other, and one that is farther.
    pieces = [(100.0, 120.0, 30.0), (118.0, 120.0, 15.0), (134.0, 120.0, 12.0), (300.0, 90.0, 10.0)]
    merged = find_candidates(sky_with(pieces), header(), ClassNetworks(Sees(layer=2), merger=Judges()))
    # The third is 34 px from the brightest; the second, which is not published, does not stand in its way.
    np.testing.assert_allclose(sorted(merged.mergers["x"]), [100.0, 134.0, 300.0], atol=0.4)
    assert merged.dropped["merger-beside-likelier"] == 1
    lenses = find_candidates(sky_with(pieces), header(), ClassNetworks(Sees(), lens=Judges()))
    assert len(lenses.lenses) == 4


def test_a_finely_sampled_frame_is_binned_for_the_map_and_lenses_are_judged_at_its_own_pixels():
    seen = []

    class Watches(Judges):
        def judge(self, stamps):
            seen.append(stamps)
            return super().judge(stamps)

    frame = sky_with([(200.4, 140.6, 20.0)], width=3.0)
    found = find_candidates(frame, header(scale=0.1), ClassNetworks(Sees(), lens=Watches()))
    assert found.lenses["x"][0] == pytest.approx(200.4, abs=0.3)
    assert found.lenses["y"][0] == pytest.approx(140.6, abs=0.3)
    np.testing.assert_array_equal(seen[0][0], frame[141 - 32 : 141 + 32, 200 - 32 : 200 + 32])
    coarse = find_candidates(frame, header(scale=0.1), ClassNetworks(Sees(layer=2), merger=Judges()))
    assert coarse.mergers["x"][0] == pytest.approx(200.4, abs=0.6)


@pytest.mark.parametrize("scale", [None, 1.0, float("nan"), -0.2])
def test_a_frame_of_other_pixels_than_the_networks_know_is_not_searched_and_says_so(scale):
    found = find_candidates(sky_with(OBJECTS), header(scale=scale), ClassNetworks(Sees(), lens=Judges()))
    assert found.flags == ("classes-not-searched",)
    assert len(found.lenses) == 0


def test_objects_at_the_border_and_behind_masks_are_flagged_and_a_masked_core_is_dropped():
    frame = sky_with([(5.0, 200.0, 20.0), (240.0, 200.0, 20.0), (400.0, 300.0, 20.0)])
    frame[:, 245:300] = np.nan
    frame[285:316, 385:416] = np.nan
    frame[299:302, 399:402] = 20.0
    found = find_candidates(frame, header(), ClassNetworks(Sees(), lens=Judges()))
    by_x = found.lenses[np.argsort(found.lenses["x"])]
    words = [CandidateFlag(int(flags)).words() for flags in by_x["flags"]]
    assert words == ["edge masked", "masked"]
    assert found.dropped["lens-masked-core"] == 1
    assert np.isfinite(by_x["probability"]).all()


def test_a_frame_without_a_good_pixel_has_no_candidate():
    frame = np.full(SHAPE, np.nan, np.float32)
    assert len(find_candidates(frame, header(), ClassNetworks(Sees(), Judges(), Judges())).lenses) == 0


def test_more_peaks_than_the_bound_are_dropped_counted_and_flagged():
    grid = [(20 + 36 * i, 20 + 36 * j, 10.0 + i) for i in range(13) for j in range(11)]
    found = find_candidates(sky_with(grid), header(), ClassNetworks(Sees(), lens=Judges(threshold=0.0)))
    assert "many-lenses" in found.flags
    assert len(found.lenses) <= LEAST_PEAKS
    assert found.dropped["lens-many"] >= len(grid) - LEAST_PEAKS


def test_an_object_in_the_corner_of_a_cell_has_one_peak_and_one_row():
    found = find_candidates(sky_with([(15.5 + 64, 15.5 + 64, 20.0)]), header(), ClassNetworks(Sees(), lens=Judges()))
    assert len(found.lenses) == 1


@pytest.mark.parametrize(("dx", "dy"), [(9, 0), (0, 9), (8, 8), (-7, 8)])
def test_two_objects_in_adjacent_cells_are_two_though_one_stands_higher(dx, dy):
    pair = [(202.0, 162.0, 24.0), (202.0 + dx, 162.0 + dy, 15.0)]
    found = find_candidates(sky_with(pair), header(), ClassNetworks(Sees(), lens=Judges()))
    np.testing.assert_allclose(found.lenses["x"], [x for x, _, _ in pair], atol=0.5)
    np.testing.assert_allclose(found.lenses["y"], [y for _, y, _ in pair], atol=0.5)


@pytest.mark.parametrize("width", [2.0, 4.0, 7.0])
@pytest.mark.parametrize("place", [(203.5, 163.5), (200.2, 166.9), (207.4, 160.1)])
def test_the_light_of_one_object_in_the_cells_about_it_is_one_row(place, width):
    frame = sky_with([(*place, 60.0)], width=width)
    odds = class_map(frame, Sees())
    assert len(shoulders(odds, "lens", Sees())) >= 2
    assert len(shortlist(frame, odds, "lens", Sees())) == 1


def test_a_cell_beside_a_peak_that_is_unlikely_itself_is_not_looked_at():
    odds = np.full((10, 10, 4), -9.0, np.float32)
    odds[4, 4, 1], odds[4, 5, 1], odds[5, 4, 1] = 3.0, 0.5, -0.5

    class Deep(Sees):
        def floor(self, _):
            return -4.0

    np.testing.assert_allclose(shoulders(odds, "lens", Deep()), [[43.5, 35.5, 0.5]])


def test_stamps_beyond_the_border_are_masked_there():
    stamp = cut_stamps(np.ones(SHAPE, np.float32), [(3, 398)])[0]
    assert np.isnan(stamp[:, :29]).all()
    assert np.isnan(stamp[34:]).all()
    assert (stamp[:34, 29:] == 1.0).all()


def test_peaks_are_best_first():
    discriminator = Sees()
    levels = levels_of(sky_with(OBJECTS), 0.2)
    assert (levels.fine, levels.coarse) == (0, 0)
    odds = np.full((10, 10, 4), -9.0, np.float32)
    odds[2, 3, 1], odds[7, 5, 1] = 1.0, 2.0
    np.testing.assert_allclose(peaks(odds, "lens", discriminator), [[43.5, 59.5, 2.0], [27.5, 19.5, 1.0]])
