"""Proof that a rewrite rule keeps the numbers: before and after, on seeded cases with edge values.

Both graphs run on ONNX Runtime with its own optimiser off (on the onnx reference where that engine
lacks the dtype). The original also runs in float64 on the reference, which is taken as the truth.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from autoglm.errors import AutoGLMError
from autoglm.rewrite import cases_decompose as _more  # these two register their cases
from autoglm.rewrite import cases_transpose as _sunk
from autoglm.rewrite.cases import CASES, Case, Source

assert _more is not None
assert _sunk is not None
FILE = Path(__file__).parent / "certificates.json"

# Largest difference allowed, relative to the answer's largest magnitude: some tens of roundings.
TOLERANCE = {"float32": 1e-5, "float16": 8e-3, "float64": 1e-12}
_TYPES = {"float32": "float", "float64": "double"}  # others are called in ONNX's text as in NumPy


@dataclass(frozen=True, slots=True)
class RuleCertificate:
    """What was proven of one rule; errors are of the rewritten graph against the original."""

    rule: str
    passed: bool
    cases: int
    edge_cases: int
    dtypes: tuple[str, ...]
    opsets: tuple[int, ...]
    engines: tuple[str, ...]
    max_abs_error: float  # float32, or the first dtype
    max_relative_error: Mapping[str, float]  # dtype -> against the largest magnitude of the answer
    max_ulp_error: Mapping[str, float]  # dtype -> of the answer's largest magnitude
    error_of_original: Mapping[str, float]  # dtype -> relative, against the truth in float64
    error_of_rewritten: Mapping[str, float]
    nonfinite_mismatches: int  # places where one answer is NaN or infinite and the other is not
    exact: bool
    note: str = ""


def certify_rule(name: str, *, limit: int | None = None) -> RuleCertificate:
    """Run the rule's cases, or `limit` spread over them; raises where one does not apply."""
    plan = CASES[name]
    tally = _Tally()
    for dtype in plan.dtypes:
        seed = zlib.crc32(f"{name}/{dtype}".encode())
        source = Source(np.random.default_rng(seed), dtype)
        every = list(plan.make(source))
        step = max(1, len(every) // limit) if limit else 1
        for case in every[::step]:
            _prove(name, case, dtype, tally)
    relative = tally.relative
    close = all(relative.get(d, 0.0) <= TOLERANCE.get(d, 0.0) for d in plan.dtypes)
    agree = tally.mismatches == 0 or plan.finite
    passed = tally.cases > 0 and agree and (not any(relative.values()) if plan.exact else close)
    first = "float32" if "float32" in plan.dtypes else plan.dtypes[0]
    return RuleCertificate(
        rule=name,
        passed=passed,
        cases=tally.cases,
        edge_cases=tally.edges,
        dtypes=plan.dtypes,
        opsets=tuple(sorted(tally.opsets)),
        engines=tuple(sorted(tally.engines)),
        max_abs_error=tally.absolute.get(first, 0.0),
        max_relative_error=dict(tally.relative),
        max_ulp_error=dict(tally.ulp),
        error_of_original=dict(tally.original),
        error_of_rewritten=dict(tally.rewritten),
        nonfinite_mismatches=tally.mismatches,
        exact=plan.exact,
        note=plan.note,
    )


@cache
def certificates() -> Mapping[str, Mapping[str, Any]]:
    """The certificates that ship with this version: rule -> fields of `RuleCertificate`."""
    return dict(json.loads(FILE.read_text("utf-8"))) if FILE.exists() else {}


@cache
def certified() -> frozenset[str]:
    """Rules that passed."""
    return frozenset(name for name, found in certificates().items() if found["passed"])


def write_certificates(names: Iterable[str] | None = None) -> list[RuleCertificate]:
    """Prove these rules again, or all, and rewrite the file that ships."""
    made = [certify_rule(name) for name in (names or sorted(CASES))]
    known = {**certificates(), **{c.rule: _plain(c) for c in made}}
    text = json.dumps({k: known[k] for k in sorted(known) if k in CASES}, indent=1)
    FILE.write_text(text + "\n", "utf-8")
    certificates.cache_clear()
    certified.cache_clear()
    return made


def _plain(certificate: RuleCertificate) -> dict[str, Any]:
    def short(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.3g}")
        return {k: short(v) for k, v in value.items()} if isinstance(value, dict) else value

    plain: dict[str, Any] = json.loads(json.dumps(asdict(certificate)))
    return {key: short(value) for key, value in plain.items()}


class _Tally:
    """The worst of what was seen, by dtype; holds state while the cases run."""

    def __init__(self) -> None:
        self.cases = self.edges = self.mismatches = 0
        self.opsets: set[int] = set()
        self.engines: set[str] = set()
        self.absolute: dict[str, float] = {}
        self.relative: dict[str, float] = {}
        self.ulp: dict[str, float] = {}
        self.original: dict[str, float] = {}
        self.rewritten: dict[str, float] = {}

    def worst(self, table: dict[str, float], dtype: str, value: float) -> None:
        table[dtype] = max(table.get(dtype, 0.0), value)


def build(case: Case) -> ir.Model:
    """The case as a model with types everywhere."""
    import onnx

    from autoglm.rewrite.shapes import infer_in_place

    def typed(name: str, array: np.ndarray) -> str:
        kind = _TYPES.get(array.dtype.name, array.dtype.name)
        return f"{kind}[{','.join(map(str, array.shape))}] {name}"

    given = ", ".join(typed(k, v) for k, v in case.feeds.items())
    made = "y" if "y0" not in case.body else "y0, y1"
    outputs = ", ".join(f"float {name}" for name in made.split(", "))
    graph = onnx.parser.parse_graph(f"case ({given}) => ({outputs}) {{ {case.body} }}")
    for value in graph.output:
        value.ClearField("type")
    graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in case.constants.items())
    imports = [onnx.helper.make_opsetid("", case.opset)]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=10)
    loaded: ir.Model = ir.from_proto(onnx.shape_inference.infer_shapes(model, data_prop=True))
    for number, node in enumerate(loaded.graph):
        node.name = f"n{number}"
    infer_in_place(loaded)
    return loaded


def rewrite(name: str, model: ir.Model) -> ir.Model:
    """A copy with only this rule applied; raises where it does not apply to the case."""
    from autoglm.rewrite.legalize import apply
    from autoglm.rewrite.prepare import PASSES
    from autoglm.rewrite.rule import apply_rules

    after = model.clone()
    known = PASSES.get(name)
    if known is not None and known.rule is not None:
        count = apply_rules(after, [known.rule]).total()
    else:
        count = apply(after, name)
    if not count:
        raise AutoGLMError("Rule {rule} does not apply to its own case.", rule=name)
    return after


def _prove(name: str, case: Case, dtype: str, tally: _Tally) -> None:
    before = build(case)
    after = rewrite(name, before)
    first, engine = _run(before, after, case.feeds)
    tally.cases += 1
    tally.edges += case.edges
    tally.opsets.add(case.opset)
    tally.engines.add(engine)
    # Beside an infinity the truth in float64 says nothing, so ordinary numbers are judged by it.
    ordinary = dtype.startswith("float") and not case.edges
    truth = _truth(case) if ordinary else [None] * len(first)
    for (old, new), exact in zip(first, truth, strict=True):
        _compare(old, new, exact, dtype, tally)


def _run(
    before: ir.Model, after: ir.Model, feeds: Mapping[str, np.ndarray]
) -> tuple[list[tuple[np.ndarray, np.ndarray]], str]:
    """Both answers from the same engine."""
    import onnxruntime

    pair = [ir.to_proto(m) for m in (before, after)]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        answers = [
            onnxruntime.InferenceSession(
                p.SerializeToString(), options, providers=["CPUExecutionProvider"]
            ).run(None, dict(feeds))
            for p in pair
        ]
        engine = "onnxruntime"
    except (RuntimeError, onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented):
        answers = [_reference(p, feeds) for p in pair]
        engine = "onnx reference"
    return list(zip(*answers, strict=True)), engine


def _reference(proto: Any, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    from onnx.reference import ReferenceEvaluator

    with np.errstate(all="ignore"):
        return [np.asarray(a) for a in ReferenceEvaluator(proto).run(None, dict(feeds))]


def _truth(case: Case) -> list[np.ndarray | None]:
    def wide(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in arrays.items()}

    if "Cast" in case.body or "Quantize" in case.body:
        return [None] * (2 if "y0" in case.body else 1)
    model = build(Case(case.body, wide(case.feeds), wide(case.constants), case.opset))
    try:
        return list(_reference(ir.to_proto(model), wide(case.feeds)))
    except (
        Exception
    ):  # its pooling fails in many ways on odd shapes; then there is no truth to tell
        return [None] * (2 if "y0" in case.body else 1)


def _compare(
    old: np.ndarray, new: np.ndarray, truth: np.ndarray | None, dtype: str, tally: _Tally
) -> None:
    if old.shape != new.shape or old.dtype != new.dtype:
        raise AutoGLMError(
            "The rewritten graph gives {found}, the original {expected}.",
            found=f"{new.dtype}{list(new.shape)}",
            expected=f"{old.dtype}{list(old.shape)}",
        )
    a, b = old.astype(np.float64), new.astype(np.float64)
    if truth is not None and truth.shape != old.shape:
        truth = None  # a known fault of the reference in some pools of one dimension
    both = np.isfinite(a) & np.isfinite(b)
    same = both | (a == b) | (np.isnan(a) & np.isnan(b))
    tally.mismatches += int((~same).sum())
    difference = np.abs(a[both] - b[both]).max(initial=0.0)
    largest = np.abs(a[both]).max(initial=0.0)
    tally.worst(tally.absolute, dtype, float(difference))
    tally.worst(tally.relative, dtype, _ratio(difference, largest))
    if old.dtype.kind == "f":
        tally.worst(tally.ulp, dtype, _ratio(difference, _spacing(largest, old.dtype)))
    if truth is not None:
        for table, got in ((tally.original, a), (tally.rewritten, b)):
            fine = both & np.isfinite(truth)
            error = np.abs(got[fine] - truth[fine]).max(initial=0.0)
            tally.worst(table, dtype, _ratio(error, np.abs(truth[fine]).max(initial=0.0)))


def _spacing(largest: float, dtype: np.dtype[Any]) -> float:
    info = np.finfo(dtype)
    return max(math.ldexp(float(info.eps), math.frexp(largest)[1] - 1), float(info.tiny))


def _ratio(part: float, whole: float) -> float:
    if part == 0:
        return 0.0
    return float(part / whole) if whole else math.inf
