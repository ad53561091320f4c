"""What a path of TensorFlow is, told from names and first bytes; TensorFlow itself is not needed.

SavedModel: a folder with saved_model.pb or .pbtxt. TFLite: a FlatBuffer whose file identifier,
bytes 4 to 7, is `TFL3` (tensorflow/lite/schema/schema.fbs). Keras: .keras is a zip archive, .h5 an
HDF5 file.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from autoglm.errors import FileMissingError, ModelError

_TFLITE = b"TFL3"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
_KERAS = {".keras": _ZIP, ".h5": _HDF5, ".hdf5": _HDF5}


@dataclass(frozen=True, slots=True)
class Source:
    """A TensorFlow model on disk, and the signature that is asked of it ("" = the usual one)."""

    kind: str  # saved_model | keras | tflite
    path: Path
    signature: str = ""


def recognise(source: str | os.PathLike[str]) -> Source | None:
    """What `source` is; None where it is nothing of TensorFlow's."""
    try:
        return _whole(Path(source)) or _with_signature(os.fspath(source))
    except (OSError, ValueError):  # a name that no file can have
        return None


def _with_signature(text: str) -> Source | None:
    folder, mark, signature = text.rpartition("#")
    found = _whole(Path(folder)) if mark else None
    if found is None or found.kind != "saved_model":
        return None
    return Source(found.kind, found.path, signature)


def _whole(path: Path) -> Source | None:
    if path.is_dir():
        names = ("saved_model.pb", "saved_model.pbtxt")
        known = any((path / name).is_file() for name in names)
        return Source("saved_model", path) if known else None
    suffix = path.suffix.lower()
    if suffix in _KERAS:
        return Source("keras", path)
    if suffix == ".tflite" or (path.is_file() and _head(path)[4:8] == _TFLITE):
        return Source("tflite", path)
    return None


def check(source: Source) -> None:
    """Refuse, before TensorFlow starts, what is missing, empty, cut off or something else."""
    path = source.path
    if not path.exists():
        raise FileMissingError("There is no {path}.", path=str(path))
    if source.kind == "saved_model":
        graph = path / "saved_model.pb"
        if graph.is_file() and not graph.stat().st_size:
            raise _damaged(graph, "it is empty")
    elif source.kind == "tflite":
        _check_tflite(path)
    elif not _head(path).startswith(_KERAS[path.suffix.lower()]):
        raise _damaged(path, "its first bytes are not those of such a file")


def _check_tflite(path: Path) -> None:
    head = _head(path)
    if len(head) < 8 or head[4:8] != _TFLITE:
        raise _damaged(path, "bytes 4 to 7 are not TFL3")
    (root,) = struct.unpack_from("<I", head)
    size = path.stat().st_size
    if not 4 <= root <= size - 4:
        raise _damaged(path, f"its root lies at byte {root} of {size}")


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(8)


def _damaged(path: Path, reason: str) -> ModelError:
    return ModelError(
        "{path} is damaged or no TensorFlow model: {reason}.",
        hint="Save or download it again.",
        path=str(path),
        reason=reason,
    )
