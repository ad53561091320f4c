"""Values as plain arrays by key: text, 4-bit numbers, sequences, absent optionals.

A key is a tensor's name, then suffixes:

`x`             a dtype that NumPy has
`x@str`         text, as a unicode array
`x@bfloat16`    raw bits in unsigned integers of the same width; below 8 bits one element a byte, in
                its low bits (`x@int4`, `x@float8_e4m3fn`, …)
`x@seqlen`      a sequence: its length, with the elements at `x@0`, `x@1`, … (`x@0@bfloat16`)
`x@none`        an absent optional (the array is not looked at)

An `@` that belongs to the name is doubled: the tensor `a@b` is `a@@b`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from autoglm.errors import InputError
from autoglm.spec import Value
from autoglm.tensor.dtype import DTYPES, bits, from_numpy, is_native, to_numpy

TEXT, LENGTH, NONE = "str", "seqlen", "none"
RAW = tuple(name for name in DTYPES if name != "string" and not is_native(name))
_NO: Mapping[str, str] = {}
_DEPTH = 8  # sequences of sequences of …
_TOKEN = re.compile(r"@@|@|[^@]+")


def escape(name: str) -> str:
    """A tensor's name as a key."""
    return name.replace("@", "@@")


def split(key: str, names: Collection[str] = ()) -> tuple[str, tuple[str, ...]]:
    """A key's tensor name and suffixes; a key that is one of `names` is taken as it stands."""
    if key in names:
        return key, ()
    parts = [""]
    for token in _TOKEN.findall(key):
        if token == "@":
            parts.append("")
        else:
            parts[-1] += "@" if token == "@@" else token
    name, *suffixes = parts
    wrong = [s for s in suffixes if not (s in (TEXT, LENGTH, NONE, *RAW) or _is_index(s))]
    if wrong or len(suffixes) > 2 * _DEPTH:
        raise InputError(
            "Key {key!r}: {found!r} is not a suffix; known: {known}, or an index of a sequence.",
            hint="Double an @ that belongs to the tensor's name: a@b is written a@@b.",
            key=key[:200],
            found=wrong[0][:80] if wrong else "@" + "@".join(suffixes)[:80],
            known=", ".join((TEXT, LENGTH, NONE, *RAW)),
        )
    return name, tuple(suffixes)


def flatten(values: Mapping[str, Value]) -> Iterator[tuple[str, np.ndarray]]:
    """Every value as plain arrays by key."""
    for name, value in values.items():
        yield from _flatten(escape(name), value, 0)


def _flatten(key: str, value: Value, depth: int) -> Iterator[tuple[str, np.ndarray]]:
    if value is None:
        yield f"{key}@{NONE}", np.zeros(0, np.uint8)
    elif isinstance(value, list | tuple):
        if depth == _DEPTH:
            raise InputError("{key!r}: sequences nest deeper than {limit}.", key=key, limit=_DEPTH)
        yield f"{key}@{LENGTH}", np.array(len(value), np.int64)
        for index, item in enumerate(value):
            yield from _flatten(f"{key}@{index}", item, depth + 1)
    else:
        suffix, array = plain(np.asarray(value), key)
        yield key + suffix, array


def plain(array: np.ndarray, key: str) -> tuple[str, np.ndarray]:
    """The suffix and the plain array that stand for a tensor."""
    name = from_numpy(array.dtype)
    if name == "string":
        return f"@{TEXT}", _text_out(array, key)
    if is_native(name):
        return "", array
    return f"@{name}", array.view(np.uint16 if bits(name) == 16 else np.uint8)


def gather(arrays: Mapping[str, np.ndarray], dtypes: Mapping[str, str] = _NO) -> dict[str, Value]:
    """The values that `flatten` was given; InputError names the key that does not fit.

    `dtypes` are the model's, by input name: a key that is such a name is taken as it stands.
    """
    trees: dict[str, dict[str, Any]] = {}
    for key, array in arrays.items():
        name, suffixes = split(key, dtypes)
        branch = trees.setdefault(name, {})
        for suffix in suffixes:
            if not _is_index(suffix):
                break
            branch = branch.setdefault(suffix, {})
        last = [s for s in suffixes if not _is_index(s)]
        if len(last) > 1 or (last and suffixes[-1] != last[0]):
            raise InputError(
                "Key {key!r}: indices come first, then one of str, seqlen, none or a dtype.",
                key=key[:200],
            )
        branch.setdefault("", []).append((key, last[0] if last else "", array))
    return {name: _value(name, tree, dtypes.get(name, "")) for name, tree in trees.items()}


def _value(key: str, tree: Mapping[str, Any], dtype: str) -> Value:
    own: list[tuple[str, str, np.ndarray]] = tree.get("", [])
    indices = {name for name in tree if name}
    if len(own) > 1:
        keys = " and ".join(repr(k) for k, *_ in own)
        raise InputError("{keys} are given for one value.", keys=keys)
    if not own:
        raise InputError(
            "{found!r} is given without {expected!r}, the length of its sequence.",
            found=f"{key}@{min(indices)}",
            expected=f"{key}@{LENGTH}",
        )
    found, suffix, array = own[0]
    if suffix == LENGTH:
        _require_length(found, array, indices)
        return [_value(f"{key}@{i}", tree[str(i)], dtype) for i in range(len(indices))]
    if indices:
        raise InputError("{key!r} is a tensor and a sequence at once.", key=key)
    if suffix == NONE:
        return None
    return tensor(found, suffix, array, dtype)


def _require_length(key: str, array: np.ndarray, indices: set[str]) -> None:
    length = int(array) if array.size == 1 and array.dtype.kind in "iu" else -1
    if array.size != 1 or length != len(indices) or indices != {str(i) for i in range(length)}:
        raise InputError(
            "{key!r} must be the number of elements; found {value}, with elements {indices}.",
            key=key,
            value=length if length >= 0 else f"{array.dtype} {list(array.shape)}",
            indices=", ".join(sorted(indices)[:8]) or "none",
        )


def tensor(key: str, suffix: str, array: np.ndarray, dtype: str = "") -> np.ndarray:
    """A plain array as the tensor its suffix says; `dtype` is what the model wants, where known."""
    if not suffix and array.dtype.kind == "V" and dtype in RAW:
        suffix = dtype  # np.save writes an ml_dtypes array as void of the same width
    if suffix == TEXT or (not suffix and array.dtype.kind in "US"):
        return _text_in(key, array)
    if not suffix:
        from_numpy(array.dtype)
        return array
    unsigned = np.dtype(np.uint16 if bits(suffix) == 16 else np.uint8)
    if array.dtype != unsigned and array.dtype != np.dtype(f"V{unsigned.itemsize}"):
        raise InputError(
            "{key!r} must hold the raw bits as {expected}; found {found}.",
            hint="With ml_dtypes: array.view(numpy.{expected}).",
            key=key,
            expected=unsigned.name,
            found=array.dtype.name,
        )
    raw = array.view(unsigned)
    limit = (1 << bits(suffix)) - 1
    if array.size and int(raw.max()) > limit:
        raise InputError(
            "{key!r}: an element of {dtype} takes {bits} bits, so at most {limit}; found {found}.",
            key=key,
            dtype=suffix,
            bits=bits(suffix),
            limit=limit,
            found=int(raw.max()),
        )
    return raw.view(to_numpy(suffix))


def _text_out(array: np.ndarray, key: str) -> np.ndarray:
    items = [i.decode() if isinstance(i, bytes) else i for i in array.reshape(-1).tolist()]
    wrong = [item for item in items if not isinstance(item, str) or item.endswith("\0")]
    if wrong:
        raise InputError(
            "{key!r}: {found} cannot be kept as text.",
            hint="A text tensor holds str objects that do not end in a NUL character.",
            key=key,
            found=repr(wrong[0])[:80],
        )
    return np.array(items, dtype=np.str_).reshape(array.shape)


def _text_in(key: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "US":
        raise InputError(
            "{key!r} must be a unicode array; found {found}.", key=key, found=array.dtype.name
        )
    try:
        items = [i.decode() if isinstance(i, bytes) else i for i in array.reshape(-1).tolist()]
    except UnicodeDecodeError as error:
        raise InputError("{key!r} is not UTF-8 text.", key=key) from error
    result = np.empty(len(items), object)
    result[:] = items
    return result.reshape(array.shape)


def _is_index(suffix: str) -> bool:
    return suffix.isascii() and suffix.isdigit() and (suffix == "0" or suffix[0] != "0")
