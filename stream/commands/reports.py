"""``needlestream export``: what others want to have, in their own formats.

Exit status: 0 when the file is written; 2 for a table, a station or an ephemeris that would make an invalid report,
with what to give.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from stream.commands.options import machine_errors

export = typer.Typer(help="Write what others want to have, in their own formats.", no_args_is_help=True)


class AdesFormat(StrEnum):
    """The two forms of ADES."""

    PSV = "psv"
    XML = "xml"


def register(app: typer.Typer) -> None:
    """Add this module's commands to the program."""
    export.callback()(lambda: None)
    app.add_typer(export, name="export")


@export.command("ades")
@machine_errors()
def ades_command(
    tracks: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Table of tracks, as `link` writes it.")],
    stn: Annotated[str, typer.Option(help="The station's MPC code.", metavar="CODE")],
    astcat: Annotated[str, typer.Option(help="Catalogue behind the frames' WCS, by the MPC's name, such as Gaia3.")],
    submitter: Annotated[str, typer.Option(help="Who submits: initials and surname.", metavar="NAME")],
    aperture: Annotated[float, typer.Option(min=0.01, max=99, help="Of the telescope, in metres.")],
    ephemeris: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="For a station in space: time_utc, x_km, y_km, z_km."),
    ] = None,
    observer: Annotated[list[str] | None, typer.Option(help="Who observed, if others; may be repeated.")] = None,
    band: Annotated[str | None, typer.Option(help="The MPC's name of the band; without it no magnitudes.")] = None,
    design: Annotated[str, typer.Option(help="Of the telescope.")] = "Reflector",
    detector: Annotated[str, typer.Option(help="Of the telescope.")] = "CCD",
    form: Annotated[AdesFormat, typer.Option("--format", help="Pipe-separated values, or XML.")] = AdesFormat.PSV,
    out: Annotated[Path | None, typer.Option(dir_okay=False, help="File to write; else ades.psv or ades.xml.")] = None,
) -> None:
    """Write the tracks as a report for the Minor Planet Center (ADES 2022).

    Nothing is sent anywhere. Look at what you report: every row of the table becomes an observation.

    For example:

        needlestream export ades tracks/tracks.csv --stn 268 --astcat Gaia3 --submitter "J. Doe" --aperture 2.6

        needlestream export ades tracks/tracks.csv --stn 273 --ephemeris euclid.csv --astcat Gaia3
        --submitter "J. Doe" --aperture 1.2
    """
    from stream.ades import NUMBERS, Report, observations, psv, xml  # noqa: PLC0415 - astropy: only this command waits
    from stream.ephemeris import read_ephemeris  # noqa: PLC0415
    from stream.stations import check_station  # noqa: PLC0415
    from stream.tables import read_columns, replacing  # noqa: PLC0415

    try:
        check_station(stn, positions=ephemeris is not None)
        places = None if ephemeris is None else read_ephemeris(ephemeris)
        report = Report(stn, astcat, submitter, tuple(observer or ()), aperture, design, detector, band)
        found = observations(read_columns(tracks, NUMBERS), report, places)
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    path = out or Path(f"ades.{form.value}")
    with replacing(path) as partial:
        partial.write_text((psv if form is AdesFormat.PSV else xml)(found, report), encoding="utf-8")
    typer.echo(f"{len(found)} observations of {len({one['trkSub'] for one in found})} tracks written to {path}")
