"""A plan over two engines, found by measuring segments: kept only where the whole then measures
faster.
"""

from __future__ import annotations

import glob
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm import registry
from autoglm.errors import AutoGLMError
from autoglm.runtime.build import compile_part
from autoglm.runtime.timing import interleave
from autoglm.spec import CompileOptions, Feeds, RunOptions, Session, Value

if TYPE_CHECKING:
    from autoglm.plan.graph import Graph
    from autoglm.runtime.prepare import Planned

_SEGMENTS = 6
# A hidden state and a mask may cross; more would cost more than another engine gains.
_CROSSING = 2
# A mixed plan must promise at least this much before it is built: its boundary is not free.
_PROMISE = 0.95


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive nodes between two places where few tensors cross."""

    nodes: tuple[str, ...]
    leaves: tuple[str, ...]  # tensors that later segments read


def segments(graph: Graph, most: int = _SEGMENTS) -> list[Segment]:
    """Cut the graph where few tensors cross, into at most `most` pieces of about equal work."""
    cuts = _narrow(graph)
    total = sum(n.flops for n in graph.nodes) or 1.0
    pieces: list[Segment] = []
    start, done, target = 0, 0.0, total / most
    for place, node in enumerate(graph.nodes[:-1]):
        done += node.flops
        if place in cuts and done >= target * (len(pieces) + 1) and len(pieces) < most - 1:
            pieces.append(Segment(_names(graph, start, place + 1), cuts[place]))
            start = place + 1
    return [*pieces, Segment(_names(graph, start, len(graph.nodes)), ())]


def best_pins(
    planned: Planned,
    engines: Sequence[str],
    options: CompileOptions,
    answer: Callable[[Sequence[str]], Mapping[str, Value]],
    work: Path,
) -> dict[str, str]:
    """Node -> engine for the fastest chain of segments, or {} where one engine is as good.

    `answer` gives the fp32 value of any tensors by name, the inputs as well: each segment is
    timed on what really reaches it.
    """
    pieces = segments(planned.graph)
    if len(pieces) < 2:
        return {}
    try:
        times = _measure(planned, pieces, engines, options, answer, work)
    except AutoGLMError:
        return {}  # an engine that takes the whole but not a piece of it: there is nothing to mix
    finally:
        shutil.rmtree(work, ignore_errors=True)
    chain, seconds = _cheapest(times, engines)
    alone = min(sum(row[e] for row in times) for e in engines)
    if len(set(chain)) == 1 or seconds > alone * _PROMISE:
        return {}
    return {
        glob.escape(name): engine
        for piece, engine in zip(pieces, chain, strict=True)
        for name in piece.nodes
    }


def _measure(
    planned: Planned,
    pieces: Sequence[Segment],
    engines: Sequence[str],
    options: CompileOptions,
    answer: Callable[[Sequence[str]], Mapping[str, Value]],
    work: Path,
) -> list[dict[str, float]]:
    from autoglm.rewrite.extract import extract

    values = answer(sorted({name for p in pieces for name in p.leaves}))
    rows = []
    for number, piece in enumerate(pieces):
        model = extract(planned.model, piece.nodes)
        sessions = {}
        try:
            for engine in engines:
                place = work / f"{number}-{engine}"
                place.parent.mkdir(parents=True, exist_ok=True)
                artifact, _ = compile_part(model, engine, options, place, use_cache=False)
                sessions[engine] = registry.backend(engine).open(
                    artifact, place, RunOptions(alternates=True)
                )
            feeds = {i.name: values[i.name] for i in sessions[engines[0]].inputs}
            rows.append(_times(sessions, feeds))
        finally:
            for session in sessions.values():
                session.close()
    return rows


def _times(sessions: Mapping[str, Session], feeds: Feeds) -> dict[str, float]:
    calls = {e: (lambda s=s: s.run(feeds)) for e, s in sessions.items()}
    return {e: s.estimate for e, s in interleave(calls, budget_s=0.3).items()}


def _cheapest(
    times: Sequence[Mapping[str, float]], engines: Sequence[str]
) -> tuple[list[str], float]:
    """The chain of least total time; each segment's time holds its own call, so a switch costs
    nothing more.
    """
    chain = [min(engines, key=lambda e: row[e]) for row in times]
    return chain, sum(row[e] for row, e in zip(times, chain, strict=True))


def _narrow(graph: Graph) -> dict[int, tuple[str, ...]]:
    """Place -> the tensors that cross behind it, where they are few; the graph's inputs cross for
    nothing.
    """
    place = {n.name: i for i, n in enumerate(graph.nodes)}
    ends = {t.name: max((place[c] for c in t.consumers), default=-1) for t in graph.tensors}
    inputs = set(graph.inputs)
    alive: dict[str, int] = {}
    cuts: dict[int, tuple[str, ...]] = {}
    for i, node in enumerate(graph.nodes):
        alive |= {n: ends[n] for n in node.outputs if n in ends and n not in inputs}
        alive = {name: end for name, end in alive.items() if end > i}
        if 1 <= len(alive) <= _CROSSING:
            cuts[i] = tuple(alive)
    return cuts


def _names(graph: Graph, start: int, end: int) -> tuple[str, ...]:
    return tuple(n.name for n in graph.nodes[start:end])
