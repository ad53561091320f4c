"""Every model that is served: which version answers a request, and what decides it.

All methods belong to the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from autoglm.errors import AutoGLMError, InvalidRequestError, ModelNotServedError
from autoglm.serve.batch import Batcher, BatchLimits
from autoglm.serve.core import Client, ModelInfo, Request
from autoglm.serve.pool.canary import canary as make_canary
from autoglm.serve.pool.engine import RUN_TIMEOUT_S
from autoglm.serve.pool.entries import (
    Entry,
    Model,
    by_number,
    details,
    entries_of,
    no_version,
    not_ready,
    still_loading,
)
from autoglm.serve.pool.loading import Loader
from autoglm.serve.pool.repository import (
    Repository,
    Source,
    number,
    require_name,
    require_version,
)
from autoglm.serve.pool.served import Outputs, Served
from autoglm.serve.pool.state import State

_CLOSE_S = 60.0
_NOBODY = Client()
_NAME_LIMIT = 128


class Pool:
    """Models by name and version, within a memory budget (0 = none)."""

    def __init__(
        self,
        repository: Repository,
        *,
        memory_bytes: int = 0,
        limits: BatchLimits | None = None,
        on_use: Callable[[Client, str], None] | None = None,
        state: State | None = None,
        run_timeout_s: float = RUN_TIMEOUT_S,
    ) -> None:
        self.repository = repository
        self.memory_bytes = memory_bytes
        self.on_use = on_use  # told of every request's client and model; may ask for preloads
        self.state = state or State()
        self._models: dict[str, Model] = {}
        self._loader = Loader(
            self._models,
            self.infer,
            memory_bytes=memory_bytes,
            limits=limits or BatchLimits(),
            run_timeout_s=run_timeout_s,
        )

    async def start(self) -> None:
        """Load what the repository holds, each model's newest version first.

        What does not load is listed with its reason; what does not fit waits for a request.
        """
        await asyncio.to_thread(self.state.read)
        sources = await asyncio.to_thread(self.repository.sources)
        self._loader.watch()
        for source in sorted(sources, key=number, reverse=True):
            with contextlib.suppress(AutoGLMError):
                await self._loader.load(self._entry_for(source), source, evict=False)

    # -- answering

    def served(
        self, model: str, version: str = "", client: Client | None = None, request_id: str = ""
    ) -> Served:
        """What answers such a request now; a version that was evicted is loaded again meanwhile."""
        entry = self._resolve(model, version, client, request_id)
        self._used(client, model)
        if entry.served is not None:
            return entry.served
        self._loader.bring_back(entry)
        raise still_loading(entry)

    async def acquire(
        self,
        model: str,
        version: str = "",
        client: Client | None = None,
        request_id: str = "",
        *,
        deadline: float | None = None,
    ) -> Served:
        """As `served`, but waits for a version that was evicted to be loaded again."""
        entry = self._resolve(model, version, client, request_id)
        self._used(client, model)
        return entry.served or await self._loader.there(entry, deadline)

    async def signature(
        self,
        model: str,
        version: str = "",
        client: Client | None = None,
        request_id: str = "",
        *,
        deadline: float | None = None,
    ) -> ModelInfo:
        """What would answer such a request, there; only inputs and outputs are up to date."""
        entry = self._resolve(model, version, client, request_id)
        return (await self._loader.there(entry, deadline)).info

    async def infer(self, request: Request) -> Outputs:
        """Answer one request by whatever version it gets."""
        served = await self.acquire(
            request.model, request.version, request.client, request.id, deadline=request.deadline
        )
        return await served.infer(request)

    # -- changing

    async def load(
        self, name: str, path: str = "", version: str = "", *, canary: float | None = None
    ) -> ModelInfo:
        """Load a version, or load it anew; what serves goes on until the new one is warm.

        With a `path`, a bundle inside the repository becomes the next version, or `version`.
        Without one, the repository's newest, or `version`. With `canary`, the new version gets
        that share of the requests from its first moment on.
        """
        source = await asyncio.to_thread(self._find, name, path, version)
        if canary is not None:
            make_canary(source.version, canary)  # refused before anything is loaded
        if path and not version:  # numbered here: another load may have taken it meanwhile
            source = replace(source, version=self._following(name))
        entry = self._entry_for(source)
        if canary is not None:
            await self._loader.kept(self._load_as_canary(entry, source, canary))
        else:
            await self._loader.kept(self._loader.load(entry, source))
        return self.model(name, source.version)

    async def preload(self, name: str, version: str = "") -> None:
        """Load what is not there; what is there counts as just used, and stays."""
        model = self._models.get(name, Model())
        entry = model.entry(version) if version else model.stable()
        if entry is None or not (entry.served or entry.wanted):
            await self.load(name, version=version)
        elif entry.served is not None:
            entry.served.used_at = time.monotonic()
        else:
            await asyncio.shield(self._loader.bring_back(entry))

    async def unload(self, name: str, version: str = "") -> None:
        """Stop serving one version, or all, after what was accepted is answered."""
        model = self._model(name)
        entries = [self._entry(name, version)] if version else list(model.entries.values())
        await self._loader.kept(self._loader.unload(entries))

    def alias(self, name: str, alias: str, version: str) -> None:
        """Point `alias` at a version, in one step; "" removes it. `default` decides what answers
        when no version is named.
        """
        model = self._model(name)
        _require_word(alias)
        if version:
            model.aliases[alias] = self._entry(name, require_version(version)).version
        elif model.aliases.pop(alias, None) is None:
            raise no_version(name, alias, model)
        self.state.of(name).aliases[alias] = model.aliases.get(alias, "")

    def label(self, name: str, label: str, version: str, *, on: bool = True) -> None:
        """Give a version a label, or take it away; the newest that has it answers to it."""
        _require_word(label)
        versions = self._model(name).labels.setdefault(label, set())
        chosen = self._entry(name, version).version
        (versions.add if on else versions.discard)(chosen)
        self.state.of(name).labels.setdefault(label, {})[chosen] = on

    def canary(self, name: str, version: str, percent: float, by: str = "client") -> None:
        """Send a share of the requests that name no version to `version`; 0 % ends it."""
        model = self._model(name)
        chosen = make_canary(self._entry(name, version).version, percent, by)
        model.canary = chosen if percent else None
        self.state.of(name).put_on_trial(model.canary)

    def tune(self, limits: BatchLimits) -> None:
        """Batch by these limits from now on, every model."""
        self._loader.tune(limits)

    async def close(self, timeout_s: float = _CLOSE_S) -> None:
        """Unload everything; requests under way are waited for for so long."""
        await self._loader.close(timeout_s)

    # -- telling

    def models(self) -> tuple[ModelInfo, ...]:
        """Every version known, ready or not."""
        return tuple(self._models[e.source.name].info(e) for e in entries_of(self._models))

    def model(self, name: str, version: str = "", client: Client = _NOBODY) -> ModelInfo:
        """One version: the one named, or the newest that answers."""
        model = self._model(name, client)
        if version:
            return model.info(self._entry(name, version))
        return model.info(model.stable() or max(model.entries.values(), key=by_number))

    def details(self) -> list[dict[str, Any]]:
        """What an operator wants to know of every version, as JSON values."""
        return [details(e, self._models[e.source.name]) for e in entries_of(self._models)]

    def batchers(self) -> Iterator[tuple[str, str, Batcher]]:
        """(model, version, batcher) of every engine that is open."""
        for entry in entries_of(self._models):
            for batcher in entry.served.batchers if entry.served is not None else ():
                yield entry.source.name, entry.version, batcher

    def ran(self, name: str, version: str) -> list[tuple[str, int, int]]:
        """(partition, begin, end) of what a version ran last, by perf_counter_ns; [] where it has
        several engines, for then nobody knows whose run it was.
        """
        model = self._models.get(name)
        entry = model.entries.get(version) if model else None
        engines = entry.served.engines if entry and entry.served else ()
        return engines[0].recent if len(engines) == 1 else []

    @property
    def used_bytes(self) -> int:
        """Artifact bytes of all that is open."""
        return self._loader.used_bytes

    @property
    def evictions(self) -> int:
        """Versions closed to make room, since the start."""
        return self._loader.evictions

    # -- which version

    def _resolve(self, name: str, version: str, client: Client | None, request_id: str) -> Entry:
        client = client or _NOBODY
        model = self._model(name, client)
        if version:
            entry = self._entry(name, version)
        elif (chosen := _canary(name, model, client, request_id)) is not None:
            entry = chosen
        else:
            entry = model.stable() or max(model.entries.values(), key=by_number)
        if entry.wanted:
            return entry
        raise not_ready(entry)

    def _used(self, client: Client | None, model: str) -> None:
        if self.on_use is not None:
            self.on_use(client or _NOBODY, model)

    def _model(self, name: str, client: Client = _NOBODY) -> Model:
        model = self._models.get(name)
        if model is None:
            if not name:
                raise InvalidRequestError("The request names no model.")
            known = [
                n
                for n, m in self._models.items()
                if client.may_use(n) and any(e.wanted for e in m.entries.values())
            ]
            raise ModelNotServedError(
                "No model {model!r} is served here; served: {known}.",
                model=name[:_NAME_LIMIT],
                known=", ".join(sorted(known)) or "none",
            )
        return model

    def _entry(self, name: str, version: str) -> Entry:
        """The version of that number, alias or label."""
        model = self._model(name)
        entry = model.entry(version)
        if entry is None:
            raise no_version(name, version, model)
        return entry

    # -- what to load

    def _find(self, name: str, path: str, version: str) -> Source:
        if path:
            return self.repository.inside(name, path, version or "1")
        known = self._models.get(name, Model()).entries.values()
        return self.repository.choose(name, version, [e.source for e in known])

    def _following(self, name: str) -> str:
        return str(max(map(int, self._models.get(name, Model()).entries), default=0) + 1)

    def _entry_for(self, source: Source) -> Entry:
        """Its place among the versions; what was said since comes before what `model.toml` says."""
        said = self.state.of(source.name)
        model = self._models.get(source.name)
        if model is None:
            model = self._models[source.name] = said.model()
        for alias in source.aliases:
            if alias not in said.aliases:
                model.aliases.setdefault(alias, source.version)
        for label in source.labels:
            if source.version not in said.labels.get(label, ()):
                model.labels.setdefault(label, set()).add(source.version)
        return model.entries.setdefault(source.version, Entry(source))

    async def _load_as_canary(self, entry: Entry, source: Source, percent: float) -> None:
        model = self._models[source.name]
        before = model.canary
        model.canary = make_canary(source.version, percent)
        try:
            await self._loader.load(entry, source)
        except BaseException:
            model.canary = before
            raise
        self.canary(source.name, source.version, percent)
        await self.state.save()  # here: the caller may have left


def _require_word(word: str) -> None:
    if word.isdigit():
        raise ModelNotServedError("{word!r} is a version's number, not a name.", word=word[:20])
    require_name(word)


def _canary(name: str, model: Model, client: Client, request_id: str) -> Entry | None:
    """The version on trial, where this request is its."""
    if model.canary is None:
        return None
    entry = model.entries.get(model.canary.version)
    known = "" if client.name == _NOBODY.name else client.name
    key = client.credentials.client_id or known
    taken = entry is not None and entry.wanted and model.canary.takes(name, key, request_id)
    return entry if taken else None
