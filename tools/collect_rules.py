"""Write docs/results/rules.json from the parts of `gatelens bench rules` that are on the disk: `python tools/collect_rules.py`.

    python tools/collect_rules.py --seeds 11 --sizes 60000,26000 300 250 150 800000 24      # those of smaller sizes

A figure of a part that was measured takes the place of the one of the same name, which stays beside it where it was of another
seed or size; `parts` says of each when, at which commit and at what sizes it was measured, and which were not.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from gatelens import bench, store  # noqa: E402

FILE = ROOT / "docs" / "results" / "rules.json"


def main() -> None:
    """Bring docs/results/rules.json up to what is on the disk."""
    rules: Any = bench.load("rules")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(rules.SEEDS))
    parser.add_argument(
        "--sizes", nargs=6, metavar="N", help="rows,held-out outputs nulls rules samples few; default: the full sizes"
    )
    arguments = parser.parse_args()
    sizes = rules.Sizes()
    if arguments.sizes:
        rows, *rest = arguments.sizes
        sizes = rules.Sizes(tuple(int(n) for n in rows.split(",")), *map(int, rest))
    result = json.loads(FILE.read_text(encoding="utf-8"))
    measured = {name: found for name, found in rules.so_far(arguments.seeds, sizes).items() if found is not None}
    known = result.setdefault("parts", {})
    for name, (figures, about) in measured.items():
        part = {**about, "seeds": arguments.seeds, "sizes": asdict(sizes), "machine": bench.machine()}
        replaced(result["figures"], [asdict(f) | {"holds": f.holds} for f in figures], before(known.get(name), part))
        known[name] = part
    latest = max(known.values(), key=lambda part: part["date"], default={})
    result |= {name: latest[name] for name in ("date", "commit") if name in latest}
    result["not_measured_in_parts"] = [name for name in rules.PARTS if name not in known]
    store.replace_file(FILE, store.dump_json(result))
    sys.stdout.write(f"{len(measured)} parts measured: {', '.join(measured) or 'none'}\n")


def before(old: dict[str, Any] | None, new: dict[str, Any]) -> str:
    """What a part that was measured with another seed or at other sizes is called; "" for the same once more."""
    if old is None or (old["seeds"], old["sizes"]) == (new["seeds"], json.loads(json.dumps(new["sizes"]))):
        return ""
    return f"seed {', '.join(map(str, old['seeds']))}, {old['sizes']['rows'][0]:,} rows"


def replaced(figures: list[dict[str, Any]], new: list[dict[str, Any]], beside: str) -> None:
    """New figures in the places of those of their names, the others behind; `beside`: what the old value is kept as."""
    place = {figure["name"]: i for i, figure in enumerate(figures)}
    for figure in new:
        if figure["name"] in place:
            old = figures[place[figure["name"]]]
            if beside and old["value"] is not None:
                earlier = {k: v for k, v in (old["baselines"] or {}).items() if k.startswith("seed ")}
                figure["baselines"] = (figure["baselines"] or {}) | earlier | {beside: old["value"]}
            figures[place[figure["name"]]] = figure
        else:
            figures.append(figure)


if __name__ == "__main__":
    main()
