"""The ONNX parser of the stand-in."""

import onnx

from magicmind.python.runtime import Code, ModelKind, Network, Status

# What resnet50-v1-7 holds, and little more: the real list is not public.
TAKEN = "Conv BatchNormalization Relu MaxPool Add GlobalAveragePool Flatten Gemm MatMul Identity"


class Parser:
    """Parses a framework's file into a network."""

    def __init__(self, kind):
        if not isinstance(kind, ModelKind):
            raise TypeError(f"ModelKind expected; found {type(kind).__name__}")
        self.kind = kind

    def parse(self, network, path):
        if not isinstance(network, Network) or not isinstance(path, str):
            raise TypeError("parse(Network, str)")
        model = onnx.load(path)
        opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        if opset > 11:
            return Status(Code.UNIMPLEMENTED, f"opset {opset} is not supported")
        for node in model.graph.node:
            if node.op_type not in TAKEN.split():
                return Status(Code.UNIMPLEMENTED, f"op {node.op_type} ({node.name}) is unsupported")
        network.model = model
        return Status()
