"""Weights by name: safetensors with a hash that is verified, and a card beside them.

A file of weights carries its network's shape, its calibration and its recipe as JSON in the safetensors header, so that
a set of weights is one file; ``NAME.md`` beside it is the card for people. ``manifest.json`` holds the SHA-256 of each:
a file that was exchanged or cut short is refused before anything is built from it. Nothing in a file of weights is
ever executed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


# Ours have some kilobytes: shapes, calibration and recipe.
MAX_HEADER_BYTES = 10_000_000


class BadWeights(Exception):  # noqa: N818 - named like BadFrame
    """Weights that are absent, changed or made for another network; the text says which file and what to do."""


@dataclass(frozen=True, eq=False)
class Weights:
    """Tensors by name, what is told with them (plain JSON values), and the file's SHA-256."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    sha256: str


def shipped(name: str) -> Path:
    """The path of the shipped weights ``name``."""
    return Path(__file__).parent / f"{name}.safetensors"


def load(name_or_path: str) -> Weights:
    """Give the shipped weights of that name (hash verified), or those in a file of the user's.

    Errors: ``BadWeights``.
    """
    given = Path(name_or_path)
    path = given if given.suffix == ".safetensors" else shipped(name_or_path)
    if not path.is_file():
        raise BadWeights(f"no weights at {path}: give a shipped name or the path of a .safetensors file")
    content = path.read_bytes()  # once: what is hashed is what is used
    sha256 = hashlib.sha256(content).hexdigest()
    if path != given:
        expected = json.loads((path.parent / "manifest.json").read_text()).get(path.name)
        if sha256 != expected:
            raise BadWeights(f"{path} has SHA-256 {sha256}, the manifest says {expected}: install again")
    facts = _facts(path, content)
    try:
        return Weights(load_tensors(content), facts, sha256)
    except SafetensorError as error:
        raise BadWeights(f"{path} is no whole safetensors file: {error}") from None


def _facts(path: Path, content: bytes) -> dict[str, Any]:
    """What the header of a file tells besides its tensors (safetensors: its length in 8 bytes, then JSON)."""
    length = int.from_bytes(content[:8], "little")
    if length > min(MAX_HEADER_BYTES, len(content) - 8):
        raise BadWeights(f"{path} is no safetensors file: its header would have {length} bytes")
    try:
        header = json.loads(content[8 : 8 + length])
        told = json.loads(header["__metadata__"]["needlestream"])
    except (KeyError, TypeError):
        raise BadWeights(
            f"{path} was not written by `needlestream train`: its header has no 'needlestream' entry"
        ) from None
    except (ValueError, RecursionError) as error:
        raise BadWeights(f"{path} is no safetensors file: {error}") from None
    if not isinstance(told, dict):
        raise BadWeights(f"{path} was not written by `needlestream train`: 'needlestream' is no table of facts")
    return told


def save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write weights and what is told with them; the file is complete or not there at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        partial,
        metadata={"needlestream": json.dumps(facts, sort_keys=True)},
    )
    partial.replace(path)


def write_manifest(folder: Path) -> None:
    """Write ``manifest.json``: file name -> SHA-256 of every set of weights in ``folder``."""
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.safetensors"))}
    (folder / "manifest.json").write_text(json.dumps(hashes, indent=1) + "\n")
