"""`python -m autoglm.cli` is the `autoglm` command."""

from autoglm.cli import main

main()
