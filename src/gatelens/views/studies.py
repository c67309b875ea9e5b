"""Pages of the studies: ranks and active subspaces of a model's segments, and what of a circuit survives changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ..stability.refits import NOTHING_VERIFIED
from .curves import matched_matrix_figure, share_figure, summary_figure
from .document import Html, document, figure, fragment
from .figures import table

_RANKS = [
    ("metric", None),
    ("energy-95 % rank", "energy95"),
    ("entropy rank", "entropy_rank"),
    ("participation", "participation"),
    ("exact rank", "exact"),
    ("active units (bound)", "active_units"),
]
_SHARES = ("features in", "features out", "wires", "gates", "verified gates")


def rank_page(reports: Sequence[Any], title: str) -> Html:
    """`invariants.RankReport`s as one self-contained page: ranks, the metric against dimensions kept, the witness."""
    sections = []
    for report in reports:
        found = report.to_dict()
        ranks = {"raw": found["raw"], "whitened": found["whitened"], "random weights, raw": found["random_weights"]}
        ranks = {name: {k: _whole(v) for k, v in row.items()} for name, row in ranks.items() if row}
        witness = {f"x → {found['witness']['r']} numbers → y": found["witness"]}
        sections.append(
            {
                "title": report.segment,
                "sentence": report.sentence,
                "tables": [
                    table("Ranks of the Jacobian, medians over inputs", "", _RANKS, ranks),
                    table("Held-out FVU through few numbers", "", _WITNESS, witness),
                    *([] if found["static_wires"] is None else [_static_table(found["static_wires"])]),
                ],
                "pictures": [(Markup(summary_figure(report.curve)), "random directions are the null")],
                "notes": [*report.notes, *report.curve.notes, *([str(report.shared)] if report.shared else [])],
            }
        )
    lead = (
        "Only exact rank is the same in all coordinates; every other figure names the metric it depends on, and stands "
        "beside a model whose weights were permuted."
    )
    return document(title, fragment("study.html.j2", title=title, lead=lead, sections=sections))


def _static_table(found: Mapping[str, Any]) -> dict[str, Any]:
    """The rank curve of each input's effect, and how many wires a wished R2 needs."""
    columns = [("wires an input", None), *((str(r), str(r)) for r in found["wires"])]
    columns += [(f"R2 {share} needs", share) for share in found["removals_needed"]]
    rows = {}
    for name in ("removals", "additions"):
        for words, key in ((name, name), (f"{name}, directions of other contexts", f"{name}_held_out")):
            if key in found:
                rows[words] = dict(zip(map(str, found["wires"]), found[key], strict=True))
        if name in found:
            rows[name] |= found[f"{name}_needed"]
    what = (
        f"share of what an edit changes in y that so many wires from each input can carry at most; {found['inputs']} inputs, "
        f"{found['contexts']} contexts each"
    )
    return table("What static wires can carry at most", what, columns, rows)


def _whole(value: Any) -> Any:
    """Medians of counts as counts."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_WITNESS = [
    ("computed as", None),
    ("trained", "fvu"),
    ("random encoder (null)", "random_encoder"),
    ("linear of that rank", "linear"),
    ("decoder on all of x", "unlimited"),
]


def stability_page(found: Any, title: str) -> Html:
    """A `stability.Stability` as one self-contained page: shares beside their chance, a table, and matched features."""
    sections = []
    for segment in dict.fromkeys(row.segment for row in found.rows):
        rows = [row for row in found.rows if row.segment == segment]
        sections.append(
            {
                "title": segment,
                "sentence": "",
                "tables": [_stability_table(rows)],
                "pictures": [
                    (Markup(share_figure(*_shares(rows))), "marks: found again; hollow: the level of chance"),
                    *((Markup(_matched(row)), f"output features, {row.change}") for row in rows if row.out is not None),
                ],
                "notes": [
                    *([] if any(row.verified.gates for row in rows) else [NOTHING_VERIFIED]),
                    *(f"{row.change}: {row.note}" for row in rows if row.note),
                ],
            }
        )
    lead = (
        "Features: mean |cosine| of features matched one to one (|correlation| where the model is another one). Wires: "
        "Jaccard index. Gates: same kind and at least half of the inputs, of those read at first; verified: of those that "
        "interventions confirmed. In parentheses: the same for random counterparts."
    )
    return document(title, fragment("study.html.j2", title=title, lead=lead, sections=sections))


def _figures(row: Any) -> list[tuple[float | None, float | None]]:
    """(figure, chance), in the order of `_SHARES`."""
    return [
        (row.matched_in, row.random_in),
        (row.matched_out, row.random_out),
        (row.wires, row.random_wires),
        (row.gates.whole, row.gates.random_whole),
        (row.verified.whole, row.verified.random_whole),
    ]


def _stability_table(rows: Sequence[Any]) -> dict[str, Any]:
    cells = [
        [
            row.change + (" (control)" if row.control else ""),
            *(f"{figure(value)} ({figure(chance)})" for value, chance in _figures(row)),
            figure(row.verified.gates),
        ]
        for row in rows
    ]
    return {"title": "", "what": "", "head": ["change", *_SHARES, "verified, count"], "rows": cells}


def _shares(rows: Sequence[Any]) -> tuple[list[str], dict[str, tuple[list[float | None], list[float | None]]]]:
    """Names of the changes, and name of the share -> (figures, chances) over them."""
    columns = zip(*(_figures(row) for row in rows), strict=True)
    series = {
        name: ([v for v, _ in column], [c for _, c in column]) for name, column in zip(_SHARES, columns, strict=True)
    }
    return [row.change for row in rows], series


def _matched(row: Any) -> str:
    out = row.out
    return matched_matrix_figure(out.matrix, out.first.tolist(), out.second.tolist(), title=row.change)
