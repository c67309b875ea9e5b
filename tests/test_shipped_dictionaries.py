"""Dictionaries of our own making: found through a data package's entry point, loaded at their hook points, and with a list of what they saw."""

from __future__ import annotations

import json
import sys

import pytest
import torch

import gatelens as gl
from gatelens.bases.sae.files import shipped_folder
from gatelens.data.seen import document_hash, is_kept_apart, unseen
from gatelens.errors import BasisError
from gatelens.gate_dictionaries.transcoder import read_transcoder
from gatelens.store import packages
from support.small_models import flat_topk_config, sae_folder, sae_tensors
from support.training_documents import training_documents

HOOK_IN, HOOK_OUT = "blocks.0.ln2.hook_normalized", "blocks.0.hook_mlp_out"
SEEN = ["It was late; he left.", "She stayed."]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A data package called "tiny", installed in a folder of its own; importing it would fail."""
    root = tmp_path / "gatelens_tiny"
    sae_folder(root / HOOK_IN, flat_topk_config(HOOK_IN, 16, 32, 4, "none"), sae_tensors(16, 32))
    config = json.loads((root / HOOK_IN / "cfg.json").read_text())
    config["metadata"] = {"training_documents": "documents.json", "hook_name": HOOK_IN}
    (root / HOOK_IN / "cfg.json").write_text(json.dumps(config))
    (root / "documents.json").write_text(json.dumps([document_hash(text) for text in SEEN]))
    (root / "__init__.py").write_text("raise RuntimeError('a data package is never imported')")
    info = tmp_path / "gatelens_tiny-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gatelens-tiny\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{packages.GROUP}]\ntiny = gatelens_tiny\n")
    monkeypatch.syspath_prepend(tmp_path)
    return root


def test_a_data_package_is_found_and_not_imported(package):
    assert shipped_folder("tiny") == package
    sae = gl.PretrainedSAE("tiny").load(HOOK_IN)
    assert sae.encode(torch.randn(5, 16)).shape == (5, 32)
    assert "gatelens_tiny" not in sys.modules
    with pytest.raises(
        BasisError, match=r"unknown sae_id 'blocks.7.*there (is|are).*blocks.0.ln2|blocks.7.*blocks.0.ln2"
    ):
        gl.PretrainedSAE("tiny").load("blocks.7.ln2.hook_normalized")


def test_a_transcoder_of_a_data_package(package):
    segment = gl.Segment(HOOK_IN, HOOK_OUT, lambda x: x[:, :12], 16, 12)
    x = torch.randn(600, 16)
    made = gl.Transcoder(d_sae=20, k=4, samples=2_000).train(x, segment.forward(x), HOOK_IN, HOOK_OUT)
    made.transcoder.save_model(package / f"{HOOK_OUT}.transcoder")
    read = read_transcoder("tiny", segment)
    assert torch.allclose(read.features_from(x), made.features_from(x), atol=1e-6)
    other = gl.Segment("blocks.3.ln2.hook_normalized", "blocks.3.hook_mlp_out", lambda x: x, 16, 12)
    with pytest.raises(BasisError, match=r"blocks.3.hook_mlp_out.transcoder.*blocks.0.hook_mlp_out.transcoder"):
        read_transcoder("tiny", other)


def test_what_they_saw_can_be_left_out(package):
    hashes = training_documents("tiny")
    assert unseen(["It  was late;\nhe left.", "A new one.", "She stayed."], hashes) == ["A new one."]
    assert document_hash("“Yes,” he said.") == document_hash('"Yes,"  he said. ')
    with pytest.raises(BasisError, match="no list of training documents"):
        training_documents("gpt2-mini")


def test_a_fifth_of_all_documents_is_kept_apart():
    share = sum(is_kept_apart(f"document {i}") for i in range(5_000)) / 5_000
    assert abs(share - 0.2) < 0.03


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setattr(packages.metadata, "entry_points", lambda **_: [])
    for load in (lambda: gl.PretrainedSAE("smollm2").load(HOOK_IN), lambda: training_documents("smollm2")):
        with pytest.raises(BasisError, match=r"smollm2 are a package of their own.*pip install ./dictionaries/smollm2"):
            load()
