"""Stamps and particle tables of the user's own: what is made of them, and what is refused."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from typer.testing import CliRunner

from models.calibration import Curve
from models.simulate.encounters import encounter
from models.simulate.viewing import draw_view
from models.training import ownstamps
from models.training.ownstamps import as_seen, own_stamps, read_own_image
from models.training.particletable import BadStamps
from models.training.stampbank import Stamps
from models.weights import load
from stream.cli import app


@pytest.fixture(autouse=True)
def one_of_each(monkeypatch):
    """One PSF a file: each takes its time to draw."""
    monkeypatch.setattr(ownstamps, "FROM_STAMP", 1)
    monkeypatch.setattr(ownstamps, "FROM_TABLE", 1)


def write_galaxy(path, *, scale=0.1, fwhm=None, seed=1, side=160):
    rng = np.random.default_rng(seed)
    y, x = np.indices((side, side)) - side / 2
    light = 4000.0 * np.exp(-np.hypot(x, y) * scale / 0.3) + rng.normal(1000.0, 10.0, (side, side))
    image = fits.PrimaryHDU(light.astype(np.float32))
    image.header.update(CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CRVAL1=10.0, CRVAL2=-5.0, CRPIX1=80.0, CRPIX2=80.0)
    image.header.update(CD1_1=-scale / 3600, CD2_2=scale / 3600, CD1_2=0.0, CD2_1=0.0)
    if fwhm is not None:
        image.header["PSF_FWHM"] = fwhm
    path.parent.mkdir(exist_ok=True)
    image.writeto(path)


def write_encounter(path):
    snapshot = encounter("evaluation", 0)[4]
    path.parent.mkdir(exist_ok=True)
    x, y, z = 3.5 * snapshot.places.T.astype(np.float64)
    table = Table({"x": x, "y": y, "z": z, "galaxy": snapshot.galaxy, "bulge": snapshot.bulge.astype(int)})
    table.write(path, format="ascii.csv")


def test_an_own_elliptical_is_learned_from_with_arcs_and_without(tmp_path):
    write_galaxy(tmp_path / "ellipticals" / "a.fits", fwhm=0.08)
    learned, held = own_stamps(tmp_path, "lenses", survey="euclid-vis", seed=3)
    assert learned.label.tolist() == [1, 0]
    assert np.isfinite(learned.ic).tolist() == [True, False]
    assert learned.pixels.shape == (2, 64, 64)
    light = np.nansum(learned.pixels[:, 16:48, 16:48].astype(np.float64), axis=(1, 2))
    assert light[0] == pytest.approx(light[1], rel=0.25)
    assert len(held.label) == 0


def test_an_own_encounter_is_seen_from_any_side_beside_what_is_none(tmp_path):
    write_encounter(tmp_path / "encounters" / "a.csv")
    learned, _ = own_stamps(tmp_path, "mergers", survey="kids-omegacam", seed=3)
    assert learned.label.tolist() == [2, 0]
    assert (np.nanmax(learned.pixels, axis=(1, 2)) > 5).all()


def test_a_narrow_psf_is_widened_and_noise_never_taken_away(tmp_path):
    write_galaxy(tmp_path / "a.fits", fwhm=0.05)
    own, view = read_own_image(tmp_path / "a.fits"), draw_view("euclid-vis", 1, 3, 0)
    canvas = as_seen(own, view, np.random.default_rng(7))
    assert canvas[42, 42] < 400.0
    assert canvas[:12].std() == pytest.approx(1.0, abs=0.15)


def test_wider_pixels_than_the_surveys_are_refused_by_name(tmp_path):
    write_galaxy(tmp_path / "ellipticals" / "wide.fits", scale=0.4)
    with pytest.raises(BadStamps, match=r"wide.fits: pixels of 0.400 arcsec are wider than the 0.100 of euclid-vis"):
        own_stamps(tmp_path, "lenses", survey="euclid-vis", seed=3)


def test_lenses_of_one_camera_without_impostors_of_it_are_refused(tmp_path):
    write_galaxy(tmp_path / "lenses" / "a.fits")
    with pytest.raises(BadStamps, match="none in impostors"):
        own_stamps(tmp_path, "lenses", seed=3)


def test_a_table_without_a_column_is_refused_by_name(tmp_path):
    (tmp_path / "encounters").mkdir()
    (tmp_path / "encounters" / "a.csv").write_text("x,y,z\n1,2,3\n")
    with pytest.raises(BadStamps, match=r"a.csv: no column galaxy; there are x, y, z"):
        own_stamps(tmp_path, "mergers", seed=3)


def test_a_network_trains_on_own_stamps_beside_drawn_ones(tmp_path, monkeypatch):
    write_galaxy(tmp_path / "own" / "a.fits")
    for name in ("lenses", "impostors"):
        write_galaxy(tmp_path / "own" / name / "a.fits", seed=len(name))

    def drawn(bank):
        rng = np.random.default_rng(bank.seed)
        label = (np.arange(bank.count) % 2).astype(np.int8)
        pixels = rng.standard_normal((bank.count, 64, 64)) + 3 * label[:, None, None]
        return Stamps(pixels.astype(np.float16), label, np.full(bank.count, np.nan, np.float32), label.astype("U4"))

    monkeypatch.setattr("models.training.stampbank.StampBank.make", lambda *_: None)
    monkeypatch.setattr("models.training.stampbank.StampBank.stamps", drawn)
    monkeypatch.setattr("models.training.classrecipes.fit_curve", lambda *_: Curve(1.0, 0.0, 0.5))
    words = ["train", "resnet", "--out", str(tmp_path / "run"), "--survey", "euclid-vis", "--steps", "2"]
    more = ["--device", "cpu", "--stamps", "64", "--stamps", str(tmp_path / "own")]
    done = CliRunner().invoke(app, [*words, *more])
    assert done.exit_code == 0, done.output
    assert load(str(tmp_path / "run" / "resnet.safetensors")).facts["recipe"]["own"] == "own"
