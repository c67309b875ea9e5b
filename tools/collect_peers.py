"""Write docs/results/peers.json from the rows of `gatelens bench peers` that are on the disk, run or not: `python tools/collect_peers.py`.

Takes the seeds as arguments (0 without any). A row that was not run stands there without figures, and says so.
"""

from __future__ import annotations

import datetime
import json
import sys
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from gatelens import bench, store  # noqa: E402

TITLE = "What few named inputs cost, beside every other way to replace an MLP"


def main(seeds: list[int]) -> None:
    """One JSON of all models."""
    figures, models = [], {}
    for case, sizes, found, about in bench.load("peers").so_far(seeds):
        figures += [asdict(f) | {"holds": f.holds} for f in found]
        models[case] = {"run": bool(about), "sizes": asdict(sizes), **about}
    result = {
        "bench": "peers",
        "title": TITLE,
        "note": "One run, as far as its time reached: rows that say so were not run. A figure of one seed has no spread. Rows are "
        "kept from one run of the benchmark to the next: the commit is that at which they were put together.",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": bench.commit(),
        "seeds": seeds,
        "machine": bench.machine(),
        "models": models,
        "figures": figures,
    }
    store.replace_file(ROOT / "docs" / "results" / "peers.json", store.dump_json(result))
    run = sum(f["value"] is not None for f in figures)
    sys.stdout.write(json.dumps({"rows and bars": len(figures), "measured": run}) + "\n")


if __name__ == "__main__":
    main([int(seed) for seed in sys.argv[1:]] or [0])
