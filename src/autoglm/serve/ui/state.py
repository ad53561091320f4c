"""What the live page shows, as JSON values."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm.serve.core import Client, ModelInfo

if TYPE_CHECKING:
    from autoglm.serve.gateway import LocalGateway
    from autoglm.serve.telemetry import Record

_SLOW_SHOWN = 15
_PARTS_SHOWN = 60


def state(gateway: LocalGateway, client: Client) -> dict[str, Any]:
    """The server now; ForbiddenError for a client without admin rights, where there are any.

    It shows what other clients do, so that on a server with keys an admin's is needed.
    """
    guard = gateway.guard
    if guard is not None and not guard.is_open:
        guard.permit(client, admin=True)
    telemetry = gateway.telemetry
    if telemetry is not None:
        telemetry.fold()
    return {
        "state": gateway.state,
        "inflight": gateway.inflight,
        "open": guard is None or guard.is_open,
        "devices": _DEVICES.rows(),
        "models": [_model(gateway, info) for info in gateway.models()],
        "cache": _cache(gateway),
        "requests": _requests(gateway),
        "slow": [_slow(r) for r in reversed(telemetry.slow)][:_SLOW_SHOWN] if telemetry else [],
    }


def _model(gateway: LocalGateway, info: ModelInfo) -> dict[str, Any]:
    key = (info.name, info.version)
    queues = [b for name, version, b in gateway.pool.batchers() if (name, version) == key]
    series = gateway.telemetry.totals.series.get(key) if gateway.telemetry else None
    return {
        "name": info.name,
        "version": info.version,
        "state": info.state,
        "reason": info.reason,
        "aliases": [*info.aliases, *info.labels],
        "engines": info.engines,
        "memory_bytes": info.memory_bytes,
        "queue_rows": sum(b.queued_rows for b in queues),
        "batches": sum(b.stats.batches for b in queues),
        "rows": sum(b.stats.rows for b in queues),
        "padded_rows": sum(b.stats.padded_rows for b in queues),
        "answered": sum(series.latency.counts) if series else 0,
        "p50_s": series.quantile(0.5) if series else 0.0,
        "p99_s": series.quantile(0.99) if series else 0.0,
        "picture": _picture(gateway, info),
    }


def _requests(gateway: LocalGateway) -> dict[str, int]:
    """Code -> how many."""
    found: dict[str, int] = {}
    requests = gateway.telemetry.totals.requests if gateway.telemetry else {}
    for (*_, code), count in requests.items():
        found[code] = found.get(code, 0) + count
    return found


def _cache(gateway: LocalGateway) -> dict[str, Any] | None:
    if gateway.cache is None:
        return None
    stats, memory = gateway.cache.stats, gateway.cache.memory
    return {"hit_rate": stats.hit_rate, "entries": len(memory), "bytes": memory.nbytes}


def _slow(record: Record) -> dict[str, Any]:
    return {
        "trace_id": record.context.trace_id,
        "model": record.model,
        "version": record.version,
        "transport": record.transport,
        "client": record.client,
        "code": record.code,
        "seconds": record.seconds,
        "ago_s": (time.perf_counter_ns() - record.end) * 1e-9,
        "stages": [[name, (end - begin) * 1e-9] for name, begin, end in record.stages()],
    }


def _picture(gateway: LocalGateway, info: ModelInfo) -> Mapping[str, Any] | None:
    """Partitions and what crosses between them, from the bundle's plan."""
    return _plan(_folder(gateway, info)) if info.state == "ready" and info.digest else None


def _folder(gateway: LocalGateway, info: ModelInfo) -> str:
    return _folders(gateway, info.digest).get((info.name, info.version), "")


@lru_cache(maxsize=64)
def _folders(gateway: LocalGateway, digest: str) -> Mapping[tuple[str, str], str]:
    # A digest that is new here means that something was loaded since: look again.
    sources = gateway.pool.repository.sources()
    return {(s.name, s.version): str(s.engines[0].folder) for s in sources}


@lru_cache(maxsize=64)
def _plan(folder: str) -> Mapping[str, Any] | None:
    try:
        plan = json.loads((Path(folder) / "plan.json").read_bytes()) if folder else None
    except (OSError, ValueError):
        return None
    if plan is None:
        return None
    parts = plan["partitions"][:_PARTS_SHOWN]
    shown = {p["id"] for p in parts}
    kept = ("id", "backend", "precision", "seconds", "inputs", "outputs")
    crossing = ("tensor", "producer", "consumer", "bytes", "kind", "seconds")
    return {
        "partitions": [{**{k: p[k] for k in kept}, "nodes": len(p["nodes"])} for p in parts],
        "boundaries": [
            {k: b[k] for k in crossing}
            for b in plan["boundaries"]
            if b["producer"] in shown and b["consumer"] in shown
        ],
        "more": len(plan["partitions"]) - len(parts),
    }


class _Devices:
    """What the backends find; probed once, in a thread, for some take seconds."""

    def __init__(self) -> None:
        self._found: list[dict[str, Any]] | None = None
        self._thread: threading.Thread | None = None

    def rows(self) -> list[dict[str, Any]] | None:
        """None while it is not known yet."""
        if self._found is None and self._thread is None:
            self._thread = threading.Thread(target=self._probe, name="devices", daemon=True)
            self._thread.start()
        return self._found

    def _probe(self) -> None:
        from autoglm import api

        self._found = [
            {"backend": d.backend, "kind": d.kind, "name": d.name, "memory_bytes": d.memory_bytes}
            for d in api.devices()
        ]


_DEVICES = _Devices()
