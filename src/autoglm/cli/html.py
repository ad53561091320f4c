"""Escaped HTML, and the few shapes that the report is made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from autoglm.cli.output import printable
from autoglm.messages import tr

_MOST_ROWS = 400


class Html(str):
    """Text that is HTML already; every other text is escaped."""

    __slots__ = ()


def text(value: object) -> str:
    """`value` escaped, for element content and for quoted attributes."""
    return value if isinstance(value, Html) else escape(printable(str(value)))


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    marks: Sequence[str] = (),
) -> str:
    """`columns` that end in > are figures; `marks` are ready attributes, one a row."""
    rows = list(rows)
    head = "".join(
        f'<th class="r">{text(c[:-1])}</th>' if c.endswith(">") else f"<th>{text(c)}</th>"
        for c in columns
    )
    body = "".join(
        f"<tr{marks[i] if i < len(marks) else ''}>{_cells(columns, row)}</tr>"
        for i, row in enumerate(rows[:_MOST_ROWS])
    )
    more = len(rows) - _MOST_ROWS
    rest = (
        f"<p>{text(tr('… and {count} more (--json has all)', count=more))}</p>" if more > 0 else ""
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        f"</div>{rest}"
    )


def _cells(columns: Sequence[str], row: Sequence[object]) -> str:
    return "".join(
        f'<td class="r">{text(v)}</td>' if c.endswith(">") else f"<td>{text(v)}</td>"
        for c, v in zip(columns, row, strict=True)
    )


def section(title: str, body: str, remark: str = "") -> str:
    """A titled box; nothing where there is no body."""
    small = f"<small>{text(remark)}</small>" if remark else ""
    return f"<section><h2>{text(title)}{small}</h2>{body}</section>" if body else ""


def code(value: object) -> Html:
    """A name from the model."""
    return Html(f"<code>{text(value)}</code>")


def bar(share: float, hue: int) -> Html:
    """A share from 0 to 1 in the colour of a backend."""
    return Html(f'<div class="bar h{hue}"><i style="width:{100 * share:.2f}%"></i></div>')
