"""A bounded fuzz run over the loaders: valid files with random damage load, or are refused with one of our errors.

Each loader gets GATELENS_FUZZ_SECONDS / 14 (default 7 seconds in all; CI gives a minute), from a seed that is printed
with the damage when something else comes up. Half of the time the manifest is made to agree with the damage, so that the
loader behind the hash is reached.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import struct
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

from gatelens import (
    Activations,
    Circuit,
    Connector,
    Gate,
    GateKind,
    HookedMLP,
    PretrainedSAE,
    Rotation,
    Segment,
    collect,
    load_model,
    mlp_segments,
    store,
)
from gatelens.data import Batches
from gatelens.data.documents import documents_of
from gatelens.data.images import parse_idx, parse_parquet
from gatelens.errors import GateLensError
from gatelens.gate_dictionaries.gate_basis import GateBasis
from gatelens.gate_dictionaries.transcoder import read_transcoder
from gatelens.pipeline import read_config
from gatelens.pipeline.loading import with_weights
from gatelens.saving import load_basis, save_basis
from gatelens.store.shards import fingerprint

SECONDS = float(os.environ.get("GATELENS_FUZZ_SECONDS", "7")) / 14
SEED = int(os.environ.get("GATELENS_FUZZ_SEED", "0"))


def connector(folder: Path) -> None:
    Connector.from_dense(torch.eye(4)[:3], torch.zeros(3)).save(folder)


def circuit(folder: Path) -> None:
    segments = mlp_segments(HookedMLP((8, 6, 6, 3)))
    bases = {h: Rotation(torch.eye(6)) for h in ("hook_post.0", "hook_post.1")}
    wires = {segments[0].name: Connector.from_dense(torch.eye(6), torch.zeros(6))}
    gates = {segments[0].name: [Gate(0, GateKind.OR, (1, 2), (1.0, 0.5), 0.0)]}
    Circuit(segments, bases, wires, gates, {"seed": 0}).save(folder)


def basis(folder: Path) -> None:
    save_basis(Rotation(torch.eye(6), torch.zeros(6)), folder)


def activations(folder: Path) -> None:
    places = torch.arange(12)
    batches = Batches(torch.rand(12, 8), places % 3, torch.ones(12, dtype=torch.bool), places, 4)
    collect(HookedMLP((8, 6, 6, 3)), batches, ["hook_post.0"], store=folder, shard_rows=4)


def sae(folder: Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    config = {"architecture": "standard", "d_in": 4, "d_sae": 6, "dtype": "float32", "device": "cpu"}
    rest = {
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {},
    }
    (folder / "cfg.json").write_text(json.dumps(config | rest))
    weights = {"W_enc": torch.rand(4, 6), "W_dec": torch.rand(6, 4), "b_enc": torch.zeros(6), "b_dec": torch.zeros(4)}
    save_file(weights, folder / "sae_weights.safetensors")


def transformer(folder: Path) -> None:
    from safetensors.torch import save_file
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    settings = {"n_layers": 1, "d_model": 8, "n_ctx": 8, "d_head": 4, "n_heads": 2, "d_mlp": 8, "d_vocab": 10}
    model = HookedTransformer(HookedTransformerConfig(**settings, act_fn="relu", device="cpu", seed=0))
    folder.mkdir(parents=True)
    (folder / "tl_config.json").write_text(json.dumps(settings | {"act_fn": "relu"}))
    save_file({k: v.clone() for k, v in model.state_dict().items()}, folder / "tl_state_dict.safetensors")


def gguf_model(folder: Path) -> None:
    pytest.importorskip("gguf", reason='gguf is not installed: pip install "gatelens[smollm2]"')
    from support.gguf_models import gguf_file
    from support.small_models import llama_folder

    folder.mkdir(parents=True)
    with TemporaryDirectory() as scratch:
        gguf_file(llama_folder(Path(scratch) / "mini"), folder / "m.gguf", "F16")


def read_gguf(folder: Path) -> None:
    from gatelens.models.gguf_files import GgufFile
    from gatelens.models.gguf_tokenizer import tokenizer_of_gguf

    file = GgufFile(folder / "m.gguf")
    tokenizer_of_gguf(file.fields, file.path)
    for _ in file.parts():
        pass


def weights(folder: Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    save_file(HookedMLP((8, 6, 6, 3)).state_dict(), folder / "w.safetensors")


def idx(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "x").write_bytes(b"\x00\x00\x08\x03" + struct.pack(">3I", 2, 3, 4) + bytes(24))


def images(folder: Path) -> None:
    import pyarrow as pa
    from PIL import Image
    from pyarrow import parquet

    png = io.BytesIO()
    Image.new("L", (3, 2), 7).save(png, "png")
    folder.mkdir(parents=True)
    table = pa.table({"image": [{"bytes": png.getvalue(), "path": "x.png"}] * 4, "label": [0, 1, 2, 3]})
    parquet.write_table(table, folder / "train.parquet")


def texts(folder: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("one<|endoftext|>two", encoding="utf-8")
    (folder / "b.json").write_text('[{"text": "three"}, "four"]')
    (folder / "c.jsonl").write_text('{"text": "five"}\n"six"\n')
    parquet.write_table(pa.table({"text": ["seven", "eight"]}), folder / "d.parquet")


def gate_dictionary(folder: Path) -> None:
    wires = Connector.from_dense(torch.eye(4)[:3], torch.zeros(3))
    bypass = torch.zeros(4, 5)
    save_basis(GateBasis(Rotation(torch.eye(4)), wires, torch.rand(3, 5), torch.zeros(5), 4, bypass), folder)


def transcoder(folder: Path) -> None:
    from sae_lens import Transcoder, TranscoderConfig

    Transcoder(TranscoderConfig(d_in=4, d_out=5, d_sae=6, apply_b_dec_to_input=False)).save_model(folder)


def config(folder: Path) -> None:
    folder.mkdir(parents=True)
    text = "name: x\nmodel: {use: HookedMLP, sizes: [8, 6, 6, 3]}\ndata: {source: digits}\nbases:\n  use: PCA\n"
    (folder / "c.yaml").write_text(text)


def read_all(folder: Path) -> None:
    acts = Activations.open(folder)
    for hook in acts:
        _ = acts[hook]


LOADERS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "connector": (connector, Connector.load),
    "circuit": (circuit, Circuit.load),
    "basis": (basis, load_basis),
    "activations": (activations, read_all),
    "sae": (sae, PretrainedSAE.from_disk),
    "transformer": (transformer, load_model),
    "gguf": (gguf_model, read_gguf),
    "weights": (weights, lambda folder: with_weights(HookedMLP((8, 6, 6, 3)), folder / "w.safetensors")),
    "idx": (idx, lambda folder: parse_idx(folder / "x")),
    "images": (images, lambda folder: parse_parquet([folder / "train.parquet"])),
    "texts": (texts, lambda folder: list(documents_of(folder, "text", "train", None, "<|endoftext|>", 0))),
    "gate dictionary": (gate_dictionary, load_basis),
    "transcoder": (transcoder, lambda folder: read_transcoder(folder, Segment("in", "out", torch.relu, 4, 5))),
    "config": (config, lambda folder: read_config(folder / "c.yaml")),
}

INTERESTING = (
    b"",
    b"null",
    b"{}",
    b"[]",
    b"-1",
    b"1e999",
    b"NaN",
    b'"../x"',
    b"0",
    b"99999999999999999999",
    b"\xff\xfe",
    b"\x00" * 9,
)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """One to three random changes."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at, length = rng.randrange(len(out) + 1), rng.randint(0, 12)
        kind = rng.randrange(6)
        if kind == 0 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[at : at + length]
        elif kind == 2:
            out[at:at] = rng.randbytes(length)
        elif kind == 3:
            out[at : at + length] = rng.choice(INTERESTING)
        elif kind == 4:
            out[at:at] = out[at : at + 4 * length]
        else:
            out = out[:at]
    return bytes(out)


def agree(folder: Path, name: str) -> None:
    """Make the manifest or the shard's record agree with the damage, where there is one."""
    path = folder / name
    entry = fingerprint(path.read_bytes())
    above = [place / "manifest.json" for place in path.parents if place.is_relative_to(folder)]
    for manifest in (*above, path.with_suffix(".json")):
        if manifest.is_file() and manifest != path:
            value = json.loads(manifest.read_bytes())
            listed = path.relative_to(manifest.parent).as_posix()
            if listed in value.get("files", {}):
                value["files"][listed] = entry
            elif manifest.stem.startswith("shard-"):
                value |= entry
            manifest.write_text(json.dumps(value))


@pytest.mark.parametrize("name", LOADERS)
def test_damage_is_survived_or_refused(name, tmp_path):
    make, load = LOADERS[name]
    sound = tmp_path / "sound"
    make(sound)
    load(sound)
    files = sorted(str(p.relative_to(sound)) for p in sound.rglob("*") if p.is_file())
    rng, until, tries = random.Random(f"{SEED} {name}"), time.monotonic() + SECONDS, 0
    while time.monotonic() < until or tries < 10:
        tries += 1
        folder = tmp_path / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sound, folder)
        file = rng.choice(files)
        data = damaged((sound / file).read_bytes(), rng)
        (folder / file).write_bytes(data)
        if rng.random() < 0.5:
            agree(folder, file)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                load(folder)
        except GateLensError:
            pass
        except Exception as error:
            raise AssertionError(f"{name}, try {tries}, seed {SEED}: {file} = {data[:2000]!r}") from error


def test_the_store_refuses_what_it_did_not_write(tmp_path):
    with pytest.raises(GateLensError):
        store.reading(tmp_path, "connector")
