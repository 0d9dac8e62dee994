"""The table of streaks: its order, its nulls, every format there and back; regions and pictures."""

from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from detector.frame import Frame, FrameHeader
from detector.streaks import STREAK, Findings, StreakFlag, empty
from detector.survey import EUCLID_VIS, GENERIC
from stream.export import Format, Refused, common_root, file_stem, frame_list, streak_output, write_regions
from stream.picture import LARGEST_SIDE, box, draw_picture, scaled
from stream.tables import COLUMNS, NAMES, TEXT, read_columns, utc_text

CONTRACT = (
    "frame extension exposure ccd x0 y0 x1 y1 score snr flux mag chi2 length_px angle_deg ra0 dec0 ra1 dec1 ra dec "
    "trail_length_arcsec trail_angle_deg rate_arcsec_h mid_time_utc"
)
NUMBERS = frozenset(NAMES) - TEXT


def findings_of(name="night/a.fits", count=3, shape=(200, 300), flags=(), seed=1):
    rng = np.random.default_rng(seed)
    streaks = empty(count)
    for column in STREAK.names:
        if column != "flags":
            streaks[column] = rng.uniform(10, 190, count)
    streaks["score"] = np.sort(rng.uniform(0, 1, count))[::-1]
    header = FrameHeader(name, 0, shape, EUCLID_VIS, exposure="0012", ccd="3-4", mid_time_mjd_tai=60000.5)
    return Findings(header, streaks, 103.0, 11.0, 1.7, {}, {"fit": 0.5}, flags)


def written(tmp_path, kind, *findings):
    with streak_output(tmp_path, kind, tmp_path) as add:
        for one in findings:
            add(one)
    return tmp_path / f"streaks.{kind.value}"


def test_the_columns_stand_in_the_published_order_then_errors_then_flags():
    rest = list(NAMES[len(CONTRACT.split()) :])
    assert list(NAMES[: len(CONTRACT.split())]) == CONTRACT.split()
    assert rest[-1] == "flags"
    assert all(name.endswith("_err") or name == "ra_dec_corr" for name in rest[:-1])
    assert set(STREAK.names) <= set(NAMES)


@pytest.mark.parametrize("kind", [Format.CSV, Format.ECSV, Format.PARQUET])
def test_every_table_comes_back_as_it_went(tmp_path, kind):
    first, second = findings_of(), findings_of("night/b, with comma.fits", seed=2)
    back = read_columns(written(tmp_path, kind, first, second), NUMBERS)
    assert tuple(back) == NAMES
    assert back["frame"].tolist() == [first.header.name] * 3 + [second.header.name] * 3
    assert set(back["exposure"]) == {"0012"}
    assert set(back["mid_time_utc"]) == {"2023-02-25T11:59:23.000Z"}
    for name in set(STREAK.names) - {"flags"}:
        expected = np.concatenate([first.streaks[name], second.streaks[name]])
        np.testing.assert_allclose(back[name], expected, rtol=1e-3, atol=0.006)


@pytest.mark.parametrize("kind", [Format.CSV, Format.ECSV, Format.PARQUET])
def test_what_is_not_known_is_empty_and_comes_back_as_nan(tmp_path, kind):
    header = FrameHeader("a.fits", 2, (50, 50), GENERIC)
    streaks = empty(2)
    streaks["x0"] = [1.0, 2.0]
    path = written(tmp_path, kind, Findings(header, streaks, 1.0, 1.0, 2.0, {}, {}, ()))
    back = read_columns(path, NUMBERS)
    assert back["x0"].tolist() == [1.0, 2.0]
    assert back["extension"].tolist() == [2.0, 2.0]
    assert np.isnan(back["ra"]).all()
    assert back["ccd"].tolist() == ["", ""]
    assert back["flags"].tolist() == ["", ""]
    if kind is Format.CSV:
        assert "nan" not in path.read_text().lower()


@pytest.mark.parametrize("kind", [Format.CSV, Format.ECSV, Format.PARQUET])
def test_a_night_without_a_streak_is_a_table_without_rows(tmp_path, kind):
    back = read_columns(written(tmp_path, kind, findings_of(count=0)), NUMBERS)
    assert tuple(back) == NAMES
    assert len(back["frame"]) == 0


def test_ecsv_carries_units_that_astropy_understands(tmp_path):
    table = Table.read(written(tmp_path, Format.ECSV, findings_of()), format="ascii.ecsv")
    assert str(table["rate_arcsec_h"].unit) == "arcsec / h"
    assert table["extension"].dtype.kind == "i"
    assert all((table[column.name].unit is None) == (not column.unit) for column in COLUMNS)


def test_a_table_bears_its_name_only_when_it_is_whole(tmp_path):
    def dies():
        with streak_output(tmp_path, Format.CSV, tmp_path) as add:
            add(findings_of())
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        dies()
    assert not (tmp_path / "streaks.csv").exists()
    assert len((tmp_path / "streaks.csv.partial").read_text().splitlines()) == 4


def test_the_same_findings_give_the_same_bytes(tmp_path):
    one = written(tmp_path / "one", Format.CSV, findings_of()).read_bytes()
    assert one == written(tmp_path / "two", Format.CSV, findings_of()).read_bytes()


def test_flags_are_words_the_streaks_own_first(tmp_path):
    findings = findings_of(flags=("no-wcs", "many-streaks"))
    findings.streaks["flags"][0] = StreakFlag.EDGE | StreakFlag.NO_FIT
    back = read_columns(written(tmp_path, Format.CSV, findings), NUMBERS)
    assert back["flags"].tolist() == ["edge no-fit no-wcs many-streaks", *["no-wcs many-streaks"] * 2]


def test_tai_becomes_utc_across_the_leap_seconds():
    assert utc_text(57754.0) == "2016-12-31T23:59:24.000Z"
    assert utc_text(None) is None


def test_a_table_of_others_may_lack_columns_and_have_them_in_any_order(tmp_path):
    path = tmp_path / "theirs.csv"
    path.write_text("# made by hand\ny0,x0,frame,inside,name\n2, 1.5 ,a.fits,True,007\n,3,b.fits,no,x\n")
    back = read_columns(path, {"x0", "y0", "inside"})
    np.testing.assert_array_equal(back["y0"], [2.0, np.nan])
    assert back["x0"].tolist() == [1.5, 3.0]
    assert back["inside"].tolist() == [1.0, 0.0]
    assert back["name"].tolist() == ["007", "x"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("", "first line"), ("x0,y0\n1,2\n3\n", "row 2 has 1"), ("x0\nabc\n", "column x0")],
)
def test_a_table_that_cannot_be_read_says_where(tmp_path, text, complaint):
    path = tmp_path / "broken.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        read_columns(path, {"x0", "y0"})


def test_regions_count_pixels_from_one_and_are_read_by_others(tmp_path):
    regions = pytest.importorskip("regions")
    findings = findings_of()
    write_regions(tmp_path / "a.reg", findings)
    lines = regions.Regions.read(tmp_path / "a.reg", format="ds9")
    assert len(lines) == 3
    # The package turns DS9's one-based pixels back into zero-based ones: the round trip is the identity.
    assert lines[0].start.x == pytest.approx(findings.streaks["x0"][0], abs=1e-3)
    assert lines[0].end.y == pytest.approx(findings.streaks["y1"][0], abs=1e-3)
    first = (tmp_path / "a.reg").read_text().splitlines()[3]
    assert first.startswith(f"line({findings.streaks['x0'][0] + 1:.3f},")


def test_ds9_output_is_one_file_a_frame(tmp_path):
    names = [str(tmp_path / "in" / name) for name in ("a/f.fits", "b/f.fits", "b/f.fits.fz")]
    with streak_output(tmp_path, Format.DS9, common_root(names)) as add:
        for name in names:
            add(findings_of(name))
    assert sorted(path.name for path in tmp_path.glob("*.reg")) == [
        "a-f.fits-0.reg",
        "b-f.fits-0.reg",
        "b-f.fits.fz-0.reg",
    ]


def test_a_single_frame_keeps_its_plain_name(tmp_path):
    name = str(tmp_path / "deep" / "f.fits")
    assert file_stem(findings_of(name).header, common_root([name])) == "f.fits-0"


def test_the_list_of_frames_counts_examined_and_refused(tmp_path):
    with frame_list(tmp_path / "frames.csv") as add:
        add(findings_of())
        add(Refused("broken.fits", None, "not-fits", "broken.fits: no SIMPLE card, is it FITS?"))
    back = read_columns(tmp_path / "frames.csv", {"streaks", "width", "height"})
    assert back["streaks"].tolist()[0] == 3
    assert (back["width"][0], back["height"][0]) == (300, 200)
    assert back["reason"].tolist() == ["", "not-fits"]


def picture_of(tmp_path, shape, ends, flags=0):
    pixels = np.random.default_rng(3).normal(100, 5, shape).astype(np.float32)
    streaks = empty(len(ends))
    for row, (x0, y0, x1, y1) in zip(streaks, ends, strict=True):
        row["x0"], row["y0"], row["x1"], row["y1"], row["score"] = x0, y0, x1, y1, 0.9
    streaks["flags"] = flags
    header = FrameHeader(str(tmp_path / "a.fits"), 0, shape, GENERIC)
    frame = Frame(header, pixels, np.zeros(shape, np.uint8))
    draw_picture(tmp_path / "a.png", frame, Findings(header, streaks, 100.0, 5.0, 2.0, {}, {}, ()))
    return np.array(Image.open(tmp_path / "a.png")).astype(int)


def coloured(picture):
    return np.argwhere(np.ptp(picture, axis=2) > 100)


def test_a_streak_is_boxed_where_it_lies_with_y_upwards(tmp_path):
    picture = picture_of(tmp_path, (800, 800), [(100, 700, 160, 700)])
    rows, columns = coloured(picture).T
    caption = picture.shape[0] - 800
    assert 800 - 700 + caption - 15 < rows.min() <= rows.max() < 800 - 700 + caption + 15
    assert columns.min() < 100
    assert columns.max() < 230


def test_a_large_frame_is_binned_and_a_small_one_enlarged():
    assert scaled(np.ones((30, LARGEST_SIDE * 2 + 1), np.float32))[1].shape == (10, -(-(LARGEST_SIDE * 2 + 1) // 3))
    scale, grey = scaled(np.ones((100, 60), np.float32))
    assert scale == 7
    assert grey.shape == (700, 420)


def test_a_streak_over_the_border_and_a_frame_without_a_good_pixel_are_drawn(tmp_path):
    assert len(coloured(picture_of(tmp_path, (800, 800), [(-20, 10, 30, 10), (799, 799, 830, 850)], StreakFlag.EDGE)))
    assert not scaled(np.full((20, 20), np.nan, np.float32))[1].any()


@given(st.lists(st.floats(-100, 100), min_size=4, max_size=4))
def test_a_box_keeps_its_margin_on_all_sides(numbers):
    ends = np.array(numbers).reshape(2, 2)
    corners = box(ends, 5.0)
    np.testing.assert_allclose(corners.mean(axis=0), ends.mean(axis=0), atol=1e-9)
    sides = np.hypot(*(corners - np.roll(corners, 1, axis=0)).T)
    np.testing.assert_allclose(np.sort(sides)[:2], 10.0, atol=1e-6)


def test_the_docs_name_every_column_and_every_flag():
    text = (Path(__file__).parents[2] / "docs" / "streaks.md").read_text()
    assert all(f"`{name}`" in text for name in NAMES)
    assert all(f"`{flag.words()}`" in text for flag in StreakFlag)
