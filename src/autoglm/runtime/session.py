"""Walk a bundle's partitions: the one session users see, whatever it is made of."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter_ns

from autoglm import registry
from autoglm.errors import InputError
from autoglm.spec import Artifact, Closing, Feeds, Partition, RunOptions, Session, TensorInfo, Value

_RECENT = 2048


class PlanSession(Closing):
    """Runs partitions in order; with one partition, `run` is the engine's own `run` and costs
    nothing.
    """

    run: Callable[[Feeds], dict[str, Value]]

    def __init__(
        self,
        partitions: Sequence[Partition],
        sessions: Mapping[str, Session],
        inputs: tuple[TensorInfo, ...],
        outputs: tuple[TensorInfo, ...],
        *,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self.partitions = tuple(partitions)
        self.inputs = inputs
        self.outputs = outputs
        self._sessions = dict(sessions)
        self._on_close = on_close
        # (partition and backend, begin, end) of the last ones that ran, by perf_counter_ns; a
        # partition that is alone has no times of its own.
        self.recent: deque[tuple[str, int, int]] = deque(maxlen=_RECENT)
        self._dead = _last_uses(self.partitions, [o.name for o in outputs])
        self._input_names = frozenset(i.name for i in inputs)
        alone = self._sessions[self.partitions[0].id] if len(self.partitions) == 1 else None
        same = alone is not None and (
            [o.name for o in alone.outputs] == [o.name for o in outputs]
            and {i.name for i in alone.inputs} == self._input_names
        )
        self.run = alone.run if alone is not None and same else self._walk

    @property
    def engines(self) -> tuple[str, ...]:
        """The backend of each partition, in the order they run."""
        return tuple(p.backend for p in self.partitions)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What stands in for a chip (an emulation, a vendor's simulator), as its session says."""
        said = (remark_of(s) for s in self._sessions.values())
        return tuple(dict.fromkeys(filter(None, said)))

    def part(self, partition: str) -> Session:
        """The session of one partition, by its id."""
        return self._sessions[partition]

    def _walk(self, feeds: Feeds) -> dict[str, Value]:
        if unknown := [name for name in feeds if name not in self._input_names]:
            raise InputError(
                "No input {name!r}; the model takes {known}.",
                name=unknown[0],
                known=", ".join(i.name for i in self.inputs),
            )
        values: dict[str, Value] = dict(feeds)
        for partition, dead in zip(self.partitions, self._dead, strict=True):
            session = self._sessions[partition.id]
            part_feeds = {i.name: values[i.name] for i in session.inputs if i.name in values}
            begin = perf_counter_ns()
            values.update(session.run(part_feeds))
            self.recent.append((f"{partition.id} {partition.backend}", begin, perf_counter_ns()))
            for name in dead:
                values.pop(name, None)
        return {o.name: values[o.name] for o in self.outputs}

    def close(self) -> None:
        """Close every engine session; may be called twice."""
        for session in self._sessions.values():
            session.close()
        if self._on_close is not None:
            self._on_close()
            self._on_close = None


def remark_of(session: Session) -> str:
    """A session on something that is not the chip itself says so in its `remark`."""
    return str(getattr(session, "remark", ""))


def open_parts(
    partitions: Sequence[Partition],
    artifacts: Mapping[str, Artifact],
    folder: Path,
    inputs: tuple[TensorInfo, ...],
    outputs: tuple[TensorInfo, ...],
    options: RunOptions,
    *,
    primary: str = "",
    on_close: Callable[[], None] | None = None,
) -> PlanSession:
    """Open every partition's artifact below `folder/artifacts/<id>`; closes what it opened if one
    fails. The options' settings are the `primary` backend's own ("": everybody's).
    """
    if len({partition.backend for partition in partitions}) > 1:
        options = replace(options, alternates=True)
    sessions: dict[str, Session] = {}
    try:
        for partition in partitions:
            plug = registry.backend(partition.backend)
            place = folder / "artifacts" / partition.id
            own = options if primary in ("", partition.backend) else replace(options, settings={})
            sessions[partition.id] = plug.open(artifacts[partition.id], place, own)
    except BaseException:
        for session in sessions.values():
            session.close()
        raise
    return PlanSession(partitions, sessions, inputs, outputs, on_close=on_close)


def _last_uses(partitions: Sequence[Partition], keep: Sequence[str]) -> list[list[str]]:
    """For each step, the values that no later step and no output needs."""
    later: set[str] = set(keep)
    dead: list[list[str]] = []
    for partition in reversed(partitions):
        used = set(partition.inputs) | set(partition.outputs)
        dead.append(sorted(used - later))
        later |= set(partition.inputs)
    return dead[::-1]
