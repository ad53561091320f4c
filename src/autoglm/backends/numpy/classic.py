"""The classical-learning domain: labels, features, trees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoglm.backends.numpy.op import Array, Op, Table
from autoglm.rewrite.program import Call

_KINDS = ("strings", "int64s", "floats", "tensor")
_DEFAULTS = {"strings": "default_string", "int64s": "default_int64", "floats": "default_float"}
_HELD = {"strings": object, "int64s": np.int64, "floats": np.float32}


def _column(call: Call, name: str) -> tuple[str, Any]:
    kind = next(k for k in _KINDS if call[f"{name}_{k}"] is not None)
    values = call[f"{name}_{kind}"]
    return kind, [_plain(v) for v in values.reshape(-1)] if kind == "tensor" else list(values)


def _plain(value: Any) -> Any:
    return (
        value.decode("utf-8")
        if isinstance(value, bytes)
        else getattr(value, "item", lambda: value)()
    )


def _default(call: Call, kind: str, values: list[Any]) -> Any:
    if call["default_tensor"] is not None:
        return _plain(call["default_tensor"].reshape(-1)[0])
    if kind != "tensor":
        return call[_DEFAULTS[kind]]
    if isinstance(values[0], str):
        return "_Unused"
    return -0.0 if isinstance(values[0], float) else -1


def label_encoder(call: Call, x: Array) -> Array:
    """Keys to values; NaN is a key like others, the last of equal keys counts."""
    _, keys = _column(call, "keys")
    kind, values = _column(call, "values")
    table = dict(zip((_key(k) for k in keys), values, strict=True))
    default = _default(call, kind, values)
    found = [table.get(_key(k), default) for k in x.reshape(-1).tolist()]
    held = call["values_tensor"].dtype if kind == "tensor" else _HELD[kind]
    result = np.empty(len(found), held)
    result[:] = found
    return result.reshape(x.shape)


def _key(value: Any) -> Any:
    return "NaN key" if isinstance(value, float) and value != value else value


def features(call: Call, x: Array, index: Array) -> Array:
    """Columns of the last axis."""
    taken = np.asarray(x[..., index.reshape(-1)])
    return taken.reshape(1, -1) if x.ndim == 1 else taken


def binarize(call: Call, x: Array) -> Array:
    """One above the threshold."""
    return np.asarray(x > call["threshold"], x.dtype)


_TESTS: tuple[Callable[[Any, Any], Any], ...] = (
    np.less_equal, np.less, np.greater_equal, np.greater, np.equal, np.not_equal,
)  # fmt: skip
_MEMBER = 6


@dataclass(frozen=True, slots=True)
class Forest:
    """A tree ensemble's columns; `members` holds a set for every membership node."""

    call: Call
    splits: Array
    modes: Array
    members: dict[int, frozenset[float]]

    def test(self, node: int, value: float) -> bool:
        """Whether `value` takes the true branch."""
        missing = self.call["nodes_missing_value_tracks_true"]
        if missing is not None and missing[node] and np.isnan(value):
            return True
        mode = int(self.modes[node])
        if mode == _MEMBER:
            return float(value) in self.members[node]
        return bool(_TESTS[mode](value, self.splits[node]))

    def leaf(self, root: int, row: Array) -> int:
        """The leaf that a row reaches."""
        call, node = self.call, root
        for _ in range(len(self.modes) + 1):
            side = "true" if self.test(node, row[call["nodes_featureids"][node]]) else "false"
            is_leaf, node = call[f"nodes_{side}leafs"][node], call[f"nodes_{side}nodeids"][node]
            if is_leaf:
                return int(node)
        raise ValueError("a tree of TreeEnsemble has a cycle")


def _members(call: Call, modes: Array) -> dict[int, frozenset[float]]:
    values = call["membership_values"]
    if values is None:
        return {}
    sets: list[set[float]] = [set()]
    for value in values.reshape(-1).tolist():
        if value != value:
            sets.append(set())
        else:
            sets[-1].add(value)
    nodes = np.flatnonzero(modes == _MEMBER).tolist()
    return {node: frozenset(s) for node, s in zip(nodes, sets, strict=False)}


_START = {2: np.inf, 3: -np.inf}
_COMBINE: dict[int, Callable[[Any, Any], Any]] = {2: min, 3: max}


def tree_ensemble(call: Call, x: Array) -> Array:
    """Leaf weights of every tree, aggregated per target."""
    modes = call["nodes_modes"].reshape(-1)
    forest = Forest(call, call["nodes_splits"].reshape(-1), modes, _members(call, modes))
    aggregate = call["aggregate_function"]
    weights = call["leaf_weights"].reshape(-1)
    combine = _COMBINE.get(aggregate, lambda a, b: a + b)
    result = np.full((len(x), call["n_targets"]), _START.get(aggregate, 0.0), x.dtype)
    for row, out in zip(x, result, strict=True):
        for root in call["tree_roots"]:
            leaf = forest.leaf(root, row)
            target = call["leaf_targetids"][leaf]
            out[target] = combine(out[target], weights[leaf])
    result[np.isinf(result) & (aggregate in _START)] = 0
    if aggregate == 0:
        result = result / len(call["tree_roots"])
    return np.asarray(_POST[call["post_transform"]](result), x.dtype)


def _softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def _softmax_zero(x: Array) -> Array:
    """Zeros stay zero and take no part."""
    live = x != 0
    powers = np.where(live, np.exp(np.where(live, x - x.max(-1, keepdims=True), 0)), 0)
    total = powers.sum(-1, keepdims=True)
    return np.asarray(powers / np.where(total == 0, 1, total))


def _logistic(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


_POST: tuple[Callable[[Array], Array], ...] = (np.asarray, _softmax, _logistic, _softmax_zero)


def check_trees(call: Call) -> str:
    """PROBIT is not here."""
    return "post_transform PROBIT has no kernel" if call.attributes["post_transform"] == 4 else ""


_DOMAIN = "ai.onnx.ml"
TABLE: Table = {
    f"{_DOMAIN}::LabelEncoder": {2: Op(label_encoder)},
    f"{_DOMAIN}::ArrayFeatureExtractor": Op(features),
    f"{_DOMAIN}::Binarizer": Op(binarize),
    f"{_DOMAIN}::TreeEnsemble": Op(tree_ensemble, check_trees),
}
