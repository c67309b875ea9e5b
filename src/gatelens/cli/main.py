"""`gatelens VERB ...`: exit 0 done, 2 the user's mistake (one sentence says what to do), 1 ours."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from io import TextIOWrapper

from .. import __version__
from ..errors import GateLensError, GateLensWarning
from ..errors.interrupt import kept, noticed
from ..errors.system import refused
from . import completion, demo, prompt, rotate, studies, tools, walks
from .examples import EXAMPLES, FIRST


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is returned."""
    _write_anything()
    try:
        try:
            return _act(arguments)
        finally:  # here, where a reader that has gone is no fault: Python itself would say so on its way out
            sys.stdout.flush()
    except BrokenPipeError:
        _write_nowhere()
        return 0


def _act(arguments: Sequence[str] | None) -> int:
    parser = build_parser()
    options = parser.parse_args(arguments)
    if not hasattr(options, "act"):
        sys.stdout.write(FIRST)
        return 0
    # what our dependencies deprecate is no concern of someone who runs a command; what we warn of is
    warnings.simplefilter("ignore")
    warnings.simplefilter("always", GateLensWarning)
    warnings.showwarning = lambda message, *_, **__: tell(f"warning: {message}")
    with noticed() as pressed:
        try:
            return _done(options)
        except Exception:  # what a library made of Ctrl-C in the middle of its import
            if not pressed:
                raise
            tell(f"gatelens {options.verb}: stopped; finished rooms are kept")
            return 130


def _done(options: argparse.Namespace) -> int:
    try:
        return options.act(options) or 0
    except GateLensError as error:
        tell(f"gatelens {options.verb}: {error}")
        return 2
    except OSError as error:
        said = refused(error, f"gatelens {options.verb}")
        if said is None:
            raise
        tell(str(said))
        return 2
    except KeyboardInterrupt as stopped:
        tell(f"gatelens {options.verb}: stopped; {kept(stopped)}")
        return 130


def _write_anything() -> None:
    """A terminal that lacks a character gets its number (\\u2228) in the place of a traceback after all the work.

    Where there is none at all (`>&-`, a service) what is said goes nowhere.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # as long as the process lasts
    for stream in (sys.stdout, sys.stderr):
        # a locale of C or POSIX has "surrogateescape", which cannot write either
        if isinstance(stream, TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")


def _write_nowhere() -> None:
    """`gatelens ... | head -1`: nobody reads any more, and what is still to be written is lost in silence."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def build_parser() -> argparse.ArgumentParser:
    """All verbs; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(
        prog="gatelens",
        description="Read an MLP as logic: sparse wires between features, read as gates, checked against the model.",
        epilog="Exit codes: 0 done, 2 something to put right (the message says what), 1 a fault of gatelens.",
    )
    parser.add_argument("--version", action="version", version=f"gatelens {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    demo.add_verb(verbs)
    walks.add_verbs(verbs)
    tools.add_verbs(verbs)
    prompt.add_verbs(verbs)
    rotate.add_verbs(verbs)
    studies.add_verbs(verbs)
    completion.add_verbs(verbs)
    said = {verb.dest: verb.help or "" for verb in verbs._choices_actions}
    for verb, example in EXAMPLES.items():
        known = verbs.choices[verb]
        known.epilog = f"example: {example}"
        known.description = known.description or f"{said[verb][:1].upper()}{said[verb][1:]}."
    return parser


def tell(text: str) -> None:
    """A line on standard error: standard output is for results."""
    sys.stderr.write(text + "\n")
