"""The one message of the gateway, and the contracts that hang on it.

    transport --Request--> Gateway.infer --(guard, route, cache, pool, batcher)--> Response --> wire

A transport knows its wire and nothing of models; the gateway knows models and nothing of wires.
`autoglm.v1` (proto/) is the published form of these messages, field by field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Protocol, TypeAlias

from autoglm.spec import TensorInfo, Value

Parameter: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a transport saw of the peer, before anybody believes it."""

    transport: str  # http | grpc | mqtt, or another registered name
    address: str = ""  # the peer's address; "" where the wire has none (MQTT behind a broker)
    authorization: str = ""  # "Bearer …" or an API key, as sent
    certificate: str = ""  # subject of a verified client certificate
    client_id: str = ""  # MQTT client id
    headers: Mapping[str, str] = field(default_factory=dict)  # lower-case names


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks, once believed; limits, routes and metrics are keyed by `name`."""

    name: str = "anonymous"
    credentials: Credentials = Credentials("")
    models: tuple[str, ...] = ()  # patterns (*, ?) of what it may ask; () = all
    admin: bool = False  # may load, unload, and change routes

    def may_use(self, model: str) -> bool:
        """Whether one of its patterns fits."""
        return not self.models or any(fnmatchcase(model, p) for p in self.models)


@dataclass(slots=True)
class Request:
    """One question. Inputs are arrays by tensor name, rows along the first axis."""

    model: str
    inputs: Mapping[str, Value]
    version: str = ""  # a number, alias or label; "" = what the route says
    id: str = ""
    outputs: Sequence[str] = ()  # () = all
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    deadline: float | None = None  # time.monotonic() seconds
    priority: int = 0  # higher first
    client: Client = Client()
    traceparent: str = ""  # W3C
    # What was when, by time.perf_counter_ns(): (stage, begin) as each stage of telemetry.STAGES
    # begins, (name, begin, end) of an operator or partition. None = nobody wants to know.
    marks: list[tuple[str, int] | tuple[str, int, int]] | None = None


@dataclass(slots=True)
class Response:
    """One answer, in the model's own order of outputs."""

    model: str
    version: str
    outputs: Mapping[str, Value]
    id: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a client may know of one served version."""

    name: str
    version: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    state: str  # loading | ready | unloading | unloaded | failed
    digest: str = ""
    engines: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    reason: str = ""  # why it is not ready, or why its last reload failed
    labels: tuple[str, ...] = ()  # several versions may share one; the newest answers to it
    memory_bytes: int = 0  # what its artifacts take


class Gateway(Protocol):
    """What every transport calls. All errors are AutoGLMError; `errors.TABLE` maps them."""

    async def infer(self, request: Request) -> Response:
        """Answer; cancelling the awaiting task drops queued work."""

    def authenticate(self, credentials: Credentials) -> Client:
        """Who this is; UnauthenticatedError when nobody we know."""

    def permit(self, client: Client, model: str = "", *, admin: bool = False) -> None:
        """ForbiddenError where this client may not use `model`, or not change the server; a
        transport asks before `load` and `unload`, `infer` asks by itself.
        """

    def models(self, client: Client = ...) -> tuple[ModelInfo, ...]:
        """Every version known that `client` may use, ready or not; without one, all."""

    def model(self, name: str, version: str = "", client: Client = ...) -> ModelInfo:
        """One version; ForbiddenError where it is not `client`'s, ModelNotServedError names what
        is.
        """

    def statistics(self, info: ModelInfo) -> Mapping[str, Value]:
        """What this version has answered, as Triton's ModelStatistics in JSON."""

    def ready(self) -> bool:
        """True when accepting work: not starting, not draining."""

    async def load(self, name: str, path: str = "", version: str = "") -> ModelInfo:
        """Load from the model repository; the old version serves until the new one is ready."""

    async def unload(self, name: str, version: str = "") -> None:
        """Stop serving, after what was accepted is answered."""


class Transport(Protocol):
    """One protocol on one address; registered as entry point `autoglm.transports`."""

    name: str

    async def start(self, gateway: Gateway, address: str, options: Mapping[str, object]) -> str:
        """Listen (or connect) and return the real address, port 0 resolved."""

    async def drain(self, timeout_s: float) -> None:
        """Refuse new requests, answer what was accepted."""

    async def stop(self) -> None:
        """Close; may be called twice."""
