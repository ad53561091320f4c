"""REST and the Open Inference Protocol over HTTP/1.1."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import orjson

from autoglm.serve.http.oip import LENGTH
from autoglm.serve.http.wire import dumps
from autoglm.serve.load.answers import Decode, Headers, Judge, Outputs, Signature, signature
from autoglm.serve.load.connection import Address, Answer, ask, press, request
from autoglm.serve.load.refusal import http_refusal, no_server, said_by
from autoglm.serve.load.tally import DIFFERENT, Load
from autoglm.serve.load.target import Target
from autoglm.serve.proto.tensors import decode, encode, from_list, from_oip, oip_name
from autoglm.spec import TensorInfo, Value
from autoglm.tensor.dtype import from_numpy, to_numpy

ID = "bench"  # the same in every question, so that equal answers are equal bytes
_JSON = {"content-type": "application/json"}


class Http:
    """One model behind one HTTP address."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._address = Address(target.host, target.port, _context(target))
        parts = urlsplit(target.url)
        self._host, self._base = parts.netloc.rpartition("@")[2], parts.path.rstrip("/")
        self._question = b""
        self._judge: Judge | None = None

    def models(self) -> Sequence[str]:
        """From the repository's index."""
        asked = self._request("POST", "/v2/repository/index", b'{"ready": true}', _JSON)
        rows = orjson.loads(self._ask(asked).body)
        return [str(row["name"]) for row in rows]

    def signature(self) -> Signature:
        """From the model's metadata, which `rest` of ours has as well."""
        answer = self._ask(self._request("GET", self._model_path(), b"", {}))
        return signature(lambda: _parsed(answer.body), self._target.shown)

    def first(self, inputs: Mapping[str, Value], told: Signature | None) -> Outputs:
        """Ask once; its answer is what all others are compared with."""
        infos = told.outputs if told else ()
        decode: Decode = read_oip
        path, headers = f"{self._model_path()}/infer", _JSON
        match self._target.protocol:
            case "rest":
                path, body = "/v1/infer", envelope(self._target, inputs)
                decode = partial(read_envelope, infos=infos)
            case "oip-binary":
                headers, body = binary_question(inputs)
            case _:
                body = json_question(inputs)
        self._question = self._request("POST", path, body, headers)
        answer = self._ask(self._question)
        self._judge = Judge(decode, answer.body, answer.headers)
        return self._judge.outputs

    def press(self, concurrency: int, seconds: float) -> Load:
        """Keep so many questions under way for so long."""
        assert self._judge is not None, "first() comes first"
        return press(
            self._address,
            self._question,
            judged(self._judge),
            concurrency=concurrency,
            seconds=seconds,
            timeout_s=self._target.timeout_s,
        )

    def _ask(self, question: bytes) -> Answer:
        url = self._target.shown
        try:
            answer = ask(self._address, question, self._target.timeout_s)
        except (OSError, TimeoutError) as error:
            raise no_server(url, str(error) or "no connection in time") from error
        if answer.status != 200:
            raise http_refusal(answer.status, answer.body, url)
        return answer

    def _model_path(self) -> str:
        version = f"/versions/{quote(self._target.version, '')}" if self._target.version else ""
        return f"/v2/models/{quote(self._target.model, '')}{version}"

    def _request(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        key = self._target.api_key
        said = {**headers, **({"authorization": f"Bearer {key}"} if key else {})}
        return request(method, self._base + path, self._host, body, said)


def judged(judge: Judge) -> Any:
    """The verdict on an HTTP answer: its status, then its values."""

    def verdict(answer: Answer) -> tuple[str, str] | None:
        if answer.status != 200:
            code, message, _ = said_by(answer.status, answer.body)
            return f"{answer.status} {code}", message
        apart = judge.difference(answer.body, answer.headers)
        return (DIFFERENT, apart) if apart else None

    return verdict


def envelope(target: Target, inputs: Mapping[str, Value]) -> bytes:
    """The body of `POST /v1/infer`."""
    version = {"version": target.version} if target.version else {}
    return dumps({"model_name": target.model, **version, "data": dict(inputs), "id": ID})


def read_envelope(body: bytes, headers: Headers, infos: Sequence[TensorInfo]) -> Outputs:
    """The outputs in the envelope's answer; a single one has no name there, and none a dtype."""
    result = _parsed(body)["result"]
    held = {info.name: to_numpy(info.dtype) for info in infos}
    rows = result if isinstance(result, dict) else {next(iter(held), "result"): result}
    return {name: np.asarray(value, held.get(name)) for name, value in rows.items()}


def json_question(inputs: Mapping[str, Value]) -> bytes:
    """The body of an inference request with JSON tensors."""
    rows = [{**_head(n, v), "data": np.asarray(v).reshape(-1)} for n, v in inputs.items()]
    return dumps({"id": ID, "inputs": rows})


def binary_question(inputs: Mapping[str, Value]) -> tuple[dict[str, str], bytes]:
    """Headers and body of one with binary tensors both ways."""
    blobs = {name: encode(value)[2] for name, value in inputs.items()}
    rows = [
        {**_head(n, v), "parameters": {"binary_data_size": len(blobs[n])}}
        for n, v in inputs.items()
    ]
    head = dumps({"id": ID, "inputs": rows, "parameters": {"binary_data_output": True}})
    headers = {"content-type": "application/octet-stream", LENGTH: str(len(head))}
    return headers, b"".join([head, *blobs.values()])


def read_oip(body: bytes, headers: Headers) -> Outputs:
    """The outputs of an inference answer, JSON or binary."""
    size = int(headers.get(LENGTH.encode(), b"%d" % len(body)))
    tail, at = memoryview(body)[size:], 0
    outputs: dict[str, Value] = {}
    for row in _parsed(body[:size])["outputs"]:
        name, dtype, shape = row["name"], from_oip(row["name"], row["datatype"]), row["shape"]
        length = (row.get("parameters") or {}).get("binary_data_size")
        if length is None:
            data = np.asarray(row["data"], object).reshape(-1).tolist()
            outputs[name] = from_list(name, dtype, shape, data)
        else:
            outputs[name] = decode(name, dtype, shape, tail[at : at + length])
            at += length
    return outputs


def _head(name: str, value: Value) -> dict[str, Any]:
    array = np.asarray(value)
    dtype = "string" if array.dtype.kind in "OUS" else from_numpy(array.dtype)
    return {"name": name, "datatype": oip_name(dtype), "shape": list(array.shape)}


def _parsed(body: bytes) -> dict[str, Any]:
    value = orjson.loads(body)
    if not isinstance(value, dict):
        raise ValueError("a JSON object was expected")
    return value


def _context(target: Target) -> ssl.SSLContext | None:
    if not target.tls:
        return None
    return ssl.create_default_context(cafile=str(target.ca) if target.ca else None)
