"""A report without files or engines: a small transformer, planned for an NPU with gaps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from autoglm.api import Report
from autoglm.config import AdaptConfig, validate
from autoglm.plan import Graph, Wiring, make_graph, make_plan
from autoglm.spec import (
    Capabilities,
    Constraint,
    Evidence,
    NodeFacts,
    OpRule,
    Support,
    TensorInfo,
    ValueFacts,
    no,
    unknown,
    yes,
)

CPU_OPS = ("MatMul", "Add", "Erf", "Softmax", "LayerNormalization", "Mul", "Gather", "Loop")


def graph_of_steps(steps: Sequence[tuple[str, str, tuple[str, ...]]], size: int = 256) -> Graph:
    """`steps`: node name, operator, names of the nodes it reads ("" = the graph's input)."""
    value = ValueFacts("float32", (size, size))
    facts = [NodeFacts(n, op, 17, (value,) * max(1, len(i)), (value,)) for n, op, i in steps]
    wiring = [
        Wiring(tuple(f"{i}:0" if i else "x" for i in inputs) or ("x",), (f"{name}:0",))
        for name, _, inputs in steps
    ]
    return make_graph(facts, wiring, inputs={"x": value}, outputs=[f"{steps[-1][0]}:0"])


def layers(count: int) -> list[tuple[str, str, tuple[str, ...]]]:
    """Attention-like blocks with residual edges."""
    steps: list[tuple[str, str, tuple[str, ...]]] = [("embed", "Gather", ("",))]
    for i in range(count):
        last, p = steps[-1][0], f"layer.{i}/"
        steps += [(p + name, "MatMul", (last,)) for name in ("q", "k", "v")]
        steps += [
            (p + "scores", "MatMul", (p + "q", p + "k")),
            (p + "softmax", "Softmax", (p + "scores",)),
            (p + "context", "MatMul", (p + "softmax", p + "v")),
            (p + "residual", "Add", (p + "context", last)),
            (p + "norm", "LayerNormalization", (p + "residual",)),
            (p + "up", "MatMul", (p + "norm",)),
            (p + "erf", "Erf", (p + "up",)),
            (p + "gate", "Mul", (p + "erf", p + "up")),
            (p + "down", "MatMul", (p + "gate",)),
            (p + "out", "Add", (p + "down", p + "norm")),
        ]
    return steps


def chain(count: int, op: str = "Add") -> list[tuple[str, str, tuple[str, ...]]]:
    """One long line of nodes."""
    names = [f"n{i}" for i in range(count)]
    return [("n0", op, ("",)), *((b, op, (a,)) for a, b in pairwise(names))]


def npu(name: str = "npu") -> Capabilities:
    """Takes matrices and sums; refuses Erf, knows nothing of LayerNormalization."""

    def softmax(node: NodeFacts) -> Support:
        if node.name.startswith("layer.0"):
            return no(Constraint.SHAPE, "Softmax takes at most 128 columns; found 256")
        return yes()

    known = OpRule(evidence=Evidence.MEASURED)
    table = dict.fromkeys(("MatMul", "Add", "Mul", "Gather"), known)
    table["Softmax"] = OpRule(when=softmax)
    table["LayerNormalization"] = OpRule(when=lambda _: unknown("nobody has measured it"))
    return Capabilities(name, f"{name} toolkit 7.1", table, speed=20.0, evidence=Evidence.DOCUMENT)


def report(
    steps: Sequence[tuple[str, str, tuple[str, ...]]] | None = None,
    *,
    model: str = "encoder",
    config: AdaptConfig | None = None,
    policy: str = "cpu",
    backend: str = "npu",
) -> Report:
    """What `check` would say of these steps."""
    graph = graph_of_steps(steps or layers(4))
    cpu = Capabilities(
        "onnxruntime",
        "onnxruntime 1.0",
        {op: OpRule(evidence=Evidence.MEASURED) for op in CPU_OPS},
    )
    tables = {backend: npu(backend), "onnxruntime": cpu}
    plan = make_plan(graph, tables, backend=backend, policy=policy, precision="fp32")
    info = (TensorInfo("x", "float32", (256, "width")),)
    return Report(
        model=model,
        source=f"{model}.onnx",
        frontend="onnx",
        digest="0123456789abcdef" * 4,
        inputs=info,
        outputs=(TensorInfo("y", "float32", None),),
        plan=plan,
        graph=graph,
        passes=(),
        rewrites=(),
        notes=("Costs take dimension 'width' as 1.",),
        toolkits={name: table.toolkit for name, table in tables.items()},
        config=config or validate({"backend": backend}),
    )
