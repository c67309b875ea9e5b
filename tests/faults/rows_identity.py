"""Rows about what things are: dictionaries that compute something else than their weights, and their kin.

Rows from 31 on are kinds of faults that users met; see README.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from fault import HOOKS, Fault, Injected, tiny_model

from gatelens import Circuit, Connector, PretrainedSAE, ReluOMP, Rotation, build_circuit, mlp_segments
from gatelens.basis.linear import directions
from gatelens.errors import BasisError, ConfigError
from gatelens.pipeline import read_config

# 33: dictionaries whose encode or decode does more than their weights say


def uneven_sae(**settings: Any) -> Any:
    """A top-k SAE whose decoder rows have lengths from 0.5 to 3."""
    import sae_lens as sl

    torch.manual_seed(0)
    sae = sl.TopKSAE(sl.TopKSAEConfig(d_in=6, d_sae=12, k=3, **settings))
    sae.W_dec.data = torch.nn.functional.normalize(torch.randn(12, 6), dim=1) * torch.linspace(0.5, 3, 12)[:, None]
    sae.W_enc.data = torch.randn(6, 12)
    return sae.eval().requires_grad_(False)


def six_wide() -> torch.Tensor:
    return torch.randn(50, 6, generator=torch.Generator().manual_seed(0))


def put_into_a_circuit(sae: Any) -> Any:
    segments = mlp_segments(tiny_model())
    bases = {HOOKS[0]: sae, HOOKS[1]: Rotation(torch.eye(6))}
    return Circuit(segments, bases, {segments[0].name: Connector.from_dense(torch.ones(6, 12), torch.zeros(6))})


def rescaled(folder: Path) -> Injected:
    """The reconstruction by the directions that the house reads is sae-lens' own; it was off by more than its own size."""
    sae = uneven_sae(rescale_acts_by_decoder_norm=True)

    def after(circuit: Any) -> None:
        basis, x = circuit.bases[HOOKS[0]], six_wide()
        f = basis.encode(x)
        true = sae.decode(sae.encode(x))
        ours = f @ directions(basis, 12) + basis.decode(torch.zeros(1, 12))
        assert (ours - true).norm() / true.norm() < 1e-5

    return Injected(lambda: put_into_a_circuit(sae), after)


def rescaled_in_a_folder(folder: Path) -> Injected:
    sae = uneven_sae(rescale_acts_by_decoder_norm=True)
    sae.save_model(folder / "sae")

    def after(basis: Any) -> None:
        assert torch.allclose(basis.W_dec.norm(dim=1), torch.ones(12), atol=1e-5)
        assert torch.allclose(basis.encode(six_wide()), sae.encode(six_wide()), atol=1e-4)

    return Injected(lambda: PretrainedSAE(str(folder / "sae")).load(HOOKS[0]), after)


class Saturating:
    """Decodes by a curve."""

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu()

    def decode(self, f: torch.Tensor) -> torch.Tensor:
        return f.clamp(max=0.5)


def averaged(folder: Path) -> Injected:
    return Injected(lambda: put_into_a_circuit(uneven_sae(normalize_activations="expected_average_only_in")))


def curved(folder: Path) -> Injected:
    return Injected(lambda: put_into_a_circuit(Saturating()))


def a_transcoder() -> Any:
    import sae_lens as sl

    return sl.Transcoder(sl.TranscoderConfig(d_in=6, d_sae=12, d_out=6, apply_b_dec_to_input=False)).eval()


def built_with(basis: Any) -> Injected:
    bases = {HOOKS[0]: basis, HOOKS[1]: Rotation(torch.eye(6))}
    acts = dict.fromkeys(HOOKS, six_wide())
    return Injected(lambda: build_circuit(tiny_model(), mlp_segments(tiny_model()), bases, acts, ReluOMP()))


def a_transcoder_at_the_input(folder: Path) -> Injected:
    return built_with(a_transcoder())


def a_recipe(folder: Path) -> Injected:
    return built_with(PretrainedSAE("gpt2-mini"))


# 42: configs

LAUGHS = "\n".join(
    ["a0: &a0 [lol, lol, lol]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 5)]
)


def a_config(text: str, **options: Any) -> Any:
    def inject(folder: Path) -> Injected:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "c.yaml").write_text(text)
        return Injected(lambda: read_config(folder / "c.yaml", **options))

    return inject


ROWS = [
    Fault(
        42,
        "billion laughs",
        a_config(LAUGHS),
        ConfigError,
        ("more than 10,000 values", "without aliases"),
        guard={"gatelens.pipeline.yaml_files.MOST": 10**12},
    ),
    Fault(42, "an alias within itself", a_config("bases: &b [1, *b]"), ConfigError, ("c.yaml",)),
    Fault(42, "a key given twice", a_config("seed: 1\nseed: 2"), ConfigError, ("'seed' is given twice", "line 2")),
    Fault(
        42,
        "a program in a safe config",
        a_config("name: n\nmodel: {use: 'subprocess:getoutput'}\ndata: {}\nbases: {}", safe=True),
        ConfigError,
        ("model: 'subprocess:getoutput'", "a config is code"),
        guard={"gatelens.pipeline.foreign._ours": lambda name: True},
    ),
    Fault(
        33,
        "SAE rescaled by decoder norms",
        rescaled,
        guard={"gatelens.gate_dictionaries.doors.admitted": lambda basis, *arguments: basis},
    ),
    Fault(
        33,
        "SAE rescaled by decoder norms in a folder",
        rescaled_in_a_folder,
        guard={"gatelens.bases.sae.pretrained.admitted": lambda basis, *arguments: basis},
    ),
    Fault(
        33,
        "decode that is not affine",
        curved,
        BasisError,
        ("hook_post.0", "not affine", "off the sum of each by a relative"),
        guard={"gatelens.basis.trial._with_true_weights": lambda basis, *arguments: basis},
    ),
    Fault(
        33, "normalisation that is not in the file", averaged, BasisError, ("'expected_average_only_in'", "Fold them")
    ),
    Fault(
        33,
        "transcoder as an SAE",
        a_transcoder_at_the_input,
        BasisError,
        ("hook_post.0 is a transcoder", "Transcoder(path=FOLDER)"),
        guard={"gatelens.bases.sae.admission.is_transcoder": lambda basis: False},
    ),
    Fault(33, "recipe as a basis", a_recipe, BasisError, ("hook_post.0 is a recipe", "fit it first")),
]
