"""Every model that is served: found by name and version, loaded and unloaded while others answer.

All methods belong to the event loop; only opening, warming up and closing happen in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from autoglm.errors import (
    AutoGLMError,
    ExecutionError,
    FileMissingError,
    InvalidRequestError,
    LimitError,
    ModelNotServedError,
)
from autoglm.serve.batch import Batcher, BatchLimits
from autoglm.serve.core import Client, ModelInfo, Request
from autoglm.serve.pool.canary import canary as make_canary
from autoglm.serve.pool.engine import Engine
from autoglm.serve.pool.entries import (
    Entry,
    Model,
    by_number,
    details,
    no_version,
    not_ready,
    still_loading,
)
from autoglm.serve.pool.loading import Loaded, load, needed_bytes
from autoglm.serve.pool.repository import (
    Repository,
    Source,
    number,
    require_name,
    require_version,
)
from autoglm.serve.pool.served import Outputs, Served

_DRAIN_S = 60.0
_PUT_IT = "Put the bundle at MODEL/VERSION below a folder that the server was given."
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
    ) -> None:
        self.repository = repository
        self.memory_bytes = memory_bytes
        self.on_use = on_use  # told of every request's client and model; may ask for preloads
        self.evictions = 0
        self._limits = limits or BatchLimits()
        self._models: dict[str, Model] = {}
        self._loading = asyncio.Lock()  # one load at a time: each is measured against the budget
        self._leaving = 0  # bytes of replaced versions that still answer
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Load what the repository holds, each model's newest version first.

        What does not load is listed with its reason; what does not fit waits for a request.
        """
        sources = await asyncio.to_thread(self.repository.sources)
        for source in sorted(sources, key=number, reverse=True):
            with contextlib.suppress(AutoGLMError):
                await self._load(source, evict=False)

    # -- answering

    def served(
        self, model: str, version: str = "", client: Client | None = None, request_id: str = ""
    ) -> Served:
        """What answers such a request now; a version that was evicted is loaded again meanwhile."""
        entry = self._resolve(model, version, client, request_id)
        self._used(client, model)
        if entry.served is not None:
            return entry.served
        self._return(entry)
        raise still_loading(entry)

    async def acquire(
        self, model: str, version: str = "", client: Client | None = None, request_id: str = ""
    ) -> Served:
        """As `served`, but waits for a version that was evicted to be loaded again."""
        entry = self._resolve(model, version, client, request_id)
        self._used(client, model)
        return await self._there(entry)

    async def signature(
        self, model: str, version: str = "", client: Client | None = None, request_id: str = ""
    ) -> ModelInfo:
        """What would answer such a request, there; only inputs and outputs are up to date."""
        return (await self._there(self._resolve(model, version, client, request_id))).info

    async def infer(self, request: Request) -> Outputs:
        """Answer one request by whatever version it gets."""
        served = await self.acquire(request.model, request.version, request.client, request.id)
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
        self._entry_for(source)
        if canary is not None:
            await self._load_as_canary(source, canary)
        else:
            await self._kept(self._load(source))
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
            await asyncio.shield(self._return(entry))

    async def unload(self, name: str, version: str = "") -> None:
        """Stop serving one version, or all, after what was accepted is answered."""
        model = self._model(name)
        entries = [self._entry(name, version)] if version else list(model.entries.values())
        await self._kept(self._unload(entries))

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

    def label(self, name: str, label: str, version: str, *, on: bool = True) -> None:
        """Give a version a label, or take it away; the newest that has it answers to it."""
        _require_word(label)
        versions = self._model(name).labels.setdefault(label, set())
        (versions.add if on else versions.discard)(self._entry(name, version).version)

    def canary(self, name: str, version: str, percent: float, by: str = "client") -> None:
        """Send a share of the requests that name no version to `version`; 0 % ends it."""
        model = self._model(name)
        chosen = make_canary(self._entry(name, version).version, percent, by)
        model.canary = chosen if percent else None

    def tune(self, limits: BatchLimits) -> None:
        """Batch by these limits from now on, every model."""
        self._limits = limits
        for served in (e.served for e in self._entries() if e.served is not None):
            for engine, batcher in zip(served.engines, served.batchers, strict=True):
                batcher.limits = self._limits_of(engine)

    async def close(self) -> None:
        """Unload everything."""
        entries = [e for m in self._models.values() for e in m.entries.values()]
        await self._unload(entries)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- telling

    def models(self) -> tuple[ModelInfo, ...]:
        """Every version known, ready or not."""
        return tuple(self._models[e.source.name].info(e) for e in self._entries())

    def model(self, name: str, version: str = "", client: Client = _NOBODY) -> ModelInfo:
        """One version: the one named, or the newest that answers."""
        model = self._model(name, client)
        if version:
            return model.info(self._entry(name, version))
        return model.info(model.stable() or max(model.entries.values(), key=by_number))

    def details(self) -> list[dict[str, Any]]:
        """What an operator wants to know of every version, as JSON values."""
        return [details(e, self._models[e.source.name]) for e in self._entries()]

    def batchers(self) -> Iterator[tuple[str, str, Batcher]]:
        """(model, version, batcher) of every engine that is open."""
        for entry in self._entries():
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
        return self._leaving + sum(e.memory_bytes for e in self._entries() if e.served is not None)

    def _entries(self) -> Iterator[Entry]:
        for name in sorted(self._models):
            yield from sorted(self._models[name].entries.values(), key=by_number)

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

    # -- loading

    def _find(self, name: str, path: str, version: str) -> Source:
        known = self._models.get(name, Model()).entries
        if path:
            return self.repository.inside(name, path, version or "1")
        there = (*(e.source for e in known.values()), *self.repository.named(name))
        sources = {s.version: s for s in there}
        if not sources:
            raise FileMissingError(
                "The model repository holds no model {model}.", hint=_PUT_IT, model=name
            )
        if not version:
            return max(sources.values(), key=number)
        if require_version(version) not in sources:
            raise FileMissingError(
                "The model repository holds no version {version} of model {model}.",
                hint=_PUT_IT,
                model=name,
                version=version,
            )
        return sources[version]

    def _following(self, name: str) -> str:
        return str(max(map(int, self._models.get(name, Model()).entries), default=0) + 1)

    async def _load_as_canary(self, source: Source, percent: float) -> None:
        model = self._models.setdefault(source.name, Model())
        before = model.canary
        model.canary = make_canary(source.version, percent)
        try:
            await self._kept(self._load(source))
        except BaseException:
            model.canary = before
            raise
        if not percent:
            model.canary = None

    async def _load(self, source: Source, *, evict: bool = True) -> None:
        entry = self._entry_for(source)
        async with self._loading:
            await self._load_into(entry, source, evict)

    async def _load_into(self, entry: Entry, source: Source, evict: bool) -> None:
        entry.state = "ready" if entry.served else "loading"
        try:
            entry.memory_bytes, loaded = await self._open(source, entry, evict)
        except AutoGLMError as error:
            self._failed(entry, error)
            raise
        self._admit(entry, source, loaded)

    async def _open(self, source: Source, entry: Entry, evict: bool) -> tuple[int, Loaded]:
        try:
            needed = await asyncio.to_thread(needed_bytes, source)
            await self._make_room(entry, needed, evict)
            return needed, await asyncio.to_thread(load, source)
        except (AutoGLMError, asyncio.CancelledError):
            raise
        except Exception as error:  # a plug-in may raise anything
            raise ExecutionError(
                "{kind}: {text}", kind=type(error).__name__, text=str(error)[:300]
            ) from error

    def _failed(self, entry: Entry, error: AutoGLMError) -> None:
        entry.reason = error.localized()
        waits = isinstance(error, LimitError)  # it may fit later
        entry.state = "ready" if entry.served else "unloaded" if waits else "failed"
        entry.wanted = waits or entry.served is not None

    def _entry_for(self, source: Source) -> Entry:
        model = self._models.setdefault(source.name, Model())
        entry = model.entries.setdefault(source.version, Entry(source))
        for alias in source.aliases:
            model.aliases.setdefault(alias, source.version)
        for label in source.labels:
            model.labels.setdefault(label, set()).add(source.version)
        return entry

    def _admit(self, entry: Entry, source: Source, loaded: Loaded) -> None:
        """From here on the new one answers; the old one ends what it has begun."""
        info = ModelInfo(
            source.name,
            source.version,
            loaded.inputs,
            loaded.outputs,
            "ready",
            digest=loaded.digest,
            engines=tuple(e.name for e in loaded.engines),
        )
        batchers = [Batcher(e.run, info, self._limits_of(e), joins=e.joins) for e in loaded.engines]
        old, entry.served = entry.served, Served(info, loaded.engines, batchers, self.infer)
        entry.source, entry.state, entry.reason, entry.wanted = source, "ready", "", True
        entry.resident_bytes, entry.load_s = loaded.resident_bytes, loaded.seconds
        entry.loads += 1
        if old is not None:
            self._background(self._leave(old, entry.memory_bytes))

    def _limits_of(self, engine: Engine) -> BatchLimits:
        # A process that died is started again by the next run: never on the event loop.
        return replace(self._limits, inline_below_s=0.0) if engine.restarts else self._limits

    async def _leave(self, old: Served, memory_bytes: int) -> None:
        """Close what no new request reaches, however long its last ones take."""
        self._leaving += memory_bytes
        try:
            while not await old.retire(_DRAIN_S):
                pass
        finally:
            self._leaving -= memory_bytes

    async def _unload(self, entries: list[Entry]) -> None:
        for entry in entries:
            async with self._loading:  # what is loading now is unloaded when it is there
                served, entry.served = entry.served, None
                entry.wanted = False
                entry.reason = "unloaded on request"
                entry.state = "unloading" if served else "unloaded"
            if served is not None and not await served.retire(_DRAIN_S):
                self._background(self._leave(served, entry.memory_bytes))
                entry.reason = f"{served.inflight} requests did not end within {_DRAIN_S:g} s"
            entry.state = "unloaded"

    # -- memory

    async def _make_room(self, entry: Entry, needed: int, evict: bool) -> None:
        if not self.memory_bytes:
            return
        over = self.used_bytes + needed - self.memory_bytes
        chosen = _enough(self._idle(entry), over) if evict else []
        if over > 0 and not chosen:
            raise LimitError(
                "Model {model} needs {needed} MiB; {used} of the budget of {budget} MiB are taken.",
                hint="Unload another model, or raise the memory budget.",
                model=entry.source.name,
                needed=_mib(needed),
                budget=_mib(self.memory_bytes),
                used=_mib(self.used_bytes),
            )
        for victim in chosen:
            await self._evict(victim, entry)

    def _idle(self, reloading: Entry) -> list[Entry]:
        """What may be evicted, the longest unused first; never what has requests in flight."""
        idle = [
            (e.served.used_at, i, e)
            for i, e in enumerate(self._entries())
            if e.served is not None and not e.served.inflight and e is not reloading
        ]
        return [e for _, _, e in sorted(idle)]

    async def _evict(self, victim: Entry, newcomer: Entry) -> None:
        served = victim.served
        if served is None:
            return
        if served.inflight:  # a request came while another victim was closing
            raise LimitError(
                "Model {model} does not fit: {other} is in use again.",
                hint="Ask again later, or raise the memory budget.",
                model=newcomer.source.name,
                other=victim.source.name,
            )
        victim.served, victim.state = None, "unloaded"
        victim.reason = f"evicted to make room for {newcomer.source.name}; a request loads it again"
        self.evictions += 1
        await served.retire(_DRAIN_S)

    async def _there(self, entry: Entry) -> Served:
        while entry.served is None:
            await asyncio.shield(self._return(entry))
            if entry.served is None and entry.state != "loading":
                raise still_loading(entry) if entry.wanted else not_ready(entry)
        return entry.served

    def _return(self, entry: Entry) -> asyncio.Task[None]:
        """Load again what was evicted; one task, however many wait for it."""
        if entry.returning is None or entry.returning.done():
            entry.returning = self._background(self._reload(entry))
        return entry.returning

    async def _reload(self, entry: Entry) -> None:
        with contextlib.suppress(AutoGLMError):  # the reason is the entry's
            async with self._loading:
                if entry.served is None and entry.wanted:  # it may be unloaded meanwhile
                    await self._load_into(entry, entry.source, True)

    async def _kept(self, work: Any) -> None:
        """Await `work`, which goes on where the caller does not."""
        await asyncio.shield(self._background(work))

    def _background(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _enough(candidates: list[Entry], over: int) -> list[Entry]:
    """As many as give `over` bytes, in order; none where all together do not."""
    chosen: list[Entry] = []
    for entry in candidates:
        if over <= 0:
            break
        chosen.append(entry)
        over -= entry.memory_bytes
    return chosen if over <= 0 else []


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.3g}"


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
