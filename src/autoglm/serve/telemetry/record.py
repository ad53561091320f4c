"""One request's times, as tuples: a span costs some seventy times as much as one of these."""

from __future__ import annotations

from time import perf_counter_ns

from autoglm.serve.telemetry.context import (
    TraceContext,
    new_span_id,
    new_trace_id,
    parse_traceparent,
)

# entry: decode, guard, route, cache · queue: waits for the engine · batch: joined with others ·
# device: the engine runs · reply: split, encode
STAGES = ("entry", "queue", "batch", "device", "reply")
Mark = tuple[str, int] | tuple[str, int, int]


class Record:
    """Made by `Telemetry.start`; all times are time.perf_counter_ns()."""

    __slots__ = (
        "_context",
        "begin",
        "client",
        "code",
        "end",
        "marks",
        "model",
        "parent",
        "transport",
        "version",
    )

    def __init__(self, model: str, transport: str, client: str, parent: str, marks: list[Mark]):
        self.model, self.version = model, ""
        self.transport, self.client = transport, client
        self.parent = parent  # the caller's traceparent, as it came
        self.marks = marks
        self.code = ""  # "" until finished; then "ok", or the code of the error
        self.begin = marks[0][1] if marks else perf_counter_ns()
        self.end = 0
        self._context: TraceContext | None = None

    def mark(self, stage: str) -> None:
        """`stage` begins now, and the one before it ends."""
        self.marks.append((stage, perf_counter_ns()))

    @property
    def caller(self) -> TraceContext | None:
        """Whose span ours is a child of."""
        return parse_traceparent(self.parent) if self.parent else None

    @property
    def context(self) -> TraceContext:
        """Ids of this request's own span, made when first asked for."""
        if self._context is None:
            caller = self.caller
            trace_id = caller.trace_id if caller else new_trace_id()
            sampled = bool(caller and caller.sampled)
            self._context = TraceContext(trace_id, new_span_id(), sampled)
        return self._context

    @property
    def seconds(self) -> float:
        """From entry to reply."""
        return (self.end - self.begin) * 1e-9

    def stages(self) -> list[tuple[str, int, int]]:
        """(stage, begin, end), in the order that they began; together they are the whole time."""
        begins = [m for m in self.marks if len(m) == 2]
        if not begins or begins[0][1] > self.begin:
            begins.insert(0, ("entry", self.begin))
        ends = [*(m[1] for m in begins[1:]), self.end]
        return [(m[0], m[1], max(end, m[1])) for m, end in zip(begins, ends, strict=True)]

    def operators(self) -> list[tuple[str, int, int]]:
        """(name, begin, end) of what was timed inside the device's stage."""
        return [m for m in self.marks if len(m) == 3]

    def within_device(self, ran: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
        """Of what an engine ran, that which lies in this request's device stage."""
        stages = [(begin, end) for name, begin, end in self.stages() if name == "device"]
        return [r for r in ran if any(b <= r[1] and r[2] <= e for b, e in stages)]
