"""What a run folder holds is what the run wrote, made from what is there; a circuit is measured in the model it was read from."""

from __future__ import annotations

import dataclasses
import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch

import gatelens as gl
from gatelens import store
from gatelens.cli.main import main
from gatelens.errors import GateLensWarning, ModelError, StoreError
from gatelens.pipeline import run
from gatelens.pipeline.config import check_config
from gatelens.pipeline.provenance import check_part

OLD = Path(__file__).parent / "fixtures" / "v0_1_0" / "run"
VALUES = {
    "name": "tiny",
    "model": {"use": "HookedMLP", "sizes": [64, 8, 8, 10], "train": {"epochs": 1}},
    "data": {"use": "image_batches", "source": "digits", "rows": [120, 40]},
    "bases": {"use": "Neurons"},
    "solver": {"use": "ReluOMP", "max_fan_in": 3},
    "evaluation": {"baselines": [], "curve_rows": 0},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    run(check_config(VALUES), folder, until="evaluate")
    return folder


@pytest.fixture
def made(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


def again(folder: Path, values=VALUES, until="evaluate", **options) -> list[str]:
    """Run again; what was said."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        run(check_config(values), folder, until=until, **options)
    return [str(w.message) for w in said if issubclass(w.category, GateLensWarning)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_finished_run_is_used_and_nothing_is_said(made):
    before = contents(made)
    assert again(made) == []
    assert contents(made) == before
    manifest = json.loads((made / store.MANIFEST).read_text())
    assert manifest["kind"] == "run"
    assert {"config.yaml", "activations/fit", "activations/held_out", "connectors", "circuit", "report.json"} < set(
        manifest["parts"]
    )
    assert {"model", "data", "connectors", "activations/held_out"} == set(manifest["parts"]["circuit"]["made_from"])


def test_an_edited_report_is_named_and_made_again(made):
    right = json.loads((made / "report.json").read_text())
    edited = {**right, "model": {**right["model"], "clean": 0.999}}
    (made / "report.json").write_text(json.dumps(edited))
    with pytest.raises(StoreError, match=r"report\.json was edited or swapped"):
        check_part(made, "report.json")
    (said,) = again(made)
    assert "report.json is made again: it was edited or swapped since this run wrote it" in said
    assert json.loads((made / "report.json").read_text())["model"] == right["model"]
    assert again(made) == []


def test_parts_of_another_run_are_named(made, tmp_path):
    other = tmp_path / "other"
    run(check_config({**VALUES, "seed": 5}), other, until="evaluate")
    want = contents(made)
    for part in ("circuit", "report.json", "connectors", "bases/hook_post.0", "activations/fit", "model"):
        at = made / part
        if at.is_dir():
            if contents(at) == contents(other / part):
                continue  # neurons are neurons
            shutil.rmtree(at)
            shutil.copytree(other / part, at)
        else:
            shutil.copyfile(other / part, at)
        said = again(made)
        assert any(f"{part} is made again: it was edited or swapped" in line for line in said), (part, said)
        found = contents(made)
        assert {k for k in want if found.get(k) != want[k]} <= {"report.json", store.MANIFEST}  # which hold seconds
        assert again(made) == []


@pytest.mark.parametrize(
    "part", ["report.json", "model", "circuit", "connectors", "bases/hook_post.1", "activations/held_out"]
)
def test_deleted_parts_are_named_and_made_again(made, part):
    at = made / part
    shutil.rmtree(at) if at.is_dir() else at.unlink()
    assert f"{part} is made again: it is gone" in again(made)[0]
    assert at.exists()


@pytest.mark.parametrize(
    ("file", "why"), [("circuit/circuit.json", "SHA-256"), ("connectors/circuit.json", "bytes|SHA-256")]
)
def test_damage_within_a_part_is_named(made, file, why):
    path = made / file
    path.write_bytes(path.read_bytes().replace(b"hook", b"hoek"))
    (line, *_) = again(made)
    assert file.split("/")[0] in line
    assert "is damaged" in line


def test_what_is_made_from_a_changed_part_is_made_again(made):
    """The wires are remade by another rule and recorded: the circuit and the report of the old ones do not stand beside them."""
    manifest = json.loads((made / store.MANIFEST).read_text())
    manifest["parts"]["connectors"]["sha256"] = "0" * 64
    manifest["parts"]["circuit"]["made_from"]["connectors"] = "1" * 64
    (made / store.MANIFEST).write_text(json.dumps(manifest))
    said = again(made)
    assert any("circuit is made again: it was made from another connectors" in line for line in said)


def test_configs_that_changed(made):
    other = {**VALUES, "solver": {"use": "ReluOMP", "max_fan_in": 2}}
    (made / "config.yaml").unlink()
    with pytest.raises(StoreError, match=r"solver\.max_fan_in: stored 3, asked for 2.*--restart"):
        run(check_config(other), made)
    (said,) = again(made)
    assert "config.yaml is written again: it is gone" in said
    text = (made / "config.yaml").read_text()
    (made / "config.yaml").write_text(text.replace("max_fan_in: 3", "max_fan_in: 2"))
    with pytest.raises(StoreError, match=r"solver\.max_fan_in"):  # edited to agree with what is asked for
        run(check_config(other), made)
    with pytest.raises(StoreError, match=r"config\.yaml was edited"):
        check_part(made, "config.yaml")
    (said,) = again(made)
    assert "config.yaml is made again: it was edited or swapped" in said
    assert "max_fan_in: 3" in (made / "config.yaml").read_text()


def test_links_out_of_the_folder_are_refused(made, tmp_path):
    for part in ("circuit", "report.json", "bases/hook_post.0", "activations/fit", "config.yaml", "model"):
        outside = tmp_path / "outside" / part
        outside.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made / part, outside)
        (made / part).symlink_to(outside)
        with pytest.raises(StoreError, match="is a link to"):
            run(check_config(VALUES), made)
        (made / part).unlink()
        shutil.move(outside, made / part)


def test_the_manifest_itself(made):
    (made / store.MANIFEST).unlink()
    (said,) = again(made)
    assert "has no manifest.json: what is in it is taken as it is found" in said
    assert again(made) == []
    (made / store.MANIFEST).write_text("{")
    with pytest.raises(StoreError, match=r"manifest\.json"):
        run(check_config(VALUES), made)
    assert again(made, restart=True) == []


def test_comparing_runs_names_the_one_that_changed(made, finished, tmp_path, capsys):
    assert main(["compare", str(made), str(finished), "--out", str(tmp_path / "c.html")]) == 0
    shutil.rmtree(made / "circuit" / "connectors")
    (made / "circuit" / "manifest.json").write_text((made / "connectors" / "manifest.json").read_text())
    assert main(["compare", str(made), str(finished), "--out", str(tmp_path / "c.html")]) == 2
    assert f"{made / 'circuit'} was edited or swapped" in capsys.readouterr().err


def test_a_run_of_before_names_the_command_that_makes_it_again(tmp_path):
    import yaml

    folder = Path(shutil.copytree(OLD, tmp_path / "old"))
    values = {k: v for k, v in yaml.safe_load((folder / "config.yaml").read_text()).items() if k != "versions"}
    with (
        pytest.warns(GateLensWarning, match=r"has no manifest\.json"),
        pytest.raises(
            StoreError, match=r"made by gatelens 0\.1\.0 \(this is .*other settings.*gatelens run CONFIG --restart"
        ),
    ):
        run(check_config(values), folder, until="collect")
    run(check_config(values), folder, until="evaluate", restart=True)
    assert again(folder, values) == []


# The model


def test_old_activations_do_not_come_back_from_a_hooked_model(tmp_path):
    model = gl.HookedMLP((8, 6, 6, 3))
    fit, _ = batches()
    clean = gl.collect(model, fit, ["hook_post.1"], store=tmp_path / "a")["hook_post.1"]

    def zero(value, hook):
        return 0 * value

    def double(value, hook):
        return 2 * value

    for change in (zero, double):
        model.hook_post[0].add_hook(change)
        with pytest.raises(StoreError, match="active_hooks"):
            gl.collect(model, fit, ["hook_post.1"], store=tmp_path / "a")
        found = gl.collect(model, fit, ["hook_post.1"], store=tmp_path / change.__name__)["hook_post.1"]
        assert not torch.allclose(found, clean)
        model.reset_hooks()
    model.hook_post[0].add_hook(double)  # as many hooks at the same place, which do something else
    with pytest.raises(StoreError, match="holds other values at hook_post.1"):
        gl.collect(model, fit, ["hook_post.1"], store=tmp_path / "zero")
    again_doubled = gl.collect(model, fit, ["hook_post.1"], store=tmp_path / "double")
    assert torch.equal(again_doubled["hook_post.1"], found)
    model.reset_hooks()
    assert torch.equal(gl.collect(model, fit, ["hook_post.1"], store=tmp_path / "a")["hook_post.1"], clean)


def batches():
    from gatelens.data import Batches

    x = torch.rand(60, 8, generator=torch.Generator().manual_seed(0))
    places = torch.arange(60)
    whole = Batches(x, places % 3, torch.ones(60, dtype=torch.bool), places, 20, "accuracy", "sixty rows")
    return whole, whole


def test_a_circuit_is_measured_in_its_own_model(tmp_path):
    fit, held_out = batches()
    model = gl.HookedMLP((8, 6, 6, 3)).requires_grad_(False)
    segments = gl.mlp_segments(model)
    acts = gl.collect(model, fit, segments)
    circuit = gl.build_circuit(
        model, segments, gl.Neurons().fit(segments, acts), acts, gl.ReluOMP(min_firings=1), gates=False, info={"data": "drawn"}
    )  # fmt: skip
    circuit.save(tmp_path / "c")
    for one in (circuit, gl.Circuit.load(tmp_path / "c")):
        gl.evaluate(model, one, held_out)
        with pytest.raises(ModelError, match="weights have the hash"):
            gl.evaluate(gl.HookedMLP((8, 6, 6, 3), seed=1), one, held_out)
        changed = gl.HookedMLP((8, 6, 6, 3)).requires_grad_(False)
        changed.layers[1].weight[3, 2] += 1e-3
        with pytest.raises(ModelError, match="weights have the hash"):
            gl.evaluate(changed, one, held_out)
        model.hook_post[0].add_hook(lambda value, hook: 0 * value)
        with pytest.raises(ModelError, match=r"has hooks on it \(hook_post\.0\)"):
            gl.evaluate(model, one, held_out)
        model.reset_hooks()
        gl.evaluate(changed, dataclasses.replace(one, info={}), held_out)  # on purpose
