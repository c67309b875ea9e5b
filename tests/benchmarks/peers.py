"""What few named inputs cost, beside every other way to replace an MLP: one table a model, all of the same rows and activity.

Models, each by itself with `--only`: SmolLM2's layer 1 and layer 12 (`smollm2-1`, `smollm2-12`), the last layer of gpt2-mini
(`gpt2-mini`), a hidden map of a network of digits (`mnist`), layer 1 of a sentence encoder (`encoder`). Every form is fitted on the
same rows of the same code; what trains has its learning rate chosen once, at a tenth of the steps, on rows kept for that; BOS,
the first token and sinks keep the model's value in every form. A figure of one form is a row of the table: its FVU, and beside it
the other columns; what was not measured is null, and the note says why.

Rows are kept on the disk by a hash of their settings: a run that was stopped goes on with the next row.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import torch
from _peer_cases import CASES, Case, Sizes
from _peer_forms import Form
from _peer_measures import edits_of, explained, rules, seconds_a_row
from _peer_table import FORMS, VERSION, Declared, Study, digest

from gatelens.basis.features import encode_rows
from gatelens.bench import Figure
from gatelens.errors import BasisError, GateLensError
from gatelens.evaluation.static_wires import static_wires
from gatelens.store import dump_json, replace_file

SEEDS = (0,)
#: names for `--only`
PARTS = tuple(CASES)
FOLDER = Path(tempfile.gettempdir()) / "gatelens-bench-peers"
#: columns beside FVU, in the order of the table, and what is said where one is null
COLUMNS = (
    "metric",
    "gap closed",
    "KL",
    "L0",
    "inputs an output",
    "weights",
    "removals",
    "subsets",
    "restoring",
    "rules",
    "verified",
    "control",
    "seconds to fit",
    "seconds a token",
)
#: held-out activity may differ by so much
ALIKE = 0.05
CEILING = "exact MLP on the code"
DENSE, SHIPPED, STATIC = "transcoder", "transcoder, as shipped", "static wires at most"


def measure(seeds: Sequence[int], data: Path | None, only: Sequence[str] = ()) -> Iterator[Figure]:
    for name in only or PARTS:
        make, sizes = CASES[name]
        if data is None and name != "mnist":
            yield Figure(f"{name}: FVU of y", None, note="no texts: set GATELENS_DATA to a folder with text/ in it")
            continue
        try:
            case = Lazy(name, partial(make, sizes, data), sizes)
            yield from table(case, seeds)
        except GateLensError as error:
            yield Figure(f"{name}: FVU of y", None, note=f"not measured: {error}")


class Lazy:
    """A case that is made when the first row needs it: rows that are on the disk need no model."""

    def __init__(self, name: str, make: Any, sizes: Sizes):
        self.name, self._make, self.sizes, self._case = name, make, sizes, None

    def __call__(self) -> Case:
        if self._case is None:
            _say(f"{self.name}: rows")
            self._case = self._make()
        return self._case


def table(case: Lazy, seeds: Sequence[int], forms: Sequence[Declared] = FORMS) -> Iterator[Figure]:
    """Every form of a case, a row each; then what the table says of the bars."""
    found: dict[str, list[dict[str, Any]]] = {}
    bench = {seed: _Bench(case, seed) for seed in seeds}
    for form in (f for f in forms if case.name.startswith(f.cases)):
        try:
            rows = [bench[seed].row(form) for seed in seeds]
        except BasisError as error:
            nothing = dict.fromkeys(COLUMNS)
            yield Figure(f"{case.name}: {form.name}", None, None, "lower", nothing, f"not measured: {error}")
            continue
        found[form.name] = rows
        yield figure(case.name, form, rows)
    yield from prices(case.name, found)
    yield carried(case.name, bench[seeds[0]].static())


def place(case: str, sizes: Sizes, form: str, seed: int) -> Path:
    """Where a row is kept."""
    return FOLDER / case / f"row-{digest(VERSION, form, case, vars(sizes), seed)}.json"


def so_far(seeds: Sequence[int]) -> Iterator[tuple[str, Sizes, list[Figure], dict[str, Any]]]:
    """What is on the disk: model, its sizes, its figures, and what its rows say of data, sinks and learning rates.

    A row that was not run is a figure without a value, and says so.
    """
    for case, (_, sizes) in CASES.items():
        figures, found, about = [], {}, {}
        for form in (f for f in FORMS if case.startswith(f.cases)):
            files = [place(case, sizes, form.name, seed) for seed in seeds]
            rows = [json.loads(file.read_text("utf-8")) for file in files if file.is_file()]
            if not rows:
                figures.append(Figure(f"{case}: {form.name}", None, None, "lower", dict.fromkeys(COLUMNS), "not run"))
                continue
            found[form.name] = rows
            figures.append(figure(case, form, rows))
            about |= rows[0]["about"] | {"rates": about.get("rates", {}) | rows[0]["about"]["rates"]}
            about |= {"as it is, ablated": rows[0].get("bounds", about.get("as it is, ablated"))}
            about |= {"seeds of most rows": max(len(rows), about.get("seeds of most rows", 0))}
        figures += prices(case, found) if found else ()
        if (file := place(case, sizes, STATIC, seeds[0])).is_file():
            figures.append(carried(case, json.loads(file.read_text("utf-8"))))
        yield case, sizes, figures, about


class _Bench:
    """A case and a seed, with what all rows are measured by."""

    def __init__(self, case: Lazy, seed: int):
        self.case, self.seed, self.folder = case, seed, FOLDER / case.name
        self._study: Study | None = None
        self._edits: dict[int, Any] = {}
        self._codes: dict[str, torch.Tensor] = {}

    @property
    def study(self) -> Study:
        if self._study is None:
            self._study = Study(self.case(), self.seed, self.folder)
        return self._study

    def row(self, form: Declared) -> dict[str, Any]:
        """Measured, or as it was when these settings were measured before."""
        file = place(self.case.name, self.case.sizes, form.name, self.seed)
        if file.is_file():
            return json.loads(file.read_text("utf-8"))
        _say(f"{self.case.name}, seed {self.seed}: {form.name}")
        began = time.process_time()
        found = self._measured(form)
        _say(f"    FVU {found['fvu']}, removals {found.get('removals')}; {time.process_time() - began:.0f} CPU s")
        replace_file(file, dump_json(found))
        return found

    def static(self) -> dict[str, Any]:
        """What wires from the shared code's features can carry at most."""
        file = place(self.case.name, self.case.sizes, STATIC, self.seed)
        if not file.is_file():
            case = self.study.case
            found = static_wires(case.segment, case.basis_in, case.held.x, seed=self.seed)
            replace_file(file, dump_json({} if found is None else found.to_dict()))
        return json.loads(file.read_text("utf-8"))

    def _measured(self, declared: Declared) -> dict[str, Any]:
        study, case = self.study, self.study.case
        _ = study.codes
        aside, began = study.aside, time.process_time()
        with torch.enable_grad():
            form = declared.fit(study)
        took = time.process_time() - began - (study.aside - aside) if form.seconds is None else form.seconds
        basis_in, segment = form.basis_in or case.basis_in, form.segment or case.segment
        f = encode_rows(basis_in, case.held.x, sparse=False)
        y = case.held.y if form.segment is None else segment.outputs(case.held.x)
        found: dict[str, Any] = {"form": declared.name, "kind": declared.kind, "seed": self.seed, "why": {}}
        found |= explained(form, case.held.x, y, f)
        found |= {"inputs an output": form.inputs, "weights": form.weights}
        found |= {name: e.r2(form) for name, e in self._edits_for(form, basis_in, segment).items()}
        found |= self._in_place(form, basis_in)
        found |= self._rules(declared, form, basis_in, segment, f)
        found |= {"seconds to fit": took, "seconds a token": seconds_a_row(form, basis_in, case.held.x[:2_048])}
        found["note"] = "; ".join(part for part in (form.note, _uneven(declared, found["l0"], case.sizes.l0)) if part)
        found["about"] = {
            **case.about,
            "rows": [len(case.fit.x), len(case.held.x)],
            "rates": dict(study.rates),
            "left to the model": None if case.judge is None else case.judge.kept,
        }
        return found

    def _edits_for(self, form: Form, basis_in: Any, segment: Any) -> dict[str, Any]:
        """Of the shared code: made once. A form with a code or an MLP of its own has edits of its own, of the same rows."""
        case, shared = self.study.case, form.basis_in is None and form.segment is None
        if shared and 0 in self._edits:
            return self._edits[0]
        some = case.held.x[: case.sizes.causal]
        made = edits_of(segment, basis_in, self.study.sae_y, some, self.seed)
        if shared:
            self._edits[0] = made
        return made

    def _in_place(self, form: Form, basis_in: Any) -> dict[str, Any]:
        judge, why = self.study.case.judge, self.study.case.unjudged
        if form.segment is not None:
            judge, why = None, "the rest of the model belongs to the weights that were shuffled"
        if judge is None:
            return {"metric": None, "gap closed": None, "KL": None, "why": {"metric": why}}
        found = judge.of(form, basis_in)
        return {"metric": found["metric"], "gap closed": found["gap_closed"], "KL": found["kl"], "bounds": judge.bounds}

    def _rules(self, declared: Declared, form: Form, basis_in: Any, segment: Any, held: torch.Tensor) -> dict[str, Any]:
        case = self.study.case
        none = {"rules": None, "verified": None, "control": None}
        if declared.no_rules:
            return none | {"no rules": declared.no_rules}
        fit, judged = case.sizes.reading.rows
        x = {"fit": case.fit.x[:fit], "held": case.held.x[:judged]}
        codes = {"fit": encode_rows(basis_in, x["fit"], sparse=False), "held": held[:judged]}
        return rules(replace(form, basis_in=basis_in), segment, codes, x, case.sizes.reading, self.seed)


def _uneven(form: Declared, l0: float | None, wanted: float) -> str:
    if not form.trained or l0 is None or abs(l0 / wanted - 1) <= ALIKE:
        return ""
    return f"held-out L0 {l0:.1f}, {abs(l0 / wanted - 1):.0%} from the {wanted} of the others"


def figure(case: str, form: Declared, rows: Sequence[Mapping[str, Any]]) -> Figure:
    """A row of the table: medians over the seeds."""
    columns = {name: middle([row.get(_KEYS.get(name, name)) for row in rows]) for name in COLUMNS}
    values = [row["fvu"] for row in rows]
    if len(rows) > 1:
        columns["FVU, largest less smallest over seeds"] = max(values) - min(values)
    first = rows[0]
    why = [first.get("no rules", ""), *first.get("why", {}).values()]
    note = "; ".join(part for part in [first.get("note", ""), *why] if part)
    return Figure(f"{case}: {form.name}", middle(values), None, "lower", columns, note)


_KEYS = {"L0": "l0"}
#: forms whose outputs have few inputs each: gates and wires, but for those that a dense map of the code stands beside
_FEW = {form.name: form.kind in ("gates", "wires") for form in FORMS}


def middle(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return median(known) if known else None


def prices(case: str, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Figure]:
    """What the table says of the bars: readability's price, the gap closed, and how far few inputs carry."""

    def of(name: str, key: str) -> float | None:
        return middle([row.get(key) for row in found.get(name, ())])

    def few(most: int) -> list[str]:
        """Of at most so many inputs an output, and nothing dense beside them."""
        return [n for n, rows in found.items() if _FEW.get(n) and rows[0]["inputs an output"] <= most + 1e-9]

    def best(names: Sequence[str], key: str, least: bool) -> str | None:
        known = {n: v for n in names if (v := of(n, key)) is not None}
        return (min if least else max)(known, key=lambda n: known[n]) if known else None

    dense, size = of(DENSE, "fvu"), of(DENSE, "l0")
    alike = [n for n in few(8) if size and abs((of(n, "l0") or 0.0) / size - 1) <= ALIKE]
    name = best(alike, "fvu", True)
    ratio = of(name, "fvu") / dense if name and dense else None  # pyright: ignore[reportOptionalOperand]
    beside = {n: of(n, "fvu") / dense for n in alike if dense}
    if name and (longer := of(SHIPPED, "fvu")):
        beside["best over the transcoder as shipped, trained far longer with fewer on"] = of(name, "fvu") / longer
    yield Figure(
        f"{case}: price of readability, FVU of the best form with 8 inputs or fewer over the transcoder's",
        ratio,
        1.15,
        "lower",
        beside,
        f"best: {name}, L0 {_l0(of(name, 'l0') if name else None)}; the transcoder reads all of x, L0 {_l0(of(DENSE, 'l0'))}"
        + ("" if name else "; none at equal activity")
        + ". Forms fitted to natural rows foresee no removal, however small their FVU",
    )
    closing = best(few(16), "gap closed", False)
    yield Figure(
        f"{case}: gap closed with the MLP replaced, 16 inputs or fewer",
        None if closing is None else of(closing, "gap closed"),
        0.80,
        baselines={n: of(n, "gap closed") for n in found},
        note=f"best: {closing}; the exact MLP on the same code closes {_share(of(CEILING, 'gap closed'))}, which a fitted form may pass",
    )
    if case != PARTS[0]:
        return
    for key, bar, least, words in (("fvu", 0.34, True, "FVU of y"), ("removals", 0.60, False, "R2 of single removals")):
        name = best(few(16), key, least)
        yield Figure(
            f"{case}: {words}, 16 inputs or fewer, L0 at most 64",
            None if name is None else of(name, key),
            bar,
            "lower" if least else "higher",
            note=f"best: {name}",
        )


def _share(value: float | None) -> str:
    return "what was not measured" if value is None else f"{value:.2f}"


def _l0(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1f}"


def carried(case: str, found: Mapping[str, Any]) -> Figure:
    """The rank curve of the inputs' effects: removals with eight wires an input, other numbers and additions beside."""
    curves = {
        f"{name}, {r} wires": share
        for name in ("removals", "additions")
        for r, share in zip(found.get("wires", ()), found.get(name, ()), strict=False)
    }
    needed = {
        f"wires that an R2 of {share} in removals needs": n for share, n in found.get("removals_needed", {}).items()
    }
    value = curves.pop("removals, 8 wires", None)
    note = f"{found.get('inputs', 0)} inputs, {found.get('contexts', 0)} contexts each; of any form whose wires are the same in every row"
    return Figure(
        f"{case}: {STATIC}, share of removals that 8 wires an input carry", value, baselines=curves | needed, note=note
    )


def _say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()
