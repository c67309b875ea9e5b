"""Write docs/results/NAME.json from the parts of `gatelens bench NAME` that are on the disk: `python tools/collect_parts.py scaling speed`.

A part that was not run stands there without figures, and says so. `parts` says of each when and at which commit it was measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from gatelens import bench, store  # noqa: E402

NOT_RUN = "not run: the time of one sitting did not reach it"


def main() -> None:
    """One JSON for each benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=("scaling", "speed"))
    parser.add_argument("--seeds", type=int, nargs="+", help="default: the benchmark's own")
    arguments = parser.parse_args()
    for name in arguments.names:
        result = collected(bench.load(name), name, arguments.seeds)
        store.replace_file(ROOT / "docs" / "results" / f"{name}.json", store.dump_json(result))
        measured = sum(part["run"] for part in result["parts"].values())
        sys.stdout.write(json.dumps({"benchmark": name, "parts": len(result["parts"]), "measured": measured}) + "\n")


def collected(module: Any, name: str, seeds: list[int] | None = None) -> dict[str, Any]:
    """What `docs/results/NAME.json` holds."""
    seeds = list(seeds or module.SEEDS)
    figures, parts = [], {}
    for part, found in module.so_far(seeds).items():
        rows, about = found or ([replace(module.absent(part), note=NOT_RUN)], {})
        figures += [asdict(f) | {"holds": f.holds} for f in rows]
        parts[part] = {"run": found is not None, **about}
    latest = max((part for part in parts.values() if part["run"]), key=lambda part: part["date"], default={})
    return {
        "bench": name,
        "note": " ".join((module.__doc__ or "").rpartition("\n\nA part ")[0].split()),
        "date": latest.get("date", "not measured"),
        "commit": latest.get("commit", "unknown"),
        "seeds": seeds,
        "machine": bench.machine(),
        "parts": parts,
        "figures": figures,
    }


if __name__ == "__main__":
    main()
