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

#: the corridor, in the order in which data flows: a room imports only from rooms before it
CORRIDOR = """
errors lazy codes store distributed data models segments activations basis jacobians bases
connectors solvers edits gate_dictionaries saving gates circuits evaluation ladder prompts invariants stability planted
views pipeline bench cli bound
""".split()

FILES = sorted(SRC.rglob("*.py"))


def _module(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module(path) for path in FILES}


def _nearest(name: str) -> str:
    """The module that a dotted name is in or is; "" for the front door."""
    while name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def _imports(path: Path) -> set[str]:
    """The gatelens modules that a file imports: at its head, within functions, and by `import_module`."""
    package = path.relative_to(SRC).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("gatelens")):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = [part for part in [*base, *(node.module or "").split(".")] if part and part != "gatelens"]
            found |= {_nearest(".".join([*stem, alias.name])) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {_nearest(a.name.partition(".")[2]) for a in node.names if a.name.split(".")[0] == "gatelens"}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("gatelens."):
            found.add(_nearest(node.value.partition(".")[2]))
    return found - {"", _module(path)}


#: module -> what it imports. A folder's `__init__` hands out names of its files: it is no room that they depend on
IMPORTS = {_module(path): _imports(path) for path in FILES if path.name != "__init__.py"}


def test_the_corridor_names_every_room_once_and_no_other():
    rooms = {module.split(".")[0] for module in MODULES} - {"", "__main__"}
    assert len(CORRIDOR) == len(set(CORRIDOR)) <= 30
    assert rooms - set(CORRIDOR) == set(), "give the new room its place in tests/test_house.py"


@pytest.mark.parametrize("module", sorted(IMPORTS))
def test_corridor(module: str):
    room = module.split(".")[0]
    if room == "__main__":
        return
    for other in sorted(IMPORTS[module]):
        behind = CORRIDOR.index(other.split(".")[0]) > CORRIDOR.index(room)
        assert not behind, f"{module} imports from {other}, which lies behind it"


def test_no_circle_of_files():
    """In no folder and between no folders, whatever the imports look like."""
    left = {module: {_as_file(o) for o in others} - {module} for module, others in IMPORTS.items()}
    while free := [module for module, others in left.items() if not others & set(left)]:
        for module in free:
            del left[module]
    assert not left, f"these import one another in a circle: {left}"


def _as_file(module: str) -> str:
    return module if module in IMPORTS else f"{module}.__init__"


#: rooms that ask a basis, a recipe, a solver or a model only what its protocol declares (`basis.linear`, `data.told` ask the rest)
NEVER_ASK = ("jacobians", "circuits", "evaluation", "pipeline", "views")
#: what a config names is looked up by its name; a notebook's kernel is not ours
MAY_ASK = {"pipeline.building", "pipeline.foreign", "views.live_prompt"}
#: the rooms whose classes nobody's class is compared with
OF_PROTOCOLS = ("basis", "bases", "solvers", "gate_dictionaries")


@pytest.mark.parametrize("module", [m for m in sorted(IMPORTS) if m.split(".")[0] in NEVER_ASK and m not in MAY_ASK])
def test_nobody_asks_an_object_what_it_can_do(module: str):
    """No `hasattr`, no `getattr` of a name written out, no `isinstance` of a basis, a recipe or a solver."""
    tree = ast.parse((SRC / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    named = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OF_PROTOCOLS
        for alias in node.names
    }
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or len(call.args) < 2:
            continue
        what, written = call.func.id, isinstance(call.args[1], ast.Constant)
        asks = (what in ("hasattr", "getattr") and written) or (
            what == "isinstance" and named & {n.id for n in ast.walk(call.args[1]) if isinstance(n, ast.Name)}
        )
        assert not asks, f"line {call.lineno}: {ast.unparse(call)}; declare it in the protocol, with a default"


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


def test_help_imports_nothing_heavy():
    code = "import sys; from gatelens.cli.main import build_parser; build_parser().format_help(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformer_lens", "sae_lens", "pydantic", "numpy"} & set(modules)
