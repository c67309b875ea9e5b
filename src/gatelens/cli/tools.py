"""The verbs beside the walk: hook points, benchmarks, comparing two circuits, rotations."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from .walks import add_config


def add_verbs(verbs: Any) -> None:
    """A parser for each of the other verbs."""
    hooks = verbs.add_parser("hooks", help="list the model's hook points with shapes, and which are ends of an MLP")
    add_config(hooks)
    hooks.set_defaults(act=show_hooks)

    bench = verbs.add_parser("bench", help="measure a benchmark of the repository and write bench.json")
    bench.add_argument("name", metavar="NAME", nargs="?", help="which; without it, the names are listed")
    bench.add_argument("--out", metavar="DIR", help="where bench.json goes (default: runs/bench-NAME)")
    bench.add_argument("--seeds", metavar="N", type=int, nargs="+", help="seeds (default: the benchmark's own)")
    bench.add_argument(
        "--only", metavar="PART", nargs="+", help="only these of its parts, where it has any (models, say)"
    )
    bench.add_argument("--json", action="store_true", help="print bench.json, and nothing else, on standard output")
    bench.set_defaults(act=run_bench)

    compare = verbs.add_parser("compare", help="compare two circuits: wires kept, lost, new; gates that changed")
    compare.add_argument("left", metavar="RUN", help="a run folder")
    compare.add_argument("right", metavar="RUN", help="another")
    compare.add_argument("--out", metavar="FILE", default="compare.html", help="the page (default: compare.html)")
    compare.set_defaults(act=compare_runs)


def show_hooks(options: argparse.Namespace) -> int:
    from ..pipeline.config import read_config
    from ..pipeline.hooks import hook_table
    from ..pipeline.running import state_of

    config = read_config(options.config, options.changes, options.safe, only_model=True)
    sys.stdout.write(hook_table(state_of(config)) + "\n")
    return 0


def run_bench(options: argparse.Namespace) -> int:
    """Measure, showing each figure as it comes."""
    from .. import bench
    from ..store import check_target

    if options.name is None:
        sys.stdout.write("\n".join(bench.names()) + "\n")
        return 0
    out = Path(options.out or f"runs/bench-{options.name}")
    check_target(out / "bench.json")
    data = Path(os.environ["GATELENS_DATA"]) if os.environ.get("GATELENS_DATA") else None

    def tell(figure: Any) -> None:
        stream = sys.stderr if options.json else sys.stdout
        stream.write(bench.table([figure]) + "\n")
        stream.flush()

    result = bench.run(options.name, out, options.seeds, data, tell, options.only)
    if options.json:
        sys.stdout.write(json.dumps(result, indent=1) + "\n")
    else:
        sys.stdout.write(f"\n{out / 'bench.json'}\n")
    return 0


def compare_runs(options: argparse.Namespace) -> int:
    """Write the page on which the circuits of two runs stand side by side."""
    from .. import views
    from ..circuits import Circuit
    from ..pipeline.provenance import check_part
    from ..store import check_target

    check_target(options.out)
    for run in (options.left, options.right):
        check_part(Path(run), "circuit")
    left, right = (Circuit.load(Path(run) / "circuit") for run in (options.left, options.right))
    page = views.compare(left, right, names=(Path(options.left).name, Path(options.right).name))
    page.save(options.out)
    sys.stdout.write(f"{options.out}\n")
    return 0
