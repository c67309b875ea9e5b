"""The README: short, its code runs as it stands and prints what is shown, its links lead somewhere, its figures are those of the results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from support import warm

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.S)
OUTPUT = re.search(r"```text\n(.*?)```", README, re.S).group(1)
NUMBER = re.compile(r"-?(?:\d[\d,]*)?\.?\d+")
#: how far a printed number may be from what another machine prints: of its size, and in counts
APART, COUNTS = 0.05, 6


def test_it_has_fewer_than_900_words():
    assert len(README.split()) < 900


def test_it_shows_the_script_that_is_run():
    script = (ROOT / "examples" / "00_readme.py").read_text(encoding="utf-8").split('"""\n\n', 1)[1]
    assert PYTHON[0] == script
    assert script.count("\n") <= 11


def test_its_code_runs_and_prints_what_is_shown(tmp_path):
    """All blocks one after the other, as somebody would paste them."""
    marked = ["\nprint('--- rest')\n".join(PYTHON[:2]), *PYTHON[2:]]
    done = warm.run("-c", "\n".join(marked), folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "gates.html").stat().st_size > 100_000
    printed, shown = done.stdout.split("--- rest")[0].split(), OUTPUT.split()
    assert [NUMBER.sub("#", w) for w in printed[: len(shown)]] == [NUMBER.sub("#", w) for w in shown], done.stdout[
        :2000
    ]
    for came, said in zip(printed, shown, strict=False):
        for a, b in zip(map(_value, NUMBER.findall(came)), map(_value, NUMBER.findall(said)), strict=True):
            near = abs(a - b) <= max(APART * abs(b), COUNTS if b == int(b) and b > 9 else APART)
            assert near, f"README says {said}, {came} came: run examples/00_readme.py and show what it prints"


def _value(text: str) -> float:
    return float(text.replace(",", ""))


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?:)([^)#]+)\)|(?:src|srcset)=\"([^\"]+)\"", README))
def test_its_links_lead_somewhere(link):
    assert (ROOT / "".join(link)).exists()


def test_its_pictures_are_a_drawing_and_a_fallback():
    svg = (ROOT / "docs" / "pictures" / "gate.svg").read_text(encoding="utf-8")
    assert svg.startswith("<svg") or "<svg" in svg[:300]
    assert "http" not in re.sub(r"http://www\.w3\.org/\S+", "", svg), "nothing is fetched"
    assert (ROOT / "docs" / "pictures" / "gate.png").stat().st_size > 5_000


ROWS = [row.split("|")[1:-1] for row in README.splitlines() if row.startswith("|") and "docs/results/" in row]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip()[:40])
def test_its_figures_are_those_of_the_results(row):
    """Every number of a row stands in the file that the row names."""
    assert len(ROWS) == 5
    claim, figure, beside, source = row
    assert beside.strip(), "a figure has its null beside it"
    known = _numbers(json.loads((ROOT / re.search(r"\]\((.*?)\)", source)[1]).read_text(encoding="utf-8")))
    missing = [n for n in map(_value, NUMBER.findall(f"{figure} {beside}")) if not any(_same(n, k) for k in known)]
    assert not missing, f"{missing} of '{claim.strip()}' are not in {source}"


def _same(shown: float, kept: float) -> bool:
    """As many digits as are shown."""
    digits = len(f"{shown:g}".partition(".")[2])
    return abs(shown - kept) <= 0.5 * 10**-digits + 1e-12 if digits else shown == kept


def _numbers(value: object) -> set[float]:
    """All numbers of a result, those in its sentences too."""
    if isinstance(value, dict):
        return set().union(set(), *map(_numbers, value.values()))
    if isinstance(value, list):
        return set().union(set(), *map(_numbers, value))
    if isinstance(value, str):
        return {_value(n) for n in NUMBER.findall(value)}
    return {float(value)} if isinstance(value, (int, float)) else set()


def test_the_pictures_figures_are_those_of_its_file():
    caption = re.search(r"\*A verified gate.*?\*\n", README, re.S)[0]
    known = _numbers(json.loads((ROOT / "docs" / "results" / "picture.json").read_text(encoding="utf-8")))
    said = [_value(n) for n in NUMBER.findall(re.sub(r"\[.*?\]\(.*?\)|SmolLM2-135M, layer 1", "", caption))]
    assert said
    assert not [n for n in said if not any(_same(n, k) for k in known)]
