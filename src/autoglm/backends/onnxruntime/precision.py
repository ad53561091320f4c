"""Lower a saved fp32 model to fp16 or int8 with the engine's tools; named nodes stay in fp32."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm.backends.onnxruntime.options import reason, session_options
from autoglm.backends.onnxruntime.session import create
from autoglm.errors import AutoGLMError, CompileError, ConfigError
from autoglm.spec import CompileOptions, Feeds

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

_BIG = 1 << 30  # protobuf ends at 2 GiB; above this the tools write weights beside the graph
# What keeps int8 between the convolutions of a CNN.
_CNN = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Relu", "Clip", "Concat", "Pad"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "Reshape", "Flatten", "Transpose", "Squeeze"),
)
# Around softmax and normalisation int8 costs accuracy and gains little: only the weights' products.
_TRANSFORMER = ("Conv", "Gemm", "MatMul")
# A product whose output stays float32 is one kernel too, and keeps the range of what follows.
_TRANSFORMER_OPTIONS = {"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]}
_ATTENTION = frozenset({"Softmax", "LayerNormalization", "Attention", "MultiHeadAttention"})
_DYNAMIC = ("MatMul", "Gemm", "LSTM")
# How the fp16 tool names the casts that it adds: at the graph's edge, and around a kept node.
_DOWN = ("graph_input_cast", "_cast_to_fp16_node")
_UP = ("graph_output_cast", "_cast_to_fp32_node")
_AMD64 = ("x86_64", "AMD64")

Lower = Callable[[Path, Path, "CompileOptions", "ir.Model", list[str]], None]


def lower(plain: Path, model: ir.Model, options: CompileOptions, work: Path) -> Path:
    """The model in `options.precision`, weights aligned; CompileError where the tools fail."""
    import onnx_ir as ir

    from autoglm.rewrite.save import save_onnx

    tools: Mapping[str, Lower] = {"fp16": _fp16, "int8": _static, "int8-dynamic": _dynamic}
    made = work / "lowered.onnx"
    try:
        with _quiet():
            tools[options.precision](plain, made, options, model, kept(model, options.keep_high))
        final = work / "final"
        final.mkdir()
        return save_onnx(ir.load(made), final / "model.onnx", alignment=options.memory_alignment)
    except AutoGLMError:
        raise
    except Exception as error:  # the tools raise whatever their parts raise
        raise CompileError(
            "onnxruntime's tools cannot make this model {precision}: {cause}.",
            precision=options.precision,
            cause=reason(error),
        ) from error


def kept(model: ir.Model, keep_high: frozenset[str]) -> list[str]:
    """Names, in this model, of the nodes that came from these source nodes."""
    from autoglm.rewrite.facts import sources

    nodes = model.graph.all_nodes()
    return [node.name for node in nodes if node.name and keep_high & {node.name, *sources(node)}]


@contextmanager
def _quiet() -> Iterator[None]:
    # The tools warn through the root logger about what is done here on purpose.
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)


def _fp16(
    plain: Path, made: Path, options: CompileOptions, model: ir.Model, keep: list[str]
) -> None:
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    source = onnx.load(str(plain))
    half = convert_float_to_float16(
        source,
        keep_io_types=True,
        op_block_list=DEFAULT_OP_BLOCK_LIST,
        node_block_list=keep,
    )
    _join_casts(half.graph)
    _write(half, made)


def _join_casts(graph: onnx.GraphProto) -> None:
    """Between two nodes kept in fp32 the tool casts down and up again; that would still round."""
    down = {node.output[0]: node.input[0] for node in graph.node if _is_added(node, _DOWN)}
    for node in graph.node:
        if _is_added(node, _UP) and node.input[0] in down:
            node.input[0] = down[node.input[0]]
            node.op_type = "Identity"
            del node.attribute[:]


def _is_added(node: onnx.NodeProto, names: tuple[str, str]) -> bool:
    start, end = names
    name: str = node.name
    return node.op_type == "Cast" and (name.startswith(start) or name.endswith(end))


def _write(proto: onnx.ModelProto, path: Path) -> None:
    import onnx

    if proto.ByteSize() < _BIG:
        onnx.save(proto, str(path))
    else:
        onnx.save(proto, str(path), save_as_external_data=True, location=f"{path.stem}.data")


def _static(
    plain: Path, made: Path, options: CompileOptions, model: ir.Model, keep: list[str]
) -> None:
    from onnxruntime import quantization as q

    transformer = any(node.op_type in _ATTENTION for node in model.graph.all_nodes())
    dot, amd64 = _int8_dot()
    folded = _folded(plain)
    # Folding makes a MatMul and an Add into a Gemm of this name.
    keep = [*keep, *(f"{name}/MatMulAddFusion" for name in keep)]
    if transformer:
        keep = [*keep, *_products_of_activations(folded)]
    q.quantize_static(
        str(folded),
        str(made),
        _reader(options),
        quant_format=q.QuantFormat.QDQ,
        op_types_to_quantize=list(_TRANSFORMER if transformer else _CNN),
        per_channel=True,
        reduce_range=not dot,
        # x86 multiplies unsigned by signed bytes, Arm signed by signed.
        activation_type=q.QuantType.QUInt8 if amd64 else q.QuantType.QInt8,
        weight_type=q.QuantType.QInt8,
        nodes_to_exclude=keep,
        use_external_data_format=_is_big(plain),
        extra_options=_TRANSFORMER_OPTIONS if transformer else {},
    )


def _dynamic(
    plain: Path, made: Path, options: CompileOptions, model: ir.Model, keep: list[str]
) -> None:
    from onnxruntime import quantization as q

    if not any(node.op_type in _DYNAMIC for node in model.graph.all_nodes()):
        raise ConfigError(
            "Dynamic int8 of onnxruntime quantises {known}; the model has none of them.",
            hint="Ask for int8 with calibration data.",
            known=", ".join(_DYNAMIC),
        )
    dot, _ = _int8_dot()
    q.quantize_dynamic(
        str(plain),
        str(made),
        op_types_to_quantize=list(_DYNAMIC),
        per_channel=True,
        reduce_range=not dot,
        weight_type=q.QuantType.QInt8,
        # The tool makes a Gemm into this MatMul and an Add before it looks at the names.
        nodes_to_exclude=[*keep, *(f"{name}_MatMul" for name in keep)],
        use_external_data_format=_is_big(plain),
        extra_options={"MatMulConstBOnly": True, "EnableSubgraph": True},
    )


def _int8_dot() -> tuple[bool, bool]:
    import platform

    from autoglm.backends.onnxruntime.capabilities import has_int8_dot

    return has_int8_dot(), platform.machine() in _AMD64


def _is_big(plain: Path) -> bool:
    data = plain.with_suffix(".data")
    return data.exists() and data.stat().st_size > _BIG


def _folded(plain: Path) -> Path:
    """Constants and batch normalisation folded, so that scales are those of what runs."""
    folded = plain.with_name("folded.onnx")
    raw = session_options({"graph_optimization_level": "basic"})
    raw.optimized_model_filepath = str(folded)
    if _is_big(plain):
        key = "session.optimized_model_external_initializers_file_name"
        raw.add_session_config_entry(key, "folded.data")
    create(plain, raw)
    return folded


def _products_of_activations(path: Path) -> list[str]:
    """The MatMuls of attention: without a weight, int8 gains little there and costs accuracy."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMul"]
    return [node.name for node in products if node.name and not weights & set(node.input)]


def _reader(options: CompileOptions) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Hands out the calibration feeds one by one."""

        def __init__(self, feeds: Iterator[Feeds]) -> None:
            self._feeds = feeds

        def get_next(self) -> dict[str, Any] | None:
            """The next feeds, or None at the end."""
            found = next(self._feeds, None)
            return None if found is None else dict(found)

    return Reader(iter(options.calibration))
