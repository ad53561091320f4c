"""PyTorch's zip archives looked at from outside: their kind, and whether they are safe.

Nothing is unpacked to disk and no pickle is opened here; torch only sees an archive that passed.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

from autoglm.errors import FileMissingError, LimitError, ModelError, ModelSecurityError
from autoglm.frontends import shown

_MAX_RATIO = 100  # torch stores its records uncompressed; only code text is ever deflated
_SLACK_BYTES = 16 << 20
_MAX_RECORDS = 200_000
_PICKLE_HINT = (
    "Pickles run code and are never opened. Save with torch.export.save (.pt2) or "
    "torch.jit.save, or export to ONNX."
)


@dataclass(frozen=True, slots=True)
class Archive:
    """A checked archive: `kind` is "pt2" or "torchscript"; `root` is its top folder, "m/"."""

    path: Path
    kind: str
    root: str
    names: tuple[str, ...]

    def read(self, name: str, limit: int = 256 << 20) -> bytes:
        """One record of at most `limit` bytes, by its name below the root."""
        with zipfile.ZipFile(self.path) as opened:
            info = opened.getinfo(self.root + name)
            if info.file_size > limit:
                raise LimitError(
                    "{path}: record {name} has {size} bytes; the limit is {limit}.",
                    path=self.path,
                    name=shown(name),
                    size=info.file_size,
                    limit=limit,
                )
            return opened.read(info)


def inspect(path: Path) -> Archive:
    """Check a PyTorch file and say what it is; refuses pickles, bombs and unsafe names."""
    head = _head(path)
    if not head:
        raise ModelError("{path} is empty.", hint="Save or download it again.", path=path)
    if not head.startswith(b"PK\x03\x04"):
        raise _not_an_archive(path, head)
    try:
        with zipfile.ZipFile(path) as opened:
            records = opened.infolist()
            _check_sizes(path, records)
            names = [_safe(path, r) for r in records]
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise ModelError(
            "{path} is a damaged archive: {reason}.",
            hint="The file is truncated: save or download it again.",
            path=path,
            reason=str(error)[:200],
        ) from error
    return _classify(path, names)


def _head(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise ModelError("Expected a PyTorch file, found a folder: {path}.", path=path)
        if path.exists() and not path.is_file():
            raise ModelError("Expected a regular file, found a device or pipe: {path}.", path=path)
        with path.open("rb") as stream:
            return stream.read(512)
    except FileNotFoundError as error:
        raise FileMissingError(
            "Model file {path} does not exist.", hint="Check the path.", path=path
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(
            "Model file {path} cannot be read: {reason}.", path=str(path)[:500], reason=str(error)
        ) from error


def _not_an_archive(path: Path, head: bytes) -> ModelError:
    if head[:1] == b"\x80":
        return ModelSecurityError(
            "{path} is a Python pickle (torch.save of an old kind), not a model archive.",
            hint=_PICKLE_HINT,
            path=path,
        )
    return ModelError(
        "Expected a .pt2 or TorchScript archive, found another kind of file: {path}.",
        hint="Save the model with torch.export.save or torch.jit.save; is it an error page?",
        path=path,
    )


def _check_sizes(path: Path, records: list[zipfile.ZipInfo]) -> None:
    size = path.stat().st_size
    if len(records) > _MAX_RECORDS:
        raise LimitError(
            "{path} holds {count} records; the limit is {limit}.",
            path=path,
            count=len(records),
            limit=_MAX_RECORDS,
        )
    unpacked = sum(r.file_size for r in records)
    if unpacked > _MAX_RATIO * size + _SLACK_BYTES or any(
        r.file_size > _MAX_RATIO * r.compress_size + _SLACK_BYTES for r in records
    ):
        raise LimitError(
            "{path} would unpack from {size} to {unpacked} bytes, like a zip bomb.",
            hint="PyTorch stores its records uncompressed; do not open this file.",
            path=path,
            size=size,
            unpacked=unpacked,
        )
    if sum(r.compress_size for r in records) > size:
        raise ModelSecurityError("{path} has records that overlap.", path=path)


def _safe(path: Path, record: zipfile.ZipInfo) -> str:
    name = record.filename
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0] or "\0" in name:
        raise ModelSecurityError(
            "{path} has the record {name}, which points outside the archive.",
            hint="Such a file is made to overwrite others; do not unpack it.",
            path=path,
            name=shown(name),
        )
    if record.flag_bits & 1:
        raise ModelError("{path} is encrypted.", path=path)
    return name


def _classify(path: Path, names: list[str]) -> Archive:
    if len(set(names)) != len(names):
        raise ModelSecurityError("{path} has two records of one name.", path=path)
    root = names[0].split("/")[0] + "/" if names else ""
    if any(not n.startswith(root) for n in names) or not root:
        raise ModelError(
            "{path} is a zip archive, but not one of PyTorch's.",
            hint="Expected what torch.export.save or torch.jit.save wrote.",
            path=path,
        )
    inner = tuple(n[len(root) :] for n in names)
    if "archive_format" in inner and any(n.startswith("models/") for n in inner):
        return Archive(path, "pt2", root, inner)
    if "serialized_exported_program.json" in inner or "serialized_exported_program.json" in names:
        raise ModelError(
            "{path} is a .pt2 of an old PyTorch, whose weights are pickles.",
            hint="Save it again with torch.export.save of PyTorch 2.9 or newer.",
            path=path,
        )
    if "constants.pkl" in inner and any(n.startswith("code/") for n in inner):
        return Archive(path, "torchscript", root, inner)
    if "data.pkl" in inner:
        raise ModelSecurityError(
            "{path} is a pickle (torch.save), not a model archive.", hint=_PICKLE_HINT, path=path
        )
    raise ModelError(
        "{path} is a zip archive, but neither a .pt2 nor TorchScript.",
        hint="Expected what torch.export.save or torch.jit.save wrote.",
        path=path,
    )
