import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import norm

from detector.linepower import core_of, line_power, point_power
from detector.linerefinement import SNR
from detector.linesums import REACH_PX, line_maxima
from detector.matched import filtered, filtered_frame, line_norms, matched_proposals, measured_lines
from detector.psf import Psf
from detector.sharpness import sharp_pixels
from detector.tiling import Tiling

SIGMA = 0.85
PSF = Psf.gaussian(SIGMA * 2.0 * np.sqrt(2.0 * np.log(2.0)))
TILING = Tiling()


def trail(shape: tuple[int, int], ends: list[float], sigma: float = SIGMA) -> np.ndarray:
    """A line of unit flux seen through a Gaussian PSF."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    length = np.hypot(ends[2] - ends[0], ends[3] - ends[1])
    ux, uy = (ends[2] - ends[0]) / length, (ends[3] - ends[1]) / length
    t, d = (x - ends[0]) * ux + (y - ends[1]) * uy, -(x - ends[0]) * uy + (y - ends[1]) * ux
    return norm.pdf(d / sigma) / sigma * (ndtr(t / sigma) - ndtr((t - length) / sigma)) / length


def noise(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def search(frame: np.ndarray, **options: int):
    return matched_proposals(filtered_frame(frame.astype(np.float32), PSF), **options)


def off(found: np.ndarray, truth: list[float]) -> float:
    return float(min(np.abs(found - truth).max(), np.abs(found[[2, 3, 0, 1]] - truth).max()))


TRAILS = [
    [100.3, 90.8, 105.1, 92.2],
    [100.0, 100.0, 112.0, 100.0],
    [80.2, 60.4, 93.7, 86.9],
    [60.6, 150.5, 113.2, 104.4],
    [101.5, 40.0, 97.3, 160.0],
]


@pytest.mark.parametrize("ends", TRAILS)
def test_the_snr_of_a_trail_is_the_analytic_one_and_its_ends_are_found(ends: list[float]) -> None:
    model = trail((200, 200), ends)
    expected = 40.0
    frame = model / np.sqrt((model**2).sum()) * expected
    found = search(frame)
    assert found.snr[0] == pytest.approx(expected, rel=0.04)
    assert off(found.proposals.ends[0], ends) < 1.0


@pytest.mark.parametrize("ends", TRAILS[1:])
def test_ends_of_a_faint_trail_in_noise_are_good_enough_for_the_fit(ends: list[float]) -> None:
    model = trail((200, 200), ends)
    errors = []
    for seed in range(5):
        found = search(noise((200, 200), seed) + model / np.sqrt((model**2).sum()) * 12.0)
        best = np.argmax(found.snr)
        assert found.snr[best] == pytest.approx(12.0, abs=4.0)
        errors.append(off(found.proposals.ends[best], ends))
    assert np.median(errors) < 3.0


def test_noise_alone_gives_as_many_lines_as_a_gaussian_of_so_many_trials() -> None:
    snr = np.concatenate([search(noise((1000, 1000), seed)).snr for seed in range(2)])
    # 5.9e8 independent trials in a frame of 17 Mpx (models.evaluate.completeness).
    trials = 5.9e8 * 2e6 / 17e6
    for threshold in (5.0, 5.5):
        expected = trials * norm.sf(threshold)
        assert expected / 3.0 - 3.0 <= (snr > threshold).sum() <= 3.0 * expected + 3.0
    assert (snr > 6.5).sum() == 0


def test_the_power_of_a_line_is_the_sum_over_its_pixels() -> None:
    psf = Psf(np.array([0.8, 1.7]), np.array([0.6, 0.4]), 2.1, 50)
    core = core_of(psf)
    ends = [60.2, 70.4, 90.9, 81.3]
    length = float(np.hypot(30.7, 10.9))
    shape = (150, 150)
    model = sum(w * trail(shape, ends, s) for s, w in zip(*core, strict=True)) * length
    assert line_power(core, length) == pytest.approx((model**2).sum(), rel=2e-3)
    point = sum(w * trail(shape, [60.0, 70.0, 60.0001, 70.0], s) for s, w in zip(*core, strict=True))
    assert point_power(core) == pytest.approx((point**2).sum(), rel=2e-2)


def plain_line(plane: np.ndarray, row: int, column: int, slope: int) -> float:
    """Four rows of a line that moves ``slope`` columns in four rows, summed pixel by pixel."""
    total = 0.0
    for j in range(4):
        y, x = row + j, column + (2 * slope * j + 4) // 8
        total += plane[y, x] if 0 <= y < plane.shape[0] and 0 <= x < plane.shape[1] else 0.0
    return total


def test_the_bank_sums_the_pixels_of_its_lines() -> None:
    smooth, _ = filtered(noise((160, 160), 3), core_of(PSF))
    norms = line_norms(core_of(PSF))
    found = line_maxima(smooth, norms, 3.0)
    upright = found[(np.abs(found[:, 4]) == 2.0) & (np.abs(found[:, 3]) < 2.0)]
    lying = found[(np.abs(found[:, 3]) == 2.0) & (np.abs(found[:, 4]) < 2.0)][:, [0, 2, 1, 4, 3]]
    assert min(len(upright), len(lying)) > 10
    for plane, lines in ((smooth, upright), (smooth.T, lying)):
        for snr, x, y, dx, _ in lines:
            slope = int(2.0 * dx)
            begin = int(x) - int(np.floor(0.375 * slope + 0.5))
            assert snr == pytest.approx(plain_line(plane, int(y - 1.5), begin, slope) * norms[0, slope + 4], rel=1e-4)


def test_masked_columns_and_borders_and_a_star_beside_them_give_no_lines() -> None:
    frame = noise((400, 400), 5) + 0.3
    frame[:, 120:123] = np.nan
    frame[250:, :60] = np.nan
    frame[300] = np.nan
    found = search(frame)
    assert (found.snr > 6.0).sum() == 0


def test_a_trail_across_masked_pixels_has_the_snr_of_those_that_are_left() -> None:
    ends = [60.0, 100.0, 140.0, 104.0]
    model = trail((200, 200), ends)
    frame = model / np.sqrt((model**2).sum()) * 60.0
    frame[:, 80:92] = np.nan
    left = 60.0 * np.sqrt(np.nansum(np.where(np.isnan(frame), 0.0, model**2)) / (model**2).sum())
    found = search(frame)
    assert found.snr[0] == pytest.approx(left, rel=0.06)
    assert off(found.proposals.ends[0], ends) < 1.5


@pytest.mark.parametrize("sub_pixel", [(0.0, 0.0), (0.5, 0.0), (0.5, 0.5), (0.3, 0.2)])
def test_nothing_that_came_through_the_psf_is_sharper_than_it(sub_pixel: tuple[float, float]) -> None:
    y, x = np.mgrid[:60, :60]
    star = np.exp(-0.5 * ((x - 30 - sub_pixel[0]) ** 2 + (y - 30 - sub_pixel[1]) ** 2) / SIGMA**2)
    line = trail((60, 60), [10.0 + sub_pixel[0], 8.0 + sub_pixel[1], 40.0, 12.0])
    for image in (star, line / line.max()):
        for peak in (10.0, 100.0, 1000.0):
            assert not sharp_pixels((peak * image).astype(np.float32), PSF).any()


def test_unblurred_tracks_are_sharp_and_a_streak_beside_them_ranks_first() -> None:
    rng = np.random.default_rng(7)
    frame = noise((300, 300), 7)
    tracks = np.zeros((300, 300), bool)
    for _ in range(40):
        x, y, angle = *rng.uniform(20, 280, 2), rng.uniform(0, np.pi)
        steps = np.arange(0.0, rng.uniform(3, 20), 0.5)
        xi, yi = np.rint(x + steps * np.cos(angle)).astype(int), np.rint(y + steps * np.sin(angle)).astype(int)
        inside = (xi >= 0) & (yi >= 0) & (xi < 300) & (yi < 300)
        tracks[yi[inside], xi[inside]] = True
    frame[tracks] += 60.0
    ends = [150.0, 40.0, 171.0, 60.0]
    model = trail((300, 300), ends)
    frame += (model / np.sqrt((model**2).sum()) * 18.0).astype(np.float32)
    assert sharp_pixels(frame, PSF)[tracks].mean() > 0.95
    assert off(search(frame).proposals.ends[0], ends) < 2.5


def test_a_star_on_a_long_faint_trail_does_not_hide_it() -> None:
    ends = [60.0, 80.0, 140.0, 131.0]
    model = trail((220, 220), ends)
    frame = noise((220, 220), 11) + model / np.sqrt((model**2).sum()) * 25.0
    y, x = np.mgrid[:220, :220]
    frame += 300.0 * np.exp(-0.5 * ((x - 92.0) ** 2 + (y - 100.4) ** 2) / SIGMA**2)
    found = search(frame)
    on = [off(row, ends) < 4.0 for row in found.proposals.ends]
    assert any(on)
    assert found.snr[on.index(True)] == pytest.approx(25.0, abs=5.0)


def test_what_is_masked_all_over_or_smaller_than_a_line_gives_nothing_or_little() -> None:
    assert len(search(np.full((64, 64), np.nan)).proposals) == 0
    assert len(search(np.zeros((100, 100))).proposals) == 0
    for shape in ((1, 1), (3, 200), (200, 3), (17, 9)):
        found = search(noise(shape))
        assert np.isfinite(found.proposals.ends).all()


def test_a_few_is_the_best_of_many_and_ends_stay_near_the_frame() -> None:
    many, few = search(noise((300, 300), 2)), search(noise((300, 300), 2), most=5)
    assert len(few.proposals) == 5
    assert np.array_equal(few.proposals.ends, many.proposals.ends[:5])
    assert (np.diff(many.proposals.logit) <= 0.0).all()
    assert (many.proposals.ends > -REACH_PX).all()
    assert (many.proposals.ends < 300 + REACH_PX).all()


def test_the_scatter_of_a_frame_of_correlated_noise_is_counted() -> None:
    z = noise((512, 512), 4)
    z = (z + np.roll(z, 1, 0) + np.roll(z, 1, 1) + np.roll(z, (1, 1), (0, 1))) / 2.0
    measured = measured_lines(filtered_frame(z, PSF))
    assert (measured[:, SNR] > 6.5).sum() == 0
