"""What a user types: parses, calls the API, renders. `main` is the `autoglm` command."""

from __future__ import annotations

from typing import NoReturn


def main() -> NoReturn:
    """The `autoglm` command."""
    import sys

    from autoglm.cli.app import invoke
    from autoglm.cli.output import protect_stdout

    protect_stdout()
    sys.exit(invoke(sys.argv[1:]))
