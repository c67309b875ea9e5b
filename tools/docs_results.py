"""The page of results: every JSON under docs/results/, as `gatelens bench` wrote it, with its date, commit, machine and seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import docs_peers

HEAD = """# Results

Every figure below is read from a JSON file in `docs/results/`, as `gatelens bench NAME` wrote it; nothing is typed in. All are held out: by
document for text, by image for pictures. Beside each figure stands what should do worse: nulls, rivals, ceilings. A figure whose
bar was missed stays here.
"""


def page(folder: Path) -> str:
    """Markdown of all files; what was measured by an earlier version comes last and says so."""
    found = [(path, json.loads(path.read_text("utf-8"))) for path in sorted(folder.glob("*.json"))]
    found.sort(key=lambda pair: "version" in pair[1])
    return "\n\n".join([HEAD, *(_section(path, result) for path, result in found)]) + "\n"


def _section(path: Path, result: dict[str, Any]) -> str:
    if "rows" in result:
        return _earlier(path, result)
    machine = result.get("machine", {})
    cores = f"{machine.get('cores', '?')} cores, {machine.get('threads', '?')} threads, {machine.get('processor', '?')}"
    about = [
        f"measured {result.get('date', 'without a date')} at commit `{result.get('commit', 'unknown')}`",
        f"seeds {', '.join(map(str, result.get('seeds', [])))}",
        f"{cores}, Python {machine.get('python', '?')}, torch {machine.get('torch', '?')}",
        f"{result['seconds']:,.0f} s" if "seconds" in result else "",
    ]
    forms, figures = docs_peers.parts(result["figures"]) if result["bench"] == "peers" else ({}, result["figures"])
    rows = ["| figure | value | bar | beside it |", "|---|---|---|---|"]
    for figure in figures:
        rows.append(
            f"| {_cell(_named(figure))} | **{shown(figure['value'])}** | {_bar(figure)} | {_cell(_beside(figure))} |"
        )
    title = result.get("title", f"gatelens bench {result['bench']}")
    intro = result.get("note", "")
    return "\n\n".join(
        part
        for part in (
            f"## {title}",
            f"*{'; '.join(filter(None, about))}; [JSON]({path.name})*",
            intro,
            "\n".join(rows) if figures else "",
            docs_peers.tables(forms, result.get("models", {})) if forms else "",
        )
        if part
    )


def _earlier(path: Path, result: dict[str, Any]) -> str:
    rows = ["| question | figure | beside it |", "|---|---|---|"]
    rows += [f"| {_cell(r['question'])} | **{_cell(r['figure'])}** | {_cell(r['beside'])} |" for r in result["rows"]]
    return f"## {result['title']}\n\n{result['note']} ([JSON]({path.name}))\n\n" + "\n".join(rows)


def _named(figure: dict[str, Any]) -> str:
    return figure["name"] + (f"<br><small>{figure['note']}</small>" if figure.get("note") else "")


def _bar(figure: dict[str, Any]) -> str:
    if figure.get("bar") is None:
        return ""
    sign = "≥" if figure["better"] == "higher" else "≤"
    return f"{sign} {shown(figure['bar'])} {'holds' if figure['holds'] else '**missed**'}"


def _beside(figure: dict[str, Any]) -> str:
    return "; ".join(f"{name} {shown(value)}" for name, value in figure.get("baselines", {}).items())


def shown(value: float | None) -> str:
    """A figure as the tables print it."""
    return "not measured" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
