"""Sharing: a circuit goes to a hub and comes back the same; what is not ours is not fetched, what fails is one sentence."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gatelens as gl
from gatelens.errors import HubError, StoreError
from gatelens.pipeline.card import card
from support.hub_server import hub

TALK = """
import sys
import gatelens as gl
from gatelens.errors import GateLensError, HubError
circuit = gl.Circuit.load(sys.argv[1])
print(circuit.push_to_hub("somebody/digits"))
back = gl.Circuit.from_pretrained("somebody/digits")
back.save(sys.argv[2])
for name in ("somebody/nothing", "no name", "a/../b"):
    try:
        gl.Circuit.from_pretrained(name)
    except HubError as error:
        print(f"refused: {error}")
"""


@pytest.fixture(scope="module")
def circuit():
    model = gl.HookedMLP((6, 5, 4, 3))
    segment = gl.Segment("hook_post.0", "hook_post.1", model.layers[1], 5, 4)
    bases = {"hook_post.0": gl.Rotation(torch.eye(5)), "hook_post.1": gl.Rotation(torch.eye(4))}
    acts = {"hook_post.0": torch.randn(300, 5).relu(), "hook_post.1": torch.randn(300, 4).relu()}
    return gl.build_circuit(model, segment, bases, acts, solver=gl.GramLasso(mean_wires=2))


def _talk(script: str, address: str, home: Path, *words: str, token: str = "good") -> subprocess.CompletedProcess:
    env = os.environ | {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_TOKEN": token, "HF_HOME": str(home)}
    return subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, env=env)


def test_to_a_hub_and_back(circuit, tmp_path):
    circuit.save(tmp_path / "own")
    with hub() as (address, repositories):
        repositories["somebody/digits"] = {"evil.pkl": b"never fetched", "tool.py": b"raise SystemExit"}
        done = _talk(TALK, address, tmp_path / "home", str(tmp_path / "own"), str(tmp_path / "back"))
        assert done.returncode == 0, done.stderr
        url, *refused = done.stdout.splitlines()
        assert url == f"{address}/somebody/digits"
        kept = {name for name in repositories["somebody/digits"] if name not in ("evil.pkl", "tool.py")}
        denied = _talk(TALK, address, tmp_path / "home", str(tmp_path / "own"), str(tmp_path / "back"), token="bad")
    assert re.search("HubError: somebody/digits on the hub.*hf auth login", denied.stderr)
    for line, name in zip(refused, ("somebody/nothing", "'no name'", "'a/../b'"), strict=True):
        assert re.match(f"refused: .*{name}.*xpected", line)
    files = {str(p.relative_to(tmp_path / "own")) for p in (tmp_path / "own").rglob("*") if p.is_file()}
    assert {f for f in files if not Path(f).name.startswith(".")} | {"README.md"} == kept
    assert list((tmp_path / "home").rglob("circuit.json"))
    assert not [*(tmp_path / "home").rglob("*.pkl"), *(tmp_path / "home").rglob("*.py")]
    segment = circuit.segments[0].name
    back = gl.Circuit.load(tmp_path / "back")
    assert torch.equal(back.connectors[segment].weight.to_dense(), circuit.connectors[segment].weight.to_dense())
    assert list(map(str, back.gates[segment])) == list(map(str, circuit.gates[segment]))
    assert back.info == circuit.info


def test_a_folder_is_taken_as_it_is_and_its_hashes_checked(circuit, tmp_path):
    circuit.save(tmp_path / "own")
    assert gl.Circuit.from_pretrained(tmp_path / "own", circuit.segments).info == circuit.info
    weights = next((tmp_path / "own" / "connectors").rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(StoreError):
        gl.Circuit.from_pretrained(tmp_path / "own")


def test_offline_is_one_sentence():
    with pytest.raises(HubError, match=r"somebody/digits on the hub: .*Expected a repository in reach; check the name"):
        gl.Circuit.from_pretrained("somebody/digits")


def test_the_card_says_what_was_measured_or_that_nothing_was(circuit):
    assert "how well it describes the model is not known" in card(circuit, None, "a/b")
    assert circuit.info["weights"] in card(circuit, None, "a/b")
