"""Damaged files through `needlestream detect`: `python -m tests.detector.damaged --files 10000`.

The seeds are files of every form that the door reads, and the real frames beside the checkout where there are some.
Each is damaged in a header or anywhere, and read by the command's own code in processes with a bounded address space:
the exit status has to be 0 or 1, without a traceback.
"""

import argparse
import collections
import csv
import multiprocessing
import random
import resource
import sys
import tempfile
from pathlib import Path

from tests.detector.test_fits_fuzz import NUMBERS, SEEDS, WORDS

MEMORY_BYTES = 4 << 30
CHUNK = 250
REAL_BYTES = 3_000_000  # of a real file: header and some of the pixels


def seeds():
    """Whole small files of every form, and the beginnings of real ones."""
    found = dict(SEEDS)
    folder = Path(__file__).resolve().parents[3] / "shared" / "realdata"
    for path in sorted(folder.rglob("*.f*ts*"))[:40]:
        with path.open("rb") as file:
            found[path.name] = file.read(REAL_BYTES)
    return found


def damage(file, rng):
    """Change values of keywords, or cut, insert and overwrite bytes."""
    for _ in range(rng.randint(1, 4)):
        cards = [start for start in range(0, min(len(file) - 80, 60_000), 80) if file[start + 8 : start + 10] == b"= "]
        if cards and rng.random() < 0.6:
            place = rng.choice(cards)
            file = file[: place + 10] + f"{rng.choice(NUMBERS + WORDS):>20}".ljust(70).encode() + file[place + 80 :]
        else:
            place = rng.randrange(min(len(file), 20_000) if rng.random() < 0.7 else len(file)) if file else 0
            file = (
                file[:place] + rng.randbytes(rng.choice([0, 1, 8, 100])) + file[place + rng.choice([0, 1, 80, 2880]) :]
            )
    return file


def examine_many(task):
    """Damage and examine so many files in one process; gives statuses, reasons, problems and the peak of memory."""
    seed, count = task
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    from typer.testing import CliRunner  # noqa: PLC0415 - after the limit

    from stream.cli import app  # noqa: PLC0415

    rng = random.Random(seed)
    files = seeds()
    statuses, reasons, problems = collections.Counter(), collections.Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "damaged.fits", Path(folder) / "out"
        for number in range(count):
            name = rng.choice(sorted(SEEDS if rng.random() < 0.9 else files))
            file.write_bytes(damage(files[name], rng))
            result = CliRunner().invoke(
                app, ["detect", str(file), "--out", str(out), "--method", "matched", "--max-pixels", "3000000"]
            )
            statuses[result.exit_code] += 1
            traceback = result.exception is not None and not isinstance(result.exception, SystemExit)
            if result.exit_code not in {0, 1} or traceback:
                problems.append(f"seed {seed}, file {number} of {name}: {result.exit_code} {result.exception!r}")
            table = out / "frames.csv"
            if table.exists():
                with table.open(newline="") as rows:
                    reasons.update(row["reason"] or "examined" for row in csv.DictReader(rows))
                table.unlink()
    return statuses, reasons, problems, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=None, help="default: a random one, printed")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    tasks = [(seed + first, min(CHUNK, given.files - first)) for first in range(0, given.files, CHUNK)]
    totals = collections.Counter(), collections.Counter(), []
    peak_kb = 0
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        for statuses, reasons, problems, kilobytes in pool.imap_unordered(examine_many, tasks):
            totals[0].update(statuses)
            totals[1].update(reasons)
            totals[2].extend(problems)
            peak_kb = max(peak_kb, kilobytes)
            print(f"{sum(totals[0].values()):>6} files, {len(totals[2])} problems", flush=True)  # noqa: T201
    print(f"seed {seed}: {sum(totals[0].values())} files, exit statuses {dict(totals[0])}")  # noqa: T201 - a command
    print(f"HDUs: {dict(totals[1].most_common())}")  # noqa: T201
    print(f"peak memory {peak_kb / 1024:.0f} MB; {len(totals[2])} problems")  # noqa: T201
    print("\n".join(totals[2]))  # noqa: T201
    sys.exit(bool(totals[2]))


if __name__ == "__main__":
    main()
