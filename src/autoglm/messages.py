"""Every text a user reads, in the user's language.

A text is written once, in English, as a template with named fields; the template itself is the
key into `locale/<lang>.json`. A template without a translation is shown in English, never as a key.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

LANGUAGES = ("en", "zh")
_LOCALE = Path(__file__).parent / "locale"
_language = "en"


def set_language(language: str) -> None:
    """Choose the language of all later texts; an unknown one means English."""
    global _language
    _language = language if language in LANGUAGES else "en"


def language() -> str:
    """The language in force."""
    return _language


@cache
def catalog(language: str) -> dict[str, str]:
    """English template -> translated template."""
    path = _LOCALE / f"{language}.json"
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}


def tr(template: str, /, **facts: object) -> str:
    """Fill `template`, translated where the language in force has it."""
    return fill(catalog(_language).get(template, template), facts)


def fill(template: str, facts: dict[str, object]) -> str:
    """`template.format(**facts)`, where a template without facts is literal text."""
    return template.format(**facts) if facts else template
