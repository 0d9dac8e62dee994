"""``needlestream link``: tables of streaks in, tracks out, no broker and no pixels.

Exit status: 0, also without a single track; 2 for tables that cannot be linked, with what to look for.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add this module's command to the program."""
    app.command("link")(link_command)


def link_command(
    streaks: Annotated[
        list[Path],
        typer.Argument(
            exists=True, dir_okay=False, metavar="STREAKS...", help="Tables of `detect` (CSV, ECSV, Parquet)."
        ),
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for all that is written.")] = Path("tracks"),
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Lowest probability of a track; else by its sightings, as the weights say."),
    ] = None,
    weights: Annotated[str, typer.Option(help="The score: a shipped name or a .safetensors file.")] = "linker",
) -> None:
    """Link the streaks of the exposures of a field into tracks.

    Streaks of many fields, nights and CCDs may come at once: exposures that overlap within a night are linked. Give
    candidates far below the threshold for alerts (detect --threshold 0): three sightings on a path reject chance.

    Writes tracks.csv (docs/tracks.md has every column), and streaks.csv: the streaks with the flag `static` where
    another exposure shows the same thing at the same place.

    For example:

        needlestream detect night/*.fits --threshold 0 --out night

        needlestream link night/streaks.csv --out night/tracks
    """
    from detector.linking import link  # noqa: PLC0415 - numba and torch: --help does not wait for them
    from detector.sightings import catalogue  # noqa: PLC0415
    from models.linker import load_linker  # noqa: PLC0415
    from models.weights import BadWeights  # noqa: PLC0415
    from stream.tracktable import frame_shapes, read_streaks, write_streaks_back, write_tracks  # noqa: PLC0415

    begin = time.perf_counter()
    try:
        table, texts = read_streaks(streaks)
        found = catalogue(table, frame_shapes(streaks))
        scorer = load_linker(weights)
    except (ValueError, BadWeights) as error:
        raise typer.BadParameter(str(error)) from None
    linked = link(found, scorer if threshold is None else scorer.accepting(threshold))
    write_tracks(out / "tracks.csv", linked.tracks, table)
    write_streaks_back(out / "streaks.csv", texts, linked.static)
    for reason, count in linked.counts.items():
        typer.echo(f"{reason}: {count}")
    for sightings in sorted({len(track.rows) for track in linked.tracks}):
        typer.echo(f"tracks of {sightings} sightings: {sum(len(t.rows) == sightings for t in linked.tracks)}")
    typer.echo(f"written to {out} after {time.perf_counter() - begin:.1f} s")
