"""The Open Inference Protocol over gRPC, asked by grpc.aio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from autoglm.errors import AutoGLMError
from autoglm.serve.load.answers import Headers, Judge, Outputs, Signature, signature
from autoglm.serve.load.refusal import grpc_refusal, no_server
from autoglm.serve.load.tally import DIFFERENT, Load, Tally
from autoglm.serve.load.target import Target
from autoglm.serve.proto import oip_pb2 as pb
from autoglm.serve.proto.tensors import decode, encode, from_list, from_oip, oip_name
from autoglm.spec import Value

_SERVICE = "/inference.GRPCInferenceService"
_CHANNELS = 4  # connections that the callers share
_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]
_CODE = "autoglm-code"
_GONE = grpc.StatusCode.UNAVAILABLE
_AGAIN_S = 0.05  # before a caller tries again where nobody is


class Grpc:
    """One model behind one gRPC address."""

    def __init__(self, target: Target) -> None:
        self._target = target
        host = f"[{target.host}]" if ":" in target.host else target.host
        self._address = f"{host}:{target.port}"
        key = target.api_key
        self._metadata = [("authorization", f"Bearer {key}")] if key else []
        self._question = b""
        self._judge: Judge | None = None

    def models(self) -> Sequence[str]:
        """From RepositoryIndex."""
        raw = self._ask(
            "RepositoryIndex", pb.RepositoryIndexRequest(ready=True).SerializeToString()
        )
        return [model.name for model in pb.RepositoryIndexResponse.FromString(raw).models]

    def signature(self) -> Signature:
        """From ModelMetadata."""
        message = pb.ModelMetadataRequest(name=self._target.model, version=self._target.version)
        raw = self._ask("ModelMetadata", message.SerializeToString())
        return signature(lambda: _told(raw), self._target.shown)

    def first(self, inputs: Mapping[str, Value], told: Signature | None) -> Outputs:
        """Ask once; its answer is what all others are compared with."""
        self._question = question(self._target, inputs)
        self._judge = Judge(read_answer, self._ask("ModelInfer", self._question))
        return self._judge.outputs

    def press(self, concurrency: int, seconds: float) -> Load:
        """Keep so many calls under way for so long."""
        tally = Tally(seconds)
        asyncio.run(self._press(tally, concurrency))
        return tally.load(concurrency)

    def _ask(self, method: str, raw: bytes) -> bytes:
        url = self._target.shown
        with self._channel(grpc) as channel:
            call = channel.unary_unary(f"{_SERVICE}/{method}")
            try:
                answer: bytes = call(raw, timeout=self._target.timeout_s, metadata=self._metadata)
            except grpc.RpcError as error:
                raise _refusal(error, url) from error
        return answer

    async def _press(self, tally: Tally, concurrency: int) -> None:
        channels = [self._channel(grpc.aio) for _ in range(min(concurrency, _CHANNELS))]
        calls = [channel.unary_unary(f"{_SERVICE}/ModelInfer") for channel in channels]
        await asyncio.gather(*(_connected(channel, self._target) for channel in channels))
        tally.start()
        callers = (self._caller(tally, calls[i % len(calls)]) for i in range(concurrency))
        await asyncio.gather(*callers)
        await asyncio.gather(*(channel.close() for channel in channels))

    async def _caller(self, tally: Tally, call: Any) -> None:
        judge, question, timeout_s = self._judge, self._question, self._target.timeout_s
        assert judge is not None, "first() comes first"
        while (begun := time.perf_counter()) < tally.end:
            tally.sent += len(question)
            try:
                answer = await call(question, timeout=timeout_s, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                tally.fault(error.code().name, error.details() or "")
                await asyncio.sleep(_AGAIN_S if error.code() is _GONE else 0)
                continue
            took = time.perf_counter() - begun
            tally.received += len(answer)
            if apart := judge.difference(answer):
                tally.fault(DIFFERENT, apart)
            else:
                tally.latencies.append(took)

    def _channel(self, module: Any) -> Any:
        if not self._target.tls:
            return module.insecure_channel(self._address, options=_OPTIONS)
        roots = self._target.ca.read_bytes() if self._target.ca else None
        credentials = grpc.ssl_channel_credentials(roots)
        return module.secure_channel(self._address, credentials, options=_OPTIONS)


def question(target: Target, inputs: Mapping[str, Value]) -> bytes:
    """A ModelInferRequest with raw tensors."""
    message = pb.ModelInferRequest(
        model_name=target.model, model_version=target.version, id="bench"
    )
    for name, value in inputs.items():
        dtype, shape, raw = encode(value)
        message.inputs.add(name=name, datatype=oip_name(dtype), shape=shape)
        message.raw_input_contents.append(raw)
    encoded: bytes = message.SerializeToString()
    return encoded


def read_answer(raw: bytes, _: Headers) -> Outputs:
    """The outputs of a ModelInferResponse, raw or in lists."""
    message = pb.ModelInferResponse.FromString(raw)
    outputs: dict[str, Value] = {}
    for i, tensor in enumerate(message.outputs):
        dtype = from_oip(tensor.name, tensor.datatype)
        if message.raw_output_contents:
            content = message.raw_output_contents[i]
            outputs[tensor.name] = decode(tensor.name, dtype, tensor.shape, content)
        else:
            lists = [values for _, values in tensor.contents.ListFields()]
            outputs[tensor.name] = from_list(
                tensor.name, dtype, tensor.shape, list(lists[0]) if lists else []
            )
    return outputs


def _told(raw: bytes) -> dict[str, Any]:
    message = pb.ModelMetadataResponse.FromString(raw)
    return {
        side: [{"name": t.name, "datatype": t.datatype, "shape": t.shape} for t in tensors]
        for side, tensors in (("inputs", message.inputs), ("outputs", message.outputs))
    }


async def _connected(channel: Any, target: Target) -> None:
    """Wait for the connection, so that the clock does not time it."""
    try:
        await asyncio.wait_for(channel.channel_ready(), target.timeout_s)
    except TimeoutError:  # the calls will say why
        return


def _refusal(error: Any, url: str) -> AutoGLMError:
    status, message = error.code().name, error.details() or ""
    said = {key: value for key, value in error.trailing_metadata() or () if key == _CODE}
    if status == "UNAVAILABLE" and not said:
        return no_server(url, message)
    return grpc_refusal(status, message, url, said.get(_CODE, ""))
