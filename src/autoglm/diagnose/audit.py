"""What in Python code works on CUDA only: found in its syntax tree, with what to write instead."""

from __future__ import annotations

import ast
import re
import tomllib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from autoglm.errors import FileMissingError, InputError
from autoglm.messages import language

RISKS = ("low", "medium", "high")
_DATA = Path(__file__).with_name("audit.toml")
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist"})
_LARGEST = 4 << 20


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of CUDA-only code."""

    kind: str
    portable: str  # what works on every device
    zh: str  # the same in Chinese
    risk: str  # low, medium, high: what stays to be tested after the change
    names: tuple[str, ...] = ()  # beginnings of dotted names
    methods: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    strings: tuple[str, ...] = ()  # regular expressions for whole constants
    instead: Mapping[str, str] = field(default_factory=dict)  # backend -> what to write there


@dataclass(frozen=True, slots=True)
class Finding:
    """One place in the code."""

    path: str
    line: int
    code: str
    kind: str
    risk: str
    portable: str
    instead: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Audit:
    """All places, and the files that could not be read as Python."""

    files: int
    findings: tuple[Finding, ...]
    unread: Mapping[str, str]  # path -> why

    @property
    def risk(self) -> str:
        """The highest risk found; "" where nothing was."""
        return max((f.risk for f in self.findings), key=RISKS.index, default="")

    def counts(self) -> dict[str, list[Finding]]:
        """Findings by kind, the riskiest and most frequent first."""
        groups: dict[str, list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault(finding.kind, []).append(finding)
        order = sorted(groups, key=lambda k: (-RISKS.index(groups[k][0].risk), -len(groups[k]), k))
        return {kind: groups[kind] for kind in order}

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "files": self.files,
            "risk": self.risk,
            "counts": {kind: len(found) for kind, found in self.counts().items()},
            "findings": [asdict(f) for f in self.findings],
            "unread": dict(self.unread),
            "targets": {name: dict(facts) for name, facts in targets().items()},
        }


@cache
def _data() -> Mapping[str, Any]:
    return tomllib.loads(_DATA.read_text("utf-8"))


def targets() -> Mapping[str, Mapping[str, str]]:
    """Backend -> its device name, its adapter's import, and where that is documented."""
    return _data()["targets"]  # type: ignore[no-any-return]


@cache
def rules() -> tuple[Rule, ...]:
    """Every kind, as the data file has it."""
    return tuple(_rule(entry) for entry in _data()["rule"])


def _rule(entry: dict[str, Any]) -> Rule:
    lists = ("names", "methods", "attributes", "strings")
    values: dict[str, Any] = {k: tuple(v) if k in lists else v for k, v in entry.items()}
    return Rule(**values)


def audit(path: str | Path) -> Audit:
    """Read every Python file at or below `path`; runs none of it."""
    root = Path(path)
    if not root.exists():
        raise FileMissingError("There is no {path}.", path=str(path))
    findings: list[Finding] = []
    unread: dict[str, str] = {}
    files = sorted(_files(root))
    for file in files:
        try:
            findings += audit_text(_text(file), str(file))
        except (InputError, OSError, SyntaxError, ValueError, RecursionError) as error:
            unread[str(file)] = " ".join(str(error).split())[:200]
    return Audit(len(files), tuple(findings), unread)


def _files(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
        return
    for file in root.rglob("*.py"):
        parts = file.relative_to(root).parts
        if file.is_file() and not any(p in _SKIPPED or p.startswith(".") for p in parts):
            yield file


def _text(path: Path) -> bytes:
    if (size := path.stat().st_size) > _LARGEST:
        raise InputError(
            "{path} has {size} bytes; at most {limit} are read.",
            path=path,
            size=size,
            limit=_LARGEST,
        )
    return path.read_bytes()


def audit_text(source: str | bytes, path: str = "<text>") -> list[Finding]:
    """What one file holds, in the order of its lines."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape in someone else's string
        tree = ast.parse(source)
    places = {(n.lineno, rule.kind): (n, rule, name) for n, rule, name in _Walk().found(tree)}
    chinese = language() == "zh"
    found = [
        Finding(
            path,
            node.lineno,
            ast.unparse(node).splitlines()[0][:100],
            rule.kind,
            rule.risk,
            rule.zh if chinese else rule.portable,
            _filled(rule, name),
        )
        for node, rule, name in places.values()
    ]
    return sorted(found, key=lambda f: (f.line, f.kind))


def _filled(rule: Rule, name: str) -> Mapping[str, str]:
    rest = name.removeprefix("torch.cuda") if name.startswith("torch.cuda.") else ""
    return {target: text.replace("{rest}", rest) for target, text in rule.instead.items()}


def _spelt(node: ast.AST) -> str:
    """A dotted name as it is written; "" for anything else."""
    if isinstance(node, ast.Attribute):
        owner = _spelt(node.value)
        return f"{owner}.{node.attr}" if owner else ""
    return node.id if isinstance(node, ast.Name) else ""


class _Walk:
    """Knows what each name was imported as, and gives every node that some rule matches."""

    def __init__(self) -> None:
        self.imported: dict[str, str] = {}

    def found(self, tree: ast.AST) -> Iterator[tuple[Any, Rule, str]]:
        for node in ast.walk(tree):
            self._remember(node)
        yield from self._visit(tree)

    def _remember(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            for name in node.names:
                first = name.name.partition(".")[0]
                self.imported[name.asname or first] = name.name if name.asname else first
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for name in node.names:
                self.imported[name.asname or name.name] = f"{node.module}.{name.name}"

    def _visit(self, node: ast.AST) -> Iterator[tuple[Any, Rule, str]]:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return  # a docstring says nothing to the machine
        name = self._dotted(node)
        yield from ((node, rule, name) for rule in self._match(node, name))
        if name:
            return  # the longest name was judged; its parts would be judged again
        for child in ast.iter_child_nodes(node):
            yield from self._visit(child)

    def _match(self, node: ast.AST, dotted: str) -> Sequence[Rule]:
        match node:
            case ast.Import():
                return [r for name in node.names for r in _named(name.name)]
            case ast.ImportFrom() if node.module and not node.level:
                return [r for name in node.names for r in _named(f"{node.module}.{name.name}")]
            case ast.Constant(value=str() as text):
                return _worded(text)
            case ast.Attribute() if dotted:
                return _named(dotted) or _called(node.attr)
            case ast.Attribute():
                return _called(node.attr)
        return ()

    def _dotted(self, node: ast.AST) -> str:
        """The full name behind `node`, through the imports; "" where it is no import."""
        spelt = _spelt(node) if isinstance(node, ast.Attribute) else ""
        first, dot, rest = spelt.partition(".")
        return f"{self.imported[first]}{dot}{rest}" if first in self.imported else ""


def _named(dotted: str) -> list[Rule]:
    """The rule with the longest beginning of this dotted name."""
    fitting = [
        (len(name), i)
        for i, rule in enumerate(rules())
        for name in rule.names
        if dotted == name or dotted.startswith(f"{name}.")
    ]
    return [rules()[max(fitting)[1]]] if fitting else []


def _called(attribute: str) -> list[Rule]:
    return [r for r in rules() if attribute in r.methods or attribute in r.attributes]


def _worded(text: str) -> list[Rule]:
    if len(text) > 4096:
        return []
    fitting = (r for r in rules() if any(re.fullmatch(p, text, re.DOTALL) for p in r.strings))
    return list(fitting)[:1]
