"""Open what the user named: a regular file with the bytes of an ONNX model, mapped, not read.

Everything that is commonly found under an .onnx name but is none is recognised by its first bytes
and refused by its own name, before protobuf sees it.
"""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path

from autoglm.errors import FileMissingError, ModelError

_MAX_BYTES = (1 << 31) - 1  # protobuf's own limit for one message
_AGAIN = "Download or export the model again."

_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs",
        "a git-LFS pointer, not the model itself",
        "Run `git lfs pull` in the folder it came from.",
    ),
    (
        b"PK\x03\x04",
        "a zip archive",
        "A PyTorch archive is read under its own name (.pt2, .pt); unpack others first.",
    ),
    (b"PK\x05\x06", "an empty zip archive", _AGAIN),
    (b"\x1f\x8b", "gzip-compressed", "Unpack it first (`gunzip`)."),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed", "Unpack it first (`unzstd`)."),
    (b"BZh", "bzip2-compressed", "Unpack it first (`bunzip2`)."),
    (b"\xfd7zXZ", "xz-compressed", "Unpack it first (`unxz`)."),
    (b"\x89HDF", "an HDF5 (Keras) file", "Export it to ONNX first."),
    (b"\x93NUMPY", "a NumPy array", "Arrays are inputs (`autoglm run --inputs`), not models."),
    (b"GGUF", "a GGUF language model", "Give an ONNX model."),
    (b"\x7fELF", "an executable or library", "Give an ONNX model."),
    (b"%PDF", "a PDF document", _AGAIN),
    (b"\x89PNG", "a picture", _AGAIN),
)


def open_model(path: Path) -> memoryview:
    """The bytes of the model file, mapped read-only; refuses what cannot be an ONNX model."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileMissingError(
            "Model file {path} does not exist.", hint="Check the path.", path=path
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:  # an embedded NUL
        raise ModelError("Model path {path} is no path.", path=repr(str(path))[:200]) from error
    if stat.S_ISDIR(status.st_mode):
        raise ModelError(
            "Expected an ONNX file, found a folder: {path}.",
            hint="Name the .onnx file inside it; a Hugging Face folder needs a config.json.",
            path=path,
        )
    if not stat.S_ISREG(status.st_mode):
        raise ModelError("Expected a regular file, found a device or pipe: {path}.", path=path)
    return map_file(path)


def map_file(path: Path) -> memoryview:
    """Map a regular file, after looking at its first bytes."""
    try:
        with path.open("rb") as stream:
            head = stream.read(1024)
            size = os.fstat(stream.fileno()).st_size
            refuse_foreign(head, size, str(path))
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise _unreadable(path, error) from error
    return memoryview(mapped)


def refuse_foreign(head: bytes, size: int, where: str) -> None:
    """ModelError where the first bytes show another kind of file, or the size is impossible."""
    if size == 0:
        raise ModelError("{where} is empty.", hint=_AGAIN, where=where)
    what, hint = _foreign(head, size)
    if what:
        raise ModelError(
            "Expected an ONNX model, found {what}: {where}.", hint=hint, what=what, where=where
        )
    if size > _MAX_BYTES:
        raise ModelError(
            "{where} has {size} bytes; one ONNX file holds at most {limit}.",
            hint="Save the weights as external data (onnx.save with save_as_external_data=True).",
            where=where,
            size=size,
            limit=_MAX_BYTES,
        )


def _foreign(head: bytes, size: int) -> tuple[str, str]:
    for magic, what, hint in _MAGIC:
        if head.startswith(magic):
            return what, hint
    if head[:1] == b"\x80" and head[1:2] in b"\x01\x02\x03\x04\x05":
        return "a Python pickle", "Pickles run code and are never opened; export to ONNX or .pt2."
    if head[4:8] in (b"TFL3", b"ORTM"):
        kind = "TensorFlow Lite" if head[4:8] == b"TFL3" else "ONNX Runtime's own (.ort)"
        return f"a {kind} model", "Give the ONNX model it was made from."
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return "a safetensors file", "Weights alone are no model: give the Hugging Face folder."
    return _text(head)


def _text(head: bytes) -> tuple[str, str]:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<body")):
        return "an HTML page", "The download went to a web page: fetch the raw file."
    if start.startswith(b"<"):
        return "an XML file", "Give the ONNX model; OpenVINO's .xml is an output of this program."
    if start.startswith((b"{", b"[")):
        return "a JSON text", "The download may hold an error message: look inside."
    if b"\x00" not in head and all(c >= 32 or c in b"\t\n\r\f" for c in head):
        return "a text file", "Look inside: it may be an error message or an unfetched pointer."
    return "", ""


def _unreadable(path: Path, error: OSError) -> ModelError:
    return ModelError(
        "Model file {path} cannot be read: {reason}.",
        hint="Check the path and its permissions.",
        path=str(path)[:500],
        reason=error.strerror or str(error),
    )
