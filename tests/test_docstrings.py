"""Every example in a docstring runs as it stands; every name of the front door has one, and says what it refuses.

The head of the package's own docstring makes what the others go on from: a planted network, its activations, its circuit.
"""

from __future__ import annotations

import ast
import doctest
import inspect
import re
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import gatelens as gl

SRC = Path(__file__).resolve().parents[1] / "src" / "gatelens"
#: the most lines of code in one example
MOST = 6
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PARSER = doctest.DocTestParser()


def _example(thing: Any, name: str, names: dict[str, Any]) -> doctest.DocTest:
    return PARSER.get_doctest(inspect.getdoc(thing) or "", dict(names), name, name, 0)


def _run(test: doctest.DocTest, keep: bool = False) -> dict[str, Any]:
    """Run the examples and fail with what came instead; their names, where these are kept."""
    told: list[str] = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*Sparse CSR tensor support.*")
        failed = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=told.append, clear_globs=not keep).failed
    assert not failed, "".join(told)
    return test.globs


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the package's own example leaves behind."""
    return _run(_example(gl, "gatelens", {}), keep=True)


@pytest.mark.parametrize("name", gl.__all__)
def test_the_example_of_a_front_door_name_runs(name: str, names: dict[str, Any]):
    test = _example(getattr(gl, name), name, names)
    lines = sum(example.source.count("\n") for example in test.examples)
    assert 0 < lines <= MOST, f"gatelens.{name}: expected an example of at most {MOST} lines, got {lines}"
    _run(test)


def _elsewhere() -> list[tuple[str, str]]:
    """(module, name) of every other function or class with an example."""
    found = []
    for path in sorted(SRC.rglob("*.py")):
        if (path.parent == SRC and path.stem == "__init__") or ">>> " not in path.read_text(encoding="utf-8"):
            continue
        name = ".".join(["gatelens", *path.relative_to(SRC).with_suffix("").parts]).removesuffix(".__init__")
        module = import_module(name)
        for key, thing in vars(module).items():
            mine = getattr(thing, "__module__", "") == name and callable(thing) and key not in gl.__all__
            if mine and ">>> " in (inspect.getdoc(thing) or ""):
                found.append((name, key))
    return found


@pytest.mark.parametrize(("module", "name"), _elsewhere())
def test_other_examples_run(module: str, name: str, names: dict[str, Any]):
    home = import_module(module)
    _run(_example(getattr(home, name), name, names | vars(home)))


@pytest.mark.parametrize("name", [n for n in gl.__all__ if inspect.isfunction(getattr(gl, n))])
def test_a_front_door_function_says_what_it_gives_and_what_it_refuses(name: str):
    said = inspect.getdoc(getattr(gl, name)) or ""
    assert "Returns:" in said
    assert "Raises:" in said


def _said(thing: Any) -> str:
    """The docstring, with those of our own classes that it derives from."""
    kinds = thing.__mro__ if inspect.isclass(thing) else (thing,)
    return "\n".join(k.__doc__ or "" for k in kinds if k.__module__.startswith("gatelens"))


@pytest.mark.parametrize("name", [n for n in gl.__all__ if not inspect.ismodule(getattr(gl, n))])
def test_every_setting_of_a_front_door_name_is_explained(name: str):
    """Each parameter of a function and each field of a value stands in its docstring, which says its unit or its shape there."""
    thing = getattr(gl, name)
    known = (
        vars(thing).get("__dataclass_fields__", {}) if inspect.isclass(thing) else inspect.signature(thing).parameters
    )
    known = [n for n in known if not n.startswith("_")]
    assert not [n for n in known if not re.search(rf"\b{n}\b", _said(thing))]


def _methods(kind: type) -> list[Any]:
    """Public methods and properties that a class of ours, or one of ours that it derives from, defines."""
    found = {n: v for k in reversed(kind.__mro__) if k.__module__.startswith("gatelens") for n, v in vars(k).items()}
    found = {n: getattr(v, "__func__", getattr(v, "fget", v)) for n, v in found.items() if not n.startswith("_")}
    return [v for v in found.values() if inspect.isfunction(v) and v.__module__.startswith("gatelens")]


@pytest.mark.parametrize("name", [n for n in gl.__all__ if inspect.isclass(getattr(gl, n))])
def test_what_a_front_door_class_can_do_is_said_and_what_it_refuses(name: str):
    kind = getattr(gl, name)
    for method in _methods(kind):
        source, said = inspect.getsource(method), inspect.getdoc(method) or ""
        if source.count("\n") > 3:  # a longer one says what it does
            assert said, f"{method.__qualname__} has no docstring"
        refuses = re.search(r"^\s+raise ", source, re.M)
        assert not refuses or "Raises:" in said + _said(kind), f"{method.__qualname__} does not say what it refuses"


#: a paper by the names of its authors
BY_NAME = re.compile(r"[A-Z][a-z]+(?: et al\.?)?,? \(?(?:1[89]|20)\d\d\)")
TITLE = re.compile(r'"[A-Z][^"]{11,}"')


def test_papers_are_cited_by_title():
    missing = []
    for path in sorted(SRC.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                said = ast.get_docstring(node) or ""
                if (found := BY_NAME.search(said)) and not TITLE.search(said):
                    missing.append(f"{path.relative_to(SRC)}: {found[0]}")
    assert not missing
