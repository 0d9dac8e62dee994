"""The merger of snippets: what it learns from, what it answers, how joining is judged."""

import numpy as np
import torch

from detector.proposals import Proposals
from detector.snippets import FEATURES, snippets
from models.evaluate.joining import joining_markdown, judge_joining
from models.networks.snippets import SnippetNet
from models.predictor import SnippetJoiner
from models.training.snippets import Proposed, lines_batches, lines_loss, lines_of, trail_of


def windows_on(trail: list[float], rng: np.random.Generator) -> np.ndarray:
    """Ends of windows of 60-100 px every 8 px of a trail, each with an error."""
    begin, end = np.array(trail[:2]), np.array(trail[2:])
    length = np.hypot(*(end - begin))
    middle = begin + np.arange(8.0, length - 8.0, 8.0)[:, None] / length * (end - begin)
    half = rng.uniform(30.0, 50.0, len(middle))[:, None] * (end - begin) / length
    return np.concatenate([middle - half, middle + half], axis=1) + rng.normal(size=(len(middle), 4)) * 2.0


def sample(seed: int = 1) -> Proposed:
    """Two long trails that cross and false windows anywhere."""
    rng = np.random.default_rng(seed)
    trails = [[50.0, 60.0, 400.0, 180.0], [60.0, 300.0, 380.0, 20.0]]
    middle = rng.uniform(0.0, 512.0, (60, 2))
    away = rng.uniform(-40.0, 40.0, (60, 2))
    false = np.concatenate([middle - away, middle + away], axis=1)
    ends = np.concatenate([*(windows_on(trail, rng) for trail in trails), false])
    logit = np.concatenate([rng.uniform(-1.0, 1.0, len(ends) - 60), rng.uniform(-6.0, -2.0, 60)])
    rows = Proposals(ends, logit, np.ones(len(ends)), np.ones(len(ends), np.int64))
    table = np.column_stack([np.array(trails), np.ones(2), np.full(2, 30.0), np.ones(2)])
    return Proposed(rows, 2.0, (512, 512), table)


def sorted_windows(of: Proposed) -> Proposals:
    return of.proposals.take(np.argsort(-of.proposals.logit, kind="stable"))


def test_a_snippet_is_of_the_trail_that_it_lies_on_and_points_along() -> None:
    seen = sample()
    table, _ = snippets(sorted_windows(seen), fwhm_px=seen.fwhm_px)
    owner = trail_of(table, seen.trails)
    assert set(owner.tolist()) == {-1, 0, 1}
    along = table.lines[:, 2:] - table.lines[:, :2]
    uphill = along[:, 0] * along[:, 1] > 0
    assert uphill[owner == 0].all()
    assert not uphill[owner == 1].any()
    assert (table.logit[owner >= 0] > -1.5).all()


def test_what_follows_the_present_ones_does_not_change_the_answer() -> None:
    torch.manual_seed(0)
    network = SnippetNet().eval()
    features = torch.randn(3, 6, len(FEATURES))
    present = torch.tensor([[True] * 6, [True] * 2 + [False] * 4, [True] + [False] * 5])
    with torch.inference_mode():
        whole = network(features, present)
        features[~present] = 99.0
        other = network(features, present)
        alone = network(features[1:2, :2], present[1:2, :2])
    torch.testing.assert_close(whole[present], other[present])
    torch.testing.assert_close(alone[0], whole[1, :2])


def test_a_joiner_gives_probabilities_and_none_where_there_is_no_neighbour() -> None:
    seen = sample()
    table, _ = snippets(sorted_windows(seen), fwhm_px=seen.fwhm_px)
    probability = SnippetJoiner(SnippetNet().eval())(table)
    there = table.neighbours >= 0
    assert (probability[there] > 0.0).all()
    assert (probability[there] < 1.0).all()
    assert (probability[~there] == 0.0).all()


def test_the_merger_learns_which_snippets_are_of_one_trail() -> None:
    torch.manual_seed(1)
    lines = lines_of([sample(seed) for seed in range(1, 9)], np.random.default_rng(1))
    assert lines.same.any()
    assert not lines.same[~lines.present].any()
    network = SnippetNet()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    batches = lines_batches(lines, 1)
    with torch.no_grad():
        before = float(lines_loss(network, lines))
    for _ in range(40):
        loss = lines_loss(network, next(batches))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        after = float(lines_loss(network, lines))
    assert after < 0.7 * before


def test_joining_is_judged_by_recall_ends_and_rows_on_a_streak() -> None:
    seen = sample()
    truth = seen.trails[:, :4]

    def whole(_: Proposed) -> Proposals:
        ends = np.concatenate([truth, [[10.0, 500.0, 60.0, 500.0]]])
        return Proposals(ends, np.array([5.0, 5.0, -9.0]), np.ones(3), np.ones(3, np.int64))

    def halved(_: Proposed) -> Proposals:
        middle = 0.5 * (truth[:, :2] + truth[:, 2:])
        halves = [np.column_stack([truth[:, :2], middle]), np.column_stack([middle, truth[:, 2:]])]
        ends = np.concatenate([*halves, [[10.0, 500.0, 60.0, 500.0]]])
        return Proposals(ends, np.array([5.0, 5.0, 4.0, 4.0, -9.0]), np.ones(5), np.ones(5, np.int64))

    one, other = judge_joining([seen], whole)[-1], judge_joining([seen], halved)[-1]
    assert (one.streaks, one.found, one.strict, one.rows) == (2, 1.0, 1.0, 1.0)
    assert one.ends_px < 1e-6
    assert (other.found, other.strict, other.rows) == (1.0, 0.0, 2.0)
    assert "| 250-450 | 2 | 1.00 / 1.00 / 0.0 / 1.00 | 1.00 / 0.00 /" in joining_markdown(
        {"whole": [one], "halved": [other]}
    )
