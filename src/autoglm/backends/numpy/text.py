"""Strings: normalise, split, join, match, count."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from autoglm.backends.numpy.op import Array, Op, Table
from autoglm.rewrite.program import Call


def _texts(values: list[Any], shape: tuple[int, ...]) -> Array:
    result = np.empty(len(values), object)
    result[:] = values
    return result.reshape(shape)


_CASES: dict[str, Callable[[str], str]] = {"LOWER": str.lower, "UPPER": str.upper, "NONE": str}


def normalize(call: Call, x: Array) -> Array:
    """Drop stop words, change case; at least one (empty) string remains."""
    stop = set(call["stopwords"] or ())
    if not call["is_case_sensitive"]:
        stop = {word.lower() for word in stop}
    folded = str if call["is_case_sensitive"] else str.lower
    change = _CASES[call["case_change_action"]]
    kept = [change(t) for t in x.reshape(-1) if folded(t) not in stop] or [""]
    return _texts(kept, (1, len(kept)) if x.ndim == 2 else (len(kept),))


def split(call: Call, x: Array) -> tuple[Array, Array]:
    """Pieces, padded with empty strings, and how many there are."""
    limit = -1 if call["maxsplit"] is None else call["maxsplit"]
    pieces = [t.split(call["delimiter"] or None, limit) for t in x.reshape(-1)]
    width = max((len(p) for p in pieces), default=0)
    flat = [t for p in pieces for t in [*p, *[""] * (width - len(p))]]
    counts = np.array([len(p) for p in pieces], np.int64).reshape(x.shape)
    return _texts(flat, (*x.shape, width)), counts


def concat(call: Call, x: Array, y: Array) -> Array:
    """Element by element, with broadcasting."""
    x, y = np.broadcast_arrays(x, y)
    joined = [a + b for a, b in zip(x.reshape(-1), y.reshape(-1), strict=True)]
    return _texts(joined, x.shape)


def full_match(call: Call, x: Array) -> Array:
    """Whether the whole string matches."""
    pattern = re.compile(call["pattern"])
    found = [pattern.fullmatch(t) is not None for t in x.reshape(-1)]
    return np.array(found, np.bool_).reshape(x.shape)


def check_pattern(call: Call) -> str:
    """Patterns are RE2's; Python's `re` differs on some, and can take exponential time."""
    pattern = call.attributes.get("pattern") or ""
    try:
        re.compile(pattern)
    except re.error as error:
        return f"pattern {pattern!r} is not one that Python's re takes: {error}"
    if re.search(r"\(\?[=!<]|\\[1-9pPQCzA]|\(\?P=|\[\[:|[+*}]\)[+*{]", pattern):
        return f"pattern {pattern!r} may mean another thing in RE2, or take exponential time"
    return ""


def _grams(call: Call) -> dict[tuple[Any, ...], list[int]]:
    """n-gram -> its numbers in the pool."""
    pool = call["pool_strings"] or call["pool_int64s"]
    starts = [*call["ngram_counts"], len(pool)]
    found: dict[tuple[Any, ...], list[int]] = {}
    number = 0
    for size, (begin, end) in enumerate(pairwise(starts), 1):
        for place in range(begin, end, size):
            found.setdefault(tuple(pool[place : place + size]), []).append(number)
            number += 1
    return found


def _counts(call: Call, row: list[Any], grams: dict[tuple[Any, ...], list[int]]) -> Array:
    counts = np.zeros(len(call["ngram_indexes"]), np.float32)
    for size in range(call["min_gram_length"], call["max_gram_length"] + 1):
        # Skips make no difference to single items; they are counted once.
        skips = range(call["max_skip_count"] + 1) if size > 1 else range(1)
        for step in (skip + 1 for skip in skips):
            for start in range(len(row) - (size - 1) * step):
                gram = tuple(row[start : start + (size - 1) * step + 1 : step])
                for number in grams.get(gram, ()):
                    counts[number] += 1
    return counts


def tf_idf(call: Call, x: Array) -> Array:
    """Counts of known n-grams, weighted by the mode."""
    grams = _grams(call)
    places = np.asarray(call["ngram_indexes"], np.int64)
    weights = np.asarray(call["weights"] or np.ones(len(places)), np.float32)
    rows = x.reshape(1, -1) if x.ndim == 1 else x
    result = np.zeros((len(rows), int(places.max()) + 1), np.float32)
    for out, row in zip(result, rows.tolist(), strict=True):
        counts = _counts(call, row, grams)
        if call["mode"] == "IDF":
            counts = np.minimum(counts, 1)
        out[places] = counts if call["mode"] == "TF" else counts * weights
    return result[0] if x.ndim == 1 else result


TABLE: Table = {
    "StringNormalizer": Op(normalize),
    "StringSplit": Op(split),
    "StringConcat": Op(concat),
    "RegexFullMatch": Op(full_match, check_pattern),
    "TfIdfVectorizer": Op(tf_idf),
}
