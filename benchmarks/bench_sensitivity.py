"""What the live measure of what is missed costs: processor time of a frame, and of its copy with synthetic streaks.

``python benchmarks/bench_sensitivity.py`` (``--size 4132x4096 --frames 1`` for a whole Euclid CCD). The examination is
the worker's own, with its weights; frames are simulated.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from detector.fits import read_frames  # noqa: E402
from models.evaluate.sensitivity import try_frame  # noqa: E402
from stream.commands.science import load_science  # noqa: E402
from stream.settings import load_settings  # noqa: E402

PROGRAM = (sys.executable, "-c", "from stream.cli import app; app()")
SHARES = (0.01, 0.1)


def timed(step, *given):
    begun = time.process_time()
    made = step(*given)
    return made, time.process_time() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="512x512", help="rows x columns of a frame")
    parser.add_argument("--frames", type=int, default=4)
    given = parser.parse_args()
    settings = load_settings(None, {})
    science = load_science(settings, "streaknet", link_threshold=settings.link_threshold)
    with tempfile.TemporaryDirectory() as folder:
        words = ("simulate", "--seed", "900401", "--size", given.size, "--dithers", str(given.frames), "--out", folder)
        subprocess.run([*PROGRAM, *words], cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL)
        frames = [next(iter(read_frames(path, name=path.name))) for path in sorted(Path(folder).glob("*.fits"))]
    science.examine(frames[0])  # compiles what is not compiled
    spent_s = [0.0, 0.0]
    injected = found = 0
    for frame in frames:
        findings, examined_s = timed(science.examine, frame)
        trial, measured_s = timed(try_frame, frame, findings, science.examine)
        spent_s[0] += examined_s
        spent_s[1] += measured_s
        injected, found = injected + len(trial.found), found + int(trial.found.sum())
    frame_s, measure_s = (one / len(frames) for one in spent_s)
    print(
        f"{len(frames)} frames of {given.size} px: {frame_s:.2f} s of processor time each, {measure_s:.2f} s a measure"
    )
    print(f"{injected} streaks put in, {found} found")
    for share in SHARES:
        print(f"a share of {share:.0%} costs {share * measure_s / frame_s:.1%}")


if __name__ == "__main__":
    main()
