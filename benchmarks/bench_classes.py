"""What lenses and mergers cost beside asteroids: one frame examined with and without them, in turns.

    python benchmarks/bench_classes.py FRAME.fits [ROUNDS]

The frame is a simulated one (`needlestream simulate --survey euclid-vis --size 2066x2048`). Medians over the rounds.
"""

import statistics
import sys
from pathlib import Path

from detector.examine import Search, examine
from detector.fits import read_frames
from detector.frame import Frame
from models.predictor import load_streak_network
from stream.commands.science import load_classes
from stream.settings import load_settings


def main() -> None:
    path, rounds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 5
    frame = next(each for each in read_frames(path, name=str(path)) if isinstance(each, Frame))
    network = load_streak_network("streaknet", "cpu")
    settings = load_settings(None, {"classes": "asteroids,lenses,mergers", "device": "cpu"})
    classes, _ = load_classes(settings)
    search = Search()
    examine(frame, network, search, classes)  # numba compiles
    alone, everything, stages = [], [], []
    for _ in range(rounds):
        alone.append(sum(examine(frame, network, search).seconds.values()))
        found = examine(frame, network, search, classes)
        everything.append(sum(found.seconds.values()))
        stages.append({name: found.seconds.get(name, 0.0) for name in ("discriminator", "lenses", "mergers")})
    print(f"asteroids alone      {statistics.median(alone):.3f} s")
    print(f"all three classes    {statistics.median(everything):.3f} s")
    for name in stages[0]:
        print(f"  {name:18} {statistics.median(stage[name] for stage in stages):.3f} s")
    print(f"more by              {100 * (statistics.median(everything) / statistics.median(alone) - 1):.0f} %")


if __name__ == "__main__":
    main()
