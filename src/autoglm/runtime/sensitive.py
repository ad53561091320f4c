"""Which operators lose most when they are quantised, and so are raised to fp32 first."""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm import registry
from autoglm.errors import AutoGLMError
from autoglm.spec import CompileOptions, Feeds, RunOptions, Session, Value
from autoglm.tensor.accuracy import compare

if TYPE_CHECKING:
    import onnx_ir as ir

    from autoglm.plan.graph import Graph, Node

_QUANTISED = ("Conv", "ConvTranspose", "MatMul", "Gemm")
# Runs of the model that are worth an order: 2 a node for a model of 50 products at 100 ms.
_BUDGET_S = 20.0
_ENGINE = "onnxruntime"
# Builds in search of the fewest: each quantises the model anew.
_TRIES = 3

_log = logging.getLogger(__name__)


def sensitivity(model: ir.Model, graph: Graph, feeds: Sequence[Feeds]) -> dict[str, float]:
    """Names of quantisable nodes, most sensitive first, with the largest relative error of the
    answer where the inputs and weights of that node alone are rounded to 8 bits, weights by output
    channel; NaN where it was not measured. What a run of `feeds[0]` tells is refined with the
    others as long as the budget of 20 s lasts.
    """
    places = {n.name: found for n in graph.nodes if (found := _inputs(n))}
    order = _from_the_ends(graph)
    measured: dict[str, float] = {}
    try:
        measured = _errors(model, {name: places[name] for name in order if name in places}, feeds)
    except AutoGLMError as error:
        _log.info("the order of raising is not measured: %s", error)
    first = sorted(measured, key=lambda name: -measured[name])
    return {**{n: measured[n] for n in first}, **{n: math.nan for n in order if n not in measured}}


def fewest(errors: Mapping[str, float], allowed: float) -> int:
    """How many of the first to raise so that the errors of the others, which add up like those of
    independent roundings, stay within `allowed`; 1 at least.
    """
    left = [0.0 if math.isnan(e) else e for e in errors.values()]
    count = 1
    while count < len(left) and math.hypot(*left[count:]) > allowed:
        count += 1
    return count


def fewest_passing(passes: Callable[[int], bool], guess: int, most: int) -> int:
    """The smallest count found to pass where `most` does: the guess, then halving what is left."""
    few, enough, count = 0, most, guess if guess < most else most // 2
    for _ in range(_TRIES):
        if not few < count < enough:
            break
        few, enough = (few, count) if passes(count) else (count, enough)
        count = (few + enough) // 2
    return enough


def _inputs(node: Node) -> dict[int, int | None]:
    """The float32 inputs that int8 rounds, each with the axis whose slices have their own range."""
    if node.op not in _QUANTISED:
        return {}
    facts = node.facts.inputs[:2]
    return {
        i: _channels(node) if v.constant else None
        for i, v in enumerate(facts)
        if v is not None and v.dtype == "float32"
    }


def _channels(node: Node) -> int:
    """The axis of the weight that makes the output's channels."""
    if node.op == "Gemm":
        return 0 if node.facts.attributes.get("transB") else 1
    return {"Conv": 0, "ConvTranspose": 1}.get(node.op, -1)


def _from_the_ends(graph: Graph) -> list[str]:
    """The order where nothing is measured: products of two activations (attention scores: their
    range follows the input, not the weights), then from both ends of the graph inwards: the first
    layers' errors reach everything, the last layers' errors are seen directly.
    """
    nodes = [n for n in graph.nodes if n.op in _QUANTISED]
    dynamic = [
        n.name for n in nodes if not any(v is not None and v.constant for v in n.facts.inputs)
    ]
    weighted = [n.name for n in nodes if n.name not in set(dynamic)]
    ends: list[str] = []
    while weighted:
        ends.append(weighted.pop())
        if weighted:
            ends.append(weighted.pop(0))
    return dynamic + ends


def _errors(
    model: ir.Model, places: Mapping[str, Mapping[int, int | None]], feeds: Sequence[Feeds]
) -> dict[str, float]:
    from autoglm.rewrite.rounded import rounded

    if not places:
        return {}
    plug = registry.backend(_ENGINE)
    with tempfile.TemporaryDirectory(prefix="autoglm-rounded-") as folder:
        place = Path(folder)
        artifact = plug.compile(rounded(model, places), CompileOptions(), place)
        session = plug.open(artifact, place, RunOptions())
        try:
            return _run(session, list(places), feeds)
        finally:
            session.close()


def _run(session: Session, names: Sequence[str], feeds: Iterable[Feeds]) -> dict[str, float]:
    end = time.perf_counter() + _BUDGET_S
    worst: dict[str, float] = {}
    for feed in feeds:
        plain = _at(session, feed, -1)
        for number, name in enumerate(names):
            if time.perf_counter() > end:
                return worst
            error = compare(plain, _at(session, feed, number)).max_relative
            worst[name] = max(worst.get(name, 0.0), error)
    return worst


def _at(session: Session, feed: Feeds, number: int) -> dict[str, Value]:
    import numpy as np

    from autoglm.rewrite.rounded import SWITCH

    found = session.run({**feed, SWITCH: np.array(number, np.int64)})
    return {
        name: np.copy(value) if isinstance(value, np.ndarray) else value
        for name, value in found.items()
    }
