"""The page of stamps: all that is drawn is on it, and the stretch shows both the noise and the brightest light."""

import numpy as np

from models.simulate import gallery
from models.simulate.viewing import STAMP_PX


def test_the_page_has_four_sections_that_are_all_filled(monkeypatch):
    monkeypatch.setattr(gallery, "COLUMNS", 2)
    monkeypatch.setattr(gallery, "ROWS", 1)
    page = np.asarray(gallery.draw_gallery("kids-omegacam", 900_433))
    side = STAMP_PX * gallery.ENLARGED + 2
    assert page.shape == (4 * (gallery.HEADING_PX + side), 2 * side)
    for section in np.split(page, 4):
        tiles = np.split(section[gallery.HEADING_PX :], 2, axis=1)
        assert all(tile.std() > 5.0 and tile.max() == 255 for tile in tiles)


def test_a_masked_pixel_is_as_grey_as_the_sky():
    stamp = np.zeros((STAMP_PX, STAMP_PX), np.float32)
    stamp[30, 30], stamp[5, 5] = 500.0, np.nan
    grey = gallery.stretched(stamp)
    assert grey[30, 30] == 255
    assert grey[5, 5] == grey[6, 6] > 0
