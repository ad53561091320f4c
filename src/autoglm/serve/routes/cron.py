"""Times of day as cron writes them: minute hour day month weekday, in local time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_LOOK_BACK = timedelta(hours=1)  # a clock that jumps further has not slept through what it passed


@dataclass(frozen=True, slots=True)
class Cron:
    """The minutes that an expression names. Sunday is 0."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool  # day and weekday are both restricted: as in cron, one of them is enough

    def matches(self, moment: datetime) -> bool:
        """Whether `moment` lies in one of them."""
        day = moment.day in self.days
        weekday = moment.isoweekday() % 7 in self.weekdays
        return (
            moment.minute in self.minutes
            and moment.hour in self.hours
            and moment.month in self.months
            and (day or weekday if self.either else day and weekday)
        )

    def due(self, after: datetime, until: datetime) -> bool:
        """Whether one of them began after `after`, up to `until`; of a longer time the last hour
        counts. A clock that went back makes nothing due.
        """
        moment = max(after, until - _LOOK_BACK).replace(second=0, microsecond=0)
        while (moment := moment + timedelta(minutes=1)) <= until:
            if self.matches(moment):
                return True
        return False


def parse_cron(text: str) -> Cron:
    """Five fields of `*`, numbers, names (jan, mon), ranges, steps and lists; or HH:MM for every
    day. ValueError says which field is wrong.
    """
    words = text.split()
    if len(words) == 1 and text.count(":") == 1:
        hour, _, minute = words[0].partition(":")
        words = [minute, hour, "*", "*", "*"]
    if len(words) != len(_FIELDS):
        raise ValueError("HH:MM, or five fields: minute hour day month weekday")
    sets = [_field(word, *field) for word, field in zip(words, _FIELDS, strict=True)]
    weekdays = frozenset(day % 7 for day in sets[4])
    either = not words[2].startswith("*") and not words[4].startswith("*")
    return Cron(sets[0], sets[1], sets[2], sets[3], weekdays, either)


def _field(word: str, name: str, low: int, high: int) -> frozenset[int]:
    found: set[int] = set()
    for part in word.lower().split(","):
        span, sign, step = part.partition("/")
        first, dash, last = span.partition("-")
        start = low if span == "*" else _number(first, name, low, high)
        end = high if span == "*" or (sign and not dash) else start
        end = _number(last, name, low, high) if dash else end
        stride = _number(step, name, 1, high) if sign else 1
        if end < start:
            raise ValueError(f"{name}: {span} ends before it begins")
        found.update(range(start, end + 1, stride))
    return frozenset(found)


def _number(text: str, name: str, low: int, high: int) -> int:
    words = {"weekday": _WEEKDAYS, "month": _MONTHS}.get(name, ())
    if text in words:
        return words.index(text) + (name == "month")
    if not (text.isascii() and text.isdigit() and len(text) < 3 and low <= int(text) <= high):
        raise ValueError(f"{name}: {low} to {high}, found {text[:20]!r}")
    return int(text)
