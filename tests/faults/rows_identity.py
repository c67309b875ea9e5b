"""Rows about what things are: dictionaries that compute something else than their weights, and their kin.

Rows from 31 on are kinds of faults that users met; see README.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from fault import HOOKS, Fault, Injected, config_values, forty_rows, rewrite_json, tiny_model
from transformer_lens import HookedRootModule, HookedTransformer, HookedTransformerConfig
from transformer_lens.hook_points import HookPoint

from gatelens import (
    Circuit,
    Connector,
    GramLasso,
    PretrainedSAE,
    ReluOMP,
    Rotation,
    Segment,
    build_circuit,
    collect,
    evaluate,
    load_model,
    mlp_segments,
    splice,
)
from gatelens.basis.linear import basis_width, directions
from gatelens.data import Batches
from gatelens.errors import BasisError, ConfigError, DataError, ModelError, SegmentError, StoreError, TooLargeError
from gatelens.models import huggingface
from gatelens.pipeline import read_config, run
from gatelens.pipeline.config import check_config
from gatelens.pipeline.estimating import estimates
from gatelens.pipeline.running import ROOMS, state_of
from support.small_models import gpt2_folder

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


class Shown:
    """A dictionary that shows W and computes by other matrices, rules or states, as `encodes` and `decodes` say."""

    def __init__(self, encodes: Any, decodes: Any, **shown: Any):
        self.encodes, self.decodes = encodes, decodes
        for name, value in shown.items():
            setattr(self, name, value)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.encodes(self, x)

    def decode(self, f: torch.Tensor) -> torch.Tensor:
        return self.decodes(self, f)


def skew() -> torch.Tensor:
    return torch.randn(6, 6, generator=torch.Generator().manual_seed(2)) + 2 * torch.eye(6)


def shown(encodes: Any, decodes: Any, **weights: Any) -> Any:
    """Whatever a dictionary shows, the directions that the house reads are what it decodes, in float32."""

    def inject(folder: Path) -> Injected:
        def after(circuit: Any) -> None:
            basis, x = circuit.bases[HOOKS[0]], six_wide()
            f = basis.encode(x)
            ours = f @ directions(basis, f.shape[1]) + basis.decode(torch.zeros(1, f.shape[1]))
            theirs = Shown(encodes, decodes, **weights)
            like = x.to(next((v.dtype for v in weights.values() if isinstance(v, torch.Tensor)), x.dtype))
            true = theirs.decode(theirs.encode(like)).float()
            assert f.dtype == torch.float32
            assert (ours - true).norm() / true.norm() < 1e-2
            assert basis_width(basis, 6) == f.shape[1]

        return Injected(lambda: put_into_a_circuit(Shown(encodes, decodes, **weights)), after)

    return inject


def kept_norm(basis: Any, x: torch.Tensor) -> torch.Tensor:
    basis.norm = x.norm(dim=-1, keepdim=True)
    return (x / basis.norm).relu()


def a_rotation(matrix: torch.Tensor, mean: torch.Tensor | None = None) -> Any:
    return lambda folder: Injected(lambda: put_into_a_circuit(Rotation(matrix, mean)))


def estimated(section: str, **changes: Any) -> Any:
    """Asked what it would take; what is wrong with it is said then, and not after hours of work."""

    def inject(folder: Path) -> Injected:
        values = {key: dict(value) if isinstance(value, dict) else value for key, value in config_values().items()}
        values |= {section: values[section] | changes} if section else changes

        def act() -> Any:
            return estimates(state_of(check_config(values), folder), "bases", ROOMS)

        return Injected(act)

    return inject


# 35: a model that computes something else though its weights are the same


class Normed(HookedRootModule):
    """A linear layer with batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.drop, self.hook_out = torch.nn.BatchNorm1d(6), torch.nn.Dropout(0.5), HookPoint()
        self.hook_in = HookPoint()
        self.setup()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.hook_out(self.drop(self.norm(self.hook_in(x))))


def changed_beneath(change: Any, language: bool) -> Any:
    """The activations of before are not given back for those of a model that was changed where no weight is."""

    def inject(folder: Path) -> Injected:
        model = random_model() if language else Normed().eval()
        given: Any = torch.arange(1, 7)[None] if language else six_wide()
        hook = "blocks.1.hook_mlp_out" if language else "hook_out"
        before = collect(model, given, hook, store=folder / "acts")[hook]
        again = collect(model, given, hook, store=folder / "acts")[hook]
        assert torch.equal(before, again)
        change(model)
        assert not torch.allclose(collect(model, given, hook)[hook], before, rtol=1e-2)
        return Injected(lambda: collect(model, given, hook, store=folder / "acts"))

    return inject


def random_model() -> Any:
    cfg = HookedTransformerConfig(
        n_layers=2, d_model=8, n_ctx=12, d_head=4, n_heads=2, d_mlp=8, d_vocab=10, act_fn="relu", device="cpu", seed=1
    )
    return HookedTransformer(cfg, move_to_device=False).eval().requires_grad_(False)


def moved_mean(model: Any) -> None:
    model.norm.running_mean += 5


def other_activation(model: Any) -> None:
    model.blocks[0].mlp.act_fn = torch.tanh


def silenced(model: Any) -> None:
    model.blocks[0].mlp.forward = torch.zeros_like


def side_by_side(model: Any) -> None:
    model.cfg.parallel_attn_mlp = True


def circuit_of(model: Any, given: Any) -> Any:
    segments = mlp_segments(model, [1] if hasattr(model, "blocks") else None)
    acts = collect(model, given, segments)
    bases = {hook: Rotation(torch.eye(acts[hook].shape[1])) for hook in acts}
    return build_circuit(model, segments, bases, acts, GramLasso(mean_wires=3, signed=True), gates=False)


def words(rows: int = 6) -> torch.Tensor:
    return torch.randint(10, (rows, 8), generator=torch.Generator().manual_seed(3))


def in_a_changed_model(change: Any, use: Any, loaded: bool = False) -> Any:
    """What was read from a model is not put into what became of it, though no weight says so."""

    def inject(folder: Path) -> Injected:
        model = random_model()
        circuit = circuit_of(model, words())
        if loaded:
            circuit.save(folder / "circuit")
            circuit = Circuit.load(folder / "circuit")
        use(model, circuit)
        change(model)
        return Injected(lambda: use(model, circuit))

    return inject


def evaluated(model: Any, circuit: Any) -> Any:
    return evaluate(model, circuit, words())


def on_a_prompt(model: Any, circuit: Any) -> Any:
    return circuit.on(model, words(1)[0])


def spliced_in(model: Any, circuit: Any) -> Any:
    return model.run_with_hooks(words(), fwd_hooks=splice(circuit))


def half_the_output(model: Any) -> None:
    inner = model.blocks[1].mlp.forward
    model.blocks[1].mlp.forward = lambda x: inner(x) / 2


def a_moved_mean(folder: Path) -> Injected:
    model = Normed().eval()
    segments = [Segment("hook_in", "hook_out", model.norm, 6, 6)]
    acts = collect(model, six_wide(), segments)
    bases = {hook: Rotation(torch.eye(6)) for hook in acts}
    circuit = build_circuit(model, segments, bases, acts, GramLasso(mean_wires=3, signed=True), gates=False)
    moved_mean(model)
    return Injected(lambda: circuit.check_model(model))


def others_activations(folder: Path) -> Injected:
    model, other = random_model(), random_model()
    circuit, acts = circuit_of(model, words()), collect(other, words(), "blocks.1.hook_mlp_out")
    side_by_side(other)
    acts = collect(other, words(), mlp_segments(model, [1]))
    return Injected(lambda: evaluate(model, circuit, words(), acts=acts))


def other_rows_activations(folder: Path) -> Injected:
    model = random_model()
    circuit, acts = circuit_of(model, words()), collect(model, words(5), mlp_segments(model, [1]))
    return Injected(lambda: evaluate(model, circuit, words(), acts=acts))


def a_hook_that_picks(folder: Path) -> Injected:
    """A hook that does something else to one batch in the middle, behind as many hooks as before."""
    model, hook = tiny_model(), "hook_post.1"

    def picking(factor: float) -> Any:
        third = forty_rows().batch(2).inputs @ model.layers[0].weight.T + model.layers[0].bias
        return lambda value, hook: value * factor if torch.allclose(value, third.relu(), atol=1e-5) else value

    model.hook_post[0].add_hook(picking(1.0))
    collect(model, forty_rows(), hook, store=folder / "acts")
    model.reset_hooks()
    model.hook_post[0].add_hook(picking(3.0))
    return Injected(lambda: collect(model, forty_rows(), hook, store=folder / "acts"))


def other_labels(folder: Path) -> Injected:
    model, x = tiny_model(), forty_rows().inputs
    collect(model, Batches(x, torch.zeros(40).long()), HOOKS, store=folder / "acts")
    return Injected(lambda: collect(model, Batches(x, torch.ones(40).long()), HOOKS, store=folder / "acts"))


def other_documents(folder: Path) -> Injected:
    model, x = tiny_model(), forty_rows().inputs
    y = torch.zeros(40).long()
    collect(model, Batches(x, y), HOOKS, store=folder / "acts")
    return Injected(lambda: collect(model, Batches(x, y, document=y), HOOKS, store=folder / "acts"))


def in_training(folder: Path) -> Injected:
    return Injected(lambda: collect(Normed().train(), six_wide(), "hook_out"))


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


# 32, 36, 37: settings, types and families of models


def a_setting_that_would_be_dropped(folder: Path) -> Injected:
    gpt2_folder(folder / "mini", n_layer=1, scale_attn_by_inverse_layer_idx=True)
    return Injected(lambda: load_model(folder / "mini"))


def a_setting_that_a_bridge_drops(folder: Path) -> Injected:
    gpt2_folder(folder / "mini", n_layer=1, scale_attn_weights=False)
    return Injected(lambda: load_model(folder / "mini", bridge=True))


def lost_on_the_way(folder: Path) -> Injected:
    """A conversion that forgets a setting it was given."""
    gpt2_folder(folder / "mini", n_layer=1, layer_norm_epsilon=0.3)
    right = huggingface.CONFIGS["gpt2"]

    def act() -> Any:
        with mock.patch.dict(huggingface.CONFIGS, {"gpt2": lambda config: right(config) | {"eps": 1e-5}}):
            return load_model(folder / "mini")

    return Injected(act)


def bfloat16(folder: Path) -> Injected:
    gpt2_folder(folder / "mini", n_layer=1)

    def after(segments: Any) -> None:
        x = torch.randn(5, segments[0].d_in)
        assert segments[0].forward(x).dtype == torch.float32

    return Injected(lambda: mlp_segments(load_model(folder / "mini", dtype="bfloat16")), after)


def hooked(**settings: Any) -> Any:
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    shape = {"n_layers": 1, "d_model": 8, "n_ctx": 8, "d_head": 4, "n_heads": 2, "d_mlp": 8, "d_vocab": 10, "seed": 0}
    return HookedTransformer(HookedTransformerConfig(**shape | settings, act_fn="relu", device="cpu"))


def parallel(folder: Path) -> Injected:
    return Injected(lambda: mlp_segments(hooked(parallel_attn_mlp=True), mlp_in="resid_mid"))


def attention_only(folder: Path) -> Injected:
    return Injected(lambda: mlp_segments(hooked(attn_only=True)))


# 35, 43: what a model is, and what a run holds


def hook_left_on(folder: Path) -> Injected:
    model = tiny_model()
    collect(model, forty_rows(), HOOKS, store=folder)
    model.hook_post[0].add_hook(lambda value, hook: 0 * value)
    return Injected(lambda: collect(model, forty_rows(), HOOKS, store=folder))


def one_weight_changed(folder: Path) -> Injected:
    model = tiny_model().requires_grad_(False)
    collect(model, forty_rows(), HOOKS, store=folder)
    model.layers[1].weight[2, 3] += 1e-3
    return Injected(lambda: collect(model, forty_rows(), HOOKS, store=folder))


def another_model(folder: Path) -> Injected:
    segments = mlp_segments(tiny_model())
    acts = collect(tiny_model(), forty_rows(), segments)
    bases = {hook: Rotation(torch.eye(6)) for hook in HOOKS}
    circuit = build_circuit(tiny_model(), segments, bases, acts, GramLasso(mean_wires=3, signed=True), gates=False)
    return Injected(lambda: evaluate(tiny_model(1), circuit, forty_rows()))


def finished(folder: Path, change: Any) -> Injected:
    values = config_values() | {"evaluation": {"baselines": [], "curve_rows": 0}}
    run(check_config(values), folder, until="evaluate")
    change(folder)
    return Injected(lambda: run(check_config(values), folder, until="evaluate"))


def edited_report(folder: Path) -> Injected:
    def edit(at: Path) -> None:
        rewrite_json(at / "report.json", lambda report: report | {"seed": 7})

    injected = finished(folder, edit)

    def after(state: Any) -> None:
        assert json.loads((folder / "report.json").read_text())["seed"] == 0

    return Injected(injected.act, after)


def linked_circuit(folder: Path) -> Injected:
    def link(at: Path) -> None:
        (at / "circuit").rename(at.parent / "outside")
        (at / "circuit").symlink_to(at.parent / "outside")

    return finished(folder, link)


def its_own_config(folder: Path) -> Injected:
    """What messages name as the config to go on with, RUN/config.yaml, is one."""
    finished(folder, lambda at: (at / "circuit" / "gates-0.json").unlink())
    return Injected(lambda: run(read_config(folder / "config.yaml"), folder, until="gates"))


def config_gone_and_another_given(folder: Path) -> Injected:
    finished(folder, lambda at: (at / "config.yaml").unlink())
    other = config_values() | {"solver": {"use": "ReluOMP", "max_fan_in": 2}}
    return Injected(lambda: run(check_config(other), folder, until="evaluate"))


ROWS = [
    Fault(
        32,
        "a setting that a conversion drops",
        a_setting_that_would_be_dropped,
        ModelError,
        ("scale_attn_by_inverse_layer_idx = 'True'", "bridge=True"),
    ),
    Fault(
        32,
        "a setting that a bridge drops",
        a_setting_that_a_bridge_drops,
        ModelError,
        ("logits differ from the original's by a relative", "bridge leaves out"),
        guard={"gatelens.models.load.Original": lambda *arguments: SimpleNamespace(check=lambda model, advice: None)},
    ),
    Fault(
        32,
        "logits unlike the original's",
        lost_on_the_way,
        ModelError,
        ("differ from the original's by a relative",),
        guard={"gatelens.models.load.Original": lambda *arguments: SimpleNamespace(check=lambda model: None)},
    ),
    Fault(35, "a hook left on the model", hook_left_on, StoreError, ("active_hooks", "hook_post.0")),
    Fault(35, "one weight of a model changed", one_weight_changed, StoreError, ("model.weights: stored",)),
    Fault(
        35,
        "a circuit in another model",
        another_model,
        ModelError,
        ("weights have the hash", "dataclasses.replace"),
        guard={
            f"gatelens.circuits.{file}.weights_fingerprint": lambda *arguments: "the same"
            for file in ("building", "circuit")
        },
    ),
    Fault(36, "a model in bfloat16", bfloat16),
    Fault(37, "a parallel block has no resid_mid", parallel, SegmentError, ("side by side", 'mlp_in="mlp_in"')),
    Fault(37, "attention only", attention_only, SegmentError, ("attention only", "no plain MLP")),
    Fault(
        43,
        "an edited report",
        edited_report,
        None,
        ("warning:", "report.json is made again: it was edited or swapped"),
        guard={"gatelens.store.file_sha256": lambda path: "0" * 64},
    ),
    Fault(43, "a run's own config", its_own_config, None, ("circuit is made again",)),
    Fault(43, "a circuit that is a link", linked_circuit, StoreError, ("circuit is a link to",)),
    Fault(
        43, "a config deleted and another given", config_gone_and_another_given, StoreError, ("max_fan_in: stored 3",)
    ),
    Fault(
        42,
        "billion laughs",
        a_config(LAUGHS),
        ConfigError,
        ("more than 10,000 values", "without aliases"),
        guard={"gatelens.pipeline.yaml_files.MOST": 10**12},
    ),
    Fault(42, "an alias within itself", a_config("bases: &b [1, *b]"), ConfigError, ("c.yaml",)),
    *(
        Fault(42, name, estimated(section, **changes), ConfigError, says)
        for name, section, changes, says in (
            ("a number for a name", "data", {"use": 3}, ("data: `use:` takes a name", "got 3")),
            ("nothing for a name", "bases", {"use": None}, ("bases: `use:` takes a name", "got None")),
            ("a training that is none", "model", {"train": True}, ("model.train: expected keywords", "got True")),
            ("a setting of a training that is none", "model", {"train": {"epoch": 1}}, ("did you mean 'epochs'",)),
            ("a device that is not there", "", {"device": "tpu"}, ("device 'tpu' is not there", "cpu")),
            ("no epochs", "model", {"train": {"epochs": -1}}, ("epochs must be at least 0; got -1",)),
            ("fewer than one component", "bases", {"use": "PCA", "components": -3}, ("components must be at least 1",)),
            (
                "an unknown baseline",
                "evaluation",
                {"baselines": ["x"]},
                ("evaluation.baselines.0: input should be 'neurons'",),
            ),
            ("sizes that are a text", "model", {"sizes": "64"}, ("model.sizes: 'str' instances", "got '64'")),
        )
    ),
    Fault(
        42, "sizes beyond memory", estimated("model", sizes=[64, 10**12, 8, 10]), TooLargeError, ("would take", "TiB")
    ),
    Fault(
        42,
        "a seed below zero",
        a_config("seed: -1"),
        ConfigError,
        ("seed: input should be greater than or equal to 0",),
    ),
    Fault(42, "a name in capitals", a_config("name: Ä"), ConfigError, ("^[A-Za-z0-9_]",)),
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
    *(
        Fault(33, name, shown(encodes, decodes, **weights))
        for name, encodes, decodes, weights in (
            (
                "whitening that shows a matrix",
                lambda b, x: x @ b.matrix.T,
                lambda b, f: f @ torch.linalg.inv(b.matrix).T,
                {"matrix": skew()},
            ),
            (
                "a rotation that centres rows",
                lambda b, x: (x - x.mean(-1, keepdim=True)) @ b.matrix.T,
                lambda b, f: f @ b.matrix,
                {"matrix": torch.linalg.qr(skew())[0]},
            ),
            ("features in another order", lambda b, x: x.relu(), lambda b, f: f.flip(-1) @ b.W_dec, {"W_dec": skew()}),
            (
                "weights in bfloat16",
                lambda b, x: (x @ b.W_enc).relu(),
                lambda b, f: f @ b.W_dec,
                {"W_enc": skew().bfloat16(), "W_dec": skew().bfloat16()},
            ),
            (
                "weights in float64",
                lambda b, x: (x @ b.W_enc).relu(),
                lambda b, f: f @ b.W_dec,
                {"W_enc": skew().double(), "W_dec": skew().double()},
            ),
            (
                "features in float64",
                lambda b, x: x.double().relu(),
                lambda b, f: f.float() @ b.W_dec,
                {"W_dec": skew()},
            ),
            (
                "a width that is not its own",
                lambda b, x: x.relu(),
                lambda b, f: f,
                {"cfg": SimpleNamespace(d_in=6, d_sae=4)},
            ),
        )
    ),
    *(
        Fault(
            33, name, lambda folder, parts=parts: Injected(lambda: put_into_a_circuit(Shown(*parts))), BasisError, says
        )
        for name, parts, says in (
            (
                "decode that clamps large features",
                (lambda b, x: x.relu(), lambda b, f: f.clamp(max=5)),
                ("not affine",),
            ),
            ("decode that ends in a ReLU", (lambda b, x: x.abs(), lambda b, f: (f @ skew()).relu()), ("not affine",)),
            (
                "decode by the norm of the last rows",
                (kept_norm, lambda b, f: f * b.norm),
                ("something of the last encode",),
            ),
            (
                "decode by the mean of a batch",
                (lambda b, x: x, lambda b, f: f + f.mean(0)),
                ("decodes a row otherwise",),
            ),
            ("no features", (lambda b, x: x[:, :0], lambda b, f: torch.zeros(len(f), 6)), ("has no features",)),
        )
    ),
    Fault(33, "a rotation that is none", a_rotation(skew()), BasisError, ("not orthonormal", "qr(")),
    Fault(33, "more rows than a rotation has", a_rotation(torch.ones(9, 6)), BasisError, ("not orthonormal",)),
    Fault(33, "a rotation in bfloat16", a_rotation(torch.eye(6).bfloat16())),
    Fault(33, "a mean in float64", a_rotation(torch.eye(6), torch.ones(6).double())),
    Fault(
        33, "a mean of another width", a_rotation(torch.eye(6), torch.ones(5)), DataError, ("`mean`", "[5]", "[6, 6]")
    ),
    *(
        Fault(
            35,
            f"{name} changed",
            changed_beneath(change, language),
            StoreError,
            says,
        )
        for name, change, language, says in (
            ("a running mean", moved_mean, False, ("holds other values at", "though its weights")),
            ("an activation function", other_activation, True, ("holds other values at", "though its weights")),
            ("a forward", silenced, True, ("active_hooks.blocks.0.mlp",)),
            ("a setting", side_by_side, True, ("holds other values at", "though its weights")),
        )
    ),
    *(
        Fault(35, f"a circuit {where} whose model has {name}", in_a_changed_model(change, use, loaded), error, says)
        for where, use, loaded in (
            ("evaluated", evaluated, False),
            ("on a prompt", on_a_prompt, False),
            ("loaded and evaluated", evaluated, True),
            ("loaded and on a prompt", on_a_prompt, True),
        )
        for name, change, error, says in (
            ("another setting", side_by_side, ModelError, ("gives other values at", "though its weights")),
            ("another forward", silenced, ModelError, ("has hooks on it", "blocks.0.mlp")),
        )
    ),
    Fault(
        35,
        "a splice in a model that was changed",
        in_a_changed_model(half_the_output, spliced_in),
        SegmentError,
        ("forward misses what the model computes",),
        guard={"gatelens.evaluation.splicing._PROOF": 0},
    ),
    Fault(35, "a circuit whose model has another running mean", a_moved_mean, ModelError, ("gives other values at",)),
    Fault(35, "activations of another model", others_activations, ModelError, ("`acts` holds other values at",)),
    Fault(35, "activations of other rows", other_rows_activations, DataError, ("`acts`", "of the data given")),
    Fault(
        35,
        "a hook that acts on some batches only",
        a_hook_that_picks,
        StoreError,
        ("holds other values at hook_post.1",),
        guard={"gatelens.activations.again.active_hooks": lambda model: {}},
    ),
    Fault(35, "a store of other labels", other_labels, StoreError, ("with other tokens or labels (row 0: 0, now 1)",)),
    Fault(35, "a store of other documents", other_documents, StoreError, ("with other documents (row 1: 1, now 0)",)),
    *(
        Fault(42, f"the number {text}", a_config(f"seed: {text}"), ConfigError, ("line 1", f"reads {text} as", says))
        for text, says in (("010", "Write 8"), ("1:30", "Write 90"), ("-0_7", "Write -7"))
    ),
    Fault(35, "a model in training", in_training, ModelError, ("in training", "BatchNorm1d (norm)", "model.eval()")),
    Fault(33, "recipe as a basis", a_recipe, BasisError, ("hook_post.0 is a recipe", "fit it first")),
]
