"""`gatelens rotate CONFIG`: coordinates in which a config's segments have sparse Jacobians, beside their nulls."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..errors.interrupt import keeping
from .walks import add_config, add_estimate, config_of, stated, walk_of


def add_verbs(verbs: Any) -> None:
    """The parser of `rotate`."""
    rotate = verbs.add_parser("rotate", help="rotations in which the Jacobians of a config's segments are sparse")
    add_config(rotate)
    rotate.add_argument("--method", default="chain", help="chain (default), or another named method of fit_rotation")
    rotate.add_argument(
        "--direction",
        default="forward",
        choices=("forward", "backward", "both"),
        help="which hook points are rotated: outputs (default), inputs, or all of them by turns",
    )
    rotate.add_argument("--inputs", type=int, default=64, help="inputs whose Jacobians are made sparse (default: 64)")
    rotate.add_argument(
        "--out", metavar="DIR", help="the run folder (default: runs/NAME); rotations.json and .svg go there"
    )
    rotate.add_argument("--json", action="store_true", help="print the figures as JSON, and nothing else")
    add_estimate(rotate)
    rotate.set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    """Fit, print each hook point's table and verdict, write the figures and the pictures."""
    from .. import store
    from ..bases.rotation import JacobianRotation
    from ..bases.rotation.baselines import rotation_report
    from ..pipeline import run
    from ..pipeline.estimating_studies import rotation_estimate
    from ..pipeline.provenance import kept_in

    config = config_of(options)
    recipe = JacobianRotation(
        method=options.method,
        direction=options.direction,
        inputs=options.inputs,
        seed=config.seed,
        progress=sys.stderr.isatty(),
    )
    if stated(rotation_estimate(walk_of(config, options.out), recipe), options):
        return 0
    walk = run(config, options.out, until="collect", progress=sys.stderr.isatty())
    fit, held_out = walk.acts
    with keeping(lambda: f"the rotations are not kept; {kept_in(walk.out)}"):
        bases = recipe.fit(walk.segments, fit)
        report = rotation_report(walk.segments, bases, fit, held_out, recipe)
    store.replace_file(walk.out / "rotations.json", store.dump_json(report))
    pictures = _draw(walk, bases, recipe)
    if options.json:
        sys.stdout.write(json.dumps(report, indent=1) + "\n")
        return 0
    for hook, figures in report.items():
        sys.stdout.write(f"{table(hook, figures)}\n\n")
    sys.stdout.write("\n".join(map(str, [walk.out / "rotations.json", *pictures])) + "\n")
    return 0


def table(hook: str, figures: Any) -> str:
    """One hook point's rotation beside its nulls, on held-out inputs."""
    from ..jacobians.sparsity import reciprocal_in

    rows = figures["sparsity"]
    eps = list(reciprocal_in(next(iter(rows.values()))))
    head = f"{hook} ({figures['side']} of {figures['segment']}): {figures['verdict']}"
    names = f"  {'':<28}{'mean |y|':>10}{'Hoyer':>8}" + "".join(f"{'S(' + str(e) + ')':>10}" for e in eps)
    lines = [
        f"  {name:<28}{row['l1']:>10.3f}{row['hoyer']:>8.3f}" + "".join(f"{reciprocal_in(row)[e]:>10.3f}" for e in eps)
        for name, row in rows.items()
    ]
    return "\n".join([head, names, *lines])


def _draw(walk: Any, bases: Any, recipe: Any) -> list[Path]:
    """|Jacobian| before and after, fitted and held out, one SVG a segment."""
    from .. import store
    from ..bases.rotation import rotation_pictures
    from ..views.jacobians import jacobian_figure

    paths = []
    for number, picture in enumerate(rotation_pictures(walk.segments, bases, *walk.acts, recipe).values()):
        paths.append(walk.out / f"rotations-{number}.svg")
        store.replace_file(paths[-1], jacobian_figure(picture).encode())
    return paths
