"""What gatelens 0.1.0 wrote, written by it and kept in tests/fixtures: it loads, or the error names what remakes it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import gatelens as gl
from gatelens import store
from gatelens.cli.main import main
from gatelens.errors import BasisError, ConfigError
from gatelens.evaluation.report import Report
from gatelens.pipeline.resume import stored_config
from gatelens.saving import load_basis
from gatelens.store import parse_json

OLD = Path(__file__).parent / "fixtures" / "v0_1_0"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    """The rows on which the dictionaries of the fixture were trained."""
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(0)).relu()
    return x, gl.mlp_segments(gl.HookedMLP((8, 6, 6, 3), seed=0))[0].forward(x)


def test_a_circuit(old):
    circuit = gl.Circuit.load(old / "circuit", gl.mlp_segments(gl.HookedMLP((8, 6, 6, 3), seed=0)))
    assert circuit.info["model"] == "HookedMLP"
    (gates,) = circuit.gates.values()
    assert len(gates) == 8
    x, _ = drawn()
    basis = circuit.bases["hook_post.0"]
    left = (x - basis.decode(basis.encode(x))).square().sum() / (x - x.mean(0)).square().sum()
    assert left < 0.7  # a dictionary of these rows still explains them
    wires = circuit.connectors[circuit.segments[0].name]
    assert wires(basis.encode(x)).shape == (400, 8)


def test_a_transcoder_and_a_rotation(old):
    x, y = drawn()
    basis = load_basis(old / "transcoder")
    assert basis.reconstruct(x).shape == y.shape
    assert (y - basis.reconstruct(x)).square().sum() < (y - y.mean(0)).square().sum()
    rotation = load_basis(old / "rotation")
    centred = x.double() - x.double().mean(0)
    top = torch.linalg.eigh(centred.T @ centred)[1].flip(1).T[:3]  # the principal components, anew
    assert torch.allclose((top @ rotation.matrix.double().T).abs(), torch.eye(3).double(), atol=1e-4)


def test_a_report_and_a_runs_parts(old):
    report = Report.from_dict(parse_json((old / "run/report.json").read_bytes(), "report"))
    assert report.model["metric"] == "accuracy"
    circuit = gl.Circuit.load(old / "run/circuit")
    assert circuit.info["data"] == "digits"
    acts = gl.Activations.open(old / "run/activations/fit")
    assert acts.rows == 120


def test_what_is_read_no_more_names_what_remakes_it(old):
    """Merged dictionaries, and settings that 0.1.0 had."""
    store.replace_file(old / "basis.json", b'{"kind": "MergedBasis"}')
    with store.writing(old / "merged", "basis") as out:
        out.copy("basis.json", old / "basis.json")
    with pytest.raises(BasisError, match=r"'MergedBasis', which this version .*--restart"):
        load_basis(old / "merged")
    path = old / "run/config.yaml"
    path.write_text(path.read_text().replace("curve_rows:", "curves:"))
    with pytest.raises(
        ConfigError, match=r"'curves'.*made by gatelens 0\.1\.0, this is .*gatelens run CONFIG --restart"
    ):
        stored_config(old / "run")


def test_a_run_of_before_is_read_where_nothing_is_made(old, capsys):
    assert main(["compare", str(old / "run"), str(old / "run"), "--out", str(old / "c.html")]) == 0
    assert main(["prompt", str(old / "run"), "a text"]) == 2  # its model reads images
    assert "image" in capsys.readouterr().err
