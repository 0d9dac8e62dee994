"""Anybody's table of lens or merger candidates against true objects: ``evaluate lenses|mergers --detections --truth``.

Thin: tables are read here, judged in ``models.evaluate``, and written to one folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# Where no sky tells how far a candidate is from an object.
WITHIN_PX = 5.0

CandidateTable = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="Instead of stamps: a table of candidates to be judged."),
]
TruthTable = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="With --detections: the table of the true ones.")
]
FrameCount = Annotated[
    int | None,
    typer.Option(min=1, help="With --detections: how many frames were searched; those that the tables name if less."),
]
Within = Annotated[
    float,
    typer.Option(min=0.01, metavar="ARCSEC", help="With --detections: how far a candidate may be from its object."),
]


def judge_candidate_tables(
    what: str, detections: Path | None, truth: Path | None, frames: int | None, within: float, out: Path
) -> None:
    """Judge a table of candidates against one of true objects, and write the reports.

    Leaves with a sentence where the tables do not fit.
    """
    from models.evaluate.candidatetables import (  # noqa: PLC0415 - scipy
        NUMBERS,
        candidate_markdown,
        candidate_report,
        judge_tables,
    )
    from models.evaluate.report import as_json  # noqa: PLC0415
    from stream.tables import read_columns  # noqa: PLC0415

    if detections is None or truth is None:
        raise typer.BadParameter("--detections and --truth go together")
    try:
        tables = [read_columns(path, NUMBERS) for path in (truth, detections)]
        found = judge_tables(*tables, n_frames=frames, within_arcsec=within, within_px=WITHIN_PX)
        report = candidate_report(found)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    out.mkdir(parents=True, exist_ok=True)
    page = candidate_markdown(f"{what} in {detections.name}", report)
    (out / "report.md").write_text(page, encoding="utf-8")
    (out / "report.json").write_text(as_json({"candidates": report}), encoding="utf-8")
    typer.echo(page)
    typer.echo(f"written to {out}")
