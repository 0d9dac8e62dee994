"""The GPU path gives what the CPU path gives, to half precision."""

import numpy as np
import pytest
import torch

from models.predictor import load_streak_network

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def test_half_precision_on_a_gpu_gives_the_cpus_answers() -> None:
    strip = np.random.default_rng(1).normal(size=(344, 600)).astype(np.float32)
    strip[40:43, 100:180] += 6.0
    strip[200, 300:320] = np.nan
    on_cpu = load_streak_network("streaknet", "cpu")(strip, 2.0)
    on_gpu = load_streak_network("streaknet", "cuda")(strip, 2.0)
    assert np.isfinite(on_gpu).all()
    assert np.abs(on_gpu[..., 0] - on_cpu[..., 0]).max() < 0.2
    assert np.abs(on_gpu[..., 1:] - on_cpu[..., 1:]).max() < 1.0
