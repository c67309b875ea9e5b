"""The walk: digits end to end, resumed, refused and repeated to the byte; configs and the command's exit codes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
import yaml

from gatelens.cli import main
from gatelens.errors import ConfigError, DataError, GateLensWarning, HubError, StoreError
from gatelens.pipeline import finishing, read_config, run
from gatelens.pipeline.config import check_config
from support import warm

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))

SMALL = {
    "name": "small",
    "model": {"use": "HookedMLP", "sizes": [64, 16, 16, 16, 10], "train": {"epochs": 25}},
    "data": {"use": "image_batches", "source": "digits", "rows": [600, 200]},
    "bases": {"use": "TrainedSAE", "expansion": 2, "k": 6, "samples": 6000, "batch_size": 128, "trainer": "sae-lens"},
    "solver": {"use": "GramLasso", "mean_wires": 3},
    "gates": {"tried_at_most": 8},
    "evaluation": {"baselines": ["neurons", "virtual_weights", "shuffled"], "ladder": {"causal_rows": 50}},
}
REPORT_KEYS = "model bases connectors all_replaced ladder gates baselines rotations timing_s versions seed".split()
CONNECTOR_KEYS = "solver edges mean_fan_in max_fan_in outputs_without_edges median_r2 fvu replaced gap_closed".split()


def small(**changes):
    return check_config({**SMALL, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "small"
    return run(small(), out), out


def test_two_threads_change_no_figure_by_more_than_a_hundredth(finished, tmp_path):
    """Sums are added in another order; training passes that on."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        other = run(small(), tmp_path / "run", until="evaluate")
    finally:
        torch.set_num_threads(threads)
    ours, theirs = (dict(_figures(finishing.report(walk).to_dict())) for walk in (finished[0], other))
    assert ours.keys() == theirs.keys()
    assert len(ours) > 20
    for name, value in ours.items():
        assert theirs[name] == pytest.approx(value, abs=0.01, nan_ok=True), name


def _figures(value, name=""):
    """Shares and metrics of a report, by their places: what lies between -1 and 1; counts and timings are left out."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key != "timing_s" and "second" not in str(key):
                yield from _figures(part, f"{name}/{key}")
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield from _figures(part, f"{name}/{place}")
    elif isinstance(value, float) and abs(value) <= 1:
        yield name, value


def _hashes(folder: Path) -> dict[str, str]:
    files = [p for p in sorted(folder.rglob("*")) if p.suffix == ".safetensors"]
    found = {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    report = json.loads((folder / "report.json").read_text())
    report.pop("timing_s")
    return found | {"report": json.dumps(report, sort_keys=True)}


def test_run_folder_and_report(finished):
    walk, out = finished
    for name in ("config.yaml", "activations", "bases", "connectors", "circuit", "report.json", "index.html"):
        assert (out / name).exists(), name
    report = json.loads((out / "report.json").read_text())
    assert not set(REPORT_KEYS) - set(report)
    assert set(report["baselines"]) == {"neurons", "virtual_weights", "shuffled", "random_weights"}
    assert report["baselines"]["random_weights"] is None  # not asked for: missing, never absent
    for connector in report["connectors"].values():
        assert not set(CONNECTOR_KEYS) - set(connector)
    assert set(report["ladder"]) == set(report["connectors"])
    for rungs in report["ladder"].values():
        own, null = rungs["this circuit"], rungs["null: other rows' inputs"]
        assert own["fvu"] < null["fvu"]
        assert own["removals_jacobian"] is not None
        assert "seconds" not in own
    assert "Ladder of" in (out / "index.html").read_text()
    assert report["model"]["metric"] == "accuracy"
    assert report["model"]["clean"] > report["model"]["ablated"]
    assert set(report["timing_s"]) >= {"collect", "bases", "connect", "gates", "evaluate"}
    assert "np." not in repr(finishing.report(walk))


def test_same_seed_same_bytes(finished, tmp_path):
    _, out = finished
    run(small(), tmp_path / "again", until="evaluate")
    first, second = _hashes(out), _hashes(tmp_path / "again")
    assert first == second


def test_finished_rooms_are_not_done_again(finished, monkeypatch):
    _, out = finished
    import gatelens.bases.sae.trained as sae

    def never(*_, **__):
        raise AssertionError("this room was finished")

    monkeypatch.setattr(sae.TrainedSAE, "train", never)
    monkeypatch.setattr("gatelens.pipeline.state.connect", never)
    walk = run(small(), out, until="evaluate")
    assert finishing.report(walk).model["clean"] > 0


def test_another_config_is_refused_with_the_difference(finished):
    _, out = finished
    with pytest.raises(StoreError, match=r"solver\.mean_wires: stored 3, asked for 9.*--out, or --restart"):
        run(small(solver={"use": "GramLasso", "mean_wires": 9}), out)


def test_a_damaged_basis_is_made_again(finished):
    _, out = finished
    path = next((out / "bases").rglob("*.safetensors"))
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.warns(GateLensWarning, match=f"{path.parent.name} is made again: .*is damaged"):
        walk = run(small(), out, until="bases")
    assert len(walk.bases) == 3
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"solvr": {}}, "unknown key 'solvr'; did you mean 'solver'"),
        ({"name": "a/b"}, "name"),
        ({"seed": "many"}, "seed"),
        ({"evaluation": {"baseline": []}}, "did you mean 'baselines'"),
    ],
)
def test_configs_are_checked(changes, words):
    with pytest.raises(ConfigError, match=words):
        check_config({**SMALL, **changes})


@pytest.mark.parametrize(
    ("section", "value", "words"),
    [
        ("solver", {"use": "GramLaso"}, "did you mean 'GramLasso'"),
        ("solver", {"use": "GramLasso", "mean_wire": 3}, "unknown key 'mean_wire'; did you mean 'mean_wires'"),
        (
            "solver",
            {"use": "GramLasso", "selection": "stepwise"},
            "solver.selection: input should be 'omp' or 'lasso', got 'stepwise'",
        ),
        ("solver", {"mean_wires": 3}, "expected `use: Name`"),
        ("solver", {"use": "nowhere:Thing"}, "cannot be imported"),
        ("bases", {"use": "TrainedSAE", "k": "lots"}, "bases.k: .*got 'lots'"),
        ("bases", {"hook_post.7": {"use": "TrainedSAE"}}, "unknown hook point 'hook_post.7'"),
        ("segments", {"layer": [1]}, "unknown key 'layer'; did you mean 'layers'"),
        ("gates", {"mcc_barr": 1}, "did you mean 'mcc_bar'"),
        ("data", {"use": "image_batches", "sorce": "digits"}, "did you mean 'source'"),
        ("evaluation", {"baselines": ["neuron"]}, "did you mean 'neurons'"),
        ("evaluation", {"ladder": {"causal_row": 5}}, "did you mean 'causal_rows'"),
    ],
)
def test_bad_settings_are_refused(section, value, words, tmp_path):
    config = {**SMALL, section: value}
    if section == "evaluation":
        config["bases"] = {"use": "PCA"}
        config["solver"] = {"use": "GramLasso", "mean_wires": 2, "signed": True}
    with pytest.raises(ConfigError, match=words):
        run(check_config(config), tmp_path / "run", until="evaluate")


def test_set_changes_a_setting(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    config = read_config(path, ["solver.mean_wires=7", "seed=3"])
    assert (config.solver["mean_wires"], config.seed) == (7, 3)
    for change in ("solver", "name.x=1", "=3"):
        with pytest.raises(ConfigError, match="--set"):
            read_config(path, [change])


@pytest.mark.parametrize("text", ["", "- a\n- b", "a: [1", "\x00", "7"])
def test_a_file_that_is_no_config(text, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        read_config(path)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_is_sound(path):
    """Names, keys and types of all configs; each is also run somewhere: digits here, the others with their data."""
    from gatelens.pipeline.running import check_settings, state_of

    config = read_config(path)
    check_settings(state_of(config, "unused"), config)


def test_command_exit_codes(tmp_path, capsys):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    assert main(["run", str(tmp_path / "no.yaml")]) == 2
    assert "there is no config" in capsys.readouterr().err
    assert main(["connect", str(path), "--out", str(tmp_path / "run"), "--set", "solver.mean_wire=1"]) == 2
    assert "did you mean 'mean_wires'" in capsys.readouterr().err
    assert main(["connect", str(path), "--out", str(tmp_path / "run")]) == 0
    assert "wires" in capsys.readouterr().out
    assert main(["bench", "nothing"]) == 2
    assert "unknown benchmark 'nothing'" in capsys.readouterr().err


def test_json_prints_the_report_and_nothing_else(finished, tmp_path, capsys):
    _, out = finished
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    assert main(["evaluate", str(path), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((out / "report.json").read_text())


@pytest.mark.parametrize(
    "verb", ["run", "collect", "bases", "connect", "gates", "evaluate", "view", "hooks", "bench", "compare"]
)
def test_help_of_every_verb(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert verb in capsys.readouterr().out


def test_hooks_lists_shapes_and_ends(tmp_path, capsys, monkeypatch):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "model": {**SMALL["model"], "train": {"epochs": 0}}}))
    monkeypatch.chdir(tmp_path)
    assert main(["hooks", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["hook_pre.0", "[2,", "16]"] for line in lines)
    assert any("hook_post.1" in line and "out of an MLP, into an MLP" in line for line in lines)


def test_mnist_without_data_or_net_says_so_at_once(monkeypatch, tmp_path):
    monkeypatch.delenv("GATELENS_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(HubError, match=r"out of reach.*data\.path"):
        run(read_config(ROOT / "configs" / "mnist.yaml"), tmp_path / "run")
    with pytest.raises(DataError, match="is not a folder"):
        run(read_config(ROOT / "configs" / "mnist.yaml", [f"data.path={tmp_path}/none"]), tmp_path / "other")


def test_users_own_weights(tmp_path):
    import safetensors.torch

    import gatelens as gl

    model = gl.HookedMLP((64, 16, 16, 16, 10), seed=5)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "mine.safetensors")
    given = {"use": "HookedMLP", "sizes": [64, 16, 16, 16, 10], "weights": str(tmp_path / "mine.safetensors")}
    walk = run(small(model=given), tmp_path / "run", until="collect")
    assert all(
        (a == b).all() for a, b in zip(walk.model.state_dict().values(), model.state_dict().values(), strict=True)
    )
    from gatelens.errors import ModelError

    with pytest.raises(ModelError, match=r"layers\.0\.bias has shape \(16,\), this model expects \(8,\)"):
        run(small(model=given | {"sizes": [64, 8, 16, 16, 10]}), tmp_path / "b", until="collect")
    with pytest.raises(ModelError, match="Python pickle"):
        run(small(model=given | {"weights": "mine.pt"}), tmp_path / "c", until="collect")


def test_a_users_own_solver_goes_by_module_and_name(tmp_path, monkeypatch):
    (tmp_path / "my_solver.py").write_text(
        "import gatelens as gl\n"
        "class Mine:\n"
        "    def __init__(self, wires=2):\n        self.wires = wires\n"
        "    def fit(self, f_in, f_out):\n        return gl.GramLasso(mean_wires=self.wires).fit(f_in, f_out)\n"
        "class Broken:\n"
        "    def fit(self, f_in, f_out):\n        raise RuntimeError('mine')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    walk = run(small(solver={"use": "my_solver:Mine", "wires": 1}), tmp_path / "run", until="connect")
    assert all(c.wires <= len(c.bias) for c in walk.connected.connectors.values())
    with pytest.raises(RuntimeError, match="mine") as caught:
        run(small(solver={"use": "my_solver:Broken"}), tmp_path / "broken", until="connect")
    assert "in the room 'connect'" in caught.value.__notes__[0]


@pytest.mark.parametrize("name", ["01_planted_gates.py"])  # 00_readme.py: tests/test_readme.py
def test_examples_run_whole(name, tmp_path):
    done = warm.run(str(ROOT / "examples" / name), folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


def test_mnist_example_runs_whole(data_folder, tmp_path):
    """Real MNIST, 3,000 images of it: the same script, smaller."""
    smaller = {"GATELENS_DATA": str(data_folder), "GATELENS_EXAMPLE_ROWS": "3000"}
    done = warm.run(str(ROOT / "examples" / "02_mnist.py"), folder=tmp_path, **smaller)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "accuracy" in done.stdout
