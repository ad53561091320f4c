"""Fold, clean, cancel and fuse a model before it is planned; every step has a switch.

`PASSES` is the list, in the order in which they run. A pass that rewrites arithmetic has a
certificate (`autoglm.rewrite.certificate`); one without is refused unless it is asked for by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from autoglm.errors import ConfigError
from autoglm.rewrite.cancel import CANCEL
from autoglm.rewrite.clean import (
    remove_dead_code,
    remove_dropout,
    remove_identities,
    remove_no_ops,
    resolve_cast_like,
    share_equal,
)
from autoglm.rewrite.facts import SOURCE, node_name
from autoglm.rewrite.fold import fold_constants, lift_constants, simplify_shapes
from autoglm.rewrite.fuse import FUSE, StripSoftmaxGuard
from autoglm.rewrite.linear import LINEAR
from autoglm.rewrite.rule import Names, Rule, apply_rules
from autoglm.rewrite.shapes import infer_in_place
from autoglm.rewrite.transpose import SINK

_ROUNDS = 3  # cancelling exposes new fusions; real models settle in two


@dataclass(frozen=True, slots=True)
class Pass:
    """One switchable step: a function over the whole model, or a rewrite rule."""

    name: str
    purpose: str
    default: bool
    run: Callable[[ir.Model], int] | None = None
    rule: type[Rule] | None = None


@dataclass(frozen=True, slots=True)
class PassResult:
    """How often a pass changed the model."""

    name: str
    purpose: str
    changes: int


def _inline(model: ir.Model) -> int:
    """Calls of the model's own functions -> their bodies."""
    from onnx_ir.passes import PassError
    from onnx_ir.passes.common import InlinePass

    if not model.functions:
        return 0
    calls = [n for g in model.graphs() for n in g if n.op_identifier() in model.functions]
    for node in calls:
        node.metadata_props.setdefault(SOURCE, node_name(node))
    opsets = model.opset_imports

    def same_opset(function: ir.Function) -> bool:
        passes_through = any(v in set(function.inputs) for v in function.outputs)
        known = all(opsets.get(d, v) == v for d, v in function.opset_imports.items())
        return known and not passes_through

    try:
        InlinePass(criteria=same_opset)(model)
    except (ValueError, PassError):
        return 0  # a function with graph parameters, or one that calls itself, stays a call
    return len(calls)


def _rule(kind: type[Rule], default: bool = True) -> tuple[str, Pass]:
    purpose = (kind.__doc__ or "").strip().splitlines()[0]
    return kind.title, Pass(kind.title, purpose, default, rule=kind)


def _step(name: str, run: Callable[[ir.Model], int]) -> tuple[str, Pass]:
    purpose = (run.__doc__ or "").strip().splitlines()[0]
    return name, Pass(name, purpose, True, run=run)


PASSES: Mapping[str, Pass] = dict(
    [
        _step("inline", _inline),
        _step("constants", lift_constants),
        _step("cast-like", resolve_cast_like),
        _step("fold", fold_constants),
        _step("shapes", simplify_shapes),
        _step("identity", remove_identities),
        _step("dropout", remove_dropout),
        _step("no-op", remove_no_ops),
        _step("share", share_equal),
        *(_rule(kind, default=kind is not StripSoftmaxGuard) for kind in FUSE),
        *(_rule(kind) for kind in LINEAR),
        *(_rule(kind) for kind in (*CANCEL, *SINK)),
        _step("dead", remove_dead_code),
    ]
)


def prepare(
    model: ir.Model, *, passes: Mapping[str, bool] | None = None
) -> tuple[ir.Model, list[PassResult]]:
    """A folded, cleaned and fused copy of the model, and what each pass did.

    `passes` switches passes of `PASSES` on or off; those it does not name keep their default.
    """
    chosen = _choose(passes or {})
    model = model.clone()
    counts: Counter[str] = Counter()

    def run(name: str) -> int:
        step = PASSES[name].run
        changes = step(model) if step is not None and name in chosen else 0
        counts[name] += changes
        return changes

    run("inline")
    run("constants")
    infer_in_place(model)
    groups = (FUSE, LINEAR, (*CANCEL, *SINK))
    for _ in range(_ROUNDS):
        known = sum(map(run, ("cast-like", "fold", "shapes")))
        if known:
            infer_in_place(model)
            known += run("fold")
        sum(map(run, ("dead", "identity", "dropout", "no-op", "share")))
        changes = 0
        names = Names(model)
        for group in groups:
            made = apply_rules(model, [k for k in group if k.title in chosen], names)
            counts.update(made)
            changes += made.total()
            run("identity")
        if not changes:
            break
        if _untyped(model):
            infer_in_place(model)
    run("no-op")
    run("dead")
    return model, [PassResult(p.name, p.purpose, counts[p.name]) for p in PASSES.values()]


def _choose(passes: Mapping[str, bool]) -> set[str]:
    from autoglm.rewrite.certificate import certified

    unknown = sorted(set(passes) - set(PASSES))
    if unknown:
        raise ConfigError(
            "Unknown pass {name!r}; passes: {known}.",
            hint="`autoglm config passes` lists them.",
            name=unknown[0],
            known=", ".join(PASSES),
        )
    proven = certified()
    chosen = set()
    for name, step in PASSES.items():
        asked = passes.get(name)
        trusted = step.rule is None or name in proven
        if asked or (asked is None and step.default and trusted):
            chosen.add(name)
    return chosen


def _untyped(model: ir.Model) -> bool:
    return any(
        v.type is None or v.shape is None for g in model.graphs() for n in g for v in n.outputs
    )
