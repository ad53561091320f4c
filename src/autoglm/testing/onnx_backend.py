"""`AutoBackend`: the product under onnx's own backend tests, as `backend="auto"`, without the
reference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from onnx.backend.base import Backend, BackendRep

if TYPE_CHECKING:
    import onnx

    from autoglm.runtime.session import PlanSession


class AutoRep(BackendRep):  # type: ignore[misc]
    """An opened model; inputs and outputs by position."""

    def __init__(self, session: PlanSession) -> None:
        self.session = session
        self.engines = tuple(dict.fromkeys(session.engines))

    def run(self, inputs: Any, **_: Any) -> tuple[Any, ...]:
        """Run once. `inputs` is a sequence in the model's order, or a mapping by name."""
        names = [i.name for i in self.session.inputs]
        feeds = inputs if isinstance(inputs, dict) else dict(zip(names, inputs, strict=False))
        found = self.session.run({name: plain(value) for name, value in feeds.items()})
        return tuple(found[o.name] for o in self.session.outputs)


def plain(value: Any) -> Any:
    """A NumPy scalar as a 0-d array; arrays, sequences and absent optionals as they are."""
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, np.ndarray) else np.asarray(value)


class AutoBackend(Backend):  # type: ignore[misc]
    """Every model on the first engines, in order of trust, whose measured tables take every
    node.
    """

    # Engines -> how many models they carried, since the process began.
    tally: ClassVar[Counter[tuple[str, ...]]] = Counter()

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **_: Any) -> AutoRep:
        """Plan, compile and open."""
        from autoglm import api

        rep = AutoRep(api.open(model, backend="auto", precision="fp32"))
        cls.tally[rep.engines] += 1
        return rep

    @classmethod
    def run_model(
        cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **_: Any
    ) -> tuple[Any, ...]:
        """Open, run once, close."""
        rep = cls.prepare(model, device)
        try:
            return rep.run(inputs)
        finally:
            rep.session.close()

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[Any, tuple[int, ...]]] | None = None,
        **options: Any,
    ) -> tuple[Any, ...]:
        """One node as a model of its own."""
        return cls.run_model(_model_of(node, inputs, outputs_info, options), list(inputs), device)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """The CPU."""
        return device.partition(":")[0] == "CPU"


def _model_of(
    node: onnx.NodeProto, inputs: Any, outputs_info: Any, options: dict[str, Any]
) -> onnx.ModelProto:
    import onnx

    feeds = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(np.asarray(value).dtype), np.shape(value)
        )
        for name, value in zip((n for n in node.input if n), inputs, strict=True)
    ]
    names = [name for name in node.output if name]
    if outputs_info is None:
        results = [onnx.helper.make_empty_tensor_value_info(name) for name in names]
    else:
        results = [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape
            )
            for name, (dtype, shape) in zip(names, outputs_info, strict=True)
        ]
    graph = onnx.helper.make_graph([node], "node", feeds, results)
    opset = options.get("opset_version", onnx.defs.onnx_opset_version())
    imports = [onnx.helper.make_opsetid(node.domain, opset if not node.domain else 1)]
    model = onnx.helper.make_model(graph, opset_imports=imports)
    return onnx.shape_inference.infer_shapes(model)
