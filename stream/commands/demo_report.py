"""What ``needlestream demo`` leaves behind and shows: tables, pictures, streaks beside the truth, counts, latencies.

All of it comes from the output topics; the files are read again only for what they are: how many frames went in, and
pixels to draw on. Figures on simulated frames are said to be that.
"""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from detector.frame import BadFrame
from detector.streaks import Findings
from stream.alerts import streak_rows
from stream.candidatealerts import candidate_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from rich.console import Console

    from detector.frame import Frame
    from models.evaluate.matching import Matches
    from models.evaluate.sample import Sample
    from stream.candidatetable import Class
    from stream.commands.demo_candidates import Shown, Truths
    from stream.export import Refused
    from stream.messages import Message
    from stream.settings import Settings

    Key = tuple[str, int]  # file and HDU

DETECTABLE_SNR = 8.0  # of a matched filter of the true shape over the noise of the empty sky
MOST_ROWS = 40
SHOWN_STREAKS = 8
MARGIN = 3


@dataclass(frozen=True)
class Places:
    """Where everything lies under the folder of the demo."""

    out: Path

    @property
    def frames(self) -> Path:
        """The simulated frames and their truth."""
        return self.out / "frames"

    @property
    def pictures(self) -> Path:
        """One PNG a frame."""
        return self.out / "pictures"

    @property
    def logs(self) -> Path:
        """What broker, replay and worker said."""
        return self.out / "logs"

    @property
    def streaks(self) -> Path:
        """The table of streaks, as ``detect`` writes it."""
        return self.out / "streaks.csv"

    @property
    def lenses(self) -> Path:
        """The table of lens candidates; that of mergers lies beside it."""
        return self.out / "lenses.csv"

    @property
    def mergers(self) -> Path:
        """The table of merger candidates."""
        return self.out / "mergers.csv"

    @property
    def candidates(self) -> Path:
        """The page of lens and merger candidates."""
        return self.out / "candidates.png"

    @property
    def listed(self) -> Path:
        """Every HDU, examined or refused."""
        return self.out / "frames.csv"


@dataclass(frozen=True)
class Results:
    """What the topics held: ``sent`` messages in; alerts and summaries as decoded, dead letters as they came.

    ``latencies_s``: from the time stamp of the frame's message until its summary was in the subscriber's hands.
    """

    sent: int
    alerts: Mapping[Key, Sequence[Mapping[str, Any]]]
    candidates: Mapping[Class, Mapping[Key, Sequence[Mapping[str, Any]]]]
    summaries: Mapping[Key, Sequence[Mapping[str, Any]]]
    rejected: Sequence[Message]
    latencies_s: Mapping[Key, float]

    @property
    def n_examined(self) -> int:
        """Summaries that came."""
        return sum(map(len, self.summaries.values()))

    @property
    def n_alerts(self) -> int:
        """Streaks that came."""
        return sum(map(len, self.alerts.values()))

    @property
    def n_candidates(self) -> int:
        """Lenses and mergers that came."""
        return sum(len(rows) for of_class in self.candidates.values() for rows in of_class.values())


def head(screen: Console, number: int, title: str) -> None:
    """Begin a part of the story."""
    screen.print(f"\n[bold cyan]{number}  {escape(title)}[/]")


def say(screen: Console, text: str, *, style: str = "") -> None:
    """Say something in the story's margins."""
    screen.print(Padding(Text.from_markup(text, style=style), (0, 0, 0, MARGIN), expand=False))


def report(
    screen: Console, places: Places, files: Sequence[Path], settings: Settings, results: Results, *, simulated: bool
) -> bool:
    """Write tables and pictures, show what came out; gives whether counts out are counts in."""
    from stream.commands.demo_candidates import planted_truth  # noqa: PLC0415 - astropy: --help does not wait

    truths = planted_truth(places.frames) if simulated else {}
    n_hdus, candidates = write(places, files, settings, results, truths)
    head(screen, 3, "What was found, beside what was put in" if simulated else "What was found")
    if simulated:
        _show_beside_truth(screen, places, results)
    else:
        _show_found(screen, results)
    _show_candidates(screen, candidates, truths, results)
    head(screen, 4, "Counts and times")
    balanced = _show_counts(screen, len(files), n_hdus, results)
    _show_latencies(screen, results)
    _show_rejected(screen, results)
    head(screen, 5, "Where it lies")
    _show_places(screen, places, simulated=simulated)
    return balanced


# --- on disk ----------------------------------------------------------------------------------------------------------


def write(
    places: Places, files: Sequence[Path], settings: Settings, results: Results, truths: Truths
) -> tuple[int, list[Shown]]:
    """Write tables and pictures; gives the number of HDUs that the files hold as frames, and the candidates."""
    from stream.candidatetable import LAYOUTS  # noqa: PLC0415 - astropy: --help does not wait
    from stream.commands.demo_candidates import candidates_of, draw_page  # noqa: PLC0415
    from stream.export import common_root, file_stem, frame_list  # noqa: PLC0415 - astropy: --help does not wait
    from stream.picture import draw_picture  # noqa: PLC0415
    from stream.tables import csv_table  # noqa: PLC0415

    root = common_root([str(file) for file in files])
    places.pictures.mkdir(parents=True, exist_ok=True)
    n_hdus = 0
    shown: list[Shown] = []
    with (
        csv_table(places.streaks) as add_streaks,
        csv_table(places.lenses, LAYOUTS["lenses"]) as add_lenses,
        csv_table(places.mergers, LAYOUTS["mergers"]) as add_mergers,
        frame_list(places.listed) as add_frame,
    ):
        for frame in _frames(files, settings):
            n_hdus += 1
            key = (frame.header.name, frame.header.extension) if not isinstance(frame, BadFrame) else None
            if key is None or isinstance(frame, BadFrame) or key not in results.summaries:
                continue
            findings = _findings(frame, results, key)
            for add in (add_streaks, add_lenses, add_mergers, add_frame):
                add(findings)
            shown += candidates_of(frame, findings, truths)
            draw_picture(places.pictures / f"{file_stem(frame.header, root)}.png", frame, findings)
        for message in results.rejected:
            add_frame(_refused(message))
    draw_page(places.candidates, shown)
    return n_hdus, shown


def _frames(files: Sequence[Path], settings: Settings) -> Iterator[Frame | BadFrame]:
    """Each frame of each file, or why it is none; a file without any gives one refusal, as the worker gives one."""
    from detector.fits import read_frames  # noqa: PLC0415 - astropy
    from detector.survey import SURVEYS  # noqa: PLC0415

    for file in files:
        seen = 0
        try:
            for frame in read_frames(file, name=str(file), survey=SURVEYS.get(settings.survey)):
                seen += 1
                yield frame
        except BadFrame as bad:
            yield bad
            continue
        if not seen:
            yield BadFrame("no-image", f"{file}: no science image")


def _findings(frame: Frame, results: Results, key: Key) -> Findings:
    """What the worker found in a frame, put together again from the topics."""
    summary = results.summaries[key][0]
    candidates = {name: of_class.get(key, ()) for name, of_class in results.candidates.items()}
    known = {name: np.nan if summary[name] is None else summary[name] for name in ("background", "noise", "psfFwhm")}
    return Findings(
        frame.header,
        streak_rows(results.alerts.get(key, ())),
        background_e=known["background"],
        noise_e=known["noise"],
        psf_fwhm_px=known["psfFwhm"],
        dropped=summary["dropped"],
        seconds=summary["seconds"],
        flags=tuple(summary["flags"]),
        lenses=candidate_rows(candidates["lenses"]),
        mergers=candidate_rows(candidates["mergers"]),
        models={name: rows[0]["model"] if rows else "" for name, rows in candidates.items()},
    )


def _refused(message: Message) -> Refused:
    from stream.export import Refused  # noqa: PLC0415

    extension = message.header("extension")
    return Refused(
        message.header("name") or "",
        None if extension is None else int(extension),
        message.header("reason") or "",
        message.header("detail") or "",
    )


# --- what was found ---------------------------------------------------------------------------------------------------


def _show_beside_truth(screen: Console, places: Places, results: Results) -> None:
    """Show for each frame, and for some streaks, what was found of what was put in."""
    from models.evaluate.matching import FALSE  # noqa: PLC0415 - scipy
    from models.evaluate.sample import NUMBERS, build_sample  # noqa: PLC0415
    from stream.tables import read_columns  # noqa: PLC0415

    listed = read_columns(places.listed, NUMBERS)
    truth = read_columns(places.frames / "truth.csv", NUMBERS)
    sample = build_sample(truth, read_columns(places.streaks, NUMBERS), frames=listed, n_frames=None)
    matches = sample.match()
    examined = [
        (name, int(extension))
        for name, extension, reason in zip(listed["frame"], listed["extension"], listed["reason"], strict=True)
        if not reason
    ]
    found = matches.claimed >= 0
    detectable = _detectable(sample)
    apart = _apart_px(sample, matches)
    table = _table("frame", "put in", "detectable", "found", "", "fainter", "false", "ends off", "latency")
    for index, key in [*enumerate(examined), (None, None)]:
        of_truth = slice(None) if index is None else sample.truths["frame"] == index
        of_detection = slice(None) if index is None else sample.detections["frame"] == index
        if index is None:
            table.add_section()
        visible, seen = detectable[of_truth], found[of_truth]
        counts = sample.truths["counts"][of_truth]
        table.add_row(
            "all" if key is None else _label(key, results),
            f"{len(visible)}",
            f"{visible.sum()}",
            f"{(visible & seen).sum()}",
            f"{(visible & seen).sum() / visible.sum():.0%}" if visible.any() else "",
            f"{(counts & ~visible & seen).sum()}",
            f"{(matches.verdict[of_detection] == FALSE).sum()}",
            f"{np.median(apart[of_truth][counts & seen]):.2f} px" if (counts & seen).any() else "",
            "" if key is None else f"{results.latencies_s[key]:.1f} s",
        )
    screen.print(Padding(table, (0, 0, 0, 1), expand=False))
    say(
        screen,
        f"detectable: signal-to-noise of at least {DETECTABLE_SNR:g} over empty sky, both ends 10 px from the border. "
        "fainter: found though not detectable by that. false: in no truth. ends off: median distance of the found end "
        "points from the true ones. [bold]These are simulated frames: real ones hold more surprises.[/]",
    )
    _show_some(screen, sample, matches, examined, results)


def _show_some(screen: Console, sample: Sample, matches: Matches, examined: Sequence[Key], results: Results) -> None:
    """Show a few of the detectable streaks one by one, from the clearest to the faintest, missed ones too."""
    rows = np.flatnonzero(_detectable(sample))
    if not len(rows):
        return
    rows = rows[np.argsort(-sample.truths["snr_limit"][rows])]
    rows = rows[np.linspace(0, len(rows) - 1, min(SHOWN_STREAKS, len(rows))).astype(int)]
    apart_px = _apart_px(sample, matches)
    table = _table("frame", "put in: ends (x, y)", "mag", "S/N", "found: ends (x, y)", "mag", "score", "ends off")
    for row in rows:
        truth, claimed = sample.truths[row], matches.claimed[row]
        told = ["[red]not found[/]"]
        if claimed >= 0:
            streak = sample.detections[claimed]
            told = [_ends(streak), _number(streak["mag"], 1), f"{streak['score']:.2f}", f"{apart_px[row]:.2f} px"]
        frame = _label(examined[truth["frame"]], results)
        table.add_row(frame, _ends(truth), f"{truth['mag']:.1f}", f"{truth['snr_limit']:.0f}", *told)
    screen.print()
    say(screen, "A few of the detectable ones, from the clearest to the faintest:")
    screen.print(Padding(table, (0, 0, 0, 1), expand=False))


def _detectable(sample: Sample) -> NDArray[np.bool_]:
    return np.asarray(sample.truths["counts"] & (sample.truths["snr_limit"] >= DETECTABLE_SNR))


def _apart_px(sample: Sample, matches: Matches) -> NDArray[np.float64]:
    """Mean distance [truths] of a found streak's ends from the true ones, NaN where it was not found."""
    from models.evaluate.matching import end_distances, ends_of  # noqa: PLC0415 - scipy

    apart = np.full(len(sample.truths), np.nan)
    found = np.flatnonzero(matches.claimed >= 0)
    detections = sample.detections[matches.claimed[found]]
    apart[found] = end_distances(ends_of(sample.truths[found]), ends_of(detections)).mean(axis=1)
    return apart


def _show_found(screen: Console, results: Results) -> None:
    """Show each frame of the user's own, then the best streaks."""
    table = _table("frame", "streaks", "PSF", "noise", "latency", "flags")
    for key, (summary, *_) in list(results.summaries.items())[:MOST_ROWS]:
        psf, noise = _number(summary["psfFwhm"], 2, " px"), _number(summary["noise"], 2, " e-")
        flags = escape(" ".join(summary["flags"]))
        table.add_row(_label(key), f"{summary['nStreaks']}", psf, noise, f"{results.latencies_s[key]:.1f} s", flags)
    screen.print(Padding(table, (0, 0, 0, 1), expand=False))
    if len(results.summaries) > MOST_ROWS:
        say(screen, f"and {len(results.summaries) - MOST_ROWS} frames more, in frames.csv")
    alerts = [(alert["reliability"] or 0.0, key, alert) for key, rows in results.alerts.items() for alert in rows]
    best = sorted(alerts, key=lambda one: -one[0])[:SHOWN_STREAKS]
    if not best:
        say(screen, "No streak scored above the threshold; --threshold 0.1 shows weaker ones.")
        return
    table = _table("frame", "ends (x, y)", "score", "length", "mag", "RA", "Dec")
    for score, key, alert in best:
        length, mag = _number(alert["lengthPx"], 1, " px"), _number(alert["mag"], 1)
        sky = _number(alert["trailRa"], 5), _number(alert["trailDec"], 5)
        table.add_row(_label(key), _ends(alert), f"{score:.2f}", length, mag, *sky)
    screen.print()
    say(screen, "The best of them:")
    screen.print(Padding(table, (0, 0, 0, 1), expand=False))


def _show_candidates(screen: Console, candidates: Sequence[Shown], truths: Truths, results: Results) -> None:
    """Show the most probable lenses and mergers, with what they are where that is known."""
    from stream.candidatetable import KINDS  # noqa: PLC0415 - astropy
    from stream.commands.demo_candidates import best, put_in  # noqa: PLC0415 - astropy

    screen.print()
    examined = [(Path(name).name, extension) for name, extension in results.summaries]
    for name, label in KINDS.items():
        of_class = [one for one in candidates if one.name == name]
        told = f"{len(of_class)} candidates"
        if truths:
            right = sum(one.true is True for one in of_class)
            told = f"{put_in(truths, label, examined)} put in; {told}: {right} true, {len(of_class) - right} false"
        say(screen, f"[bold]{name}[/]: {told}")
    if not candidates:
        return
    table = _table("frame", "taken for", "x", "y", "probability", "information", "which is")
    for name, label in KINDS.items():
        for one in best(candidates, name)[:SHOWN_STREAKS]:
            content = _number(one.content, 0)
            place = f"{one.x:.0f}", f"{one.y:.0f}"
            table.add_row(escape(one.frame), label, *place, f"{one.probability:.3f}", content, escape(one.told))
    screen.print(Padding(table, (0, 0, 0, 1), expand=False))
    say(
        screen,
        "The same object counts in every exposure. The networks of lenses and mergers miss many, and on a real sky "
        "most candidates are false: see docs/classes.md.",
    )


# --- counts, times, places --------------------------------------------------------------------------------------------


def _show_counts(screen: Console, n_files: int, n_hdus: int, results: Results) -> bool:
    """Show counts in beside counts out; gives whether they agree."""
    announced: Counter[str] = Counter()
    for summary in (one for summaries in results.summaries.values() for one in summaries):
        announced.update({name: summary[name] for name in ("nStreaks", "nLenses", "nMergers")})
    n_out = results.n_examined + len(results.rejected)
    lines = [
        ("files", n_files, "messages sent", results.sent),
        ("frames in the files", n_hdus, f"{results.n_examined} examined + {len(results.rejected)} rejected", n_out),
        ("streaks in the frames' summaries", announced["nStreaks"], "alerts", results.n_alerts),
        ("lenses and mergers in them", announced["nLenses"] + announced["nMergers"], "alerts", results.n_candidates),
    ]
    table = Table(box=None, padding=(0, 0, 0, MARGIN), show_header=False)
    for of_in, n_in, of_out, number in lines:
        verdict = "[green]OK[/]" if n_in == number else "[bold red]MISMATCH[/]"
        table.add_row(of_in, f"{n_in}", of_out, f"{number}", verdict)
    screen.print(table)
    return all(n_in == number for _, n_in, _, number in lines)


def _show_latencies(screen: Console, results: Results) -> None:
    if not results.latencies_s:
        return
    work_s = [sum(summary["seconds"].values()) for rows in results.summaries.values() for summary in rows]
    screen.print()
    say(screen, f"latency per frame   {_spread(list(results.latencies_s.values()))}")
    say(screen, f"work per frame      {_spread(work_s)}")
    say(
        screen,
        "latency: from the time stamp that replay gives a message as it sends it until the frame's summary, published "
        "after its streaks, was read here. All files were sent at once, so the later ones waited for the earlier. "
        "work: reading and examining alone.",
        style="dim",
    )


def _show_rejected(screen: Console, results: Results) -> None:
    if not results.rejected:
        say(screen, "nothing was rejected")
        return
    refused = [_refused(message) for message in results.rejected]
    reasons = ", ".join(f"{number} {reason}" for reason, number in Counter(one.reason for one in refused).most_common())
    screen.print()
    say(screen, f"Rejected: {escape(reasons)}")
    table = Table("frame", "reason", "what to look for", box=None, padding=(0, 0, 0, MARGIN), header_style="dim")
    for one in refused[:MOST_ROWS]:
        label = Path(one.frame).name if one.extension is None else f"{Path(one.frame).name} [{one.extension}]"
        table.add_row(escape(label), escape(one.reason), escape(one.detail))
    screen.print(table)


def _show_places(screen: Console, places: Places, *, simulated: bool) -> None:
    lines = [
        (places.streaks, "every streak, with its errors and its place on the sky"),
        (places.lenses, "every lens candidate; mergers.csv: every merger candidate"),
        (places.candidates, "the pixels of the most probable ones, and what they are"),
        (places.listed, "every frame, examined or rejected"),
        (places.pictures, "every frame: streaks boxed, orange at the border; lenses circled yellow, mergers blue"),
        (places.logs, "what broker, worker and replay said"),
    ]
    if simulated:
        lines.insert(5, (places.frames, "the simulated frames and their truth.csv"))
    width = max(len(str(path)) for path, _ in lines)
    for path, words in lines:
        screen.print(f"{' ' * MARGIN}[bold]{escape(str(path).ljust(width))}[/]  {words}", soft_wrap=True)


def _table(*titles: str) -> Table:
    """A table without lines; the first column is text that may be cut, the others are numbers."""
    table = Table(box=None, padding=(0, 0, 0, 2), header_style="dim")
    for number, title in enumerate(titles):
        table.add_column(title, justify="right" if number else "left", no_wrap=True)
    return table


def _label(key: Key, results: Results | None = None) -> str:
    """The frame as a person calls it: file and HDU, or, where ``results`` know them, exposure and CCD."""
    if results is not None:
        summary = results.summaries[key][0]
        return escape(f"{summary['exposure']} CCD {summary['ccd']}")
    return escape(f"{Path(key[0]).name} [{key[1]}]")


def _ends(row: Any) -> str:
    """Both ends, the one with smaller x first, as the table of streaks has them."""
    first, second = sorted([(row["x0"], row["y0"]), (row["x1"], row["y1"])])
    return f"{first[0]:4.0f} {first[1]:4.0f} to {second[0]:4.0f} {second[1]:4.0f}"


def _number(value: float | None, digits: int, unit: str = "") -> str:
    return "" if value is None or np.isnan(value) else f"{value:.{digits}f}{unit}"


def _spread(values: Sequence[float]) -> str:
    return f"min {min(values):.2f}   median {statistics.median(values):.2f}   max {max(values):.2f} s"
