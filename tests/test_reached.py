"""Nothing in the package that nobody reaches: a walk over the names that code uses, from every door to every definition.

A door is the front door with its submodules, a verb of the command, a config, an example, a tool, code in the README and the docs, an
example in a docstring. From there on a definition is reached when code that is reached uses its name, in whatever way.

What this sees and what not: names are not resolved, so a definition that shares its name with something in use counts as reached, and
a branch that no input enters is not seen. What it flags is certainly unused by every door. What is for tests or for one
benchmark alone has its place in `tests/`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import gatelens

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src" / "gatelens"
WORD = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Definition:
    """A function, class or public method: its place, the class that it belongs to, and the names that its code uses."""

    place: str
    name: str
    owner: str
    uses: frozenset[str]


def used(*nodes: ast.AST) -> frozenset[str]:
    """Names, attributes, keywords and identifiers in strings."""
    found = set()
    for node in (inner for outer in nodes for inner in ast.walk(outer)):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.keyword) and node.arg:
            found.add(node.arg)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            found.add(node.value)
    return frozenset(found)


def definitions(path: Path) -> Iterator[Definition]:
    """Of one file; what starts with an underscore belongs to the class around it."""
    module = ".".join(path.relative_to(SRC).with_suffix("").parts)
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            yield Definition(f"{module}.{node.name}", node.name, "", used(node))
        if isinstance(node, ast.ClassDef):
            place = f"{module}.{node.name}"
            methods = [n for n in node.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
            rest = [n for n in node.body if n not in methods]
            yield Definition(place, node.name, "", used(*rest, *node.decorator_list, *node.bases, *node.keywords))
            yield from (Definition(f"{place}.{n.name}", n.name, place, used(n)) for n in methods)


def code_in(text: str) -> Iterator[str]:
    """Python in a text: fenced blocks, and lines of examples."""
    yield from re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)
    yield "\n".join(re.findall(r"^ *(?:>>>|\.\.\.) (.*)$", text, re.M))


def doors() -> set[str]:
    """The names that a user meets."""
    names = set(gatelens.__all__)
    for submodule in gatelens.SUBMODULES:
        names |= used(ast.parse((SRC / submodule / "__init__.py").read_text(encoding="utf-8")))
    for path in [*(ROOT / "examples").glob("*"), *(ROOT / "tools").glob("*.py"), *(ROOT / "configs").glob("*.yaml")]:
        names |= set(WORD.findall(path.read_text(encoding="utf-8"))) if path.is_file() else set()
    texts = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.ipynb"), *SRC.rglob("*.py")]
    for path in texts:
        text = path.read_text(encoding="utf-8")
        blocks = [text] if path.suffix == ".ipynb" else code_in(text)
        names |= {word for block in blocks for word in WORD.findall(block)}
    for path in (SRC / "cli").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names |= used(tree) | {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
    return names


def module_level() -> frozenset[str]:
    """What files use outside of any definition: tables of classes, defaults. Imports use nothing, nor do lists of names to import."""
    plain = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
    files = [path for path in SRC.rglob("*.py") if path.name != "__init__.py"]
    return used(*(n for p in files for n in ast.parse(p.read_text(encoding="utf-8")).body if not isinstance(n, plain)))


def unreached(known: set[str]) -> list[Definition]:
    """Definitions that no reached code names. Every method of a front-door class is a door; protocols are there to be read."""
    waiting = [d for path in SRC.rglob("*.py") for d in definitions(path)]
    reached: set[str] = set()
    while True:
        new = [
            d
            for d in waiting
            if (d.name in known or d.owner.rpartition(".")[2] in gatelens.__all__)
            and (not d.owner or d.owner in reached)
        ]
        if not new:
            return [d for d in waiting if "Protocol" not in d.uses and not d.name.startswith("__")]
        reached |= {d.place for d in new}
        known = known.union(*(d.uses for d in new))
        waiting = [d for d in waiting if d.place not in reached]


@pytest.fixture(scope="module")
def known() -> set[str]:
    return doors() | module_level()


def members_for_benchmarks() -> set[str]:
    """What benchmarks read off values that others reach too, such as a score's shares."""
    return {
        name for path in (ROOT / "tests" / "benchmarks").glob("*.py") for name in WORD.findall(path.read_text("utf-8"))
    }


def test_every_definition_is_reached_from_a_door(known: set[str]):
    read = members_for_benchmarks()
    left = [d.place for d in unreached(known) if not (d.owner and d.name in read)]
    assert not left, (
        f"no door leads to {', '.join(left)}: give them one (a config, an example, a verb), or move them to tests/"
    )


def test_the_walk_finds_what_nobody_reaches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: set[str]):
    """Else the test above could not fail: one function that nobody names, one that only it names, and one in use."""
    code = "def lost_one():\n    return lost_two()\n\n\ndef lost_two(): ...\n\n\ndef evaluate(): ...\n"
    (tmp_path / "a.py").write_text(code)
    monkeypatch.setattr("test_reached.SRC", tmp_path)
    assert {d.place for d in unreached(known)} == {"a.lost_one", "a.lost_two"}
