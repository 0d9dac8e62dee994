"""What the commands without a broker share: frames examined as the settings say, with a bar and a line a frame.

A weights file that does not fit, or an extra that is not installed, ends the program with a sentence, not a traceback.
"""

from __future__ import annotations

import functools
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from detector.frame import BadFrame
from stream.commands.options import SHIPPED_JUDGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from detector.fits import Reading
    from detector.streaks import Findings
    from stream.batch import Examine, Output, Read
    from stream.commands.science import Science
    from stream.export import Refused
    from stream.fieldwise import Fieldwise
    from stream.settings import Settings


def detect_files(
    files: Sequence[Path],
    output: Output,
    *,
    read: Read,
    examine: Examine,
    fieldwise: Fieldwise | None = None,
) -> list[Refused]:
    """Examine files with a bar on the terminal and a line a frame on standard output; gives what was refused.

    Each frame by itself, or as exposures of their fields where ``fieldwise`` is given.
    """
    from stream.batch import examine_files, run_batch  # noqa: PLC0415
    from stream.export import Refused, common_root  # noqa: PLC0415
    from stream.fieldwise import examine_exposures  # noqa: PLC0415

    outcomes = examine_files(files, read, examine) if fieldwise is None else examine_exposures(files, fieldwise)
    root = common_root([str(file) for file in files])

    with progress_bar() as bar:
        task = bar.add_task("detect", total=len(files))
        done: set[int] = set()
        places = {str(file): index for index, file in enumerate(files)}

        def announce(outcome: Findings | Refused) -> None:
            name = outcome.frame if isinstance(outcome, Refused) else outcome.header.name
            done.add(places[name])
            bar.update(task, completed=len(done), description=Path(name).name)
            typer.echo(summary(outcome))

        refused = run_batch(outcomes, output, root=root, announce=announce)
    for one in refused:
        typer.echo(f"refused ({one.reason}): {one.detail}", err=True)
    return refused


def summary(outcome: Findings | Refused) -> str:
    """One line on one frame."""
    from stream.export import Refused  # noqa: PLC0415

    if isinstance(outcome, Refused):
        place = "" if outcome.extension is None else f" [{outcome.extension}]"
        return f"{outcome.frame}{place}: refused, {outcome.reason}"
    header = outcome.header
    others = "".join(
        f", {len(rows)} {name}"
        for name, rows in (("lenses", outcome.lenses), ("mergers", outcome.mergers))
        if name in outcome.models
    )
    words = f"; {' '.join(outcome.flags)}" if outcome.flags else ""
    return (
        f"{header.name} [{header.extension}]: {len(outcome.streaks)} streaks{others}, "
        f"PSF {outcome.psf_fwhm_px:.2f} px, {sum(outcome.seconds.values()):.2f} s{words}"
    )


def examination(settings: Settings, weights: str, extension: int | None) -> tuple[Read, Examine]:
    """What reads and what examines frames, as the settings say; leaves with a sentence when it cannot be had."""
    science = load(settings, weights)
    return reader(science, extension), science.examine


def load(settings: Settings, weights: str, *, verified: bool = True, judge: str = SHIPPED_JUDGE) -> Science:
    """The science of these settings; leaves with a sentence when it cannot be had."""
    from stream.commands.science import load_science  # noqa: PLC0415 - astropy, numba and torch

    return load_science(settings, weights, verified=verified, judge=judge)


def reader(science: Science, extension: int | None, flags: str | None = None) -> Callable[[Path], Reading]:
    """What reads the frames of a file: all, or one HDU's; with their flags by a pattern (``stream.flagfiles``)."""
    from detector import fits  # noqa: PLC0415 - astropy
    from stream.flagfiles import flags_beside  # noqa: PLC0415

    def read(file: Path) -> fits.Reading:
        maps = None if flags is None else flags_beside(file, flags, science.limits)
        if isinstance(maps, BadFrame):
            typer.echo(f"flags not used: {maps.detail}", err=True)
        return fits.read_frames(
            file, name=str(file), survey=science.survey, limits=science.limits, extension=extension, flags=maps
        )

    return read


def beside_others(science: Science, read: Callable[[Path], Reading], settings: Settings) -> Fieldwise:
    """How files are examined as exposures of their fields."""
    from detector.fitsarchive import file_pointing  # noqa: PLC0415 - astropy
    from stream.fieldwise import Fieldwise  # noqa: PLC0415

    return Fieldwise(
        read=read,
        point=functools.partial(file_pointing, limits=science.limits),
        prepare=science.prepare,
        examine=science.examine_prepared,
        max_bytes=settings.other_exposures_mb * 1_000_000,
    )


@contextmanager
def training_extra() -> Iterator[None]:
    """Leave with a sentence where the packages of the extra ``train`` are not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        typer.echo(
            f"error: no module {error.name!r}; install needlestream with its extra: needlestream[train]", err=True
        )
        raise typer.Exit(1) from None


def progress_bar() -> Progress:
    """A bar on standard error, when that is a terminal."""
    screen = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    # Lines on standard output go above the bar when both are the same terminal, and untouched into a pipe.
    return Progress(*columns, console=screen, disable=not screen.is_terminal, redirect_stdout=sys.stdout.isatty())
