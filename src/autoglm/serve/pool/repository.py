"""Which bundles may be served under which names: `name=path` arguments and folders of bundles.

out/                    a bundle: the model `out`, version 1
models/NAME/            a folder of bundles
models/NAME/VERSION/    … with versions, and optionally models/NAME/model.toml
name=one,two            one model on two engines: each path is a bundle of it

A path that holds nothing to serve is an error at once; what is wrong inside one model is its own
fault: it is listed, and does not load.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autoglm.bundle.manifest import is_bundle
from autoglm.documents import read_document
from autoglm.errors import (
    AutoGLMError,
    ConfigError,
    FileMissingError,
    ForbiddenError,
    InvalidRequestError,
)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
VERSION = re.compile(r"[1-9][0-9]{0,17}")
MODEL_FILE = "model.toml"


class EngineOptions(BaseModel):
    """One engine of a model: which bundle, on which device, in this process or its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bundle: str = ""  # another bundle of the same model, seen from model.toml; "" = the version's
    device: str = ""
    threads: Annotated[int, Field(ge=0, le=4096)] = 0
    process: bool = False  # its crash then does not take the server


class _ModelFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    engines: tuple[EngineOptions, ...] = ()
    labels: dict[str, list[str]] = {}  # label -> versions
    aliases: dict[str, str] = {}  # alias -> version
    warmup: str = ""  # file of inputs to warm up with, seen from model.toml
    # Whether the first axis of every tensor is the batch; without it, the axes' names say so.
    batch: bool | None = None


_PLAIN = EngineOptions()


@dataclass(frozen=True, slots=True)
class EngineSource:
    """A bundle to open, and how."""

    folder: Path
    options: EngineOptions = _PLAIN


@dataclass(frozen=True, slots=True)
class Source:
    """One version of one model, and the engines that run it."""

    name: str
    version: str
    engines: tuple[EngineSource, ...]
    labels: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    warmup: str = ""  # file of inputs; "" = seeded random ones
    batch: bool | None = None
    fault: AutoGLMError | None = None  # why it cannot be loaded as it is


@dataclass(frozen=True, slots=True)
class Repository:
    """What was named at the start; a folder of bundles is read anew at every look."""

    given: tuple[tuple[str, str], ...]  # (name or "", path)
    process: bool = False  # every engine in a process of its own

    def sources(self) -> tuple[Source, ...]:
        """Every version there is now; ConfigError where two claim one name."""
        found: dict[tuple[str, str], Source] = {}
        for name, path in self.given:
            for source in _sources(name, path):
                key = (source.name, source.version)
                if key in found:
                    raise ConfigError(
                        "Version {version} of model {name} is given twice: {one} and {two}.",
                        hint="Name them apart: other=PATH.",
                        name=source.name,
                        version=source.version,
                        one=str(found[key].engines[0].folder),
                        two=str(source.engines[0].folder),
                    )
                found[key] = self._isolated(source)
        return tuple(found.values())

    def named(self, name: str) -> tuple[Source, ...]:
        """The versions of one model, oldest first."""
        require_name(name)
        return tuple(sorted((s for s in self.sources() if s.name == name), key=number))

    def choose(self, name: str, version: str, known: Iterable[Source]) -> Source:
        """Of the versions there are and those that are `known`: `version`, or the newest.
        FileMissingError where there is none.
        """
        sources = {s.version: s for s in (*known, *self.named(name))}
        if not sources:
            raise FileMissingError(
                "The model repository holds no model {model}.",
                hint="Put the bundle at MODEL/VERSION below a folder that the server was given.",
                model=name,
            )
        if not version:
            return max(sources.values(), key=number)
        if require_version(version) not in sources:
            raise FileMissingError(
                "The model repository holds no version {version} of model {model}.",
                hint="Put the bundle at MODEL/VERSION below a folder that the server was given.",
                model=name,
                version=version,
            )
        return sources[version]

    @property
    def folder(self) -> Path | None:
        """The first folder of bundles; None where only bundles were given."""
        paths = (Path(path) for _, path in self.given if "," not in path)
        return next((p for p in paths if not is_bundle(p)), None)

    def inside(self, name: str, path: str, version: str) -> Source:
        """The bundle at `path`, seen from a folder that was named at the start.

        A request may name a path: it must not lead anywhere else.
        """
        require_name(name)
        require_version(version)
        for _, root in self.given:
            base = Path(root.split(",")[0]).resolve()
            place = _resolved(base / path)
            if place is not None and place.is_relative_to(base) and is_bundle(place):
                return self._isolated(Source(name, version, (EngineSource(place),)))
        raise ForbiddenError(
            "{path!r} is not a bundle inside a folder that this server was started with.",
            hint="Put the bundle into one of its model folders, or start it with name=PATH.",
            path=path[:200],
        )

    def _isolated(self, source: Source) -> Source:
        if not self.process:
            return source
        engines = (
            replace(e, options=e.options.model_copy(update={"process": True}))
            for e in source.engines
        )
        return replace(source, engines=tuple(engines))


def repository(arguments: Sequence[str], *, process: bool = False) -> Repository:
    """`name=path` and `path` arguments as a repository; every path must be there."""
    given: list[tuple[str, str]] = []
    for text in arguments:
        name, sign, path = text.partition("=")
        name, path = (name, path) if sign else ("", text)
        if sign:
            require_name(name)
        for place in path.split(","):
            if not place or not Path(place).is_dir():
                raise FileMissingError(
                    "There is no folder {path}.",
                    hint="Give a bundle, a folder of bundles, or name=PATH.",
                    path=place or repr(text),
                )
        given.append((name, path))
    return Repository(tuple(given), process)


def number(source: Source) -> int:
    """The version as a number, for sorting."""
    return int(source.version)


def require_name(name: str) -> str:
    """`name`, where it can be a model's; it is part of URLs and topics, and never of a path."""
    if NAME.fullmatch(name):
        return name
    raise InvalidRequestError(
        "{name!r} is not a model name: letters, digits, '.', '_', '-', at most 128, the first a "
        "letter or digit.",
        name=name[:200],
    )


def require_version(version: str) -> str:
    """`version`, where it is a positive whole number."""
    if VERSION.fullmatch(version):
        return version
    raise InvalidRequestError(
        "{version!r} is not a version: a whole number from 1.", version=version[:200]
    )


def _resolved(path: Path) -> Path | None:
    """Where `path` leads, through every link; None where no file can be."""
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):  # a NUL, a name too long, a loop of links
        return None


def _sources(name: str, path: str) -> Iterator[Source]:
    places = [Path(p) for p in path.split(",")]
    if len(places) > 1 or is_bundle(places[0]):
        engines = tuple(EngineSource(_bundle(p)) for p in places)
        yield Source(name or _folder_name(places[0]), "1", engines)
    elif name:
        yield from _model(name, places[0])
    else:
        yield from _folder(places[0])


def _folder(folder: Path) -> Iterator[Source]:
    """A folder of bundles; what is not a bundle and holds none is passed over."""
    found = [s for p in sorted(folder.iterdir()) if p.is_dir() for s in _entry(p)]
    if not found:
        raise FileMissingError(
            "There is no bundle in {path}.",
            hint="`autoglm compile MODEL -o FOLDER` writes one.",
            path=str(folder),
        )
    yield from found


def _entry(place: Path) -> Iterator[Source]:
    if not NAME.fullmatch(place.name):
        return
    try:
        if is_bundle(place):
            yield Source(place.name, "1", (EngineSource(place),))
        elif any(is_bundle(p) for p in _versions(place)):
            yield from _model(place.name, place)
    except OSError as error:
        reason = ConfigError("{path}: {reason}", path=place, reason=error.strerror or error)
        yield Source(place.name, "1", (EngineSource(place),), fault=reason)


def _model(name: str, folder: Path) -> Iterator[Source]:
    found = [p for p in _versions(folder) if is_bundle(p)]
    if not found:
        raise FileMissingError(
            "There is no bundle in {path}.",
            hint="`autoglm compile MODEL -o FOLDER` writes one.",
            path=str(folder),
        )
    for place in found:
        try:
            yield _version(name, folder, place, _model_file(folder / MODEL_FILE))
        except AutoGLMError as fault:
            yield Source(name, place.name, (EngineSource(place),), fault=fault)


def _version(name: str, folder: Path, place: Path, said: _ModelFile) -> Source:
    return Source(
        name,
        place.name,
        tuple(_engine(folder, place, options) for options in said.engines or [_PLAIN]),
        tuple(label for label, versions in said.labels.items() if place.name in versions),
        tuple(alias for alias, version in said.aliases.items() if version == place.name),
        str(folder / said.warmup) if said.warmup else "",
        said.batch,
    )


def _engine(folder: Path, place: Path, options: EngineOptions) -> EngineSource:
    return EngineSource(_bundle(folder / options.bundle) if options.bundle else place, options)


def _versions(folder: Path) -> list[Path]:
    named = (p for p in folder.iterdir() if p.is_dir() and VERSION.fullmatch(p.name))
    return sorted(named, key=lambda p: int(p.name))


def _model_file(path: Path) -> _ModelFile:
    if not path.is_file():
        return _ModelFile()
    try:
        return _ModelFile.model_validate(read_document(path))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError("{path}: {reason}", path=path, reason=faults) from error


def _bundle(place: Path) -> Path:
    if is_bundle(place):
        return place
    raise FileMissingError(
        "{path} is not a bundle: it has no bundle.json.",
        hint="`autoglm compile MODEL -o FOLDER` writes one.",
        path=str(place),
    )


def _folder_name(place: Path) -> str:
    return require_name(place.resolve().name)
