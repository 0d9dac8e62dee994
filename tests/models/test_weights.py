"""Weights are data that was vouched for: a changed file, another kind of file, a header that lies are refused."""

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import save_file

from models import weights
from models.weights import BadWeights, load, save, shipped, write_manifest


class Evil:
    """Unpickling it runs a command."""

    def __reduce__(self):
        return print, ("never to be seen",)


def test_every_shipped_file_has_the_hash_in_the_manifest():
    listed = json.loads((shipped("linker").parent / "manifest.json").read_text())
    files = sorted(path.name for path in shipped("linker").parent.glob("*.safetensors"))
    assert sorted(listed) == files
    for name in files:
        assert load(name.removesuffix(".safetensors")).sha256 == listed[name]


@pytest.mark.parametrize("place", [0, 20, -1])
def test_a_shipped_file_with_one_changed_bit_is_refused(tmp_path, monkeypatch, place):
    for name in ("linker.safetensors", "manifest.json"):
        shutil.copy(shipped("linker").parent / name, tmp_path)
    content = bytearray((tmp_path / "linker.safetensors").read_bytes())
    content[place] ^= 1
    (tmp_path / "linker.safetensors").write_bytes(content)
    monkeypatch.setattr(weights, "shipped", lambda name: tmp_path / f"{name}.safetensors")
    with pytest.raises(BadWeights, match="install again"):
        load("linker")


def test_a_file_beside_the_shipped_ones_that_nobody_vouched_for_is_refused(tmp_path, monkeypatch):
    save(tmp_path / "other.safetensors", {"a": torch.zeros(2)}, {"network": "other"})
    (tmp_path / "manifest.json").write_text("{}")
    monkeypatch.setattr(weights, "shipped", lambda name: tmp_path / f"{name}.safetensors")
    with pytest.raises(BadWeights, match="the manifest says None"):
        load("other")
    write_manifest(tmp_path)
    assert load("other").facts == {"network": "other"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"SIMPLE",
        (2**63).to_bytes(8, "little") + b"{}",
        (2**20).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        pickle.dumps(Evil()),
    ],
)
def test_what_is_no_file_of_weights_is_refused_and_not_executed(tmp_path, capsys, content):
    (tmp_path / "mine.safetensors").write_bytes(content)
    with pytest.raises(BadWeights, match=r"mine\.safetensors"):
        load(str(tmp_path / "mine.safetensors"))
    assert capsys.readouterr().out == ""


def test_a_file_of_torchs_own_format_is_refused(tmp_path, capsys):
    torch.save({"a": Evil()}, tmp_path / "mine.safetensors")
    with pytest.raises(BadWeights, match="no safetensors file"):
        load(str(tmp_path / "mine.safetensors"))
    assert capsys.readouterr().out == ""


def test_a_header_over_the_limit_is_refused(tmp_path, monkeypatch):
    save(tmp_path / "mine.safetensors", {"a": torch.zeros(2)}, {"network": "x" * 1000})
    monkeypatch.setattr(weights, "MAX_HEADER_BYTES", 1000)
    with pytest.raises(BadWeights, match="header would have"):
        load(str(tmp_path / "mine.safetensors"))


def test_a_file_that_was_cut_short_is_refused(tmp_path):
    save(tmp_path / "mine.safetensors", {"a": torch.zeros(2000)}, {"network": "x"})
    (tmp_path / "mine.safetensors").write_bytes((tmp_path / "mine.safetensors").read_bytes()[:-100])
    with pytest.raises(BadWeights, match="no whole safetensors file"):
        load(str(tmp_path / "mine.safetensors"))


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"needlestream": "[]"}])
def test_somebody_elses_tensors_are_refused(tmp_path, metadata):
    save_file({"a": torch.zeros(2)}, tmp_path / "mine.safetensors", metadata=metadata)
    with pytest.raises(BadWeights, match="not written by `needlestream train`"):
        load(str(tmp_path / "mine.safetensors"))
