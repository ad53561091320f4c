"""A record as OTLP/JSON: OpenTelemetry's protocol, one `ExportTraceServiceRequest`.

Field names, hexadecimal ids and 64-bit numbers as text follow the OTLP specification 1.x
(opentelemetry-proto, Apache-2.0); a test parses the result with that project's own messages.
"""

from __future__ import annotations

from typing import Any

from autoglm.serve.telemetry.context import new_span_id
from autoglm.serve.telemetry.record import Record

_INTERNAL, _SERVER = 1, 2  # SpanKind
_ERROR = 2  # StatusCode


def export_request(
    record: Record, *, offset_ns: int, weight: float, resource: dict[str, str]
) -> dict[str, Any]:
    """One trace. `offset_ns` turns perf_counter_ns into Unix time; `weight` is the number of
    requests that it stands for.
    """
    scope = {"name": "autoglm.serve"}
    spans = _spans(record, offset_ns, weight)
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes(resource)},
                "scopeSpans": [{"scope": scope, "spans": spans}],
            }
        ]
    }


def _spans(record: Record, offset_ns: int, weight: float) -> list[dict[str, Any]]:
    context, caller = record.context, record.caller
    root = {
        **_span(context.trace_id, context.span_id, f"infer {record.model}", _SERVER),
        **_times(record.begin, record.end, offset_ns),
        "attributes": _attributes(
            {
                "autoglm.model": record.model,
                "autoglm.version": record.version,
                "autoglm.transport": record.transport,
                "autoglm.client": record.client,
                "autoglm.weight": weight,
            }
        ),
    }
    if caller is not None:
        root["parentSpanId"] = caller.span_id
    if record.code != "ok":
        root["status"] = {"code": _ERROR, "message": record.code}
    return [root, *_children(record, offset_ns)]


def _children(record: Record, offset_ns: int) -> list[dict[str, Any]]:
    context = record.context
    made, devices = [], []
    for stage, begin, end in record.stages():
        span_id = new_span_id()
        child = {
            **_span(context.trace_id, span_id, stage, _INTERNAL),
            **_times(begin, end, offset_ns),
            "parentSpanId": context.span_id,
        }
        made.append(child)
        if stage == "device":
            devices.append((begin, end, span_id))
    for name, begin, end in record.operators():
        parent = next((s for b, e, s in devices if b <= begin <= e), context.span_id)
        made.append(
            {
                **_span(context.trace_id, new_span_id(), name, _INTERNAL),
                **_times(begin, end, offset_ns),
                "parentSpanId": parent,
            }
        )
    return made


def _span(trace_id: str, span_id: str, name: str, kind: int) -> dict[str, Any]:
    return {"traceId": trace_id, "spanId": span_id, "name": name[:200], "kind": kind}


def _times(begin: int, end: int, offset_ns: int) -> dict[str, str]:
    return {
        "startTimeUnixNano": str(begin + offset_ns),
        "endTimeUnixNano": str(end + offset_ns),
    }


def _attributes(facts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in facts.items()]


def _value(value: Any) -> dict[str, Any]:
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": str(value)}
