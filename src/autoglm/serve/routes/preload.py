"""Load models before they are asked for: by the clock, and by what usually follows."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from datetime import datetime

from autoglm.errors import AutoGLMError
from autoglm.serve.core import Client
from autoglm.serve.routes.cron import parse_cron
from autoglm.serve.routes.table import Sequence, Table

CLIENTS, MODELS = 4096, 1024  # remembered; the longest unseen are forgotten
_TICK_S = 5.0
_HALVE_AT = 10_000  # so that what was usual long ago fades

Load = Callable[[str, str], Awaitable[object]]  # model, version ("" = what answers by default)


class Successors:
    """Which model usually follows which, of one client's requests: first-order counts."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, str] = OrderedDict()  # client -> its last model
        self._counts: OrderedDict[str, Counter[str]] = OrderedDict()

    def seen(self, client: str, model: str) -> str:
        """Note a request; the model that this client had asked for before, "" for its first."""
        before = self._last.pop(client, "")
        self._last[client] = model
        if len(self._last) > CLIENTS:
            self._last.popitem(last=False)
        if before and before != model:
            self._count(before, model)
        return before

    def after(self, model: str, rules: Sequence) -> str:
        """What usually follows `model`; "" where nothing does often enough."""
        counts = self._counts.get(model)
        if not counts:
            return ""
        (following, count), *_ = counts.most_common(1)
        often = count >= rules.min_count and count >= rules.min_share * counts.total()
        return following if often else ""

    def _count(self, before: str, model: str) -> None:
        counts = self._counts.setdefault(before, Counter())
        self._counts.move_to_end(before)
        counts[model] += 1
        if counts.total() > _HALVE_AT or len(counts) > MODELS:
            self._counts[before] = Counter({m: c // 2 for m, c in counts.items() if c > 1})
        if len(self._counts) > MODELS:
            self._counts.popitem(last=False)


class Preloader:
    """Asks for loads ahead of requests; `load` only keeps what is there already.

    `Pool(on_use=preloader.seen)`, `Routes(on_change=preloader.follow)`.
    """

    def __init__(self, load: Load, table: Table | None = None) -> None:
        self.asked = 0  # loads that were asked for ahead of a request
        self.right = 0  # of those by sequence: the client's next model was that one
        self.wrong = 0
        self.fault = ""
        self._load = load
        self._successors = Successors()
        self._expected: OrderedDict[str, str] = OrderedDict()  # client -> what should come next
        self._tasks: set[asyncio.Task[None]] = set()
        self.follow(table or Table())

    def follow(self, table: Table) -> None:
        """Go by this table from now on."""
        self._rules = table.sequence
        self._times = [(parse_cron(p.cron), p.model, p.version or "") for p in table.preload]

    def seen(self, client: Client, model: str) -> None:
        """A request came: note what it followed, and load what usually follows it."""
        if not self._rules.enabled:
            return
        key = f"{client.name}\0{client.credentials.client_id}"
        before = self._successors.seen(key, model)
        if before == model:
            return
        self._judge(key, model)
        if following := self._successors.after(model, self._rules):
            self._expected[key] = following
            if len(self._expected) > CLIENTS:
                self._expected.popitem(last=False)
            self._ask(following, "")

    async def run(self, *, now: Callable[[], datetime] = datetime.now) -> None:
        """Load by the clock until cancelled. The wall clock may jump: see `Cron.due`."""
        before = now()
        while True:
            await asyncio.sleep(_TICK_S)
            before = self.tick(before, now())

    def tick(self, before: datetime, until: datetime) -> datetime:
        """Ask for what became due between two looks at the clock; the second look."""
        for cron, model, version in self._times:
            if cron.due(before, until):
                self._ask(model, version)
        return until

    async def close(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _judge(self, key: str, model: str) -> None:
        expected = self._expected.pop(key, "")
        if expected:
            self.right += expected == model
            self.wrong += expected != model

    def _ask(self, model: str, version: str) -> None:
        self.asked += 1
        task = asyncio.create_task(self._try(model, version))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _try(self, model: str, version: str) -> None:
        try:
            await self._load(model, version)
        except AutoGLMError as error:  # nobody waits for it; it shows in the preloader's state
            self.fault = error.localized()
