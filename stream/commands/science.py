"""The science that a command brings to its frames: networks, search, limits and survey, as the settings say.

With astropy, numba and torch behind it: imported by the commands that examine frames, when they run.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from detector import examine
from detector.candidates import ClassNetworks
from detector.preparation import prepare
from detector.survey import SURVEYS
from models import predictor
from models.fieldjudge import FieldJudge, load_fieldjudge
from models.weights import BadWeights
from stream.commands.options import SHIPPED_JUDGE, frame_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from detector.fitsheader import Limits
    from detector.frame import Frame
    from detector.preparation import Prepared
    from detector.streaks import Findings
    from detector.survey import Survey
    from models.predictor import StreakPredictor
    from stream.settings import Settings


@dataclass(frozen=True)
class Science:
    """How frames are read (``survey`` None: by TELESCOP and INSTRUME) and what examines them.

    ``examine`` takes ``others``, frames that ``prepare`` made ready, and ``examine_prepared`` such a frame itself;
    ``examine_streaks`` looks for nothing but streaks. ``versions`` are the SHA-256 of all weights but the network's.
    """

    survey: Survey | None
    limits: Limits
    prepare: Callable[[Frame], Prepared]
    examine: Callable[..., Findings]
    examine_prepared: Callable[..., Findings]
    examine_streaks: Callable[..., Findings]
    network: StreakPredictor
    classes: ClassNetworks | None
    versions: Mapping[str, str]


def load_science(
    settings: Settings,
    weights: str,
    *,
    verified: bool = True,
    link_threshold: float | None = None,
    judge: str = SHIPPED_JUDGE,
) -> Science:
    """Give the science of these settings; ``weights`` and ``judge`` are shipped names or files.

    Not ``verified``, scores are the first stage's own. With ``link_threshold`` findings have candidates for the linker.

    Leaves the program with a sentence that says what is missing.
    """
    if settings.survey not in {"auto", *SURVEYS}:
        known = ", ".join(["auto", *SURVEYS])
        raise typer.BadParameter(f"{settings.survey!r}: there are {known}", param_hint="--survey")
    try:
        network = predictor.load_streak_network(weights, settings.device)
        field_judge = load_judge(network, judge) if verified else None
        classes, versions = load_classes(settings)
    except BadWeights as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    if not verified:
        network = dataclasses.replace(network, verifier=None)
    search = examine.Search(
        method=settings.method,
        threshold=settings.threshold,
        many_streaks=settings.many_streaks,
        expected_streaks_per_frame=settings.expected_streaks_per_frame,
        link_threshold=link_threshold,
        streaks="asteroids" in settings.classes,
    )
    weighed: dict[str, Any] = {} if field_judge is None else {"judge": field_judge}
    looked_for: dict[str, Any] = {} if classes is None else {"classes": classes}
    if field_judge is not None:
        versions[judge] = field_judge.sha256
    return Science(
        survey=SURVEYS.get(settings.survey),
        limits=frame_limits(settings),
        prepare=functools.partial(prepare, network=network),
        examine=functools.partial(examine.examine, network=network, search=search, **weighed, **looked_for),
        examine_prepared=functools.partial(
            examine.examine_prepared, network=network, search=search, **weighed, **looked_for
        ),
        examine_streaks=functools.partial(examine.examine, network=network, search=search, **weighed),
        network=network,
        classes=classes,
        versions=versions,
    )


def load_judge(network: StreakPredictor, name: str = SHIPPED_JUDGE) -> FieldJudge | None:
    """The named judge of fields; None where the shipped one learned from the candidates of another network.

    Errors: ``BadWeights``, also where one of the user's own did.
    """
    judge = load_fieldjudge(name)
    if judge.network == network.weights.sha256:
        return judge
    if name == SHIPPED_JUDGE:
        return None
    raise BadWeights(f"{name}: learned from another network's candidates; `train fieldjudge --init-from` these weights")


def load_classes(settings: Settings) -> tuple[ClassNetworks | None, dict[str, str]]:
    """Give what finds the lenses and mergers that are asked for, None for neither; and the hashes of its weights.

    Errors: ``BadWeights``.
    """
    wanted = [name for name in ("lenses", "mergers") if name in settings.classes]
    if not wanted:
        return None, {}
    from models import classpredictor  # noqa: PLC0415 - networks that most workers do not need

    told = {
        "lenses": (settings.lens_weights, settings.lens_threshold),
        "mergers": (settings.merger_weights, settings.merger_threshold),
    }
    discriminator = classpredictor.load_discriminator(settings.discriminator_weights, settings.device)
    judges = {
        name: classpredictor.load_class_network(told[name][0], settings.device, task=name, threshold=told[name][1])
        for name in wanted
    }
    versions = {settings.discriminator_weights: discriminator.weights.sha256}
    versions |= {told[name][0]: judge.weights.sha256 for name, judge in judges.items()}
    return ClassNetworks(discriminator, judges.get("lenses"), judges.get("mergers")), versions
