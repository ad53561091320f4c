"""Local functions inlined: backends see plain operators, named `call/inner`.

A function written for another opset than the model is moved to it first, by the same adapters that
raise a whole model. Calls that multiply beyond any real model are refused before they are made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoglm.errors import LimitError, ModelError
from autoglm.frontends import all_nodes, shown, unused
from autoglm.frontends.onnx.wire import MAX_NODES

if TYPE_CHECKING:
    import onnx_ir as ir

_CALL = "autoglm.call"


def inline(model: ir.Model) -> None:
    """Replace every call by the function's body, in place; unused functions are dropped."""
    import onnx_ir as ir
    from onnx_ir.passes.common import InlinePass

    if not model.functions:
        return
    _check_size(model)
    _one_opset(model)
    _mark_calls(model)
    try:
        InlinePass()(model)
    except (ValueError, RuntimeError, ir.passes.PassError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ModelError(
            "The model's local functions cannot be inlined: {reason}.", reason=str(cause)[:300]
        ) from error
    model.functions.clear()
    _name_inlined(model)
    _unique_values(model)


def _check_size(model: ir.Model) -> None:
    sizes: dict[ir.OperatorIdentifier, int] = {}
    total = _size(model.graph, model, sizes, [])
    if total > MAX_NODES:
        raise LimitError(
            "Inlining the local functions gives {total} nodes; the limit is {limit}.",
            hint="Functions that call each other many times over multiply; export without them.",
            total=total,
            limit=MAX_NODES,
        )


def _size(
    graph: ir.Graph,
    model: ir.Model,
    sizes: dict[ir.OperatorIdentifier, int],
    path: list[ir.OperatorIdentifier],
) -> int:
    total = 0
    for node in all_nodes(graph):
        call = node.op_identifier()
        function = model.functions.get(call)
        if function is None:
            total += 1
            continue
        if call in path or len(path) > 200:
            raise ModelError(
                "Local functions call each other in a circle: {names}.",
                names=" -> ".join(shown(f"{d}::{n}") for d, n, _ in [*path[-5:], call]),
            )
        if call not in sizes:
            sizes[call] = _size(function.graph, model, sizes, [*path, call])
        total += sizes[call]
    return total


def _one_opset(model: ir.Model) -> None:
    """Bring model and functions to one version of every operator set."""
    from autoglm.frontends.opset import move

    parts = [model.graph, *(f.graph for f in model.functions.values())]
    imports = [model.opset_imports, *(f.opset_imports for f in model.functions.values())]
    newest: dict[str, int] = {}
    for versions in imports:
        if versions.pop("ai.onnx", None) is not None:  # pragma: no cover - settled on reading
            raise ModelError("Opset imports of a function are not settled.")
        for domain, version in versions.items():
            newest[domain] = max(version, newest.get(domain, version))
    for graph, versions in zip(parts, imports, strict=True):
        for domain, version in list(versions.items()):
            if version != newest[domain]:
                move(graph, domain, version, newest[domain])
                versions[domain] = newest[domain]
    for domain, version in newest.items():
        model.opset_imports.setdefault(domain, version)


def _mark_calls(model: ir.Model) -> None:
    # A body's nodes get names now, and inherit the mark of the outermost call when they are copied.
    for function in model.functions.values():
        for index, node in enumerate(all_nodes(function.graph)):
            node.name = node.name or f"{node.op_type}_{index}"
            node.metadata_props.pop("autoglm.source", None)
    for node in all_nodes(model.graph):
        if node.op_identifier() in model.functions:
            node.metadata_props.clear()
            node.metadata_props[_CALL] = node.name or ""


def _name_inlined(model: ir.Model) -> None:
    used = {n.name for n in all_nodes(model.graph) if _CALL not in n.metadata_props and n.name}
    for node in all_nodes(model.graph):
        call = node.metadata_props.pop(_CALL, None)
        if call is not None:
            node.name = unused(f"{call}/{node.name}", used)
            node.metadata_props["autoglm.source"] = node.name
            used.add(node.name)


def _unique_values(model: ir.Model) -> None:
    # The inliner does not look into later bodies for names it gives; a clash would shadow a value.
    keep = {*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()}
    used = {v.name for v in keep if v.name}
    bodies = list(model.graph.subgraphs())
    given = [v for body in bodies for v in (*body.inputs, *body.initializers.values())]
    for value in (*(v for n in all_nodes(model.graph) for v in n.outputs), *given):
        if value in keep or not value.name:
            continue
        if value.name in used:
            value.name = unused(value.name, used)
        used.add(value.name)
