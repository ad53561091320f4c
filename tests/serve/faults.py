"""Every fault that a request can meet, said once; `test_fault_parity` plays each on every wire.

An `Ask` is what is asked, apart from any wire; `wires` writes it down as each wire has it. Where
only the written form is wrong, a fault gives that form itself (`bodies`). Where it cannot be, it
says why (`never`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from autoglm.serve.proto import infer_pb2, oip_pb2

REST, V2, BINARY = "rest", "v2-json", "v2-binary"
V2_GRPC, GRPC = "v2-grpc", "grpc"
MQTT, MQTT_PROTOBUF = "mqtt-json", "mqtt-protobuf"
WIRES = (REST, V2, BINARY, V2_GRPC, GRPC, MQTT, MQTT_PROTOBUF)
ENVELOPE = (REST, MQTT)
PROTOBUF = (V2_GRPC, GRPC, MQTT_PROTOBUF)
RAW = (BINARY, *PROTOBUF)  # tensors as bytes

WIDTH, MAX_BYTES, MAX_QUEUE = 4, 1 << 16, 8
INVALID = "invalid-request"


@dataclass(frozen=True)
class Tensor:
    """One input: `values` as lists; `shape` and `raw` are theirs where not said otherwise."""

    name: str
    values: Any
    dtype: str = "float32"
    shape: tuple[int, ...] | None = None
    raw: bytes | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        return np.shape(self.values) if self.shape is None else self.shape

    @property
    def data(self) -> bytes:
        return np.array(self.values, self.dtype).tobytes() if self.raw is None else self.raw


ROW = [[1.0, 2.0, 3.0, 4.0]]
X = Tensor("x", ROW)
A = Tensor("a", [[1, 2, 3]], "int32")
B = Tensor("b", [[1.0, 2.0, 3.0]])


@dataclass(frozen=True)
class Ask:
    """One question to `dense` (x float32 [n, 4]), `two` (a int32 and b float32 [n, 3]), `pairs`
    (x float32 [2, 4]) or `broken`, whose bundle does not load.
    """

    model: str = "dense"
    version: str = ""
    inputs: Sequence[Tensor] = (X,)
    outputs: Sequence[str] = ()
    timeout_s: float = 0.0
    priority: int = 0
    key: str = ""  # the name of one of the keyed server's clients
    content_type: str = ""  # in place of the wire's own
    coding: str = ""  # Content-Encoding


GOOD = Ask()
TWO = Ask("two", inputs=(A, B))


@dataclass(frozen=True)
class Fault:
    """A fault, its one code, and how it comes about. `server` is `open`, `keyed` or `leaving`;
    `state` names what is the matter with it meanwhile.
    """

    name: str
    code: str
    ask: Ask = GOOD
    bodies: Mapping[str, bytes] = field(default_factory=dict)
    never: Mapping[str, str] = field(default_factory=dict)
    server: str = "open"
    state: str = ""


def not_on(wires: Sequence[str], reason: str) -> dict[str, str]:
    """These wires, all for one reason."""
    return dict.fromkeys(wires, reason)


NO_DTYPE = not_on(ENVELOPE, "a number in JSON has no dtype; the model's is taken")
NO_SHAPE = not_on(ENVELOPE, "the shape is that of the lists")
NO_LISTS = not_on(RAW, "lists are flat, and the shape is said beside them")
NO_TEXT = not_on(PROTOBUF, "a message is no text")
NOT_JSON = not_on(RAW, "tensors are bytes or typed lists, which hold nothing else")


def texts(envelope: bytes, v2: bytes) -> dict[str, bytes]:
    """A body of JSON for the wires that take one, binary tensors' header included."""
    return {REST: envelope, MQTT: envelope, V2: v2, BINARY: v2}


def data(text: str) -> dict[str, bytes]:
    """`text` where the numbers of `x` belong."""
    tensor = f'{{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": {text}}}'
    ours = f'{{"model_name": "dense", "data": {text}}}'.encode()
    return {REST: ours, MQTT: ours, V2: f'{{"inputs": [{tensor}]}}'.encode()}


def counts(text: str) -> dict[str, bytes]:
    """`text` as the first of the whole numbers of `a`."""
    ours = {"model_name": "two", "data": {"a": [["?", 2, 3]], "b": B.values}}
    rows = [
        {"name": "a", "datatype": "INT32", "shape": [1, 3], "data": ["?", 2, 3]},
        {"name": "b", "datatype": "FP32", "shape": [1, 3], "data": B.values},
    ]
    envelope, v2 = (json.dumps(m).replace('"?"', text).encode() for m in (ours, {"inputs": rows}))
    return {REST: envelope, MQTT: envelope, V2: v2}


def typed(values: Any, dtype: str = "float32", contents: Any = None) -> dict[str, bytes]:
    """Elements in typed lists: as `autoglm.v1` has them, and as v2 has them where it can."""
    model, name, sizes = ("dense", "x", [1, 4]) if dtype == "float32" else ("two", "a", [1, 3])
    ours = infer_pb2.InferRequest(model=model)
    ours.inputs.add(name=name, dtype=dtype, shape=sizes, values=infer_pb2.Values(**values))
    theirs = oip_pb2.ModelInferRequest(model_name=model)
    oip = {"float32": "FP32", "int32": "INT32"}[dtype]
    held = oip_pb2.InferTensorContents(**(contents or {}))
    theirs.inputs.add(name=name, datatype=oip, shape=sizes, contents=held)
    if dtype == "int32":
        ours.inputs.add(name="b", dtype="float32", shape=[1, 3], raw=B.data)
        floats = oip_pb2.InferTensorContents(fp32_contents=[1, 2, 3])
        theirs.inputs.add(name="b", datatype="FP32", shape=[1, 3], contents=floats)
    raw = ours.SerializeToString()
    found = {GRPC: raw, MQTT_PROTOBUF: raw}
    return found | ({V2_GRPC: theirs.SerializeToString()} if contents else {})


def protobuf(raw: bytes) -> dict[str, bytes]:
    """The same bytes in place of each Protobuf message."""
    return dict.fromkeys(PROTOBUF, raw)


BYTES_ONLY = {BINARY: "bytes have no type but the one that is said"}
DEEP = b"[" * 30_000
ONE_ROW = b'{"model_name": "dense", "data": [[1, 2, 3, 4]]'
V2_ROW = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]'
V2_BYTES = (
    b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], '
    b'"parameters": {"binary_data_size": 16}}]}'
)
MANY = [[0.0] * WIDTH] * (MAX_BYTES // 15)


def nested(depth: int) -> Any:
    """A one below so many lists."""
    value: Any = 1.0
    for _ in range(depth):
        value = [value]
    return value


def x(values: Any, **said: Any) -> Ask:
    """The good question with another tensor."""
    return replace(GOOD, inputs=(Tensor("x", values, **said),))


OF_THE_FORM = (
    Fault("an empty body", INVALID, bodies=dict.fromkeys(WIRES, b"")),
    Fault(
        "a body cut short",
        INVALID,
        bodies={
            **texts(ONE_ROW, V2_ROW),
            BINARY: V2_BYTES,
            **protobuf(b"\x0a\x05dense\x2a\x7fx"),
        },
    ),
    Fault("JSON too deep", INVALID, bodies={**texts(DEEP, DEEP), **protobuf(b"\x0b" * 500)}),
    Fault("deep lists of numbers", INVALID, bodies=data("[" * 900 + "]" * 900), never=NO_LISTS),
    Fault("JSON that is no object", INVALID, bodies=texts(b"[1]", b"[1]"), never=NO_TEXT),
    Fault(
        "bytes that are no UTF-8",
        INVALID,
        bodies={
            **texts(
                b'{"model_name": "\xff", "data": [[1, 2, 3, 4]]}', b'{"id": "\xff", "inputs": []}'
            ),
            **protobuf(b"\x0a\x01\xff"),
        },
    ),
    Fault(
        "a field of another type",
        INVALID,
        bodies=texts(ONE_ROW + b', "outputs": "y"}', V2_ROW + b', "outputs": "y"}'),
        never=not_on(PROTOBUF, "a field of another type is an unknown field, and passed over"),
    ),
    Fault(
        "a content type that is not known",
        "unsupported-type",
        replace(GOOD, content_type="text/xml"),
        never={
            **not_on((V2_GRPC, GRPC), "gRPC's own content type is part of the protocol"),
            MQTT_PROTOBUF: "the content type is what makes it Protobuf",
        },
    ),
    Fault(
        "a compression that is not known",
        "unsupported-type",
        replace(GOOD, coding="br"),
        never={
            **not_on((MQTT, MQTT_PROTOBUF), "MQTT has no compression"),
            **not_on((V2_GRPC, GRPC), "gRPC's core answers by itself: INTERNAL"),
        },
    ),
    Fault("more bytes than are taken", "too-large", x(MANY)),
)

OF_THE_NAMES = (
    Fault("a model that is not there", "model-not-served", replace(GOOD, model="nobody")),
    Fault("a version that is not there", "model-not-served", replace(GOOD, version="9")),
    Fault("a label that is not there", "model-not-served", replace(GOOD, version="blue")),
    Fault("a model that did not load", "model-not-served", replace(GOOD, model="broken")),
    Fault(
        "no model named",
        INVALID,
        replace(GOOD, model=""),
        never=not_on((V2, BINARY), "the path names the model"),
    ),
    Fault(
        "a path for a model",
        "model-not-served",
        replace(GOOD, model="../dense"),
        never={
            **not_on((V2, BINARY), "a slash ends the name in a path"),
            **not_on((MQTT, MQTT_PROTOBUF), "a slash ends the name in a topic"),
        },
    ),
    Fault("an output that is not there", INVALID, replace(GOOD, outputs=("z",))),
    Fault("an input missing", INVALID, Ask("two", inputs=(A,))),
    Fault("no inputs at all", INVALID, replace(GOOD, inputs=())),
    Fault("an input too many", INVALID, replace(GOOD, inputs=(X, Tensor("z", ROW)))),
    Fault("an input of another name", INVALID, replace(GOOD, inputs=(Tensor("z", ROW),))),
    Fault(
        "an input twice",
        INVALID,
        replace(GOOD, inputs=(X, X)),
        never=not_on(ENVELOPE, "of two equal keys a JSON parser keeps the last"),
    ),
)

OF_THE_TENSORS = (
    Fault("another dtype", INVALID, x(ROW, dtype="float64"), never=NO_DTYPE),
    Fault("a dtype that is none", INVALID, x(ROW, dtype="float31", raw=b"\0" * 16), never=NO_DTYPE),
    Fault("another rank", INVALID, x([1.0, 2.0, 3.0, 4.0])),
    Fault("a rank beyond all", INVALID, x(nested(40))),
    Fault("another size", INVALID, x([[1.0, 2.0, 3.0]])),
    Fault("no rows", INVALID, x([], shape=(0, WIDTH))),
    Fault("more rows than the batch has", INVALID, replace(x(ROW * 3), model="pairs")),
    Fault(
        "different numbers of rows",
        INVALID,
        Ask("two", inputs=(A, Tensor("b", [[1.0, 2.0, 3.0]] * 2))),
    ),
    Fault("a negative size", INVALID, x(ROW, shape=(-1, -WIDTH)), never=NO_SHAPE),
    Fault("sizes beyond 64 bits", INVALID, x(ROW, shape=(1 << 62, 1 << 62)), never=NO_SHAPE),
    Fault(
        "fewer elements than the shape says",
        INVALID,
        x([1.0, 2.0, 3.0], shape=(1, WIDTH)),
        never=NO_SHAPE,
    ),
    Fault(
        "more elements than the shape says",
        INVALID,
        x([1.0] * 5, shape=(1, WIDTH)),
        never=NO_SHAPE,
    ),
    Fault(
        "text among numbers",
        INVALID,
        bodies={
            **data('[["1", "2", "3", "4"]]'),
            **typed({"strings": list("1234")}, contents={"bytes_contents": [b"1"] * 4}),
        },
        never=BYTES_ONLY,
    ),
    Fault(
        "true and false for numbers",
        INVALID,
        bodies={
            **data("[[true, false, true, true]]"),
            **typed({"bools": [True] * 4}, contents={"bool_contents": [True] * 4}),
        },
        never=BYTES_ONLY,
    ),
    Fault(
        "a fraction for a whole number",
        INVALID,
        TWO,
        bodies={
            **counts("1.5"),
            **typed({"floats": [1.5, 2, 3]}, "int32", {"fp32_contents": [1.5, 2, 3]}),
        },
        never=BYTES_ONLY,
    ),
    Fault(
        "a whole number beyond its dtype",
        INVALID,
        TWO,
        bodies={**counts(str(1 << 40)), **typed({"ints": [1 << 40, 2, 3]}, "int32")},
        never={**BYTES_ONLY, V2_GRPC: "int_contents are 32 bits wide"},
    ),
    Fault(
        "a whole number beyond 64 bits", INVALID, TWO, bodies=counts(str(1 << 70)), never=NOT_JSON
    ),
    Fault(
        "a number beyond its dtype",
        INVALID,
        bodies={**data("[[1e39, 1, 1, 1]]"), **typed({"doubles": [1e39, 1, 1, 1]})},
        never={**BYTES_ONLY, V2_GRPC: "fp32_contents are 32 bits wide"},
    ),
    Fault(
        "NaN in JSON",
        INVALID,
        bodies=data("[[NaN, 1, 1, 1]]"),
        never=not_on(RAW, "NaN is a number there"),
    ),
    Fault(
        "Infinity in JSON",
        INVALID,
        bodies=data("[[-Infinity, 1, 1, 1]]"),
        never=not_on(RAW, "infinity is a number there"),
    ),
    Fault("null among numbers", INVALID, bodies=data("[[null, 1, 1, 1]]"), never=NOT_JSON),
    Fault("an object for a list", INVALID, bodies=data('{"x": {"y": 1}}'), never=NOT_JSON),
    Fault("uneven lists", INVALID, bodies=data("[[1, 2, 3, 4], [1]]"), never=NO_LISTS),
)

OF_THE_TERMS = (
    Fault("a priority beyond the bounds", INVALID, replace(GOOD, priority=1000)),
    Fault("a negative time-out", INVALID, replace(GOOD, timeout_s=-1.0)),
    Fault("a deadline that has passed", "deadline", replace(GOOD, timeout_s=1e-6)),
    Fault("a deadline while it runs", "deadline", replace(GOOD, timeout_s=0.05), state="held"),
)

OF_THE_CLIENT = (
    Fault("no key", "unauthenticated", server="keyed"),
    Fault("a wrong key", "unauthenticated", replace(GOOD, key="wrong"), server="keyed"),
    Fault("a model of others", "forbidden", replace(GOOD, key="other"), server="keyed"),
    Fault("too many requests", "overloaded", replace(GOOD, key="often"), server="keyed"),
    Fault(
        "more bytes than the client may",
        "too-large",
        replace(x(ROW * 5), key="small"),
        server="keyed",
    ),
)

OF_THE_SERVER = (
    Fault("a full queue", "overloaded", state="full"),
    Fault("no memory for a batch", "overloaded", state="no memory"),
    Fault("an engine that crashes", "execution", state="crashing"),
    Fault(
        "an engine without the output", "execution", replace(GOOD, outputs=("y",)), state="other"
    ),
    Fault("no engine that works", "draining", state="resting"),
    Fault("a server that starts", "draining", state="starting"),
    Fault("a mistake of ours", "internal", state="mistaken"),
    Fault(
        "a server that stops",
        "draining",
        server="leaving",
        never={
            **not_on((REST, V2, BINARY), "the socket is closed: no connection is made"),
            **not_on((MQTT, MQTT_PROTOBUF), "it has unsubscribed: the broker gives it to another"),
        },
    ),
)

FAULTS = (
    *OF_THE_FORM,
    *OF_THE_NAMES,
    *OF_THE_TENSORS,
    *OF_THE_TERMS,
    *OF_THE_CLIENT,
    *OF_THE_SERVER,
)
