"""The full fault run: `python -m tests.stream.faults --faults 200 --seed 7`; exit status 1 when anything was wrong."""

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.stream.faults.night import KINDS, Night, run


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="default: a random one, printed")
    parser.add_argument("--pause-s", type=float, default=4.0, help="mean time between two faults")
    parser.add_argument("--busy-s", type=float, default=0.15, help="mean time that a frame takes")
    parser.add_argument("--kinds", nargs="+", default=[kind.__name__ for kind in KINDS], help="default: all")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    print(f"logs in {folder}")  # noqa: T201 - a command
    verdict = run(
        folder,
        faults=given.faults,
        seed=seed,
        busy_s=given.busy_s,
        pause_s=given.pause_s,
        kinds=[getattr(Night, name) for name in given.kinds],
        say=lambda line: print(line, flush=True),  # noqa: T201
    )
    print(verdict.table())  # noqa: T201
    problems = [*verdict.lost, *verdict.doubled, *verdict.complaints, *map(str, verdict.audit.problems)]
    for problem in problems:
        print(problem)  # noqa: T201
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
