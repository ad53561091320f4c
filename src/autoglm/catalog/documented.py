"""A vendor's published operator list as a capability table; what it does not say stays unknown.

A file names its source. A row is "first-last: dtypes of the first input", where the range counts
opsets of the model or revisions of the operator, as `counts` says. `refused` are operators that
the document lists as not supported; `limits` are its restrictions in the words of `_LIMITS`.
`inferred` are rows that no document states; the file's comment says what they follow from.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from autoglm.catalog.chips import chip, default_chip
from autoglm.catalog.revisions import says_same
from autoglm.errors import ConfigError
from autoglm.messages import tr
from autoglm.spec import (
    Capabilities,
    Chip,
    Constraint,
    Evidence,
    NodeFacts,
    OpRule,
    OpTable,
    Support,
    ValueFacts,
    no,
    unknown,
    yes,
)

Row: TypeAlias = tuple[int, int, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Document:
    """One list: what toolkit it speaks of, where it was read, and its rows."""

    toolkit: str
    source: str
    complete: bool
    by_opset: bool
    bounded: bool  # an opset or dtype that no row names is refused; False: it is unknown
    rows: Mapping[str, tuple[Row, ...]]
    refused: frozenset[str] = frozenset()
    limits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    inferred: frozenset[str] = frozenset()  # operators whose rows no document states

    @property
    def newest(self) -> int:
        """The last opset that some row names."""
        return max((last for rows in self.rows.values() for _, last, _ in rows), default=0)

    def support(self, node: NodeFacts) -> Support:
        """What the document says of this node."""
        if node.op in self.refused:
            return self._no(Constraint.OP, tr("{op} is listed as not supported", op=node.op))
        rows = self.rows.get(node.op)
        if rows is None and self.complete:
            return self._no(Constraint.OP, tr("{op} is not listed", op=node.op))
        if rows is None:
            told = tr("{op} is not listed in {source}", op=node.op, source=self.source)
            return unknown(told, Constraint.OP)
        fitting = [row for row in rows if self._holds(node, row)]
        if not fitting:
            spans = ", ".join(_span(row) for row in sorted(rows))
            facts = {"spans": spans, "op": node.op, "since": node.since}
            found = tr("revision {spans} is listed; found {op} of opset {since}", **facts)
            if self.by_opset:
                found = tr("opset {spans} is listed; found {op} of opset {since}", **facts)
            if not self.bounded:
                return unknown(f"{found} ({self.source})", Constraint.OPSET)
            return self._no(Constraint.OPSET, found)
        taken = frozenset().union(*(dtypes for *_, dtypes in fitting))
        if taken and (dtype := first_dtype(node)) and not taken & {dtype, "any"}:
            if not self.bounded:
                told = tr("{op} of {dtype} is not listed", op=node.op, dtype=dtype)
                return unknown(f"{told} ({self.source})", Constraint.DTYPE)
            limit = ", ".join(sorted(taken))
            told = tr("{op} takes {limit}; found {found}", op=node.op, limit=limit, found=dtype)
            return self._no(Constraint.DTYPE, told)
        return self._within(node)

    def _within(self, node: NodeFacts) -> Support:
        for limit in self.limits.get(node.op, ()):
            word, *arguments = limit.split()
            verdict = _LIMITS[word](node, *arguments)
            if verdict is not None:
                return Support(
                    verdict.verdict,
                    verdict.constraint,
                    f"{node.op}: {verdict.reason} ({self.source})",
                    verdict.evidence,
                )
        return yes(self._evidence(node.op))

    def _evidence(self, op: str) -> Evidence:
        return Evidence.INFERRED if op in self.inferred else Evidence.DOCUMENT

    def _holds(self, node: NodeFacts, row: Row) -> bool:
        first, last, _ = row
        if not self.by_opset:
            return first <= node.since <= last
        if node.since <= last:
            return says_same(node, max(first, node.since))
        return says_same(node, last)

    def _no(self, constraint: Constraint, reason: str) -> Support:
        return no(constraint, f"{self.toolkit}: {reason} ({self.source})", Evidence.DOCUMENT)

    def table(self, also: Callable[[NodeFacts], Support | None] | None = None) -> OpTable:
        """The rows of a capability table; `also` refuses what the document leaves open."""

        def when(node: NodeFacts) -> Support:
            verdict = self.support(node)
            return (also(node) if also is not None and verdict.ok else None) or verdict

        rules = {grade: OpRule(when=when, evidence=grade) for grade in Evidence}
        return {op: rules[self._evidence(op)] for op in (*self.rows, *self.refused)}


@cache
def read_document(path: Path) -> Document:
    """The list in that TOML file."""
    raw = tomllib.loads(path.read_text("utf-8"))
    groups = {name: frozenset(text.split()) for name, text in raw.get("groups", {}).items()}
    inferred = raw.get("inferred", {})
    rows = {**inferred, **raw["ops"]}
    return Document(
        toolkit=raw["toolkit"],
        source=raw["source"],
        complete=raw["complete"],
        by_opset=raw["counts"] == "opset",
        bounded=raw.get("bounded", True),
        rows={op: tuple(_row(r, groups) for r in listed) for op, listed in rows.items()},
        refused=frozenset(raw.get("refused", {}).get("names", "").split()),
        limits={op: tuple(limits) for op, limits in raw.get("limits", {}).items()},
        inferred=frozenset(inferred) - frozenset(raw["ops"]),
    )


def capabilities(
    document: Document,
    of: Chip,
    precisions: Mapping[str, Support],
    also: Callable[[NodeFacts], Support | None] | None = None,
) -> Capabilities:
    """The document's table for that chip, with the chip's memory, layouts and alignment."""
    return Capabilities(
        of.backend,
        document.toolkit,
        document.table(also),
        precisions=precisions,
        layouts=of.layouts or ("NCHW",),
        alignment=of.alignment or 64,
        memory_bytes=of.memory_bytes,
        formats=of.formats,
        collectives=of.collectives,
        evidence=Evidence.DOCUMENT,
        complete=document.complete,
        chip=of,
    )


def pick_chip(backend: str, arch: str) -> Chip:
    """The backend's chip of that name, its default where none is named; ConfigError otherwise."""
    if not arch:
        found = default_chip(backend)
        assert found is not None, f"the catalog names no default chip of {backend}"
        return found
    found = chip(arch)
    if found.backend != backend:
        raise ConfigError(
            "{arch} is driven by backend {owner}, not by {backend}.",
            hint="Name a chip of this backend, or `--backend {owner}`.",
            arch=arch,
            owner=found.backend,
            backend=backend,
        )
    return found


def _row(text: str, groups: Mapping[str, frozenset[str]]) -> Row:
    span, _, dtypes = text.partition(":")
    first, _, last = span.partition("-")
    known = groups.get(dtypes.strip())
    return int(first), int(last or first), known or frozenset(dtypes.split())


def _span(row: Row) -> str:
    first, last, _ = row
    return str(first) if first == last else f"{first} to {last}"


def first_dtype(node: NodeFacts) -> str:
    """The dtype of the first typed input, or else of the first typed output; "" where unknown."""
    values = (*node.inputs, *node.outputs)
    return next((v.dtype for v in values if v is not None and v.dtype), "")


def _given(node: NodeFacts, index: str) -> ValueFacts | None:
    place = int(index)
    return node.inputs[place] if place < len(node.inputs) else None


def _rank(node: NodeFacts, *allowed: str) -> Support | None:
    value = _given(node, "0")
    listed = tr(" or ").join(allowed)
    if value is None or value.rank is None:
        told = tr("rank {ranks} is taken; the rank is not known", ranks=listed)
        return unknown(told, Constraint.RANK)
    if str(value.rank) in allowed:
        return None
    reason = tr("rank {ranks} is taken; found {found}", ranks=listed, found=value.rank)
    return no(Constraint.RANK, reason, Evidence.DOCUMENT)


def _constant(node: NodeFacts, index: str) -> Support | None:
    value = _given(node, index)
    if value is None or value.constant:
        return None
    reason = tr("input {index} must be a constant; found a computed value", index=index)
    return no(Constraint.ATTRIBUTE, reason, Evidence.DOCUMENT)


def _absent(node: NodeFacts, index: str) -> Support | None:
    if _given(node, index) is None:
        return None
    told = tr("input {index} must be zero, and its value is not looked at", index=index)
    return unknown(told, Constraint.VALUE)


def _attribute(node: NodeFacts, name: str, *allowed: str) -> Support | None:
    value = node.attributes.get(name)
    found = value if isinstance(value, (tuple, list)) else () if value is None else (value,)
    if all(str(item) in allowed for item in found):
        return None
    values = tr(" or ").join(allowed)
    reason = tr("{name} {values} is taken; found {found}", name=name, values=values, found=value)
    return no(Constraint.ATTRIBUTE, reason, Evidence.DOCUMENT)


def _halves(node: NodeFacts, name: str, direction: str = "") -> Support | None:
    value: Any = node.attributes.get(name) or ()
    if direction and node.attributes.get("direction") != direction:
        return None
    half = len(value) // 2
    if tuple(value[:half]) == tuple(value[half:]):
        return None
    reason = tr(
        "both halves of {name} must be the same; found {found}", name=name, found=list(value)
    )
    return no(Constraint.ATTRIBUTE, reason, Evidence.DOCUMENT)


def _outputs(node: NodeFacts, count: str) -> Support | None:
    if len(node.outputs) <= int(count):
        return None
    given = len(node.outputs)
    reason = tr("at most {count} output is given; found {found}", count=count, found=given)
    return no(Constraint.ATTRIBUTE, reason, Evidence.DOCUMENT)


def _static(node: NodeFacts) -> Support | None:
    value = _given(node, "0")
    if value is not None and value.shape and all(isinstance(d, int) for d in value.shape):
        return None
    return no(Constraint.SHAPE, tr("the input's shape must be fixed"), Evidence.DOCUMENT)


def _ranked(node: NodeFacts) -> Support | None:
    if all(v.rank is not None for v in node.outputs):
        return None
    told = tr("the branches must agree in rank, and the rank is not known")
    return unknown(told, Constraint.RANK)


def _below(node: NodeFacts, limit: str) -> Support | None:
    """K of TopK, which is the size of its outputs along the axis."""
    shape = node.outputs[0].shape
    size = shape[int(node.attributes.get("axis", -1))] if shape else None
    if isinstance(size, int) and size < int(limit):
        return None
    if isinstance(size, int):
        told = tr("K must be below {limit}; found {found}", limit=limit, found=size)
        return no(Constraint.SHAPE, told, Evidence.DOCUMENT)
    return unknown(tr("K must be below {limit}; it is not known", limit=limit), Constraint.SHAPE)


def _unchecked(node: NodeFacts, *words: str) -> Support | None:
    told = tr("{limit}, which is not looked at", limit=" ".join(words))
    return unknown(told, Constraint.VALUE)


_LIMITS: Mapping[str, Callable[..., Support | None]] = {
    "rank": _rank,  # of the first input
    "constant": _constant,  # that input
    "absent": _absent,  # that input, or zero
    "attribute": _attribute,  # every element is one of these
    "halves": _halves,  # of a list attribute are the same
    "outputs": _outputs,  # at most so many
    "static": _static,  # shape of the first input
    "ranked": _ranked,  # outputs have a known rank
    "below": _below,  # K of TopK
    "unchecked": _unchecked,  # a restriction that facts cannot show
}
