"""Where a request's time goes: tuples for all, spans for the few that are sampled or slow.

The gateway does

    record = telemetry.start(request)          # request.marks is the record's list from here on
    try: … await …                             # whoever begins a stage: marks.append(("queue", ns))
    except AutoGLMError as error: telemetry.finish(record, error); raise
    telemetry.finish(record, version=info.version)
"""

from autoglm.serve.telemetry.context import TraceContext, parse_traceparent
from autoglm.serve.telemetry.logs import configure_logs
from autoglm.serve.telemetry.metrics import exposition, watch_batchers, watch_cache
from autoglm.serve.telemetry.record import STAGES, Record
from autoglm.serve.telemetry.telemetry import Telemetry, TelemetryOptions

__all__ = [
    "STAGES",
    "Record",
    "Telemetry",
    "TelemetryOptions",
    "TraceContext",
    "configure_logs",
    "exposition",
    "parse_traceparent",
    "watch_batchers",
    "watch_cache",
]
