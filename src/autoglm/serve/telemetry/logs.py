"""Logs as JSON lines, without anybody's key."""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from datetime import UTC, datetime
from typing import TextIO

_SECRETS = (
    re.compile(r"agk_[0-9A-Za-z]*_[0-9A-Za-z_-]+"),
    re.compile(r"eyJ[0-9A-Za-z_-]*\.[0-9A-Za-z_-]+\.?[0-9A-Za-z_-]*"),
    re.compile(r"(?i)(?<=bearer )[^\s\"',]+"),
    re.compile(r"(?<=://)[^/\s@]*:[^/\s@]*(?=@)"),
    re.compile(r"(?i)(?<=password=)[^\s&\"',]+"),
)
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line; what `extra=` adds are its further fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, secrets blanked out."""
        row: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        row.update({k: v for k, v in vars(record).items() if k not in _USUAL})
        if record.exc_info and record.exc_info[1]:
            row["exception"] = "".join(traceback.format_exception(record.exc_info[1]))
        return json.dumps({k: _clean(v) for k, v in row.items()}, ensure_ascii=False)


def configure_logs(level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send the logs of `autoglm` to `stream` (stderr) as JSON lines."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    log = logging.getLogger("autoglm")
    log.handlers[:] = [handler]
    log.setLevel(level)
    log.propagate = False


def redact(text: str) -> str:
    """`text` with keys, tokens and passwords blanked out."""
    for pattern in _SECRETS:
        text = pattern.sub("•••", text)
    return text


def _clean(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact(value if isinstance(value, str) else repr(value))
