"""The page's three files, and the headers that keep everything else out of it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_FILES = {"": "page.html", "page.js": "page.js", "page.css": "page.css"}
# Nothing from elsewhere, nothing inline: a model's name cannot become a script.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


@cache
def asset(name: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of GET /ui ("") and /ui/NAME; 404 for a name that is none of them.

    The files say nothing of this server, so that they need no key; what they show does.
    """
    file = _FILES.get(name)
    if file is None:
        return 404, {"content-type": "text/plain; charset=utf-8"}, b"not found\n"
    place = Path(__file__).parent / file
    kind = f"{_TYPES[place.suffix]}; charset=utf-8"
    return 200, {"content-type": kind, **HEADERS}, place.read_bytes()
