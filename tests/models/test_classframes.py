"""What the discriminator hands on in whole frames, judged by truth; and how it learns from such frames."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from detector.candidates import Levels
from models.evaluate.classframes import ClassFrame, curve, ensemble, floor_for, purity_above, purity_at_rate
from models.evaluate.classscan import ScanRow, scan, scan_table, weighted
from models.networks.discriminator import CLASSES, Discriminator
from models.training.discriminator import CELLS, SkyValidation, cells_loss, padded, sky_batches, sky_loss
from models.training.skyframes import UNKNOWN, SkyFrame, cell_labels, frames_seed
from models.training.stampbank import Stamps
from models.weights import load
from stream.commands.discriminating import LOWEST, calibrate_discriminator
from stream.settings import load_settings


@dataclass
class Floors:
    """A discriminator of which only the floors are asked."""

    window: int = 58
    step: int = 8

    def floor(self, name):
        assert name in CLASSES
        return -6.0


def frame_with(objects, heights, label="lens", shape=(240, 240)):
    """A frame with round lights at places of cells, and a map in which each stands as high as told."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.zeros(shape, np.float32)
    logits = np.zeros((30, 30, 4), np.float32)
    logits[..., 1:] = -9.0
    for (cx, cy), height in zip(objects, heights, strict=True):
        image += (30 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 8)).astype(np.float32)
        logits[cy // 8, cx // 8, CLASSES.index(label)] = height
    nothing = {name: np.empty((0, 4)) for name in ("lens", "merger", "asteroid", "impostor")}
    return image, logits, nothing


def judged(true, others, heights, known=None):
    image, logits, ends = frame_with([*true, *others], heights)
    ends["lens"] = np.array([(x, y, x, y) for x, y in true], float)
    counts = {name: np.ones(len(rows), np.bool_) for name, rows in ends.items()}
    frame = ClassFrame(Levels((image,), 0, 0), 1.0, logits, ends, counts)
    known = np.ones(len(true), np.bool_) if known is None else np.array(known)
    return frame, ensemble([frame], "lens", [known], Floors(), weighted((1, 1, 1, 1)))


def test_completeness_counts_objects_and_purity_what_lies_on_none():
    _, found = judged([(60, 60), (160, 60)], [(60, 160)], [4.0, 1.0, 2.0])
    assert found.verdict.tolist() == [1, 0, 1]
    assert purity_above(found, floor_for(found, 1.0)) == pytest.approx(2 / 3)
    assert purity_above(found, floor_for(found, 0.5)) == 1.0
    np.testing.assert_allclose(curve(found), [[0.5, 1.0], [0.5, 0.5], [1.0, 2 / 3]])


def test_an_object_that_its_own_network_does_not_recognise_is_neither_lost_nor_false():
    _, found = judged([(60, 60), (160, 60)], [], [4.0, 1.0], known=[True, False])
    assert found.verdict.tolist() == [1, -1]
    assert len(found.best) == 1


def test_an_object_without_a_place_can_be_had_at_no_floor():
    _, found = judged([(60, 60), (160, 60)], [], [4.0, -8.0])
    assert floor_for(found, 1.0) == -np.inf
    assert floor_for(found, 0.5) == pytest.approx(4.0, abs=0.01)


def test_purity_falls_with_the_density_of_what_is_looked_for():
    _, found = judged([(60, 60)], [(60, 160)], [4.0, 5.0])
    assert purity_at_rate(found, 0.0, 1.0) == 0.5
    assert purity_at_rate(found, 0.0, 99.0) == pytest.approx(0.01)


def test_the_scan_puts_the_purest_weights_first_and_tells_floors_as_probabilities():
    frame, _ = judged([(60, 60)], [(60, 160)], [4.0, 3.0])
    known = {name: [np.ones(len(frame.ends[name]), np.bool_)] for name in ("lens", "merger", "asteroid")}
    rows = scan([frame], known, Floors())
    assert rows[0].purity[0] == max(row.purity[0] for row in rows) == 1.0
    assert 0.9 < scan_table(rows)[0]["floor_lens"] < 1.0


def test_cells_are_asked_for_their_object_and_not_for_what_lies_between():
    objects = np.array([[1, 60.0, 60.0, 60.0, 60.0], [3, 100.0, 180.0, 160.0, 180.0], [-1, 20.0, 200.0, 30.0, 200.0]])
    labels = cell_labels(objects, (240, 240))
    assert labels[7, 7] == 1
    assert labels[22, 16] == 3
    assert labels[22, 13] == UNKNOWN
    assert labels[25, 3] == UNKNOWN
    assert labels[15, 25] == 0
    assert 1 <= (labels == 1).sum() <= 3


def test_the_frames_of_a_training_are_of_no_seed_of_evaluation():
    assert max(frames_seed(seed) for seed in range(900)) < 900_000 - 10_000


def test_the_discriminator_learns_from_frames_and_stamps_together():
    rng = np.random.default_rng(3)
    image = rng.standard_normal((300, 260)).astype(np.float16)
    image[56:64, 56:64] += 20
    image[200:, :40] = np.nan
    frame = SkyFrame(image, np.array([[1, 59.5, 59.5, 59.5, 59.5]]))
    pixels = rng.standard_normal((16, 64, 64)).astype(np.float16)
    label = (np.arange(16) % 4).astype(np.int8)
    stamps = Stamps(pixels, label, np.full(16, np.nan, np.float32), np.array(["a"] * 16))
    assert (padded(frame).labels == 1).sum() == (cell_labels(frame.objects, image.shape) == 1).sum()
    torch.manual_seed(1)
    network = Discriminator()
    batches = sky_batches(stamps, [frame], 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    validate = SkyValidation(stamps, [frame])
    before = validate(network)["loss_frames"]
    for _ in range(4):
        batch = next(batches)
        assert batch.cells.shape[1:] == (CELLS, CELLS)
        optimizer.zero_grad()
        sky_loss(network, batch).backward()
        optimizer.step()
    assert validate(network)["loss_frames"] < before


def test_cells_that_nothing_is_asked_of_cost_nothing():
    logits = torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    cells = torch.full((1, 3, 3), UNKNOWN)
    assert float(cells_loss(logits, cells)) == 0.0


def test_a_calibrated_discriminator_and_its_scan_go_to_a_folder_that_was_not_there(tmp_path, monkeypatch):
    row = ScanRow((0.2, 1.0, 5.0), (0.0, -2.0, -50.0), (0.6, 0.5, 0.4), (0.7, 0.6, 0.5))
    monkeypatch.setattr("stream.commands.discriminating._read", lambda *_: ([], {}))
    monkeypatch.setattr("models.evaluate.classscan.scan", lambda *_: [row])
    out = tmp_path / "new" / "mine.safetensors"
    calibrate_discriminator("discriminator", [], out, load_settings(None, {"device": "cpu"}))
    facts = load(str(out)).facts
    assert facts["class_weights"] == {"none": 1.0, "lens": 0.2, "merger": 1.0, "asteroid": 5.0}
    assert facts["floors"] == {"lens": 0.5, "merger": pytest.approx(0.1192, abs=1e-4), "asteroid": LOWEST}
    assert (tmp_path / "new" / "mine.scan.csv").read_text().startswith("weight_lens,floor_lens")
