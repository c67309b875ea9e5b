"""Configs of strangers: bounded, echoed in few letters, and run only where the user lets them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gatelens.cli.main import main
from gatelens.errors import ConfigError
from gatelens.pipeline import read_config
from gatelens.pipeline.building import find
from gatelens.pipeline.config import check_config
from gatelens.pipeline.foreign import check_safe, foreign, unrun
from gatelens.pipeline.yaml_files import read_yaml

HEAD = "name: tiny\nmodel: {use: HookedMLP, sizes: [64, 8, 8, 10]}\ndata: {use: image_batches, source: digits, rows: [60, 20]}\n"
LAUGHS = "\n".join(
    ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
)
MERGES = "\n".join(
    ["m0: &m0 {x: 1}"] + [f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}" for i in range(1, 12)]
)


@pytest.fixture
def config(tmp_path):
    def write(text: str) -> Path:
        (tmp_path / "c.yaml").write_text(text)
        return tmp_path / "c.yaml"

    return write


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LAUGHS, "more than 10,000 values once its aliases are written out"),
        (MERGES, "more than 10,000 values"),
        ("bases: &b [*b]", "not YAML|names what it lies in"),
        ("bases: &b {use: Neurons, more: {again: *b}}", "not YAML|names what it lies in"),
        ("x: " + "[" * 400 + "]" * 400, "nests deeper than 50 levels"),
        ("x: " + "[" * 5000, "not YAML"),
        ("seed: " + "9" * 5000, "not YAML"),
        ("when: 2001-99-99", "not YAML"),
        ("seed: 1\nseed: 2", "the key 'seed' is given twice, again at line 2"),
        ("solver: {use: GramLasso}\nbases: {use: PCA, use: Neurons}", "the key 'use' is given twice"),
        ("x: !!python/object/apply:os.system [ls]", "not YAML"),
        ("? [a, b]\n: c", "not YAML"),
    ],
)  # fmt: skip
def test_documents_that_are_refused(config, text, says):
    with pytest.raises(ConfigError, match=says) as raised:
        read_config(config(text))
    assert len(str(raised.value)) < 600


def test_aliases_that_only_spare_writing_are_read(config):
    found = read_config(
        config(HEAD + "bases: &b {use: PCA, components: 3}\nsolver: {use: GramLasso}\ngates: {seed: 1}")
    )
    assert found.bases == {"use": "PCA", "components": 3}
    text = "a: &a {use: PCA, components: 2}\nb: [*a, *a]\nc: {<<: *a, components: 3}"
    assert read_yaml(text, "text") == {
        "a": {"use": "PCA", "components": 2},
        "b": [{"use": "PCA", "components": 2}] * 2,
        "c": {"use": "PCA", "components": 3},
    }


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "bases: {use: Neurons}\nseed: '" + "x" * 100_000 + "'",
        HEAD + "bases: {use: Neurons}\n" + "y" * 900 + ": 1",
        HEAD + "bases: {use: " + "N" * 900 + "}",
        HEAD + "bases: {use: PCA, components: [" + ", ".join("7" * 5 for _ in range(900)) + "]}",
        HEAD + "bases: {use: 'os:" + "p" * 9000 + "'}",
        HEAD + "bases: {use: 'm" + "o" * 9000 + ":Name'}",
        HEAD + "bases: [" + ", ".join("'" + "z" * 90 + "'" for _ in range(900)) + "]",
        HEAD + "bases: {use: Neurons}\nevaluation: {baselines: " + "w" * 5000 + "}",
    ],
)  # fmt: skip
def test_what_came_is_shown_in_few_letters(config, capsys, text, tmp_path):
    assert main(["bases", str(config(text)), "--out", str(tmp_path / "run")]) == 2
    assert len(capsys.readouterr().err) < 1500


def test_a_change_on_the_command_line_is_bounded_too(config):
    path = config(HEAD + "bases: {use: Neurons}")
    for change in ("seed=" + "[" * 300, f"{'a' * 5000}=1", "gates.x=" + LAUGHS, "b" * 5000):
        with pytest.raises(ConfigError) as raised:
            read_config(path, [change])
        assert len(str(raised.value)) < 900


# A config is code

THEIRS = """
import pathlib, dataclasses
pathlib.Path(__file__).with_name("imported").touch()

@dataclasses.dataclass(frozen=True)
class Recipe:
    def __post_init__(self):
        pathlib.Path(__file__).with_name("called").touch()

def call(**keywords):
    pathlib.Path(__file__).with_name("called").touch()
"""


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    (tmp_path / "their_code.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("their_code", None)


SECTIONS = {
    "bases": HEAD + "bases: {use: 'their_code:Recipe'}",
    "one hook": HEAD + "bases: {hook_post.0: {use: Neurons}, hook_post.1: {use: 'their_code:Recipe'}}",
    "solver": HEAD + "bases: {use: Neurons}\nsolver: {use: 'their_code:Recipe'}",
    "nested": HEAD + "bases: {use: Counterfactual, base: {use: 'their_code:Recipe'}}",
}
RESTS = {
    "data": HEAD.replace("image_batches", "'their_code:call'") + "bases: {use: Neurons}",
    "model": HEAD.replace("HookedMLP", "'their_code:call'") + "bases: {use: Neurons}",
    "segments": HEAD + "bases: {use: Neurons}\nsegments: {use: 'their_code:call'}",
}


@pytest.mark.parametrize("section", [*SECTIONS, *RESTS])
@pytest.mark.parametrize("verb", ["run", "collect", "stability", "rank"])
def test_an_estimate_runs_nothing_of_others(config, theirs, capsys, section, verb):
    code = main([verb, str(config((SECTIONS | RESTS)[section])), "--out", str(theirs / "run"), "--estimate"])
    said = capsys.readouterr()
    assert not (theirs / "imported").exists()
    assert not (theirs / "called").exists()
    assert "their_code" in said.err
    assert code == (2 if section in RESTS else 0)
    if section not in RESTS:
        assert "stands in for it" in said.err
        assert said.out.strip()


@pytest.mark.parametrize("section", [*SECTIONS, *RESTS])
def test_safe_refuses_what_is_not_ours_before_it_is_imported(config, theirs, capsys, section):
    for verb in ("run", "hooks"):
        assert main([verb, str(config((SECTIONS | RESTS)[section])), "--safe"]) == 2
        assert "is not one of gatelens' own names" in capsys.readouterr().err
    assert not (theirs / "imported").exists()


@pytest.mark.parametrize(
    "name",
    [
        "subprocess:getoutput", "os:system", "builtins:eval", "gatelens.pipeline.building:import_module", "gatelens.store.files:Path",
        "gatelens.store.files:sweep", "gatelens:views", "gatelens.nothing:Neurons", "gatelensx:Neurons", ":eval", "a:b:c",
        "gatelens.__main__:main", "gatelens.nothing.more:Neurons", "gatelens.:Neurons", "gatelens..basis:Neurons", "gatelens:evaluate2",
        "gatelens.cli.main:main", "gatelens.store.artefact:Writing", "gatelens.pipeline.running:State", "gatelens.basis.linear:torch",
    ],
)  # fmt: skip
def test_names_that_are_not_safe(name):
    values = {"name": "t", "model": {"use": "HookedMLP"}, "data": {}, "bases": {"use": name}}
    with pytest.raises(ConfigError, match="--safe runs nothing else: a config is code"):
        check_safe(check_config(values))


def test_our_own_names_are_safe():
    for name in ("Neurons", "gatelens:PCA", "gatelens:image_batches", "gatelens.bases:SegmentSAE"):
        values = {
            "name": "t",
            "model": {"use": "HookedMLP"},
            "data": {},
            "bases": {"h": {"use": name, "inner": [{"use": "PCA"}]}},
        }
        config = check_safe(check_config(values))
        assert not foreign(config)
        assert unrun(config) == (config, [])


def test_a_safe_config_writes_in_its_run_folder_alone(config):
    text = HEAD + "bases: {use: Neurons}\nsolver: {use: ReluOMP, store: /somewhere/else}"
    assert read_config(config(text)).solver == {"use": "ReluOMP", "store": "/somewhere/else"}
    with pytest.raises(ConfigError, match=r"solver\.store: --safe writes below the run folder alone"):
        read_config(config(text), safe=True)
    assert read_config(config(text), ["solver.store=null"], safe=True).solver == {"use": "ReluOMP", "store": None}


@pytest.mark.parametrize("verb", [("prompt", "a text"), ("view",)])
def test_the_config_of_a_strangers_run_is_code_too(theirs, capsys, verb):
    run = theirs / "run"
    (run / "circuit").mkdir(parents=True)
    (run / "circuit/circuit.json").write_text("{}")
    (run / "config.yaml").write_text(RESTS["model"])
    assert main([verb[0], str(run), *verb[1:], "--safe"]) == 2
    assert "model: 'their_code:call' is not one of gatelens' own names" in capsys.readouterr().err
    assert not (theirs / "imported").exists()


def test_a_name_that_cannot_be_called_is_refused():
    for name, says in (("os:sep", "is a str; expected a class or function"), ("views", "unknown name"), ("nowhere:X", "cannot be imported"), (":X", "cannot be imported")):  # fmt: skip
        with pytest.raises(ConfigError, match=says):
            find(name, "bases")
    with pytest.raises(ConfigError, match="a config is code"):
        find("Nuerons", "bases")
