"""`gatelens prompt RUN "text"`: what a finished run's circuit says of a prompt."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..errors.interrupt import at_once
from ..store import check_target
from .walks import add_safe


def add_verbs(verbs: Any) -> None:
    """The parser of the verb."""
    prompt = verbs.add_parser(
        "prompt", help="read a prompt: which gates fire on it, and what each does to the prediction"
    )
    prompt.add_argument("run", metavar="RUN", help="a run folder with a circuit")
    prompt.add_argument("text", metavar="TEXT", help="the prompt")
    prompt.add_argument("--out", metavar="FILE", help="write a page, on which tokens and gates can be clicked, too")
    prompt.add_argument("--json", action="store_true", help="print the whole reading as JSON, and nothing else")
    add_safe(prompt)
    prompt.set_defaults(act=show_prompt)


def show_prompt(options: argparse.Namespace) -> int:
    """Read the prompt and print it in at most twenty lines."""
    with at_once("gatelens prompt"):
        from ..pipeline.prompting import reading_of

    if options.out:
        check_target(options.out)  # before the model is loaded
    reading = reading_of(Path(options.run), options.text, options.safe)
    if options.out:
        from .. import views

        views.prompt_page(reading).save(options.out)
    text = json.dumps(reading.to_json(), indent=1) if options.json else repr(reading)
    sys.stdout.write(text + "\n")
    if options.out and not options.json:
        sys.stdout.write(f"{options.out}\n")
    return 0
