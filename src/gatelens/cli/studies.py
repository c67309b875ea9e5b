"""The verbs that study a config's model beside the walk: `rank` and `stability`."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ..errors.interrupt import keeping
from .walks import add_config, add_estimate, config_of, stated, walk_of


def add_verbs(verbs: Any) -> None:
    """A parser for each study."""
    rank = verbs.add_parser(
        "rank",
        help="what needs no coordinates: ranks, how few dimensions carry the metric, what static wires carry at most",
        description="What needs no coordinates: ranks, shared subspaces, active subspaces and their witness, each beside "
        "its null; and what static wires from the config's features can carry at most, with the wires that a wished R2 "
        "needs. Writes rank.json and rank.html into the run folder.",
    )
    rank.add_argument("--k", type=int, nargs="+", metavar="K", help="dimensions to keep (default: powers of two)")
    stability = verbs.add_parser(
        "stability",
        help="find bases, wires and gates again under changes, and say how much comes back",
        description="Other inputs, another seed, weight noise sized by the loss, fine-tuning, a retrained network, and "
        "random weights as the control. Writes stability.json and stability.html into the run folder.",
    )
    stability.add_argument(
        "--rises",
        type=float,
        nargs="+",
        metavar="SHARE",
        default=[0.001, 0.01],
        help="how far noise raises the loss (default: 0.001 0.01)",
    )
    stability.add_argument("--steps", type=int, default=100, help="of fine-tuning; 0 for none (default: 100)")
    for parser, act in ((rank, act_rank), (stability, act_stability)):
        add_config(parser)
        parser.add_argument("--out", metavar="DIR", help="the run folder (default: runs/NAME)")
        parser.add_argument("--json", action="store_true", help="print the report as JSON on standard output")
        add_estimate(parser)
        parser.set_defaults(act=act)


def act_rank(options: argparse.Namespace) -> int:
    from ..pipeline.estimating_studies import rank_estimate
    from ..pipeline.studies import rank_study

    walk = _walk(options)
    if stated(rank_estimate(walk), options):
        return 0
    with _stopping(walk):
        found = rank_study(walk, options.k)
    return _show(options, "\n\n".join(map(str, found)), [r.to_dict() for r in found], walk.out / "rank.html")


def act_stability(options: argparse.Namespace) -> int:
    from ..pipeline.estimating_studies import stability_estimate
    from ..pipeline.studies import plain, stability_study

    walk = _walk(options)
    if stated(stability_estimate(walk), options):
        return 0
    with _stopping(walk):
        found = stability_study(walk, options.rises, options.steps)
    return _show(options, str(found), plain(found.to_dict()), walk.out / "stability.html")


def _stopping(walk: Any) -> AbstractContextManager[None]:
    from ..pipeline.provenance import kept_in

    return keeping(lambda: f"the study itself is not kept; {kept_in(walk.out)}")


def _walk(options: argparse.Namespace) -> Any:
    from ..pipeline import preflight

    config = config_of(options)
    preflight(config)
    return walk_of(config, options.out)


def _show(options: argparse.Namespace, text: str, report: Any, page: Path) -> int:
    sys.stdout.write(f"{json.dumps(report, indent=1)}\n" if options.json else f"{text}\n\n{page}\n")
    return 0
