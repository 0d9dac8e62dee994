"""StreakNet: what a window says must not depend on how the window was brought to it."""

import numpy as np
import pytest
import torch

from detector.tiling import Tiling, pad, strips, windows
from models.losses import streak_loss
from models.networks.streaknet import StreakNet, StreakNetShape


def network(seed: int = 0) -> StreakNet:
    torch.manual_seed(seed)
    return StreakNet().eval()


def frame(shape: tuple[int, int], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    pixels = rng.normal(size=shape).astype(np.float32) * 3.0
    pixels[rng.uniform(size=shape) < 0.02] = np.nan
    return pixels


@pytest.mark.parametrize("shape", [(100, 100), (57, 201), (256, 130)])
def test_dense_evaluation_of_strips_gives_what_cut_out_windows_give(shape: tuple[int, int]) -> None:
    tiling, net = Tiling(), network()
    padded = pad(frame(shape, 1), tiling)
    rows, cols = tiling.grid(shape)
    with torch.inference_mode():
        cut_out = net(torch.from_numpy(windows(padded, tiling)), torch.full((rows * cols,), 2.0))
        width = torch.tensor([2.0])
        dense = [net(torch.from_numpy(view.copy())[None], width)[0] for _, view in strips(padded, tiling, 3)]
    by_window = cut_out[:, :, 0, 0].reshape(rows, cols, 5).permute(2, 0, 1)
    np.testing.assert_allclose(torch.cat(dense, dim=1), by_window, rtol=1e-5, atol=1e-5 * StreakNetShape().window)


def test_masked_pixels_are_seen_as_masked_whatever_number_is_under_them() -> None:
    net = network()
    pixels = torch.from_numpy(frame((96, 96), 2))[None]
    with torch.inference_mode():
        output = net(pixels, torch.tensor([2.0]))
        filled = net(torch.nan_to_num(pixels), torch.tensor([2.0]))
    assert torch.isfinite(output).all()
    assert not torch.allclose(output, filled)


def test_the_width_of_the_psf_is_heard() -> None:
    net, pixels = network(), torch.from_numpy(frame((96, 96), 3))[None]
    with torch.inference_mode():
        assert not torch.allclose(net(pixels, torch.tensor([1.5])), net(pixels, torch.tensor([4.0])))


def test_the_step_of_the_network_is_the_step_of_the_tiling() -> None:
    shape = StreakNetShape()
    with torch.inference_mode():
        output = network()(torch.zeros(1, shape.window + 7 * shape.step, shape.window + 3 * shape.step), torch.ones(1))
    assert output.shape == (1, 5, 8, 4)
    assert shape.step <= shape.window // 4


def loss_case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    output = torch.randn(2, 5, 3, 3, generator=generator) * 10
    target = torch.rand(2, 5, 3, 3, generator=generator) * 90
    target[:, 0] = (target[:, 0] > 45).float()
    return output, target, torch.ones(2, 3, 3)


def test_the_loss_does_not_know_which_end_is_named_first() -> None:
    output, target, weight = loss_case()
    exchanged = target[:, [0, 3, 4, 1, 2]]
    total = float(streak_loss(output, target, weight).total)
    assert float(streak_loss(output, exchanged, weight).total) == pytest.approx(total)


def test_the_loss_of_the_ends_counts_only_where_there_is_a_streak() -> None:
    output, target, weight = loss_case()
    moved = target.clone()
    moved[:, 1:] += 50.0 * (target[:, :1] < 0.5)
    assert streak_loss(output, moved, weight).ends == streak_loss(output, target, weight).ends
    perfect = torch.cat([output[:, :1], target[:, 1:]], dim=1)
    assert streak_loss(perfect, target, weight).ends == 0.0


def test_cells_that_are_left_out_cost_nothing() -> None:
    output, target, weight = loss_case()
    target[:, 0] = 0.0
    target[0, 0, 0, 0] = 1.0
    weight[1] = 0.0
    changed = output.clone()
    changed[1, 0] += 5.0
    assert streak_loss(changed, target, weight).probability == streak_loss(output, target, weight).probability
