"""Networks with known gates: sparse features in superposition, a real two-layer MLP between two hook points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from ..activations.collecting import Activations
from ..data import Batches
from ..errors import ConfigError
from ..segments import MLPWeights, Segment
from .features import Planted, PlantedFeatures, check_sizes, to_torch
from .truth import IN_CLASS, Noise, PlantedGate

HOOK_IN, HOOK_OUT = "hook_resid", "hook_mlp_out"
QUIET = Noise(0.0, 0.0, 0.0, 0.0)


class TwoLayerMLP(HookedRootModule):
    """x -> relu(x W_in + b_in) W_out + b_out, with hook points at both ends."""

    def __init__(self, d_in: int, d_hidden: int, d_out: int):
        super().__init__()
        self.W_in, self.b_in = nn.Parameter(torch.zeros(d_in, d_hidden)), nn.Parameter(torch.zeros(d_hidden))
        self.W_out, self.b_out = nn.Parameter(torch.zeros(d_hidden, d_out)), nn.Parameter(torch.zeros(d_out))
        self.hook_resid, self.hook_mlp_out = HookPoint(), HookPoint()
        self.setup()

    def forward(self, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows d_out"]:
        hidden = torch.relu(self.hook_resid(x) @ self.W_in + self.b_in)
        return self.hook_mlp_out(hidden @ self.W_out + self.b_out)


@dataclass(frozen=True)
class TrueDictionary:
    """The directions that features were planted along, as a basis.

    Features in superposition overlap, so reading them is an estimate too: the regression of the features on the
    activations, cut off below a threshold.

    Attributes:
        W_dec: [features, d] unit directions; W_enc: [d, features]; b_enc: [features]; threshold: least value that is on.
    """

    W_dec: Float[Tensor, "f d"]
    W_enc: Float[Tensor, "d f"]
    b_enc: Float[Tensor, " f"]
    threshold: float

    @classmethod
    def fitted(
        cls,
        directions: Float[Tensor, "f d"],
        features: Float[Tensor, "rows f"],
        x: Float[Tensor, "rows d"],
        threshold: float,
    ) -> TrueDictionary:
        """Known directions, with the readout that fits known features best (least squares)."""
        one = torch.cat([x, torch.ones(len(x), 1)], 1).double()
        gram = one.T @ one
        gram.diagonal().add_(1e-6 * gram.diagonal().mean())
        solution = torch.linalg.solve(gram, one.T @ features.double()).float()
        return cls(directions, solution[:-1], solution[-1], threshold)

    def encode(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows f"]:
        value = x @ self.W_enc + self.b_enc
        return torch.where(value > self.threshold, value, 0.0)

    def decode(self, f: Float[Tensor, "rows f"]) -> Float[Tensor, "rows d"]:
        return f @ self.W_dec


@dataclass(frozen=True, eq=False)
class PlantedNetwork:
    """A model whose MLP computes known gates of features that lie in superposition.

    Attributes:
        model: `TwoLayerMLP`; segment: its stretch from `hook_resid` to `hook_mlp_out`.
        features: the gates, and the rows of features.
        dictionaries: hook name -> the true directions as a basis.
        words: names of input features that have one.
        error: share of the target's variance that the MLP misses.
    """

    model: TwoLayerMLP
    segment: Segment
    features: Planted
    dictionaries: Mapping[str, TrueDictionary]
    error: float
    words: Mapping[int, str] = field(default_factory=dict)

    @property
    def gates(self) -> tuple[PlantedGate, ...]:
        return self.features.gates

    def batches(self, rows: int, seed: int = 0) -> Batches:
        """Rows at the model's input, to be walked by `collect`."""
        f_in, _ = self.features.sample(rows, seed)
        x = f_in.to_dense() @ self.dictionaries[HOOK_IN].W_dec
        nothing = torch.zeros(rows, dtype=torch.long)
        return Batches(x, nothing, torch.ones(rows, dtype=torch.bool), torch.arange(rows), name="planted")

    def activations(self, rows: int, seed: int = 0) -> Activations:
        """What the model computes at both hook points."""
        from ..activations.collecting import collect

        return collect(self.model, self.batches(rows, seed), [self.segment])


def plant_network(
    width_in: int = 96,
    d_in: int = 64,
    width_out: int = 32,
    d_out: int = 24,
    steps: int = 600,
    seed: int = 0,
    mix: Mapping[str, float] | None = None,
) -> PlantedNetwork:
    """A network of which every output feature is a planted gate.

    Args:
        width_in, d_in: features and dimensions at the input; superposition when width_in > d_in. The same at the output.
        steps: of training, after a construction with one hidden unit a gate.
        mix: shares of kinds of gates; None for all that typing can say.
    """
    features = PlantedFeatures(
        width_in=width_in, width_out=width_out, cluster=16, active_clusters=0.5, background_l0=0.5, zipf=0.3,
        noise=QUIET, seed=seed, mix=dict(IN_CLASS if mix is None else mix),
    )  # fmt: skip
    return _build(features.plant(), d_in, d_out, steps, seed)


def word_network(
    d_in: int = 56, d_out: int = 22, steps: int = 3000, seed: int = 0, apart: bool = False
) -> PlantedNetwork:
    """Two gates with names among others: former | old | young (weights .26, .23, .10), and said - said_after_quote.

    `said_after_quote` fires only where `said` does: a feature inside another. Weights of the other gates are scaled to
    the size of these. No other gate is the same function of the same inputs as a named one: two outputs that always fire
    together are one direction to any dictionary.

    Args:
        apart: no other gate reads an input of a named one. Else some fire wherever a named one does, and a dictionary
            that looks for few active features does well to merge them.
    """
    settings = PlantedFeatures(
        width_in=64, width_out=72 if apart else 24, cluster=8, background=0.7, subsets=0.35, active_clusters=0.3,
        background_l0=1.5, zipf=0.3, noise=QUIET, seed=seed,
    )  # fmt: skip
    planted = settings.plant()
    subset, words = (planted.world.role == "subset").nonzero(), {}
    if not len(subset[0]):
        raise ConfigError(f"seed {seed} has no feature inside another; take another seed")
    base = int(subset[0][0]) * planted.world.size
    inside = base + int(subset[1][0])
    outside = base + int(planted.world.host[subset[0][0], subset[1][0]])
    old = [planted.world.host.size + i for i in range(3)]  # background features: they fire one by one
    words = dict(zip([*old, outside, inside], ["former", "old", "young", "said", "said_after_quote"], strict=True))
    named = (
        PlantedGate(0, "or", tuple(old), (0.26, 0.23, 0.10), (1, 1, 1), low=1),
        PlantedGate(1, "and_not_subset", (outside, inside), (0.25, -0.4), (1, 64), low=1),
    )
    taken = set(words) if apart else set()
    twins = {(g.kind, g.inputs) for g in named}
    others = [g for g in planted.gates[2:] if (g.kind, g.inputs) not in twins and not taken & set(g.inputs)][:22]
    scaled = [
        replace(g, out=out, weights=tuple(0.25 * w for w in g.weights), bias=0.25 * g.bias)
        for out, g in enumerate(others, start=len(named))
    ]
    gates = (*named, *scaled)
    return replace(_build(replace(planted, gates=gates), d_in, d_out, steps, seed), words=words)


def _build(planted: Planted, d_in: int, d_out: int, steps: int, seed: int) -> PlantedNetwork:
    check_sizes(d_in=d_in, d_out=d_out)
    if steps < 0:
        raise ConfigError(f"steps = {steps}: expected 0 or more; none leaves the network as it was built")
    generator = torch.Generator().manual_seed(seed)
    D_in = spread_directions(planted.width_in, d_in, generator)
    D_out = spread_directions(planted.width_out, d_out, generator)
    f_in, f_out = _rows(planted, 20_000, seed)
    x, y = f_in @ D_in, f_out @ D_out
    size = float(f_out[f_out > 0].mean()) if (f_out > 0).any() else 1.0
    read_in = TrueDictionary.fitted(D_in, f_in, x, threshold=0.5)
    model = _constructed(planted.gates, read_in, D_out)
    _train(model, x, y, steps, size, generator)
    with torch.no_grad():
        made = model(x)
    error = float((made - y).square().sum() / (y - y.mean(0)).square().sum())
    read_out = TrueDictionary.fitted(D_out, f_out, made, threshold=0.2 * size)
    weights = MLPWeights(*(p.detach() for p in (model.W_in, model.b_in, model.W_out, model.b_out)), act="relu")
    segment = Segment(HOOK_IN, HOOK_OUT, weights, d_in, d_out, weights)
    return PlantedNetwork(model, segment, planted, {HOOK_IN: read_in, HOOK_OUT: read_out}, error)


def spread_directions(count: int, d: int, generator: torch.Generator) -> Float[Tensor, "count d"]:
    """Unit vectors that overlap little: random ones, pushed apart where they overlap most."""
    directions = F.normalize(torch.randn(count, d, generator=generator), dim=1)
    if count <= d:
        return torch.linalg.qr(directions.T).Q.T.contiguous()
    for _ in range(200):
        overlap = directions @ directions.T
        overlap.fill_diagonal_(0.0)
        directions = F.normalize(directions - 2.0 * (overlap**3) @ directions, dim=1)
    return directions


def _rows(planted: Planted, rows: int, seed: int) -> tuple[Float[Tensor, "rows m"], Float[Tensor, "rows n"]]:
    rng = np.random.default_rng((seed, 3))
    f_in = planted.world.draw(rows, rng)
    return to_torch(f_in).to_dense(), to_torch(planted.outputs(f_in, rng, QUIET)).to_dense()


def _constructed(gates: tuple[PlantedGate, ...], read: TrueDictionary, D_out: Float[Tensor, "n d"]) -> TwoLayerMLP:
    """One hidden unit a gate: it reads the gate's inputs, and writes the gate's direction."""
    model = TwoLayerMLP(read.W_enc.shape[0], len(gates), D_out.shape[1])
    with torch.no_grad():
        for i, gate in enumerate(gates):
            weights = torch.tensor(gate.weights)
            model.W_in[:, i] = read.W_enc[:, list(gate.inputs)] @ weights
            model.b_in[i] = gate.bias + read.b_enc[list(gate.inputs)] @ weights
        model.W_out.copy_(D_out)
    return model


def _train(
    model: TwoLayerMLP, x: Float[Tensor, "rows d_in"], y: Float[Tensor, "rows d_out"], steps: int, size: float,
    generator: torch.Generator,
) -> None:  # fmt: skip
    """Adam on the squared error against the true gates' outputs; frozen afterwards."""
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3 * min(size, 1.0))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
    for _ in range(steps):
        rows = torch.randint(len(x), (512,), generator=generator)
        loss = F.mse_loss(model(x[rows]), y[rows]) / size**2
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    model.eval().requires_grad_(False)
