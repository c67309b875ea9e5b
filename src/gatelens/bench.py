"""Benchmarks: figures with bars and baselines, measured in one run and written to `bench.json`.

The measurements themselves live in the repository under `tests/benchmarks/`, one file each with
`measure(seeds, data) -> Iterator[Figure]`; one with names of its parts in `PARTS` takes some of them as a third argument. The
command needs a checkout.
"""

from __future__ import annotations

import importlib.util
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from . import store
from .errors import ConfigError, unknown
from .errors.interrupt import keeping


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        name: what was measured, with its unit.
        value: the median over the seeds; None where it could not be measured (the note says why).
        bar: what it should reach; None for a figure that is printed without a bar.
        better: "higher" or "lower".
        baselines: name -> the same figure for a null or a rival.
        note: how it was measured, and what limits it.
    """

    name: str
    value: float | None
    bar: float | None = None
    better: Literal["higher", "lower"] = "higher"
    baselines: dict[str, float | None] = field(default_factory=dict)
    note: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the bar is met; None without a bar, False for a figure with a bar that was not measured."""
        if self.bar is None:
            return None
        if self.value is None:
            return False
        return self.value >= self.bar if self.better == "higher" else self.value <= self.bar


def benchmark_folder() -> Path:
    """`tests/benchmarks` of the checkout that we run from.

    Raises:
        ConfigError: outside a checkout.
    """
    for root in (Path.cwd(), Path(__file__).resolve().parents[2]):
        folder = root / "tests" / "benchmarks"
        if folder.is_dir():
            return folder
    raise ConfigError(
        "the benchmarks are part of the repository, not of the installed package: expected a folder tests/benchmarks here "
        "or beside the package. Clone the repository and run `gatelens bench` in it"
    )


def names() -> list[str]:
    return sorted(p.stem for p in benchmark_folder().glob("*.py") if not p.stem.startswith("_"))


def load(name: str) -> Any:
    """The benchmark's module."""
    if name not in names():
        raise ConfigError(unknown("benchmark", name, names()))
    folder = benchmark_folder()
    path = folder / f"{name}.py"
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))  # a benchmark imports what it shares with others from beside it
    spec = importlib.util.spec_from_file_location(f"gatelens_benchmark_{name}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def run(
    name: str,
    out: Path,
    seeds: Sequence[int] | None = None,
    data: Path | None = None,
    tell: Callable[[Figure], None] = lambda figure: None,
    only: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Measure, tell each figure as it comes, and write `bench.json` after each, so that a stopped run keeps what it has.

    The file says what the benchmark measures, when, at which commit and on what machine: under docs/results/ it is a part of that page.

    Args:
        only: some of the benchmark's parts.

    Raises:
        ConfigError: an unknown part, or parts of a benchmark that has none.
    """
    module = load(name)
    parts = _parts(module, name, only or ())
    seeds = tuple(seeds or module.SEEDS)
    began, at, figures = time.time(), commit(), []
    result: dict[str, Any] = {}
    with keeping(lambda: f"{len(figures)} figures are kept in {out / 'bench.json'}; the same command begins anew"):
        for figure in module.measure(seeds, data, *parts):
            figures.append(figure)
            tell(figure)
            result = {
                "bench": name,
                "note": " ".join((module.__doc__ or "").partition("\n\n")[0].split()),
                "date": time.strftime("%Y-%m-%d", time.gmtime(began)),
                "commit": at,
                "seeds": list(seeds),
                "machine": machine(),
                "seconds": round(time.time() - began, 1),
                "figures": [asdict(f) | {"holds": f.holds} for f in figures],
            }
            store.replace_file(out / "bench.json", store.dump_json(result))
    return result


def _parts(module: Any, name: str, only: Sequence[str]) -> list[Sequence[str]]:
    """What `measure` takes beside seeds and data: the chosen parts, checked; nothing where none are chosen."""
    known = list(vars(module).get("PARTS", ()))
    if only and not known:
        raise ConfigError(f"benchmark {name!r} has no parts to choose from: expected no --only, got {', '.join(only)}")
    for part in only:
        if part not in known:
            raise ConfigError(unknown("part of the benchmark", part, known))
    return [list(only)] if only else []


def commit() -> str:
    """The checkout's commit, as git says it in short; "unknown" where git does not answer."""
    try:
        said = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=benchmark_folder(), capture_output=True, text=True
        )
    except OSError:  # no git on this machine
        return "unknown"
    return said.stdout.strip() or "unknown"


def machine() -> dict[str, Any]:
    """What the figures were measured on, as far as it matters to them."""
    import os

    import torch

    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.cuda.is_available(),
    }


def table(figures: Iterable[Figure]) -> str:
    """The figures as text, one a line: value, bar, whether it holds, baselines."""

    def show(x: float | None) -> str:
        return "-" if x is None else f"{x:.4g}"

    lines = []
    for f in figures:
        bar = "" if f.bar is None else f"  ({'>=' if f.better == 'higher' else '<='} {show(f.bar)})"
        mark = {True: "  holds", False: "  MISSED", None: ""}[f.holds]
        beside = "".join(f"\n      {name}: {show(value)}" for name, value in f.baselines.items())
        note = f"\n      {f.note}" if f.note else ""
        lines.append(f"{f.name}: {show(f.value)}{bar}{mark}{beside}{note}")
    return "\n".join(lines)
