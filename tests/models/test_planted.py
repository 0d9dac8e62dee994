"""Lenses, mergers and impostors in whole exposures: where the truth says, the same object in every exposure."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from models.simulate.conditions import draw_conditions
from models.simulate.exposure import Plan, draw_field, write_fields
from models.simulate.planted import add_object, scene_of
from models.simulate.psf import point_spread

SKY = {"kind": "kids-omegacam", "shape": (600, 600), "asteroids": 0, "dithers": 2}


def test_an_object_lies_where_it_is_put_and_has_its_light_wherever_that_is_between_pixels():
    conditions = draw_conditions(np.random.default_rng(5), "kids-omegacam")
    spread = point_spread(conditions.optics, extent_px=96)
    lens = replace(scene_of(conditions, 900_431, "lens", 1), features=None)
    totals = []
    for x, y in ((150.0, 150.0), (150.3, 149.6), (120.5, 170.5)):
        image = np.zeros((300, 300), np.float32)
        add_object(image, lens, conditions, spread, x, y)
        row, column = np.unravel_index(image.argmax(), image.shape)
        assert np.hypot(row - y, column - x) < 1.3  # half a pixel along each axis, and the pixel's own half
        totals.append(float(image.sum()))
    assert totals == pytest.approx([totals[0]] * 3, rel=1e-3)
    assert totals[0] == pytest.approx(float(lens.light.sum()), rel=1e-3)


def test_of_an_object_at_the_border_only_what_is_inside_is_drawn():
    conditions = draw_conditions(np.random.default_rng(5), "kids-omegacam")
    spread = point_spread(conditions.optics, extent_px=96)
    lens = scene_of(conditions, 900_431, "lens", 1)
    inside, outside = np.zeros((200, 200), np.float32), np.zeros((200, 200), np.float32)
    add_object(inside, lens, conditions, spread, 1.0, 199.0)
    assert 0.0 < inside.sum() < 0.7 * (lens.light.sum() + lens.features.sum())
    add_object(outside, lens, conditions, spread, -400.0, 100.0)
    assert not outside.any()


def test_an_object_is_itself_in_every_exposure_and_none_changes_the_sky():
    exposures = [exposure[0] for exposure in draw_field(Plan(**SKY, lenses=3, mergers=1, impostors=3), 900_431)]
    first, second = ({one.object: one for one in frame.planted} for frame in exposures)
    assert set(first) & set(second)
    for name in set(first) & set(second):
        assert first[name].kind == second[name].kind
        assert first[name].told == pytest.approx(second[name].told, nan_ok=True)
        assert (first[name].ra, first[name].dec) == pytest.approx((second[name].ra, second[name].dec), abs=1e-9)
    without = next(draw_field(Plan(**SKY), 900_431))[0]
    assert without.planted == ()
    for one in exposures[0].planted:
        if 10 < one.x < 589 and 10 < one.y < 589:
            near = np.s_[round(one.y) - 6 : round(one.y) + 7, round(one.x) - 6 : round(one.x) + 7]
            assert (exposures[0].adu[near].astype(float) - without.adu[near]).sum() > 100.0


def test_tables_have_a_line_for_each_object_of_a_class(tmp_path):
    write_fields(tmp_path, Plan(**{**SKY, "dithers": 1, "shape": (300, 300)}, lenses=2), 900_431)
    assert not (tmp_path / "mergers.csv").exists()
    with (tmp_path / "lenses.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert {"frame", "x", "y", "ra", "dec", "einstein_radius_arcsec", "ic", "snr"} <= set(rows[0])
    assert all(float(row["ic"]) > 0.0 and row["kind"] == "lens" for row in rows)


def test_lenses_are_not_drawn_for_a_camera_without_stamps():
    with pytest.raises(ValueError, match="euclid-vis, kids-omegacam, subaru-hsc"):
        next(draw_field(Plan(kind="generic", shape=(200, 200), lenses=1, dithers=1), 3))
