"""The rules of the house: data flows one way, short files, no assert, print or pickle, and a front door that is true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
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
#: room -> its files: rules are checked room by room, and every file that breaks one is named
ROOMS = {room: [p for p in FILES if (_module(p).split(".")[0] or "front door") == room]
         for room in sorted({_module(p).split(".")[0] or "front door" for p in FILES})}  # fmt: skip


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _nearest(name: str) -> str:
    """The module that a dotted name is in or is; "" for the front door."""
    while name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def _imports(path: Path) -> set[str]:
    """The gatelens modules that a file imports: at its head, within functions, and by `import_module`."""
    package = path.relative_to(SRC).parts[:-1]
    found = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("gatelens")):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = [part for part in [*base, *(node.module or "").split(".")] if part and part != "gatelens"]
            found |= {_nearest(".".join([*stem, alias.name])) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {_nearest(a.name.partition(".")[2]) for a in node.names if a.name.split(".")[0] == "gatelens"}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("gatelens."):
            found.add(_nearest(node.value.partition(".")[2]))
    return found - {"", _module(path)}


@cache
def _all_imports() -> dict[str, set[str]]:
    """Module -> what it imports. A folder's `__init__` hands out names of its files: it is no room that they depend on."""
    return {_module(path): _imports(path) for path in FILES if path.name != "__init__.py"}


def test_the_corridor_names_every_room_once_and_no_other():
    rooms = {module.split(".")[0] for module in MODULES} - {"", "__main__"}
    assert len(CORRIDOR) == len(set(CORRIDOR)) <= 30
    assert rooms - set(CORRIDOR) == set(), "give the new room its place in tests/test_house.py"


def _place(module: str) -> int:
    return CORRIDOR.index(module.split(".")[0])


def test_corridor():
    pairs = [
        (module, other) for module, others in _all_imports().items() for other in sorted(others) if module != "__main__"
    ]
    behind = [f"{module} imports from {other}" for module, other in pairs if _place(other) > _place(module)]
    assert not behind, "these import from what lies behind them"


def test_no_circle_of_files():
    """In no folder and between no folders, whatever the imports look like."""
    left = {module: {_as_file(o) for o in others} - {module} for module, others in _all_imports().items()}
    while free := [module for module, others in left.items() if not others & set(left)]:
        for module in free:
            del left[module]
    assert not left, f"these import one another in a circle: {left}"


def _as_file(module: str) -> str:
    return module if module in _all_imports() else f"{module}.__init__"


#: rooms that ask a basis, a recipe, a solver or a model only what its protocol declares (`basis.linear`, `data.told` ask the rest)
NEVER_ASK = ("jacobians", "circuits", "evaluation", "pipeline", "views")
#: what a config names is looked up by its name; a notebook's kernel is not ours
MAY_ASK = {"pipeline.building", "pipeline.foreign", "views.live_prompt"}
#: the rooms whose classes nobody's class is compared with
OF_PROTOCOLS = ("basis", "bases", "solvers", "gate_dictionaries")


def _broken(room: str, rule: Callable[[Path], Iterator[str]]) -> list[str]:
    return [f"{path.relative_to(SRC)}: {fault}" for path in ROOMS[room] for fault in rule(path)]


@pytest.mark.parametrize("room", NEVER_ASK)
def test_nobody_asks_an_object_what_it_can_do(room: str):
    """No `hasattr`, no `getattr` of a name written out, no `isinstance` of a basis, a recipe or a solver."""
    assert not _broken(room, _asked), "declare it in the protocol, with a default"


def _asked(path: Path) -> Iterator[str]:
    if _module(path) in MAY_ASK:
        return
    named = {
        alias.asname or alias.name
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OF_PROTOCOLS
        for alias in node.names
    }
    for call in ast.walk(_tree(path)):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and len(call.args) > 1:
            what, written = call.func.id, isinstance(call.args[1], ast.Constant)
            theirs = named & {n.id for n in ast.walk(call.args[1]) if isinstance(n, ast.Name)}
            if (what in ("hasattr", "getattr") and written) or (what == "isinstance" and theirs):
                yield f"line {call.lineno}: {ast.unparse(call)}"


@pytest.mark.parametrize("room", ROOMS)
def test_files_are_short_and_clean(room: str):
    assert not _broken(room, _unclean)


def _unclean(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    if text.count("\n") > 350:
        yield "one idea a file: at most 350 lines"
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Assert):
            yield f"line {node.lineno}: raise, never assert, on what a user gave"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"line {node.lineno}: the library does not print"
    if re.search(r"^\s*(import|from) (pickle|dill|joblib)\b", text, re.M):
        yield "no pickle"
    if re.search(r"torch\.load\(", re.sub(r"torch\.load\(\w+, weights_only=True\)", "", text)):
        yield "no pickle: torch.load with weights_only=True"
    if "utils" in path.stem:
        yield "nothing is called utils"


@pytest.mark.parametrize("room", ROOMS)
def test_public_things_have_docstrings(room: str):
    assert not _broken(room, _undocumented)


def _undocumented(path: Path) -> Iterator[str]:
    tree = _tree(path)
    if not ast.get_docstring(tree):
        yield "a module says what it is"
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            short = isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno < 12
            if not short and not ast.get_docstring(node):
                yield f"{node.name} has no docstring"


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
