"""One engine, two doors; recipes in recipes; what a user's own recipe or solver must have, said before any work."""

from __future__ import annotations

import sys
import types

import pytest
import torch

from gatelens import GateDictionary, GramLasso, HookedMLP, TrainedSAE, find_circuit, image_batches, mlp_segments
from gatelens.basis.recipe import as_recipe
from gatelens.connectors import Connector
from gatelens.errors import ConfigError, SolverError
from gatelens.pipeline import finishing
from gatelens.pipeline.building import build
from gatelens.pipeline.config import check_config
from gatelens.pipeline.null_model import null_gates
from gatelens.pipeline.running import run, state_of
from gatelens.solvers.protocol import SolverDefaults, as_solver
from gatelens.views.circuit_page import PENDING

CONFIG = {
    "name": "doors",
    "model": {"use": "HookedMLP", "sizes": [64, 12, 12, 10], "train": {"epochs": 1}},
    "data": {"source": "digits"},
    "bases": {"use": "TrainedSAE", "expansion": 2, "k": 4, "samples": 4_000},
    "solver": {"use": "GramLasso", "mean_wires": 4},
    "gates": {"tried_at_most": 8},
    "evaluation": {"curve_rows": 200},
}


def figures(report) -> dict:
    return {k: v for k, v in report.to_dict().items() if k not in ("timing_s", "versions")}


def test_both_doors_give_the_same_report_digit_for_digit(tmp_path):
    walk = run(check_config(CONFIG), tmp_path / "run", until="evaluate")
    by_config = figures(finishing.report(walk))
    found = find_circuit(
        walk.model,
        image_batches("digits", seed=0),
        bases=TrainedSAE(expansion=2, k=4, samples=4_000),
        solver=GramLasso(mean_wires=4.0),
        evaluation={"curve_rows": 200},
        tried_at_most=8,
    )
    by_call = figures(found.report)
    by_config["model"].pop("name"), by_call["model"].pop("name")
    assert by_call == by_config
    assert by_call["baselines"]["random_weights"] is not None
    assert by_call["coverage"]
    assert by_call["curves"]


def test_quick_stops_at_the_circuits_own_figures_and_hides_no_whole_report(tmp_path):
    config = check_config(CONFIG)
    walk = run(config, tmp_path / "run", until="evaluate", quick=True)
    quick = finishing.report(walk, quick=True).to_dict()
    assert set(quick["baselines"].values()) == {None}
    assert not quick["coverage"]
    assert (tmp_path / "run" / "report-quick.json").is_file()
    assert not (tmp_path / "run" / "report.json").exists()


class Bare:
    """A user's recipe with nothing but fit."""

    def fit(self, segments, acts):
        from gatelens import Neurons

        return Neurons().fit(segments, acts)


class Least:
    """A user's solver with nothing but fit."""

    def fit(self, f_in, f_out):
        return Connector.from_dense(
            torch.linalg.lstsq(f_in, f_out).solution.T.contiguous(), torch.zeros(f_out.shape[1])
        )


@pytest.fixture
def theirs(monkeypatch):
    module = types.ModuleType("theirs")
    module.Bare, module.Least = Bare, Least
    monkeypatch.setitem(sys.modules, "theirs", module)


def test_somebody_elses_recipe_and_solver_walk_and_are_estimated(theirs, tmp_path):
    config = CONFIG | {"bases": {"use": "theirs:Bare"}, "solver": {"use": "theirs:Least"}}
    walk = run(check_config(config), tmp_path / "run", until="evaluate")
    assert finishing.report(walk).baselines["shuffled"] is not None
    from gatelens.pipeline.estimating import estimates
    from gatelens.pipeline.running import ROOMS

    said = estimates(state_of(check_config(config), tmp_path / "other"), "view", ROOMS)
    assert all(estimate.memory > 0 for estimate in said)


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        ({"bases": object()}, ConfigError, r"object has no fit\(segments, acts\)"),
        ({"bases": TrainedSAE}, ConfigError, "is the class TrainedSAE, not an object"),
        ({"solver": object()}, SolverError, r"object has no fit\(f_in, f_out\)"),
        ({"solver": GramLasso}, SolverError, "is the class GramLasso, not an object"),
        ({"evaluation": {"curve_row": 3}}, ConfigError, "did you mean 'curve_rows'"),
    ],
)
def test_what_is_missing_is_said_before_any_work(given, error, sentence, monkeypatch):
    model = HookedMLP((64, 8, 8, 10))
    monkeypatch.setattr(model, "run_with_cache", lambda *a, **k: pytest.fail("the model was run"))
    with pytest.raises(error, match=sentence):
        find_circuit(model, image_batches("digits"), **given)


def test_what_a_foreign_object_has_of_the_protocol_is_its_own():
    class Own:
        in_blocks = True

        def fit(self, f_in, f_out): ...

        def with_budget(self, mean_wires, signed):
            return mean_wires

    solver = as_solver(Own())
    assert (solver.in_blocks, solver.with_budget(3.0, False)) == (True, 3.0)
    assert solver.for_others(2.0) is solver
    assert as_solver(solver) is solver
    assert isinstance(solver, SolverDefaults)


def test_a_solver_that_gives_no_connector_is_named():
    class Wrong:
        def fit(self, f_in, f_out):
            return f_out

    with pytest.raises(SolverError, match=r"Wrong\.fit gave a Tensor; expected a Connector"):
        as_solver(Wrong()).fit(torch.zeros(2, 2), torch.zeros(2, 2))


def test_recipes_nest_in_a_config_by_their_own_names():
    made = build(
        {
            "use": "GateDictionary",
            "fan_in": 4,
            "inputs": {"use": "SegmentSAE", "d_sae": 32, "k": 4, "samples": 1000},
            "outputs": {"use": "TrainedSAE", "d_sae": 24, "k": 4},
            "counterfactual": {"use": "Counterfactual", "pairs": 500},
            "tune_inputs": {"use": "InputTuning"},
        },
        "bases",
        seed=7,
    )
    assert isinstance(made, GateDictionary)
    assert (made.inputs.d_sae, made.inputs.seed, made.outputs.d_sae, made.counterfactual.pairs) == (32, 7, 24, 500)
    with pytest.raises(ConfigError, match=r"bases\.inputs: unknown key 'd_saes'"):
        build({"use": "GateDictionary", "inputs": {"use": "TrainedSAE", "d_saes": 3}}, "bases")


def test_the_solver_follows_from_the_bases():
    from gatelens.solvers.size_rule import GRAM_WIDTH, default_solver, solver_for

    assert type(solver_for(GRAM_WIDTH)).__name__ == "GramLasso"
    assert type(solver_for(GRAM_WIDTH + 1)).__name__ == "ReluOMP"
    model = HookedMLP((6, 5, 5, 2))
    segments = mlp_segments(model)
    acts = {hook: torch.rand(20, 5) for s in segments for hook in (s.hook_in, s.hook_out)}
    bases = as_recipe(Bare()).fit(segments, acts)
    assert type(default_solver(segments, bases)).__name__ == "BySize"


def test_the_page_comes_before_what_takes_long_and_a_sample_says_so(tmp_path):
    changed = {"gates": {"read_at_most": 12, "tried_at_most": 4}, "evaluation": {"curve_rows": 0, "coverage": False}}
    folder, seen = tmp_path / "run", []

    def say(line: str) -> None:
        if "is there to look at" in line:
            seen.append(((folder / "index.html").read_text(), (folder / "report.json").exists()))

    walk = run(check_config(CONFIG | changed), folder, say=say)
    (page, finished), *rest = seen
    assert not rest
    assert not finished
    assert PENDING in page
    whole = (folder / "index.html").read_text()
    assert PENDING not in whole
    assert "a sample of" in whole
    report = finishing.report(walk)
    own = sum(g["outputs"] for g in report.gates.values())
    for name in ("neurons", "shuffled"):  # no more outputs are read of a baseline than of the circuit
        assert 0 < report.baselines[name]["outputs"] <= own
        assert report.baselines[name]["tried"] <= 4 * len(report.gates)


@pytest.mark.parametrize(("coverage", "read"), [(True, None), (False, 256)])
def test_what_adds_up_over_outputs_is_read_of_baselines_as_of_the_circuit(tmp_path, coverage, read):
    config = check_config(CONFIG | {"seed": 3, "evaluation": {"coverage": coverage}})
    options = null_gates(state_of(config, tmp_path / "run"))
    assert options.get("read_at_most") == read
    assert options["tried_at_most"] == 8
    assert options["seed"] == 3
