"""detect, simulate, train and evaluate as a person types them; the science is a stand-in, the files are real."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from astropy.io import fits
from typer.testing import CliRunner

from detector.frame import BadFrame
from detector.streaks import Findings, empty
from stream.batch import Output, examine_files, fits_files, run_batch
from stream.commands import examination, files
from stream.export import Format, Refused
from stream.tables import read_columns
from tests.stream.archives import Ready

app = typer.Typer()
files.register(app)
NUMBERS = {"x0", "y0", "x1", "y1", "score", "extension", "streaks"}


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def write_frame(path, *, extensions=0, seed=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(100, 5, (60, 80)).astype(np.float32)
    hdus = [fits.PrimaryHDU(None if extensions else noise)]
    hdus += [fits.ImageHDU(noise, name=f"CCD{number}") for number in range(extensions)]
    fits.HDUList(hdus).writeto(path)
    return path


def one_streak(frame, **_):
    """Stands in for the science: a streak at a place that depends on the frame; a constant frame is refused."""
    if frame.header.ccd == "CCD1":
        raise BadFrame("constant", f"{frame.header.name} [{frame.header.extension}]: all pixels are equal")
    streaks = empty(1)
    streaks["x0"], streaks["y0"], streaks["x1"], streaks["y1"] = 20, 30, 40 + frame.header.extension, 30
    streaks["score"] = 0.9
    return Findings(frame.header, streaks, 100.0, 5.0, 2.0, {}, {"all": 0.25}, ("no-wcs",))


@pytest.fixture
def stand_in(monkeypatch):
    """The network and the examination of ``detect`` and ``evaluate``, without torch; gives what they were asked."""
    asked = SimpleNamespace(searches=[], weights=[])

    def load(weights, device):
        asked.weights.append((weights, device))
        return "network"

    def examine(frame, network, search, others=()):
        assert network == "network"
        assert not others
        asked.searches.append(search)
        return one_streak(frame)

    monkeypatch.setattr("models.predictor.load_streak_network", load)
    monkeypatch.setattr("stream.commands.science.load_judge", lambda *_: None)
    monkeypatch.setattr("stream.commands.science.prepare", lambda frame, **_: Ready(frame.header))
    monkeypatch.setattr("detector.examine.examine", examine)
    monkeypatch.setattr("detector.examine.examine_prepared", examine)
    return asked


def test_detect_writes_one_table_for_all_frames_and_a_line_for_each(tmp_path, stand_in):
    one, two = write_frame(tmp_path / "in" / "a.fits"), write_frame(tmp_path / "in" / "deep" / "b.fits", seed=2)
    done = invoke("detect", tmp_path / "in", "--out", tmp_path / "out", "--threshold", "0.2", "--device", "cpu")
    assert done.exit_code == 0, done.output
    table = read_columns(tmp_path / "out" / "streaks.csv", NUMBERS)
    assert table["frame"].tolist() == [str(one), str(two)]
    assert table["x1"].tolist() == [40.0, 40.0]
    assert f"{one} [0]: 1 streaks, PSF 2.00 px, 0.25 s; no-wcs" in done.stdout
    assert stand_in.searches[0].threshold == 0.2
    assert stand_in.weights == [("streaknet", "cpu")]


@pytest.mark.usefixtures("stand_in")
def test_detect_goes_on_after_a_refused_frame_and_ends_with_status_1(tmp_path):
    (tmp_path / "a.fits").write_bytes(b"this is no FITS file" * 500)
    good = write_frame(tmp_path / "b.fits")
    done = invoke("detect", tmp_path / "a.fits", good, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "refused (" in done.stderr
    assert "a.fits" in done.stderr
    assert read_columns(tmp_path / "out" / "streaks.csv", NUMBERS)["frame"].tolist() == [str(good)]
    listed = read_columns(tmp_path / "out" / "frames.csv", NUMBERS)
    assert [bool(reason) for reason in listed["reason"]] == [True, False]


@pytest.mark.usefixtures("stand_in")
def test_one_sick_hdu_does_not_take_the_others_with_it(tmp_path):
    mosaic = write_frame(tmp_path / "mosaic.fits", extensions=3)
    done = invoke("detect", mosaic, "--out", tmp_path / "out")
    assert done.exit_code == 1
    listed = read_columns(tmp_path / "out" / "frames.csv", NUMBERS)
    assert listed["extension"].tolist() == [1.0, 2.0, 3.0]
    assert listed["reason"].tolist() == ["", "constant", ""]
    assert read_columns(tmp_path / "out" / "streaks.csv", NUMBERS)["extension"].tolist() == [1.0, 3.0]


@pytest.mark.usefixtures("stand_in")
def test_detect_takes_one_extension_when_asked(tmp_path):
    mosaic = write_frame(tmp_path / "mosaic.fits", extensions=3)
    done = invoke("detect", mosaic, "--out", tmp_path / "out", "--extension", 3)
    assert done.exit_code == 0, done.output
    assert read_columns(tmp_path / "out" / "frames.csv", NUMBERS)["extension"].tolist() == [3.0]


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("kind", ["ecsv", "parquet", "ds9"])
def test_detect_writes_the_other_formats_and_pictures(tmp_path, kind):
    frame = write_frame(tmp_path / "a.fits")
    assert invoke("detect", frame, "--out", tmp_path / "out", "--format", kind, "--picture").exit_code == 0
    table = "a.fits-0.reg" if kind == "ds9" else f"streaks.{kind}"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {table, "frames.csv", "a.fits-0.png"}


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    "words",
    [
        ("detect",),
        ("detect", "absent.fits"),
        ("detect", ".", "--survey", "nobody"),
        ("detect", ".", "--format", "xml"),
        ("detect", ".", "--threshold", "2"),
        ("simulate", "--out", "x", "--size", "12"),
        ("simulate", "--out", "x", "--survey", "nobody"),
        ("train", "nobody", "--out", "x"),
        ("train", "streaknet", "--out", "x", "--seed", "900000"),
        ("evaluate", "streaks"),
        ("evaluate", "streaks", "--real", ".", "--survey", "euclid-vis"),
    ],
)
def test_wrong_usage_ends_with_status_2(tmp_path, monkeypatch, words):
    write_frame(tmp_path / "a.fits")
    monkeypatch.chdir(tmp_path)
    assert invoke(*words).exit_code == 2


@pytest.mark.usefixtures("stand_in")
def test_a_folder_without_frames_is_a_wrong_usage(tmp_path):
    done = invoke("detect", tmp_path)
    assert done.exit_code == 2
    assert "no FITS file" in done.stderr


def test_weights_that_are_not_there_end_with_a_sentence(tmp_path):
    done = invoke("detect", write_frame(tmp_path / "a.fits"), "--weights", "absent", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "absent" in done.stderr
    assert "Traceback" not in done.output


def test_files_are_taken_as_given_and_folders_searched_in_order(tmp_path):
    odd = tmp_path / "frame.dat"
    odd.write_bytes(b"")
    for name in ("z.fits", "b.FIT", "deep/c.fits.fz", "d.fits.gz", "notes.txt"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    found = fits_files([odd, tmp_path / "in", tmp_path / "in" / "z.fits"])
    assert [path.name for path in found] == ["frame.dat", "b.FIT", "d.fits.gz", "c.fits.fz", "z.fits"]


def test_an_unreadable_file_is_refused_and_a_failing_disk_is_not(tmp_path):
    def read(file):
        raise PermissionError(13, "Permission denied") if file.name == "a" else OSError(5, "Input/output error")

    (refused,) = examine_files([tmp_path / "a"], read, one_streak)
    assert isinstance(refused, Refused)
    assert refused.reason == "unreadable"
    with pytest.raises(OSError, match="Input/output"):
        list(examine_files([tmp_path / "b"], read, one_streak))


def test_a_defect_of_ours_stops_the_run_and_leaves_no_whole_table(tmp_path):
    frame = SimpleNamespace(header=SimpleNamespace(extension=0))

    def examine(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_batch(
            examine_files([tmp_path / "a.fits"], lambda _: [frame], examine),
            Output(tmp_path / "out", Format.CSV, pictures=False),
            root=tmp_path,
            announce=print,
        )
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"streaks.csv.partial", "frames.csv.partial"}


def test_the_summary_of_a_refused_frame_says_why():
    assert examination.summary(Refused("a.fits", 2, "all-nan", "long")) == "a.fits [2]: refused, all-nan"


# evaluate.


def write_tables(folder):
    (folder / "truth.csv").write_text(
        "field,frame,extension,x0,y0,x1,y1,mag,snr_limit,rate_arcsec_h,inside\n"
        "f,a.fits,0,20,30,40,30,22,30,10,1\n"
        "f,b.fits,0,20,40,40,40,23,9,10,1\n"
    )
    (folder / "mine.csv").write_text("frame,extension,x0,y0,x1,y1,score\nin/a.fits,0,21,30,41,30,0.8\n")


def test_evaluate_judges_anybodys_tables(tmp_path):
    write_tables(tmp_path)
    done = invoke(
        *("evaluate", "streaks", "--detections", tmp_path / "mine.csv", "--truth", tmp_path / "truth.csv"),
        *("--frames", 9, "--out", tmp_path / "out"),
    )
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())["mine"]
    assert report["n_frames"] == 9
    assert report["at_threshold"]["found"] == 1
    assert report["at_threshold"]["clean_fraction"] == 1.0
    assert "found / truths that count | 1 / 2" in done.stdout
    assert (tmp_path / "out" / "completeness.png").stat().st_size > 5000


def test_evaluate_takes_the_list_of_frames_beside_the_truth(tmp_path):
    write_tables(tmp_path)
    (tmp_path / "frames.csv").write_text(
        "frame,extension,height,width\na.fits,0,200,200\nb.fits,0,200,45\nc.fits,0,9,9\n"
    )
    invoke(
        *("evaluate", "streaks", "--detections", tmp_path / "mine.csv", "--truth", tmp_path / "truth.csv"),
        *("--out", tmp_path / "out", "--no-plots"),
    )
    report = json.loads((tmp_path / "out" / "report.json").read_text())["mine"]
    assert report["n_frames"] == 3
    assert report["truths_that_count"] == 1  # the other one ends 5 px from the border


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("frame,x0\na.fits,1\n", "no column"), ("frame,x0,y0,x1,y1,score\nz.fits,1,1,9,9,1\n", "share")],
)
def test_evaluate_says_what_is_wrong_with_a_table(tmp_path, text, complaint):
    write_tables(tmp_path)
    (tmp_path / "mine.csv").write_text(text)
    done = invoke("evaluate", "streaks", "--detections", tmp_path / "mine.csv", "--truth", tmp_path / "truth.csv")
    assert done.exit_code == 2
    assert complaint in done.stderr


def test_evaluate_detects_on_simulated_frames_at_threshold_0_and_shows_the_peer(tmp_path, stand_in):
    pytest.importorskip("sep")
    write_tables(tmp_path)
    for name in ("a.fits", "b.fits"):
        write_frame(tmp_path / name)
    (tmp_path / "frames.csv").write_text(
        "frame,extension,height,width,psf_fwhm_px\na.fits,0,60,80,2\nb.fits,0,60,80,2\n"
    )
    done = invoke("evaluate", "streaks", "--simulated", tmp_path, "--out", tmp_path / "out", "--no-plots")
    assert done.exit_code == 0, done.output
    assert {search.threshold for search in stand_in.searches} == {0.0}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert list(report)[:2] == ["needlestream", "sep (elongated sources)"]
    assert report["needlestream"]["at_threshold"]["found"] == 1
    assert report["needlestream"]["at_threshold"]["false_per_frame"] == 0.5
    assert report["needlestream"]["residuals"][3]["end_bound_px"] > 0


@pytest.mark.usefixtures("stand_in")
def test_evaluate_simulates_fields_with_and_without_asteroids(tmp_path):
    done = invoke(
        *("evaluate", "streaks", "--survey", "euclid-vis", "--size", "160x160", "--fields", 1, "--asteroids", 20),
        *("--out", tmp_path, "--no-peers", "--no-plots"),
    )
    assert done.exit_code == 0, done.output
    at = json.loads((tmp_path / "report.json").read_text())["needlestream"]["at_threshold"]
    assert at["empty_frames"] >= 4
    assert at["false_per_empty_frame"] == 1.0


def test_simulate_writes_frames_and_truth_that_belong_together(tmp_path):
    done = invoke("simulate", "--out", tmp_path / "sky", "--size", "128x160", "--asteroids", 5, "--dithers", 2)
    assert done.exit_code == 0, done.output
    listed = read_columns(tmp_path / "sky" / "frames.csv", {"height", "width"})
    assert listed["width"].tolist() == [160.0, 160.0]
    assert all((tmp_path / "sky" / name).exists() for name in listed["frame"])
    assert set(read_columns(tmp_path / "sky" / "truth.csv", set())["frame"]) <= set(listed["frame"])


@pytest.mark.usefixtures("stand_in")
def test_evaluate_on_real_frames_lists_what_was_found_of_each_trail(tmp_path):
    write_frame(tmp_path / "sub" / "a.fits")
    write_frame(tmp_path / "sub" / "clean.fits", seed=2)
    (tmp_path / "truth.csv").write_text(
        "file,object,x0,y0,x1,y1,ends_inside,kind\n"
        "sub/a.fits,A2,41,30.5,20,30.5,both,asteroid\n"
        "sub/a.fits,trail,0,32,79,28,none,trail\n"
        "sub/a.fits,A9,20,50,40,50,both,asteroid\n"
    )
    done = invoke("evaluate", "streaks", "--real", tmp_path, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())["real"]
    assert [(one["name"], one["found"], one["rank"]) for one in report["sightings"]] == [
        ("A2", True, 0),
        ("trail", True, 0),
        ("A9", False, None),
    ]
    assert report["sightings"][0]["ends_px"] == pytest.approx([1.118, 0.5], abs=0.01)
    assert report["sightings"][1]["ends_px"] is None
    assert [(one["above_threshold"], one["false"]) for one in report["frames"]] == [(1, 0), (1, 1)]
    assert "| a.fits | A9 | no | - | - | 0 | - |" in done.stdout


def test_evaluate_compares_several_tables_and_their_union(tmp_path):
    write_tables(tmp_path)
    (tmp_path / "other.csv").write_text("frame,extension,x0,y0,x1,y1,score\nb.fits,0,21,40,41,40,70\n")
    done = invoke(
        *("evaluate", "streaks", "--truth", tmp_path / "truth.csv", "--frames", 9, "--out", tmp_path / "out"),
        *("--detections", f"network={tmp_path / 'mine.csv'}", "--detections", f"matched={tmp_path / 'other.csv'}"),
        "--no-plots",
    )
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    found = {name: one["half_magnitudes"][0]["found"] for name, one in report.items()}
    assert found == {"network": 1, "matched": 1, "union (each one's best in turn)": 2}


def test_evaluate_judges_a_table_on_the_frames_of_several_simulated_folders(tmp_path, stand_in):
    for folder, frame in (("sky", "a.fits"), ("empty", "e.fits")):
        (tmp_path / folder).mkdir()
        write_tables(tmp_path / folder)
        (tmp_path / folder / "frames.csv").write_text(f"frame,extension,height,width\n{frame},0,2066,2048\n")
    (tmp_path / "empty" / "truth.csv").write_text((tmp_path / "sky" / "truth.csv").read_text().splitlines()[0] + "\n")
    done = invoke(
        *("evaluate", "streaks", "--simulated", tmp_path / "sky", "--simulated", tmp_path / "empty"),
        *("--detections", tmp_path / "sky" / "mine.csv", "--false-per", "ccd", "--out", tmp_path / "out", "--no-plots"),
    )
    assert done.exit_code == 0, done.output
    assert stand_in.searches == []
    report = json.loads((tmp_path / "out" / "report.json").read_text())["mine"]
    assert (report["n_frames"], report["unit"], report["at_threshold"]["empty_frames"]) == (2, "ccd", 1)
    assert "false per CCD of 17 Mpx" in done.stdout


def test_evaluate_puts_streaks_into_own_frames_and_leaves_out_what_it_cannot_read(tmp_path, stand_in):
    good = write_frame(tmp_path / "in" / "a.fits")
    (tmp_path / "in" / "sick.fits").write_bytes(b"this is no FITS file" * 500)
    done = invoke(
        *("evaluate", "streaks", "--inject", tmp_path / "in", "--rounds", 3, "--out", tmp_path / "out", "--no-plots")
    )
    assert done.exit_code == 0, done.output
    assert "left out (" in done.stderr
    assert {search.threshold for search in stand_in.searches} == {0.0}
    frames = read_columns(tmp_path / "out" / "frames.csv", NUMBERS)["frame"].tolist()
    assert frames == [str(good), *(f"{good}#{number}" for number in (1, 2, 3))]
    truth = read_columns(tmp_path / "out" / "truth.csv", {"mag", "flux_e", "snr_limit"})
    assert set(truth["frame"]) <= set(frames[1:])
    np.testing.assert_allclose(truth["mag"], 25 - 2.5 * np.log10(truth["flux_e"]), atol=1e-6)
    report = json.loads((tmp_path / "out" / "report.json").read_text())["needlestream"]
    assert report["truths"] == len(truth["mag"]) > 0
    assert report["at_threshold"]["false_per_frame"] == 1.0
    assert report["seconds"] == {"all": 0.25}
    depths = json.loads((tmp_path / "out" / "depths.json").read_text())["depths"]
    assert [one["frame"] for one in depths] == ["a.fits", "a.fits", "all", "all"]
    assert "25 - 2.5 log10 of the electrons" in done.stdout


@pytest.mark.usefixtures("stand_in")
def test_a_known_real_trail_is_no_false_one_among_injected_streaks(tmp_path):
    write_frame(tmp_path / "in" / "a.fits")
    (tmp_path / "known.csv").write_text("file,x0,y0,x1,y1,ends_inside\nin/a.fits,20,30,40,30,both\n")
    words = ("evaluate", "streaks", "--inject", tmp_path / "in", "--rounds", 1, "--out", tmp_path / "out", "--no-plots")
    done = invoke(*words, "--known", tmp_path / "known.csv")
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())["needlestream"]
    assert report["detections"] == 0
    (tmp_path / "known.csv").write_text("frame\na.fits\n")
    assert "needs columns" in " ".join(invoke(*words, "--known", tmp_path / "known.csv").stderr.split())


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--detections", "truth.csv"), "exactly one of"),
        (("--truth", "truth.csv"), "go with"),
        (("--truth", "truth.csv", "--detections", "gone.csv"), "gone.csv"),
        (("--truth", "truth.csv", "--detections", "a=mine.csv", "--detections", "a=mine.csv"), "called 'a'"),
    ],
)
def test_evaluate_says_which_options_go_together(tmp_path, monkeypatch, words, complaint):
    write_tables(tmp_path)
    monkeypatch.chdir(tmp_path)
    done = invoke("evaluate", "streaks", *words)
    assert done.exit_code == 2
    assert complaint in " ".join(done.stderr.replace("│", " ").split())


def test_train_on_labels_says_what_is_wrong_with_the_table(tmp_path):
    (tmp_path / "found.csv").write_text("frame,x0,y0,x1,y1,label\na.fits,1,2,3,4,5\n")
    done = invoke("train", "streaknet", "--out", tmp_path, "--labels", tmp_path / "found.csv", "--frames", tmp_path)
    assert done.exit_code == 2
    assert "label 5" in " ".join(done.stderr.split())
    done = invoke("train", "streaknet", "--out", tmp_path, "--labels", tmp_path / "found.csv")
    assert done.exit_code == 2
    assert "go together" in " ".join(done.stderr.split())
