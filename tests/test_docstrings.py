"""Every example in a docstring runs as it stands; every name of the front door has one, and says what it refuses.

The head of the package's own docstring makes what the others go on from: a planted network, its activations, its circuit.
"""

from __future__ import annotations

import doctest
import inspect
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
def test_a_front_door_function_says_what_it_refuses(name: str):
    assert "Raises:" in (inspect.getdoc(getattr(gl, name)) or "")
