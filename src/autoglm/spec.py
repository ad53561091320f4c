"""The product's concepts: plain data and Protocols; the standard library and `messages` only.

Read this file first. Every other module takes these values and returns these values.
Dtypes are named as NumPy and ml_dtypes name them everywhere: `float32`, `bfloat16`,
`float8_e4m3fn`, `int4`, `bool`, `string`. Operators are named `Conv`, or `domain::Op` outside the
default ONNX domain.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, runtime_checkable

from autoglm.messages import tr

if TYPE_CHECKING:
    import onnx_ir as ir

API_VERSION = 1

# A tensor is a numpy.ndarray (ml_dtypes for bfloat16, fp8, 4-bit; object array of str for
# strings), a sequence is a list of tensors, an absent optional is None.
Value: TypeAlias = Any
Feeds: TypeAlias = Mapping[str, Value]
Dim: TypeAlias = int | str | None


class Verdict(StrEnum):
    """Whether a backend takes a node. `unknown` is never counted as yes."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class Evidence(StrEnum):
    """How a capability fact is known."""

    MEASURED = "measured"
    DOCUMENT = "vendor document"
    INFERRED = "inferred"


class Constraint(StrEnum):
    """The first thing that a refused node ran into."""

    OP = "op"
    DTYPE = "dtype"
    RANK = "rank"
    SHAPE = "shape"
    ATTRIBUTE = "attribute"
    OPSET = "opset"
    LAYOUT = "layout"
    MEMORY = "memory"
    ANSWER = "answer"  # it runs and answers wrongly
    PRECISION = "precision"
    VALUE = "value"  # the data decide: some nodes just like it answer wrongly
    PIN = "pin"
    BUDGET = "budget"


class Fit(StrEnum):
    """The verdict of `check`, and its exit status in `EXIT`."""

    FITS = "fits"
    FALLBACKS = "fits with fallbacks"
    NO = "does not fit"


EXIT = {Fit.FITS: 0, Fit.FALLBACKS: 1, Fit.NO: 2}


@dataclass(frozen=True, slots=True)
class Support:
    """A yes, or a no (or an unknown) that says why: the limit, then the value found."""

    verdict: Verdict
    constraint: Constraint | None = None
    reason: str = ""
    evidence: Evidence = Evidence.INFERRED

    @property
    def ok(self) -> bool:
        """True only for a plain yes."""
        return self.verdict is Verdict.YES


def yes(evidence: Evidence = Evidence.INFERRED) -> Support:
    """A yes."""
    return Support(Verdict.YES, evidence=evidence)


def no(constraint: Constraint, reason: str, evidence: Evidence = Evidence.INFERRED) -> Support:
    """A refusal: `reason` states the limit, then the value found."""
    return Support(Verdict.NO, constraint, reason, evidence)


def unknown(reason: str, constraint: Constraint | None = None) -> Support:
    """Nobody measured or documented it."""
    return Support(Verdict.UNKNOWN, constraint, reason)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A named value at the edge of a graph: element dtype, shape (None = rank unknown), and
    kind.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...] | None
    kind: str = "tensor"  # tensor | sequence | optional


@dataclass(frozen=True, slots=True)
class ValueFacts:
    """What is known of one node input or output without running anything."""

    dtype: str = ""  # "" = unknown
    shape: tuple[Dim, ...] | None = None
    constant: bool = False
    kind: str = "tensor"
    # of a constant of a few integers (axes, pads, steps): its values
    ints: tuple[int, ...] | None = None

    @property
    def rank(self) -> int | None:
        """Number of dimensions, where known."""
        return None if self.shape is None else len(self.shape)


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node as capability tables see it; made by `autoglm.rewrite.facts`, so tables need no
    IR.
    """

    name: str
    op: str  # "Conv" or "com.microsoft::Gelu"
    since: int  # since_version of the operator's schema in this model's opset
    inputs: tuple[ValueFacts | None, ...]  # None = optional input left out
    outputs: tuple[ValueFacts, ...]
    # scalars, strings, tuples; no tensors, no graphs
    attributes: Mapping[str, Any] = field(default_factory=dict)
    body: tuple[NodeFacts, ...] = ()  # nodes of If / Loop / Scan bodies, flattened
    # False: onnx defines no such operator, so only a table that names it can take it
    standard: bool = True


@dataclass(frozen=True, slots=True)
class Device:
    """What a probe found, or a catalog chip that is not here (`present=False`)."""

    kind: str  # cpu, gpu, npu
    name: str
    backend: str
    id: str = "0"
    memory_bytes: int | None = None
    present: bool = True
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chip:
    """One accelerator or CPU as its maker publishes it; what no source says is None or absent."""

    name: str
    vendor: str
    backend: str  # the backend that drives it
    kind: str  # cpu, gpu, npu
    memory_bytes: int | None = None
    bandwidth_gbps: float | None = None  # of its memory, GB/s
    # precision -> dense TFLOPS (TOPS of integers); "unstated" where the source names no precision
    peak_tflops: Mapping[str, float] = field(default_factory=dict)
    watts: float | None = None
    link_gbps: float | None = None  # to the host, GB/s in one direction, as the bus is rated
    formats: tuple[str, ...] = ()
    collectives: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    # figure (a field, or a precision of peak_tflops) -> where it is from
    sources: Mapping[str, str] = field(default_factory=dict)
    # figure -> "read <date>", "recalled" (from memory, not verified) or "specification"
    evidence: Mapping[str, str] = field(default_factory=dict)
    precisions: tuple[str, ...] = ()  # that it computes in; () = unknown
    lacks: tuple[str, ...] = ()  # precisions that its maker says it has not
    alignment: int | None = None  # of an address in its memory, bytes
    layouts: tuple[str, ...] = ()  # that its compiler takes or makes


@dataclass(frozen=True, slots=True)
class OpRule:
    """One row of a capability table: which dtypes (of the first typed input) and since-versions,
    and any further limit.
    """

    dtypes: frozenset[str] | None = None  # None = any
    since: tuple[int, int] = (1, 10_000)
    when: Callable[[NodeFacts], Support] | None = None
    evidence: Evidence = Evidence.INFERRED


OpTable: TypeAlias = Mapping[str, OpRule]


# `narrow` has rules for the operator: what it does not know of is a version or a dtype of it.
_NEVER_ASKED = (Constraint.OPSET, Constraint.DTYPE)


def _both(plain: OpRule, narrow: OpRule, precision: str, node: NodeFacts) -> Support:
    """What `narrow` refuses or doubts of what `plain` takes; what was never asked is as in it."""
    first, second = (
        yes(rule.evidence) if rule.when is None else rule.when(node) for rule in (plain, narrow)
    )
    if not first.ok or second.ok:
        return second if first.ok else first
    if second.verdict is Verdict.UNKNOWN and second.constraint in _NEVER_ASKED:
        return yes(Evidence.INFERRED)
    told = tr("in {precision}, {reason}", precision=precision, reason=second.reason)
    return Support(second.verdict, Constraint.PRECISION, told, second.evidence)


def _open_shape(node: NodeFacts) -> str:
    """The first input without a fixed shape, as text."""
    for value in node.inputs:
        if value is not None and value.kind == "tensor" and value.shape is None:
            return "a shape that is not known"
        if value is not None and any(not isinstance(d, int) for d in value.shape or ()):
            return "x".join("?" if d is None else str(d) for d in value.shape or ())
    return ""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The one table that check, plan, compile and conformance all read."""

    backend: str
    toolkit: str  # version the table holds for, e.g. "onnxruntime 1.32.0"
    table: OpTable
    precisions: Mapping[str, Support] = field(default_factory=dict)
    layouts: tuple[str, ...] = ("NCHW",)
    alignment: int = 64
    memory_bytes: int | None = None
    formats: tuple[str, ...] = ()
    collectives: tuple[str, ...] = ()
    evidence: Evidence = Evidence.INFERRED
    # False: an operator that is not in the table was never measured, so it is unknown
    complete: bool = True
    chip: Chip | None = None  # the one that the table speaks of
    fixed_shapes: bool = False  # nodes with open dimensions are refused
    # of this backend's node times relative to the machine's measured rates; a planning prior
    speed: float = 1.0
    # precision -> rules of operators that must hold, too, for nodes that compute in it
    also: Mapping[str, OpTable] = field(default_factory=dict)

    def at(self, precision: str) -> Self:
        """The table as it holds for nodes that compute in `precision`."""
        rules = self.also.get(precision, {})
        narrowed = {
            op: replace(self.table[op], when=partial(_both, self.table[op], rule, precision))
            for op, rule in rules.items()
            if op in self.table
        }
        return replace(self, table={**self.table, **narrowed}) if narrowed else self

    def support(self, node: NodeFacts) -> Support:
        """Whether this backend takes `node`; the first failing constraint where it does not."""
        rule = self.table.get(node.op)
        if rule is None and not node.standard:
            told = tr(
                "{op} is a custom operator that {toolkit} lacks", op=node.op, toolkit=self.toolkit
            )
            return no(Constraint.OP, told)
        if rule is None and not self.complete:
            told = tr(
                "{op} was never listed for {toolkit}"
                if self.evidence is Evidence.DOCUMENT
                else "{op} was never measured with {toolkit}",
                op=node.op,
                toolkit=self.toolkit,
            )
            return unknown(told, Constraint.OP)
        if rule is None:
            told = tr("{op} is not in {toolkit}'s table", op=node.op, toolkit=self.toolkit)
            return no(Constraint.OP, told, self.evidence)
        low, high = rule.since
        if not low <= node.since <= high:
            return no(
                Constraint.OPSET,
                tr(
                    "{op} of opset {low} to {high} is taken, found {found}",
                    op=node.op,
                    low=low,
                    high=high,
                    found=node.since,
                ),
                rule.evidence,
            )
        dtype = next(
            (v.dtype for v in (*node.inputs, *node.outputs) if v is not None and v.dtype), ""
        )
        if rule.dtypes is not None and dtype and dtype not in rule.dtypes:
            limit = ", ".join(sorted(rule.dtypes))
            told = tr("{op} takes {limit}; found {found}", op=node.op, limit=limit, found=dtype)
            return no(Constraint.DTYPE, told, rule.evidence)
        if self.fixed_shapes and (found := _open_shape(node)):
            told = tr(
                "{toolkit} compiles fixed shapes only; found {found}: give --input-shape",
                toolkit=self.toolkit,
                found=found,
            )
            return no(Constraint.SHAPE, told, rule.evidence)
        taken = yes(rule.evidence)
        if rule.when is not None:
            verdict = rule.when(node)
            if not verdict.ok:
                return verdict
            taken = verdict if rule.evidence is Evidence.MEASURED else taken
        for inner in node.body:
            verdict = self.support(inner)
            if not verdict.ok:
                return Support(
                    verdict.verdict,
                    verdict.constraint,
                    tr("in its body: {reason}", reason=verdict.reason),
                    verdict.evidence,
                )
        return taken


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """What a backend is told when it compiles one partition."""

    precision: str = "fp32"  # fp32 fp16 bf16 int8 (static, needs calibration) int8-dynamic
    device: str = ""
    arch: str = ""
    threads: int = 0  # 0 = all cores this process may use
    memory_alignment: int = 64
    calibration: Sequence[Feeds] = ()
    keep_high: frozenset[str] = frozenset()  # source nodes that int8 leaves to `beside_int8`
    beside_int8: str = "fp32"  # bf16: what int8 leaves may be bf16, where the engine has that
    timeout_s: float = 600.0
    memory_limit_bytes: int = 0  # address space of each compiler that is a program; 0 = no limit
    # False: the engine's own graph optimisation off, for reference and for fusion on/off
    optimize: bool = True
    # the engine's own keys, passed through
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a backend is told when it opens an artifact."""

    device: str = ""
    threads: int = 0
    memory_limit_bytes: int = 0  # address space of each program that runs it; 0 = no limit
    profile: bool = False
    alternates: bool = False  # with other engines in this process: no thread may spin after a run
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Artifact:
    """One compiled subgraph: files below one folder, and what the backend needs to open them."""

    backend: str
    kind: str  # onnx, openvino-ir, torch, ...
    entry: str  # the file to open, relative to the artifact's folder
    toolkit: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    precision: str = "fp32"
    meta: Mapping[str, Any] = field(default_factory=dict)  # JSON only


@runtime_checkable
class Session(Protocol):
    """The only thing that runs."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What `run` takes."""

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What `run` returns."""

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Run once; raises InputError for feeds that do not fit, ExecutionError when the engine
        fails.
        """

    def close(self) -> None:
        """Give everything back; may be called twice."""


class Closing(ABC):
    """Gives a session its `with`, which ends in `close()`."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back; may be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


@runtime_checkable
class Backend(Protocol):
    """The plug: one vendor or engine. Only `compile` and `open` may need its SDK.

    It may also have `compile_identity(options: CompileOptions) -> Mapping[str, str]`: what of this
    machine decides what `compile` gives (the chip that is here, the SDK's own build), for the
    compile cache. Like `probe`, it never raises and never hangs.
    """

    name: str
    api_version: int

    def probe(self) -> Sequence[Device]:
        """Devices that are here; [] when there are none. Never raises, never hangs."""

    def version(self) -> str:
        """Version of the installed toolkit, "" where it is not installed; cheap, imports no SDK."""

    def capabilities(self, arch: str = "") -> Capabilities:
        """The table; needs no SDK and no device."""

    def compile(self, model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
        """Compile one partition into the empty folder `out`."""

    def open(self, artifact: Artifact, folder: Path, options: RunOptions) -> Session:
        """Load what `compile` wrote into `folder`."""


@runtime_checkable
class Frontend(Protocol):
    """Reads one kind of source into an ir.Model with stable, unique node names and inferred
    shapes.
    """

    name: str
    api_version: int

    def detect(self, source: object) -> bool:
        """Whether this frontend reads `source` (a path, or a framework object); reads a few bytes
        at most.
        """

    def load(self, source: object, *, example_inputs: Sequence[Value] | None = None) -> ir.Model:
        """Read it whole; raises ModelError naming what is wrong."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One backend's no (or unknown) to one node."""

    node: str
    op: str
    backend: str
    verdict: Verdict
    constraint: str
    reason: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Partition:
    """Nodes that one backend compiles as one subgraph."""

    id: str
    backend: str
    nodes: tuple[str, ...]  # in topological order
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    precision: str
    seconds: float  # predicted, of one run
    layout: str = "NCHW"
    chip: str = ""  # the catalog's chip that `seconds` is estimated from; "" = from measurements


@dataclass(frozen=True, slots=True)
class Boundary:
    """One tensor that crosses partitions, and what crossing costs."""

    tensor: str
    producer: str
    consumer: str
    bytes: int
    kind: str  # copy, cast, layout (joined by "+")
    seconds: float


@dataclass(frozen=True, slots=True)
class Fallback:
    """A node that does not run where it was asked to, why, and what that costs."""

    node: str
    op: str
    wanted: str
    placed: str
    reason: str
    constraint: str  # "absorbed": supported, but cheaper beside its neighbours
    seconds: float  # time of the node where it was placed, with its share of the boundaries


@dataclass(frozen=True, slots=True)
class Alternative:
    """A plan that was not chosen."""

    name: str
    partitions: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision, apart from the doing: printable, diffable, explainable."""

    backend: str  # the one asked for
    precision: str
    partitions: tuple[Partition, ...]
    boundaries: tuple[Boundary, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    fallbacks: tuple[Fallback, ...] = ()
    unplaced: tuple[str, ...] = ()  # no allowed backend takes these
    violations: tuple[str, ...] = ()  # of the budget or the policy, each a sentence
    alternatives: tuple[Alternative, ...] = ()
    seconds: float = 0.0
    uncertainty: float = 1.0  # the prediction is within a factor of 1 + this
    notes: tuple[str, ...] = ()  # what the prices rest on where nothing was measured

    @property
    def fit(self) -> Fit:
        """fits, fits with fallbacks, does not fit."""
        if self.unplaced or self.violations:
            return Fit.NO
        return Fit.FALLBACKS if self.fallbacks else Fit.FITS


@dataclass(frozen=True, slots=True)
class Certificate:
    """Proof that a partition (or the whole bundle) answers as fp32 does, on the named feeds."""

    subject: str  # partition id, or "model"
    precision: str
    golden: str  # which engine gave the fp32 answer
    max_relative_error: float  # max abs difference / max abs reference, the worst output
    sqnr_db: float
    cosine: float
    tolerance: float
    passed: bool
    samples: int
    first_divergence: str = ""  # node name
    detail: str = ""
    remark: str = ""  # what stood in for the chip: an emulation, a vendor's simulator
