"""Boosted trees are grown by LightGBM and kept as plain arrays: who uses them needs no boosting library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from detector.trees import Trees

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Boosting:
    """How many trees, of how many leaves, and how much of each is taken."""

    rounds: int = 300
    leaves: int = 15
    rate: float = 0.05


def grown(
    table: NDArray[np.float64],
    true: NDArray[np.bool_],
    boosting: Boosting,
    directions: Sequence[int],
    seed: int,
) -> Trees:
    """Trees (binary log loss) on rows ``[n, k]``, the same from the same seed.

    ``directions`` ``[k]``: more of a feature may only raise (1) or lower (-1) the sum, or either (0).
    """
    import lightgbm  # noqa: PLC0415 - of the extra `train`

    parameters = {
        "objective": "binary",
        "num_leaves": boosting.leaves,
        "learning_rate": boosting.rate,
        "min_data_in_leaf": 40,
        "lambda_l2": 1.0,
        "feature_fraction": 0.7,
        "bagging_fraction": 0.7,
        "bagging_freq": 1,
        "monotone_constraints": list(directions),
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }
    booster = lightgbm.train(parameters, lightgbm.Dataset(table, true.astype(float)), boosting.rounds)
    return flattened(booster.dump_model()["tree_info"])


def flattened(trees: list[dict[str, Any]]) -> Trees:
    """LightGBM's nested trees as arrays; children come after their parents."""
    feature: list[int] = []
    threshold: list[float] = []
    left: list[int] = []
    right: list[int] = []
    value: list[float] = []

    def add(node: dict[str, Any]) -> int:
        here = len(feature)
        leaf = "leaf_value" in node
        if not leaf and node["decision_type"] != "<=":
            raise ValueError(f"a split of type {node['decision_type']!r}: only numbers are compared here")
        feature.append(-1 if leaf else int(node["split_feature"]))
        threshold.append(0.0 if leaf else float(node["threshold"]))
        value.append(float(node["leaf_value"]) if leaf else 0.0)
        left.append(0)
        right.append(0)
        if not leaf:
            left[here] = add(node["left_child"])
            right[here] = add(node["right_child"])
        return here

    roots = [add(tree["tree_structure"]) for tree in trees]
    return Trees(
        np.array(roots, np.int32),
        np.array(feature, np.int32),
        np.array(threshold, np.float64),
        np.array(left, np.int32),
        np.array(right, np.int32),
        np.array(value, np.float64),
    )
