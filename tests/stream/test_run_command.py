"""`needlestream run` with the real reader, network and science: the same rows as from files."""

import functools

import numpy as np
import pytest
import torch
from astropy.io import fits
from typer.testing import CliRunner

from detector.examine import Search, examine
from detector.fits import read_frames
from models.networks.asteroid import AsteroidNet
from models.networks.streaknet import StreakNet, StreakNetShape
from models.predictor import load_streak_network
from models.weights import save
from stream.alerts import streak_rows
from stream.cli import app
from stream.messages import EXAMINED, REJECTED, STREAKS
from tests.stream.topics import read_all, read_avro

SIZE = 256


def untrained(path):
    """Weights that propose something, if nothing sensible."""
    torch.manual_seed(5)
    shape = StreakNetShape(channels=(4, 4, 4, 4, 4, 4))
    facts = {
        "network": "streaknet",
        "shape": {"window": shape.window, "step": shape.step, "channels": list(shape.channels)},
        "calibration": {"slope": 1.0, "intercept": 0.0, "density": 1.0},
    }
    verifier = {f"verifier.{name}": tensor for name, tensor in AsteroidNet().state_dict().items()}
    save(path, {**StreakNet(shape).state_dict(), **verifier}, facts)
    return path


def sky(seed):
    rng = np.random.default_rng(seed)
    pixels = rng.normal(100, 10, (SIZE, SIZE)).astype(np.float32)
    for x in range(40, 90):
        pixels[100 + x // 4, x] += 300
    return pixels


def archive(folder):
    """A single frame with a WCS, and a file of two CCDs and one that is blank."""
    folder.mkdir()
    single = fits.PrimaryHDU(sky(1))
    single.header.update({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 20.0})
    single.header.update({"CRPIX1": 1.0, "CRPIX2": 1.0, "CD1_1": -1e-4, "CD2_2": 1e-4, "CD1_2": 0.0, "CD2_1": 0.0})
    single.header.update({"DATE-OBS": "2024-05-06T01:00:00", "EXPTIME": 300.0, "EXPNUM": 7, "CCDNUM": 2})
    single.writeto(folder / "single.fits")
    several = [fits.PrimaryHDU()]
    several += [fits.ImageHDU(pixels, name=f"CCD{n}") for n, pixels in enumerate((sky(2), sky(3), 0 * sky(3)))]
    fits.HDUList(several).writeto(folder / "several.fits")
    return sorted(folder.iterdir())


@pytest.mark.parametrize(
    "settings", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("kafka", "embedded")]
)
def test_replay_and_run_give_the_same_rows_as_files(settings, request, tmp_path):
    settings = request.getfixturevalue(f"{settings}_settings")
    files = archive(tmp_path / "night")
    weights = untrained(tmp_path / "untrained.safetensors")
    common = ["--bootstrap-servers", settings.bootstrap_servers, "--topic-prefix", settings.topic_prefix]
    worker = ["--group-id", settings.group_id, "--session-timeout-s", "6", "--delivery", settings.delivery]
    search = ["--weights", str(weights), "--threshold", "0", "--count", "2"]
    for words in (["replay", str(tmp_path / "night"), *common], ["run", *common, *worker, *search]):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output

    alerts = read_avro(settings, STREAKS)
    summaries = read_avro(settings, EXAMINED)
    science = functools.partial(examine, network=load_streak_network(str(weights)), search=Search(threshold=0))
    rejected = 0
    for file in files:
        for frame in read_frames(file, name=str(file)):
            if isinstance(frame, Exception):
                rejected += 1
                continue
            findings = science(frame)
            here = str(file), frame.header.extension
            mine = [alert for alert in alerts if (alert["source"], alert["extension"]) == here]
            (summary,) = [s for s in summaries if (s["source"], s["extension"]) == here]
            assert len(mine) == summary["nStreaks"] == len(findings.streaks) > 3
            assert streak_rows(mine).tobytes() == findings.streaks.tobytes()
            assert tuple(summary["flags"]) == findings.flags
            assert (mine[0]["exposure"], mine[0]["ccd"]) == (frame.header.exposure, frame.header.ccd)
    assert len(summaries) == 3
    assert len(read_all(settings, REJECTED)) == rejected == 1
