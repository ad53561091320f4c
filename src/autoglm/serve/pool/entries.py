"""What the pool knows of each version, and which of them a name means."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from autoglm.errors import AutoGLMError, DrainingError, LimitError, ModelNotServedError
from autoglm.serve.core import ModelInfo
from autoglm.serve.pool.canary import Canary
from autoglm.serve.pool.repository import Source
from autoglm.serve.pool.served import Served

DEFAULT = "default"  # the alias that fixes what answers when no version is named
_NAME_LIMIT = 128


@dataclass(slots=True)
class Entry:
    """One version that the pool knows."""

    source: Source
    state: str = "loading"  # loading | ready | unloading | unloaded | failed
    reason: str = ""
    served: Served | None = None
    wanted: bool = False  # it was ready, and nobody unloaded it: a request may load it again
    memory_bytes: int = 0
    resident_bytes: int = 0
    load_s: float = 0.0
    loads: int = 0
    returning: asyncio.Task[None] | None = None

    @property
    def version(self) -> str:
        """Its number."""
        return self.source.version

    def failed(self, error: AutoGLMError) -> None:
        """It did not load. What served before goes on; what may fit later waits."""
        waits = isinstance(error, LimitError)
        self.reason = error.localized()
        self.state = "ready" if self.served else "unloaded" if waits else "failed"
        self.wanted = waits or self.served is not None


@dataclass(slots=True)
class Model:
    """The versions of one name, and what points at them."""

    entries: dict[str, Entry] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    labels: dict[str, set[str]] = field(default_factory=dict)  # label -> versions
    canary: Canary | None = None

    def stable(self) -> Entry | None:
        """What answers when no version is named and no canary takes the request."""
        if len(self.entries) == 1:
            (only,) = self.entries.values()
            return only if only.wanted else None
        fixed = self.entries.get(self.aliases.get(DEFAULT, ""))
        if fixed is not None and fixed.wanted:
            return fixed
        tried = self.canary.version if self.canary else ""
        wanted = [e for e in self.entries.values() if e.wanted]
        return newest(e for e in wanted if e.version != tried) or newest(wanted)

    def entry(self, version: str) -> Entry | None:
        """The version of that number or alias, or the newest of that label."""
        found = self.entries.get(self.aliases.get(version, version))
        if found is not None:
            return found
        labelled = (self.entries.get(v) for v in self.labels.get(version, ()))
        return newest(e for e in labelled if e is not None and e.wanted)

    def info(self, entry: Entry) -> ModelInfo:
        """What a client may know of one of its versions."""
        source, served = entry.source, entry.served
        known = served.info if served is not None else None
        info = known or ModelInfo(source.name, source.version, (), (), entry.state)
        away = [e for e in served.engines if e.quarantine] if served is not None else []
        down = served is not None and len(away) == len(served.engines)
        return replace(
            info,
            state="failed" if down else entry.state,
            reason="; ".join(f"{e.name}: {e.quarantine.reason}" for e in away if e.quarantine)
            or entry.reason,
            aliases=tuple(sorted(a for a, v in self.aliases.items() if v == entry.version)),
            labels=tuple(sorted(x for x, v in self.labels.items() if entry.version in v)),
            memory_bytes=entry.memory_bytes,
        )


def entries_of(models: Mapping[str, Model]) -> Iterator[Entry]:
    """Every version, by name and number."""
    for name in sorted(models):
        yield from sorted(models[name].entries.values(), key=by_number)


def newest(entries: Iterable[Entry]) -> Entry | None:
    """The one with the largest number."""
    return max(entries, key=by_number, default=None)


def by_number(entry: Entry) -> int:
    """A key for sorting."""
    return int(entry.version)


def no_version(name: str, version: str, model: Model) -> ModelNotServedError:
    """Names what there is instead."""
    known = sorted(model.entries, key=int) + sorted(model.aliases) + sorted(model.labels)
    return ModelNotServedError(
        "Model {model} has no version {version!r}; there are: {known}.",
        model=name,
        version=version[:_NAME_LIMIT],
        known=", ".join(known) or "none",
    )


def not_ready(entry: Entry) -> AutoGLMError:
    """Why a version that is known does not answer."""
    if entry.state == "loading":
        return still_loading(entry)
    return ModelNotServedError(
        "Version {version} of model {model} is not served: its state is {state}.",
        hint="`autoglm models list` says why.",
        model=entry.source.name,
        version=entry.version,
        state=entry.state,
    )


def still_loading(entry: Entry) -> DrainingError:
    """It will answer; ask again."""
    return DrainingError(
        "Version {version} of model {model} is not loaded yet.",
        hint="Ask again in a moment; `autoglm models list` says why it takes long.",
        model=entry.source.name,
        version=entry.version,
        retry_after_s=1.0,
    )


def details(entry: Entry, model: Model) -> dict[str, Any]:
    """What an operator wants to know of one version, as JSON values."""
    served, info = entry.served, model.info(entry)
    canary = model.canary if model.canary and model.canary.version == entry.version else None
    return {
        "name": info.name,
        "version": info.version,
        "state": info.state,
        "reason": info.reason,
        "aliases": list(info.aliases),
        "labels": list(info.labels),
        "canary_percent": canary.percent if canary else None,
        "digest": info.digest,
        "memory_bytes": info.memory_bytes,
        "resident_bytes": entry.resident_bytes,
        "load_s": round(entry.load_s, 3),
        "loads": entry.loads,
        "inflight": served.inflight if served else 0,
        "engines": [
            {
                "name": e.name,
                "row_us": round(e.row_s * 1e6, 1),
                "waiting_rows": e.waiting_rows,
                "batches": b.stats.batches,
                "padded_rows": b.stats.padded_rows,
                "refused": b.stats.refused,
                "joins": e.joins,
                "failures": e.failures,
                "quarantine": e.quarantine.reason if e.quarantine else "",
            }
            for e, b in (zip(served.engines, served.batchers, strict=True) if served else ())
        ],
    }
