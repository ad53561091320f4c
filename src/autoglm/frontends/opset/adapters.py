"""One small function per revision of an operator that changed its meaning or its form.

Each is exact: same answer for every input, or `CannotRaise` with the reason. The texts of the
revisions are in ONNX's Changelog.md; what two forms have in common is said where it is not obvious.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from autoglm.frontends import all_nodes, unused
from autoglm.frontends.opset import CannotRaise

SOURCE = "autoglm.source"


class Edit:
    """Inserts nodes and constants into one graph, under names that nothing else has."""

    def __init__(self, graph: ir.Graph) -> None:
        self._root = graph
        self._nodes = {n.name for n in all_nodes(graph) if n.name}
        self._values = {v.name for v in graph.inputs if v.name} | set(graph.initializers)
        for node in all_nodes(graph):
            self._values |= {v.name for v in node.outputs if v.name}
            for body in _bodies(node):
                self._values |= {v.name for v in body.inputs if v.name} | set(body.initializers)

    def constant(self, node: ir.Node, what: str, array: Any) -> ir.Value:
        """A weight of the outermost graph, seen by every body; a Constant node in a function."""
        name = self._value_name(f"{node.name}.{what}")
        tensor = ir.Tensor(np.asarray(array), name=name)
        if isinstance(self._owner(), ir.Function):
            return self.insert(node, "Constant", [], {"value": tensor}, what)
        value = ir.Value(
            name=name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(tensor.shape.numpy()),
            const_value=tensor,
        )
        self._root.register_initializer(value)
        return value

    def insert(
        self,
        before: ir.Node,
        op: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, Any],
        what: str,
    ) -> ir.Value:
        """A new node with one output right before `before`; its source is that node's."""
        made = self.make(before, op, inputs, attributes, what)
        before.prepend(made)
        return made.outputs[0]

    def make(
        self,
        origin: ir.Node,
        op: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, Any],
        what: str,
    ) -> ir.Node:
        """A new node of that origin, not yet in any graph."""
        name = unused(f"{origin.name}.{what}", self._nodes)
        self._nodes.add(name)
        node = ir.node(op, list(inputs), attributes, name=name)
        node.outputs[0].name = self._value_name(name)
        node.metadata_props.update(origin.metadata_props)
        node.metadata_props.setdefault(SOURCE, origin.name or "")
        return node

    def replace(self, node: ir.Node, new: Sequence[ir.Node]) -> None:
        """Put `new` in the place of a one-output node; the last one gives its output."""
        assert node.graph is not None
        ir.convenience.replace_nodes_and_values(
            node.graph, node, [node], new, [node.outputs[0]], [new[-1].outputs[0]]
        )

    def _owner(self) -> object:
        return getattr(self._root, "parent_function", None) or self._root

    def _value_name(self, name: str) -> str:
        name = unused(name, self._values)
        self._values.add(name)
        return name


Adapter: TypeAlias = Callable[[Edit, ir.Node], None]


def _bodies(node: ir.Node) -> list[ir.Graph]:
    from autoglm.rewrite.facts import subgraphs

    return list(subgraphs(node))


def _pop(node: ir.Node, name: str, default: Any = None) -> Any:
    attribute = node.attributes.pop(name, None)
    if attribute is None:
        return default
    if attribute.is_ref():
        raise CannotRaise(f"{node.op_type} ({node.name}) takes {name} from a function's attribute")
    return attribute.value


def _set(node: ir.Node, **attributes: Any) -> None:
    for name, value in attributes.items():
        node.attributes[name] = ir.convenience.convert_attribute(name, value)


def _input(node: ir.Node, index: int, value: ir.Value | None) -> None:
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def _rank(node: ir.Node, index: int) -> int:
    value = node.inputs[index]
    if value is None or value.shape is None:
        raise CannotRaise(
            f"{node.op_type} ({node.name}) depends on the rank of its input {index}, not known here"
        )
    return len(value.shape)


def _numpy_type(node: ir.Node) -> Any:
    value = node.inputs[0]
    if value is None or value.dtype is None or value.dtype.name in ("UNDEFINED", "STRING"):
        raise CannotRaise(f"{node.op_type} ({node.name}) depends on an element type not known here")
    return value.dtype.numpy()


def _int64(values: Sequence[int]) -> Any:
    return np.array(values, np.int64)


def drop(*names: str) -> Adapter:
    """An adapter that removes attributes without meaning in inference."""

    def adapt(edit: Edit, node: ir.Node) -> None:
        for name in names:
            node.attributes.pop(name, None)

    return adapt


def refuse(reason: str) -> Adapter:
    """An adapter for a revision that has no exact counterpart here."""

    def adapt(edit: Edit, node: ir.Node) -> None:
        raise CannotRaise(f"{node.op_type} ({node.name}) {reason}")

    return adapt


def to_input(name: str, index: int) -> Adapter:
    """An adapter that turns an integer-list attribute into an int64 input."""

    def adapt(edit: Edit, node: ir.Node) -> None:
        values = _pop(node, name)
        if values is not None and len(values):
            _input(node, index, edit.constant(node, name, _int64(values)))

    return adapt


def broadcast_7(edit: Edit, node: ir.Node) -> None:
    """Opset 6 aligned B at `axis` of A; from 7 on at the end, so B gets dims of 1 behind."""
    broadcast, axis = _pop(node, "broadcast", 0), _pop(node, "axis")
    if not broadcast or axis is None:
        return
    rank_a, rank_b = _rank(node, 0), _rank(node, 1)
    axis = axis + rank_a if axis < 0 else axis
    behind = rank_a - axis - rank_b
    if behind < 0:
        raise CannotRaise(f"{node.op_type} ({node.name}) has an axis beyond its input's rank")
    if behind:
        axes = list(range(rank_b, rank_b + behind))
        node.replace_input_with(1, _unsqueezed(edit, node, axes))


def prelu_7(edit: Edit, node: ir.Node) -> None:
    """Opset 6 has one slope per channel, shape [C]; from 7 on it aligns at the end: [C, 1, …]."""
    value = node.inputs[1]
    rank_b = _rank(node, 1)
    if rank_b != 1 or (value is not None and value.shape is not None and value.shape[0] == 1):
        return
    behind = _rank(node, 0) - 2
    if behind > 0:
        node.replace_input_with(1, _unsqueezed(edit, node, list(range(1, behind + 1))))


def _unsqueezed(edit: Edit, node: ir.Node, axes: list[int]) -> ir.Value:
    # Written as of opset 6; its own adapter moves `axes` to an input at 13.
    inner = node.inputs[1]
    value = edit.insert(node, "Unsqueeze", [inner], {"axes": axes}, "aligned")
    if inner is not None:
        value.type = inner.type
        value.shape = None if inner.shape is None else ir.Shape([*inner.shape, *[1] * len(axes)])
    return value


def batch_norm_7(edit: Edit, node: ir.Node) -> None:
    """`is_test=0` with its five outputs is training; with one output every engine infers."""
    node.attributes.pop("is_test", None)
    _one_output(node)


def batch_norm_9(edit: Edit, node: ir.Node) -> None:
    """`spatial=0` normalised every element on its own, which no later version can."""
    if _pop(node, "spatial", 1) != 1:
        raise CannotRaise(f"BatchNormalization ({node.name}) has spatial=0")


def _one_output(node: ir.Node) -> None:
    extra = [v for v in node.outputs[1:] if v.name and (v.uses() or v.is_graph_output())]
    if extra:
        raise CannotRaise(f"{node.op_type} ({node.name}) is in training mode")
    node.resize_outputs(1)


def dropout_10(edit: Edit, node: ir.Node) -> None:
    """The mask became boolean; without a mask nothing changed."""
    mask = node.outputs[1] if len(node.outputs) > 1 else None
    if mask is not None and (mask.uses() or mask.is_graph_output()):
        raise CannotRaise(f"Dropout ({node.name}) gives out its mask, whose type changed")


def upsample_7(edit: Edit, node: ir.Node) -> None:
    """Two scales of a 4-D picture became a list; bilinear became linear."""
    height, width = _pop(node, "height_scale"), _pop(node, "width_scale")
    mode = _pop(node, "mode", "nearest")
    _set(node, scales=[1.0, 1.0, height, width], mode="linear" if mode == "bilinear" else mode)


def upsample_9(edit: Edit, node: ir.Node) -> None:
    """The scales became an input."""
    scales = np.array(_pop(node, "scales"), np.float32)
    _input(node, 1, edit.constant(node, "scales", scales))


def upsample_10(edit: Edit, node: ir.Node) -> None:
    """Upsample became Resize; it never shrinks, so its nearest pixel is the one below."""
    node.op_type = "Resize"
    _set(node, nearest_mode="floor")


def resize_11(edit: Edit, node: ir.Node) -> None:
    """Resize 10 maps x to x / scale and takes the pixel below to grow, above to shrink."""
    scales = node.inputs[1]
    mode = _pop(node, "mode", "nearest")
    nearest = _pop(node, "nearest_mode")
    if mode == "nearest" and nearest is None:
        nearest = _nearest(node, scales)
    _set(node, mode=mode, coordinate_transformation_mode="asymmetric")
    if nearest is not None:
        _set(node, nearest_mode=nearest)
    _input(node, 2, scales)
    node.replace_input_with(1, None)


def _nearest(node: ir.Node, scales: ir.Value | None) -> str:
    tensor = None if scales is None else ir.convenience.get_const_tensor(scales)
    if tensor is None:
        raise CannotRaise(f"Resize ({node.name}) rounds by its scales, which are not constant")
    numbers = tensor.numpy()
    if (numbers >= 1).all():
        return "floor"
    if (numbers <= 1).all():
        return "ceil"
    raise CannotRaise(f"Resize ({node.name}) grows one axis and shrinks another")


def resize_13(edit: Edit, node: ir.Node) -> None:
    """Unused inputs, which 11 wanted as empty tensors, are left out."""
    mode = node.attributes.get("coordinate_transformation_mode")
    kind = "half_pixel" if mode is None else mode.as_string()
    if kind == "tf_half_pixel_for_nn":
        raise CannotRaise(f"Resize ({node.name}) has the withdrawn mode {kind}")
    if kind != "tf_crop_and_resize":
        node.replace_input_with(1, None)
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        node.replace_input_with(2, None)


def slice_10(edit: Edit, node: ir.Node) -> None:
    """starts, ends and axes became inputs."""
    starts, ends, axes = _pop(node, "starts"), _pop(node, "ends"), _pop(node, "axes")
    _input(node, 1, edit.constant(node, "starts", _int64(starts)))
    _input(node, 2, edit.constant(node, "ends", _int64(ends)))
    if axes is not None and len(axes):
        _input(node, 3, edit.constant(node, "axes", _int64(axes)))


def top_k_10(edit: Edit, node: ir.Node) -> None:
    """k became an input."""
    _input(node, 1, edit.constant(node, "k", _int64([_pop(node, "k")])))


def clip_11(edit: Edit, node: ir.Node) -> None:
    """The bounds became inputs; one that was left out was the largest float32, not infinity."""
    low, high = _pop(node, "min"), _pop(node, "max")
    kind = _numpy_type(node)
    limit = float(np.finfo(np.float32).max)
    for index, what, bound in ((1, "min", low), (2, "max", high)):
        number = bound if bound is not None else limit if what == "max" else -limit
        _input(node, index, edit.constant(node, what, _bounded(number, kind)))


def _bounded(number: float, kind: Any) -> Any:
    import ml_dtypes

    info = ml_dtypes.finfo(kind)
    return np.array(min(max(number, float(info.min)), float(info.max)), kind)


def pad_11(edit: Edit, node: ir.Node) -> None:
    """pads and value became inputs."""
    pads, value = _pop(node, "pads"), _pop(node, "value", 0.0)
    _input(node, 1, edit.constant(node, "pads", _int64(pads)))
    mode = node.attributes.get("mode")
    if value and (mode is None or mode.as_string() == "constant"):
        _input(node, 2, edit.constant(node, "value", np.array(value, _numpy_type(node))))


def scatter_11(edit: Edit, node: ir.Node) -> None:
    """Scatter was renamed."""
    node.op_type = "ScatterElements"


def softmax_13(edit: Edit, node: ir.Node) -> None:
    """Until 12 the input was flattened to 2-D at `axis` (default 1); from 13 on it is one axis."""
    axis = _pop(node, "axis", 1)
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    rank = None if shape is None else len(shape)
    if rank and axis < 0:
        axis += rank
    behind = [] if shape is None else list(shape)[axis + 1 :]
    if axis == -1 or (rank is not None and all(isinstance(d, int) and d == 1 for d in behind)):
        _set(node, axis=axis)
        return
    _set(node, axis=-1)
    _flattened(edit, node, axis)


def _flattened(edit: Edit, node: ir.Node, axis: int) -> None:
    source = node.inputs[0]
    assert source is not None
    shape = edit.make(node, "Shape", [source], {}, "shape")
    flat = edit.make(node, "Flatten", [source], {"axis": axis}, "flat")
    inner = edit.make(node, node.op_type, [flat.outputs[0]], {"axis": -1}, "rows")
    # Written for opset 14, where a 0 in the shape may mean 0; nothing revises it before 18.
    back = edit.make(
        node, "Reshape", [inner.outputs[0], shape.outputs[0]], {"allowzero": 1}, "back"
    )
    for made in (flat, inner):
        made.outputs[0].type = source.type
    edit.replace(node, [shape, flat, inner, back])
    inner.name = node.name


def batch_norm_14(edit: Edit, node: ir.Node) -> None:
    """Training moved behind an attribute; one output is inference before and after."""
    _one_output(node)


def roi_align_16(edit: Edit, node: ir.Node) -> None:
    """The default mapping moved by half a pixel."""
    _set(node, coordinate_transformation_mode="output_half_pixel")


def split_18(edit: Edit, node: ir.Node) -> None:
    """Without sizes, the number of parts is now said."""
    if len(node.inputs) < 2 or node.inputs[1] is None:
        _set(node, num_outputs=len(node.outputs))


def cast_6(edit: Edit, node: ir.Node) -> None:
    """The target type was a name."""
    name = _pop(node, "to")
    if isinstance(name, str):
        if name not in ir.DataType.__members__:
            raise CannotRaise(f"Cast ({node.name}) names an unknown type")
        name = int(ir.DataType[name])
    _set(node, to=int(name))


def concat_4(edit: Edit, node: ir.Node) -> None:
    """The axis had a default, 1."""
    _set(node, axis=_pop(node, "axis", 1))


def pad_2(edit: Edit, node: ir.Node) -> None:
    """paddings was renamed."""
    _set(node, pads=list(_pop(node, "paddings")))


def power_2(edit: Edit, node: ir.Node) -> None:
    """p was a float."""
    power = _pop(node, "p", 2.0)
    if power != int(power):
        raise CannotRaise(f"{node.op_type} ({node.name}) has the fractional p {power}")
    _set(node, p=int(power))


def reshape_5(edit: Edit, node: ir.Node) -> None:
    """The shape became an input."""
    node.attributes.pop("consumed_inputs", None)
    _input(node, 1, edit.constant(node, "shape", _int64(_pop(node, "shape", ()))))


def split_2(edit: Edit, node: ir.Node) -> None:
    """The sizes could be an input, which opset 2 to 12 do not have."""
    if len(node.inputs) > 1:
        raise CannotRaise(f"Split ({node.name}) has its sizes as an input")


_CONSUMING_6 = (
    "Abs Add BatchNormalization Ceil Clip Div Dropout Elu Exp Floor Gemm HardSigmoid "
    "InstanceNormalization LeakyRelu Log Max Mean Min Mul Neg PRelu Reciprocal Relu Selu Sigmoid "
    "Sqrt Sub Sum Tanh"
)
_BROADCASTING_7 = "Add Sub Mul Div Pow And Or Xor Equal Greater Less"
_REDUCING_18 = (
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd "
    "ReduceSumSquare"
)


def _each(names: str, version: int, adapter: Adapter) -> dict[tuple[str, int], Adapter]:
    return {(op, version): adapter for op in names.split()}


ADAPTERS: dict[tuple[str, int], Adapter] = {
    **_each(_CONSUMING_6, 6, drop("consumed_inputs")),
    **_each(_BROADCASTING_7, 7, broadcast_7),
    **_each("RNN GRU LSTM", 7, drop("output_sequence")),
    **_each("Softmax LogSoftmax Hardmax", 13, softmax_13),
    **_each("Squeeze Unsqueeze ReduceSum", 13, to_input("axes", 1)),
    **_each(_REDUCING_18, 18, to_input("axes", 1)),
    ("Split", 2): split_2,
    ("Pad", 2): pad_2,
    ("LpPool", 2): power_2,
    ("GlobalLpPool", 2): power_2,
    ("Concat", 4): concat_4,
    ("Reshape", 5): reshape_5,
    ("Cast", 6): cast_6,
    ("BatchNormalization", 7): batch_norm_7,
    ("Dropout", 7): drop("is_test"),
    ("Gemm", 7): drop("broadcast"),
    ("PRelu", 7): prelu_7,
    ("Upsample", 7): upsample_7,
    ("BatchNormalization", 9): batch_norm_9,
    ("Upsample", 9): upsample_9,
    ("Tile", 6): refuse("took its repeats axis by axis"),
    ("Scan", 9): refuse("ran over a batch, with sequence lengths"),
    ("Dropout", 10): dropout_10,
    ("Slice", 10): slice_10,
    ("TopK", 10): top_k_10,
    ("Upsample", 10): upsample_10,
    ("Clip", 11): clip_11,
    ("Pad", 11): pad_11,
    ("Resize", 11): resize_11,
    ("Scatter", 11): scatter_11,
    ("Dropout", 12): drop("ratio"),  # without training_mode it is never read
    ("Resize", 13): resize_13,
    ("Split", 13): to_input("split", 1),
    ("BatchNormalization", 14): batch_norm_14,
    ("RoiAlign", 16): roi_align_16,
    ("Split", 18): split_18,
}
