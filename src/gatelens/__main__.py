"""`python -m gatelens` is the command."""

import sys

from .errors.interrupt import at_once


def start() -> int:
    """The command, which Ctrl-C stops without a traceback from its first import on."""
    with at_once("gatelens"):
        from .cli import main
    return main()


if __name__ == "__main__":
    sys.exit(start())
