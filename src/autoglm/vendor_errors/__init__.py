"""What a vendor's error message means: log text in, explanations out; the knowledge is data.

One `[[error]]` of a `*.toml` file here:

    code     stable name of the explanation
    keys     literal texts, one of which every such message holds: found first, so that a long
             log costs linear time and a pattern only ever sees a few hundred characters
    match    regular expression; its named groups fill the texts, `node` names the model's node
    cause    what went wrong                    zh.cause   the same in Chinese
    next     what to do, with the command       zh.next    the same in Chinese
    source   owner/repo#number, or the document that the sample was read in
    sample   the message as it was printed there
    general  true: a catch-all, said only where nothing more exact of that vendor is found
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from autoglm.messages import fill, language

SYSTEM = "system"  # messages of the C library, the loader, Python and numpy: any vendor's log
_HERE = Path(__file__).parent
_BEFORE, _AFTER = 600, 1600  # characters around a key that a pattern sees
_OCCURRENCES = 64
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Entry:
    """One kind of message; `texts` maps language -> (cause, next)."""

    code: str
    vendor: str
    keys: tuple[str, ...]
    match: str
    texts: dict[str, tuple[str, str]]
    source: str
    sample: str
    general: bool = False


@dataclass(frozen=True, slots=True)
class Explanation:
    """One message found in a log, in the language in force."""

    code: str
    vendor: str
    cause: str
    next: str
    source: str
    nodes: tuple[str, ...]  # of the model, as the message names them; () where it names none
    line: int  # of the log, from 1
    text: str  # the message's first line

    @property
    def node(self) -> str:
        """The first node that the message blames, "" where it blames none."""
        return self.nodes[0] if self.nodes else ""


@cache
def entries() -> tuple[Entry, ...]:
    """Every known message, by vendor."""
    return tuple(e for path in sorted(_HERE.glob("*.toml")) for e in _read(path))


def explain(text: str, vendor: str = "") -> tuple[Explanation, ...]:
    """What is known of the messages in `text`, exact ones first, each kind once.

    `vendor` narrows it to one vendor's messages and the system's.
    """
    if "\x1b" in text:
        text = _ESCAPES.sub("", text)
    wanted = {vendor, SYSTEM} if vendor else {e.vendor for e in entries()}
    found = [
        (matches[0].start(), entry, matches)
        for entry in entries()
        if entry.vendor in wanted and (matches := list(_matches(entry, text)))
    ]
    exact = {entry.vendor for _, entry, _ in found if not entry.general}
    kept = [f for f in found if not f[1].general or not exact - ({SYSTEM} - {f[1].vendor})]
    kept.sort(key=lambda f: (f[1].general, f[0]))
    return tuple(_explanation(entry, matches, text) for _, entry, matches in kept)


def _matches(entry: Entry, text: str) -> Iterator[re.Match[str]]:
    for key in entry.keys:
        past = 0
        for _ in range(_OCCURRENCES):
            position = text.find(key, past)
            if position < 0:
                break
            start = max(past, position - _BEFORE)
            match = _compiled(entry.match).search(text, start, position + _AFTER)
            if match:
                yield match
            past = max(match.end() if match else 0, position + len(key))


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _explanation(entry: Entry, matches: list[re.Match[str]], text: str) -> Explanation:
    match = matches[0]
    facts: dict[str, object] = {k: (v or "?").strip() for k, v in match.groupdict().items()}
    cause, command = entry.texts.get(language(), entry.texts["en"])
    start = text.rfind("\n", 0, match.start()) + 1
    end = text.find("\n", match.start())
    nodes = (m.groupdict().get("node") for m in matches)
    return Explanation(
        code=entry.code,
        vendor=entry.vendor,
        cause=fill(cause, facts),
        next=fill(command, facts),
        source=entry.source,
        nodes=tuple(dict.fromkeys(n.strip() for n in nodes if n)),
        line=text.count("\n", 0, match.start()) + 1,
        text=text[max(start, match.start() - _SHOWN) : end if end >= 0 else None].strip()[:_SHOWN],
    )


def _read(path: Path) -> Iterator[Entry]:
    table = tomllib.loads(path.read_text("utf-8"))
    for row in table["error"]:
        yield Entry(
            code=row["code"],
            vendor=table["vendor"],
            keys=tuple(row["keys"]),
            match=row["match"],
            texts={
                "en": (row["cause"], row["next"]),
                "zh": (row["zh"]["cause"], row["zh"]["next"]),
            },
            source=row["source"],
            sample=row["sample"],
            general=row.get("general", False),
        )
