"""The rules of the house: data flows one way, short files, no assert, print or pickle, and a front door that is true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gatelens

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src" / "gatelens"

#: the corridor, in the order in which data flows; a module may import from its own room
#: and from those before it; rooms joined by = stand side by side
CORRIDOR = """
errors lazy sparse store shards statistics distributed estimate data models demo segments capture activations bases.linear
features jacobians bases.rotation bases.codes bases.active bases.training bases.pair_training bases connectors solvers
bases.saving=bases.pair=bases.gate_basis=bases.transcoder_basis=bases.copies=bases.merged
bases.segment_sae bases.transcoder bases.gate_start bases.normal_equations
bases.counterfactual bases.gate_units bases.gate_training bases.input_tuning bases.logit_tuning
bases.gate_first bases.jacobian_pair bases.relations edge_stability gates circuits evaluation rotation_questions
stability invariants planted views pipeline bench cli
""".split()

FILES = sorted(SRC.rglob("*.py"))


def _place(module: str) -> int:
    """Where in the corridor a module (`bases.linear`) stands: the longest room that it lies in."""
    rooms = {name: place for place, names in enumerate(CORRIDOR) for name in names.split("=")}
    fitting = [room for room in rooms if module == room or module.startswith(f"{room}.")]
    assert fitting, f"{module} is in no room of the corridor: give it its place in tests/test_house.py"
    return rooms[max(fitting, key=len)]


def _module(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path) -> list[str]:
    """The gatelens modules that a file imports, at its head or within functions."""
    package = path.relative_to(SRC).parts[:-1]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = package[: len(package) - node.level + 1]
        for alias in node.names:
            stem = [*base, *(node.module or "").split(".")]
            stem = [part for part in stem if part]
            whole = SRC.joinpath(*stem, alias.name)
            is_module = whole.with_suffix(".py").exists() or whole.is_dir()
            found.append(".".join([*stem, alias.name] if is_module else stem))
    return [name for name in found if name]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_corridor(path: Path):
    module = _module(path)
    if not module or module == "__main__":
        return
    for other in _imports(path):
        same_room = other.split(".")[0] == module.split(".")[0] and module.split(".")[0] != "bases"
        assert same_room or _place(other) <= _place(module), f"{module} imports from {other}, which lies behind it"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_file_is_short_and_clean(path: Path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 350, "one idea a file: at most 350 lines"
    for node in ast.walk(ast.parse(text)):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: raise, never assert, on what a user gave"
        name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        assert name != "print", f"line {node.lineno}: the library does not print"
    assert not re.search(r"^\s*(import|from) (pickle|dill|joblib)\b", text, re.M)
    assert not re.search(r"torch\.load\(", re.sub(r"torch\.load\(\w+, weights_only=True\)", "", text)), "no pickle"
    assert "utils" not in path.stem


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_public_things_have_docstrings(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "a module says what it is"
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            short = isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno < 12
            assert short or ast.get_docstring(node), f"{node.name} has no docstring"


def test_front_door_opens():
    for name in gatelens.__all__:
        assert getattr(gatelens, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Neuron'"):
        _ = gatelens.Neuron


def test_type_checkers_see_the_same_front_door():
    tree = ast.parse((SRC / "__init__.py").read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If))
    seen = {alias.asname for node in block.body for alias in node.names}
    assert seen == set(gatelens.__all__)


def test_readme_names_the_whole_front_door():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [name for name in gatelens.__all__ if f"`{name}`" not in readme]
    assert not missing, f"README's table lacks {missing}"


def test_help_imports_nothing_heavy():
    code = "import sys; from gatelens.cli.main import build_parser; build_parser().format_help(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformer_lens", "sae_lens", "pydantic", "numpy"} & set(modules)
