"""Rows about what users bring: files, data sets, loaders, arrays, images, networks; and terminals that cannot write a character."""

from __future__ import annotations

import copy
import functools
import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from fault import Fault, Injected
from PIL import Image
from rows_positions import HOOKS, SENTENCES, mini, padded, small
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

import gatelens as gl
from gatelens.cli.main import main, tell
from gatelens.data import Batches
from gatelens.data.given import as_batches
from gatelens.errors import DataError, ModelError
from gatelens.evaluation.passes import Passes
from gatelens.models.training import Training
from gatelens.prompts.prompt import prompt_of

TEXTS = [f"One day the girl number {i} saw a dog. It was big." for i in range(12)]


def as_it_is(given: Callable[[], Any], says: tuple[str, ...] = ()) -> Any:
    """The same windows as from a plain list of the texts."""

    def inject(folder: Path) -> Injected:
        def after(parts: Any) -> None:
            expected = gl.text_batches(mini(), TEXTS, length=8, seed=3)
            for part, plain in zip(parts, expected, strict=True):
                assert torch.equal(part.inputs, plain.inputs)

        return Injected(lambda: gl.text_batches(mini(), given(), length=8, seed=3), after)

    return inject


def from_file(name: str, write: Callable[[Path], Any]) -> Any:
    def inject(folder: Path) -> Injected:
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / name)
        return as_it_is(lambda: folder / name)(folder)

    return inject


def lines(texts: list[Any]) -> bytes:
    return "\n".join(json.dumps({"text": t}, ensure_ascii=False) for t in texts).encode()


def one_document_a_line(folder: Path) -> Injected:
    """A line ends at "\\n": other separators are characters of the text."""
    folder.mkdir(parents=True)
    texts = [f"a{c}b the dog" for c in ("\u2028", "\u2029", "\x85", "\x0b", "\x1c")]
    (folder / "a.jsonl").write_bytes(lines(texts))

    def after(parts: Any) -> None:
        tokens = mini().tokenizer
        found = {"".join(tokens.decode(row[keep])) for p in parts for row, keep in zip(p.inputs, p.keep, strict=True)}
        assert found == {tokens.decode(tokens(t, add_special_tokens=False)["input_ids"]) for t in texts}

    return Injected(lambda: gl.text_batches(mini(), folder / "a.jsonl", length=32, packed=False), after)


def a_dataset(columns: dict[str, Any]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict(columns)


def splits() -> Any:
    from datasets import DatasetDict

    return DatasetDict(train=a_dataset({"text": TEXTS}), test=a_dataset({"text": ["no", "nothing"]}))


def stream() -> Any:
    return a_dataset({"text": TEXTS}).to_iterable_dataset()


def parquet_of_ids(path: Path) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    masks = [[1] * len(s) for s in SENTENCES]
    parquet.write_table(pa.table({"input_ids": SENTENCES, "attention_mask": masks}), path)
    return path


def rows_of_ids(given: Callable[[Path], Any], **options: Any) -> Any:
    """Rows of token ids, whichever they come in: each is a document, and its words are what counts."""

    def inject(folder: Path) -> Injected:
        folder.mkdir(parents=True, exist_ok=True)

        def after(parts: Any) -> None:
            found = {tuple(row[keep].tolist()) for p in parts for row, keep in zip(p.inputs, p.keep, strict=True)}
            assert found == {tuple(s[1:]) for s in SENTENCES}
            assert {p.inputs.dtype for p in parts} == {torch.int64}

        return Injected(lambda: gl.text_batches(small(), given(folder), rows=(2, 1), **options), after)

    return inject


def collected(given: Callable[[], Any], expected: Callable[[], Any]) -> Any:
    """The same rows whichever way the data is given."""

    def inject(folder: Path) -> Injected:
        def after(acts: Any) -> None:
            plain = expected()
            assert set(acts) == set(plain)
            assert all(torch.allclose(acts[h], plain[h], rtol=1e-4, atol=1e-5) for h in plain)

        return Injected(given, after)

    return inject


def of_prompts() -> Any:
    ids = mini().to_tokens("The dog saw the girl")
    return {hook: mini().run_with_cache(ids)[1][hook][0, 1:] for hook in HOOKS}


@functools.cache
def network() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Dropout(0.5), nn.Sequential(nn.Linear(6, 6, bias=False), nn.ReLU()), nn.Linear(6, 3)).eval()  # fmt: skip


def pixels() -> Tensor:
    return torch.randint(256, (10, 1, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def wrapped(kind: str) -> Any:
    """Images in every form give what the network itself gives on floats in [0, 1]."""
    forms: dict[str, Callable[[Tensor], Any]] = {
        "uint8": lambda x: x,
        "float64": lambda x: x.double() / 255,
        "flat": lambda x: x.flatten(1) / 255,
        "an array": lambda x: (x / 255).numpy(),
        "bytes of an array": lambda x: x.numpy(),
        "nested lists": lambda x: (x / 255).tolist(),
        "turned around twice": lambda x: (x.numpy()[:, :, ::-1] / 255)[:, :, ::-1],
    }

    def inject(folder: Path) -> Injected:
        x, labels = pixels(), (torch.arange(10) % 3).to(torch.int16)

        def after(acts: Any) -> None:
            hidden = network()[:2](x.float() / 255).relu()
            assert torch.allclose(acts["hook_post.0"], hidden, atol=1e-6)
            assert acts.token.tolist() == labels.tolist()

        return Injected(
            lambda: gl.collect(gl.HookedMLP(network()), Batches(forms[kind](x), labels), "hook_post.0"), after
        )

    return inject


def sequential(folder: Path) -> Injected:
    x = pixels().float() / 255

    def after(model: Any) -> None:
        assert model.sizes == (16, 6, 6, 3)
        assert torch.allclose(model(x), network()(x), atol=1e-6)
        assert network()[1].weight.data_ptr() != model.layers[0].weight.data_ptr()

    return Injected(lambda: gl.HookedMLP(network()), after)


def images_one_by_one(given: Callable[[Tensor], Any]) -> Any:
    """The same rows as of the images in one tensor."""

    def inject(folder: Path) -> Injected:
        model = gl.HookedMLP(network())

        def after(acts: Any) -> None:
            assert torch.equal(acts["hook_post.0"], gl.collect(model, pixels(), "hook_post.0")["hook_post.0"])

        return Injected(lambda: gl.collect(model, given(pixels()), "hook_post.0"), after)

    return inject


def changed_network(change: Callable[[Any], Any]) -> Any:
    """What a network does beside its layers is not copied without a word."""

    def changed() -> Any:
        made = copy.deepcopy(network())
        change(made)
        return gl.HookedMLP(made)

    return lambda folder: Injected(changed)


def column_of_labels(folder: Path) -> Injected:
    labels = (torch.arange(10) % 3)[:, None]

    def after(batches: Any) -> None:
        assert torch.equal(batches.targets, labels[:, 0])
        assert batches.keep.shape == (10,)

    return Injected(lambda: Batches(pixels(), labels), after)


def labels_of(kind: Any) -> Any:
    def act() -> Any:
        return Batches(torch.rand(6, 4), kind(torch.tensor([0, 1, 2, 0, 1, 2])))

    def after(batches: Any) -> None:
        assert batches.targets.tolist() == [0, 1, 2, 0, 1, 2]
        assert batches.keep.all()
        assert batches.document.tolist() == list(range(6))

    return lambda folder: Injected(act, after)


def answered_prompt(folder: Path) -> Injected:
    """Ids with their mask, padded on the left: the same prompt as its text."""
    answer = mini().tokenizer("The dog saw the girl", return_tensors="pt")
    ids = torch.cat([torch.tensor([[9]]), answer["input_ids"]], 1)  # a BOS is in the answer
    mask = torch.ones_like(ids)
    mask[0, 0] = 0

    def after(prompt: Any) -> None:
        assert torch.equal(prompt.inputs, prompt_of(mini(), "The dog saw the girl").inputs)

    return Injected(lambda: prompt_of(mini(), {"input_ids": ids, "attention_mask": mask}), after)


def act(function: Callable[[], Any]) -> Any:
    return lambda folder: Injected(function)


class Unsized(HookedRootModule):
    """A model of somebody's own, of which nobody knows how many classes it has; it counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.hook_a, self.hook_b = nn.Linear(4, 3), nn.Linear(3, 6), HookPoint(), HookPoint()
        self.setup()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.hook_b(self.first(self.hook_a(x)).relu()))

    @classmethod
    def with_circuit(cls) -> Any:
        model = cls().requires_grad_(False)
        segment = gl.Segment("hook_a", "hook_b", lambda x: model.first(x).relu(), 4, 3)
        acts = gl.collect(model, torch.rand(20, 4), segment)
        bases = gl.Neurons().fit([segment], acts)
        return model, gl.build_circuit(model, segment, bases, acts, gl.ReluOMP(min_firings=1), gates=False)


def raw_model() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, n_positions=8, vocab_size=16))


def ascii_terminal(encoding: str, command: Callable[[], int], errors: str = "strict") -> Any:
    def inject(folder: Path) -> Injected:
        raw = io.BytesIO()
        terminal = io.TextIOWrapper(raw, encoding=encoding, errors=errors)

        def write() -> int:
            with mock.patch.object(sys, "stdout", terminal), mock.patch.object(sys, "stderr", terminal):
                return command()

        def after(code: int) -> None:
            terminal.flush()
            assert code == 0
            assert b"\\u2228" in raw.getvalue()

        return Injected(write, after)

    return inject


def says_or(verb: str) -> Callable[[], int]:
    """A verb that ends in a gate with an OR sign in it."""

    def shown(options: Any) -> int:
        sys.stdout.write("a \u2228 b\n")
        tell("a \u2228 b")
        return 0

    def command() -> int:
        from gatelens.cli import tools

        with mock.patch.object(tools, "show_hooks", shown):
            return main([verb, "CONFIG"])

    return command


def in_a_shell(line: str, code: int, says: str = "") -> Any:
    """A light verb as a user's shell runs it: nothing of Python's own is said, whatever stands at its other end."""

    def inject(folder: Path) -> Injected:
        folder.mkdir(parents=True)
        plain = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}

        def act() -> Any:
            command = f'gatelens() {{ {shlex.quote(sys.executable)} -m gatelens "$@"; }}; set -o pipefail; {line}'
            return subprocess.run(["bash", "-c", command], cwd=folder, env=plain, capture_output=True, text=True)

        def after(done: Any) -> None:
            assert (done.returncode, "Traceback" in done.stderr, "Exception" in done.stderr) == (code, False, False)
            assert says in done.stdout + done.stderr

        return Injected(act, after)

    return inject


def hooks_of(text: str, expected: str) -> Any:
    def inject(folder: Path) -> Injected:
        folder.mkdir(parents=True)
        (folder / "c.yaml").write_text(text)
        out = io.StringIO()

        def show() -> int:
            with mock.patch.object(sys, "stdout", out):
                return main(["hooks", str(folder / "c.yaml")])

        def after(code: int) -> None:
            assert code == 0
            assert expected in out.getvalue()

        return Injected(show, after)

    return inject


ROWS = [
    Fault(38, "a data set", as_it_is(lambda: a_dataset({"text": TEXTS}))),
    Fault(38, "a data set in splits", as_it_is(splits)),
    Fault(38, "a list of dicts", as_it_is(lambda: [{"text": t, "id": i} for i, t in enumerate(TEXTS)])),
    Fault(38, "an array of texts", as_it_is(lambda: np.array(TEXTS))),
    Fault(38, "a mapping of columns", as_it_is(lambda: {"text": TEXTS})),
    Fault(38, "null rows in a list", as_it_is(lambda: [None, *TEXTS, {"text": None}]), None, ("2 of 14 rows", "null")),
    Fault(38, "a streamed data set", act(lambda: gl.text_batches(mini(), stream(), length=8)), None),
    Fault(
        38,
        "another column",
        act(lambda: gl.text_batches(mini(), a_dataset({"txt": TEXTS}), length=8)),
        DataError,
        ("unknown text column 'text'; did you mean 'txt'",),
    ),
    Fault(
        38,
        "a column of numbers",
        act(lambda: gl.text_batches(mini(), a_dataset({"text": [1, 2, 3]}), length=8)),
        DataError,
        ("row 0 holds 1", "strings"),
    ),
    Fault(
        38,
        "another split",
        act(lambda: gl.text_batches(mini(), splits(), length=8, split="tests")),
        DataError,
        ("unknown split 'tests'; did you mean 'test'",),
    ),
    Fault(
        38,
        "a data set of ids",
        rows_of_ids(
            lambda folder: a_dataset({"input_ids": SENTENCES, "attention_mask": [[1] * len(s) for s in SENTENCES]})
        ),
    ),
    Fault(38, "nested lists of ids", rows_of_ids(lambda folder: SENTENCES)),
    Fault(38, "an array of ids", rows_of_ids(lambda folder: padded("right").numpy().astype(np.uint16))),
    Fault(
        38,
        "ids under a mask",
        rows_of_ids(lambda folder: padded("left", 3), attention_mask=(padded("left") != 9).numpy()),
    ),
    Fault(
        38,
        "the tokenizer's own answer",
        rows_of_ids(lambda folder: {"input_ids": padded("left"), "attention_mask": (padded("left") != 9).long()}),
    ),
    Fault(
        38,
        "the tokenizer's own answer without padding",
        rows_of_ids(lambda folder: {"input_ids": SENTENCES, "attention_mask": [[1] * len(s) for s in SENTENCES]}),
    ),
    Fault(
        38, "a loader of tensors", rows_of_ids(lambda folder: DataLoader(TensorDataset(padded("right")), batch_size=2))
    ),
    Fault(
        38,
        "a loader of records",
        rows_of_ids(
            lambda folder: DataLoader(
                a_dataset({"input_ids": padded("right").tolist()}).with_format("torch"), batch_size=2
            )
        ),
    ),
    Fault(
        38,
        "ids and texts mixed",
        act(lambda: gl.text_batches(mini(), ["a text", [1, 2]], length=8)),
        DataError,
        ("one row holds token ids",),
    ),
    Fault(
        38,
        "a mask of another shape",
        act(lambda: gl.text_batches(small(), padded("left"), attention_mask=torch.ones(3, 4))),
        DataError,
        ("[3, 5]", "[3, 4]"),
    ),
    Fault(
        38,
        "a stream of ids",
        act(lambda: gl.text_batches(small(), torch.ones(99, dtype=torch.long))),
        DataError,
        ("[99]", "reshape(-1, length)"),
    ),
    Fault(38, "eight rows", act(lambda: gl.text_batches(mini(), TEXTS * 9, rows=8, length=8)[0].examples), None),
    Fault(
        38,
        "rows that are no numbers",
        act(lambda: gl.text_batches(mini(), TEXTS, rows="8", length=8)),
        DataError,
        ("(8, 2)", "'8'"),
    ),
    Fault(
        38,
        "fewer than one row",
        act(lambda: gl.image_batches(rows=(-5, 2))),
        DataError,
        ("rows must be a whole number of at least 1", "-5"),
    ),
    Fault(38, "a prompt", collected(lambda: gl.collect(mini(), "The dog saw the girl", HOOKS), of_prompts)),
    Fault(38, "prompts", collected(lambda: gl.collect(mini(), ["The dog saw the girl"], HOOKS), of_prompts)),
    Fault(
        38,
        "tokens",
        collected(lambda: gl.collect(mini(), mini().to_tokens("The dog saw the girl"), list(HOOKS)), of_prompts),
    ),
    Fault(
        38,
        "a row of ids",
        collected(lambda: gl.collect(mini(), mini().to_tokens("The dog saw the girl")[0].tolist(), HOOKS), of_prompts),
    ),
    Fault(
        38,
        "one hook name",
        collected(
            lambda: gl.collect(mini(), "The dog saw the girl", HOOKS[0]), lambda: {HOOKS[0]: of_prompts()[HOOKS[0]]}
        ),
    ),
    Fault(
        38,
        "a loader of texts",
        collected(lambda: gl.collect(mini(), DataLoader(["The dog saw the girl"], batch_size=2), HOOKS), of_prompts),
    ),
    Fault(
        38,
        "a column of words",
        act(lambda: gl.text_batches(mini(), [{"text": ["The", "dog"]}, {"text": ["a", "girl"]}], length=4)),
        DataError,
        ("row 0 holds a list of texts (['The', 'dog'])", '" ".join(row)'),
    ),
    Fault(38, "a tokenizer's answer as a prompt", answered_prompt),
    Fault(38, "one segment", act(lambda: gl.collect(mini(), "The dog", gl.mlp_segments(mini(), 1)[0])), None),
    Fault(
        38,
        "points that are none",
        act(lambda: gl.collect(mini(), "The dog", 3)),
        DataError,
        ("expected segments or hook names, got int",),
    ),
    Fault(
        38,
        "both parts at once",
        act(lambda: gl.collect(gl.HookedMLP((64, 4, 4, 10)), gl.image_batches(), "hook_post.0")),
        DataError,
        ("2 parts of the data", "batches[0]"),
    ),
    Fault(
        38,
        "a raw model",
        act(lambda: gl.collect(raw_model(), [[1, 2]], "h")),
        ModelError,
        ("GPT2LMHeadModel has no hook points", "boot_transformers"),
    ),
    Fault(
        38,
        "a raw model to load",
        act(lambda: gl.load_model(raw_model())),
        ModelError,
        ("GPT2LMHeadModel has no hook points", "save_pretrained"),
    ),
    Fault(
        38,
        "segments of a raw model",
        act(lambda: gl.mlp_segments(raw_model())),
        ModelError,
        ("GPT2LMHeadModel", "load_model"),
    ),
    Fault(
        38, "segments of a chain of layers", act(lambda: gl.mlp_segments(network())), ModelError, ("HookedMLP(model)",)
    ),
    Fault(38, "a chain of layers", sequential),
    Fault(
        38,
        "a chain with another nonlinearity",
        act(lambda: gl.HookedMLP(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)))),
        ModelError,
        ("layer 1 of the network is Tanh", "expected ReLU"),
    ),
    Fault(
        38,
        "a chain that ends in a nonlinearity",
        act(lambda: gl.HookedMLP(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))),
        ModelError,
        ("1 linear layers and does not end in one",),
    ),
    *(
        Fault(38, f"images as {kind}", wrapped(kind))
        for kind in ("uint8", "float64", "flat", "an array", "bytes of an array", "nested lists", "turned around twice")
    ),
    *(
        Fault(38, f"images {name}", images_one_by_one(given))
        for name, given in {
            "in a list": list,
            "in a list of arrays": lambda x: [v.numpy() for v in x],
            "from a generator": iter,
            "of another library": lambda x: [Image.fromarray(v[0].numpy()) for v in x],
        }.items()
    ),
    *(
        Fault(38, f"a network with {name}", changed_network(change), ModelError, says)
        for name, (change, says) in {
            "a hook": (
                lambda n: n[1].register_forward_hook(lambda m, i, o: 2 * o),
                ("something else than its linear layers", "Take them off"),
            ),
            "another forward": (
                lambda n: setattr(n[1], "forward", lambda x, own=n[1].forward: own(x) + 1),
                ("something else than its linear layers",),
            ),
            "NaN in its weights": (lambda n: n[1].weight.data.fill_(float("nan")), ("not finite",)),
            "no weights": (lambda n: n.to("meta"), ("on the device meta",)),
        }.items()
    ),
    Fault(
        38,
        "a pair of images and labels",
        act(lambda: gl.collect(gl.HookedMLP(network()), (pixels(), torch.zeros(10).long()), "hook_post.0")),
        DataError,
        ("Batches(inputs, labels)",),
    ),
    Fault(
        38,
        "a loader of records for images",
        act(
            lambda: gl.collect(
                gl.HookedMLP(network()), DataLoader([{"image": v, "label": 0} for v in pixels()]), "hook_post.0"
            )
        ),
        DataError,
        ("records (image, label)", "TensorDataset"),
    ),
    *(
        Fault(
            38,
            f"one-hot labels of {name}",
            act(lambda x=x: Batches(x, torch.nn.functional.one_hot(torch.arange(10) % 3, 3))),
            DataError,
            ("one_hot.argmax(1)",),
        )
        for name, x in {
            "images of as many channels": torch.rand(10, 3, 4, 4),
            "rows as wide": torch.rand(10, 3),
        }.items()
    ),
    Fault(38, "a column of labels beside images of one channel", column_of_labels),
    Fault(
        38,
        "images of another size",
        act(lambda: gl.collect(gl.HookedMLP(network()), torch.rand(3, 5, 5), "hook_post.0")),
        DataError,
        ("25 values", "16"),
    ),
    *(
        Fault(38, f"labels of {name}", labels_of(kind))
        for name, kind in {
            "int8": lambda y: y.to(torch.int8),
            "uint8": lambda y: y.to(torch.uint8),
            "a list": lambda y: y.tolist(),
            "uint16": lambda y: y.numpy().astype(np.uint16),
            "a column": lambda y: y[:, None],
        }.items()
    ),
    Fault(
        38,
        "labels that are no numbers of classes",
        act(lambda: Batches(torch.rand(2, 4), torch.rand(2))),
        DataError,
        ("whole numbers", "labels.long()"),
    ),
    Fault(
        38,
        "labels of several lengths",
        act(lambda: Batches(torch.rand(3, 4), [1, 2])),
        DataError,
        ("differ in length", "(3, 2, 2, 2)"),
    ),
    *(
        Fault(
            38,
            f"whole numbers for images, {name}",
            act(lambda use=use: use(gl.HookedMLP(network()), Batches(pixels().long(), torch.zeros(10).long()))),
            DataError,
            ("int64 from 0 to 25", "x.float() / 255", "features are x.float()"),
        )
        for name, use in {
            "collected": lambda model, data: gl.collect(model, data, "hook_post.0"),
            "trained on": lambda model, data: Training(epochs=1).fit(model, data),
            "on prompt": lambda model, data: gl.collect(model, data.inputs, "hook_post.0"),
        }.items()
    ),
    *(
        Fault(38, f"labels without a class, {name}", act(use), DataError, ("a target is", "the classes 0.."))
        for name, use in {
            "collected": lambda: gl.collect(gl.HookedMLP(network()), Batches(pixels(), [0] * 9 + [3]), "hook_post.0"),
            "trained on": lambda: Training(epochs=1).fit(
                gl.HookedMLP(network()), Batches(pixels(), [0] * 9 + [7], batch_size=2)
            ),
            "next tokens": lambda: gl.collect(
                mini(), Batches(torch.ones(2, 3).long(), torch.full((2, 3), 9**9), metric="ce"), HOOKS
            ),
            "of a model of one's own": lambda: gl.evaluate(
                *Unsized.with_circuit(), Batches(torch.rand(9, 4), [0] * 8 + [6], batch_size=2)
            ),
        }.items()
    ),
    *(
        Fault(38, f"nothing to judge by, {name}", act(use), DataError, ("no example has a label",))
        for name, use in {
            "images": lambda: gl.evaluate(*Unsized.with_circuit(), torch.rand(9, 4)),
            "tokens": lambda: Passes(mini(), as_batches(mini(), torch.tensor([[5], [7]]))).clean,
        }.items()
    ),
    Fault(
        38,
        "a loader of ids and a mask without names",
        act(
            lambda: gl.collect(small(), DataLoader(TensorDataset(padded("right"), padded("right").clamp(max=1))), HOOKS)
        ),
        DataError,
        ("is a tuple of ids", "may be an attention mask", '"attention_mask": mask'),
    ),
    Fault(
        38,
        "labels below zero",
        act(lambda: Batches(torch.rand(3, 4), [0, -1, -100])),
        DataError,
        ("a target is -1", "-100 where there is none"),
    ),
    Fault(39, "line separators within a text", one_document_a_line),
    Fault(39, "a byte order mark", from_file("a.jsonl", lambda path: path.write_bytes(b"\xef\xbb\xbf" + lines(TEXTS)))),
    Fault(
        39,
        "a byte order mark of UTF-16",
        from_file("a.jsonl", lambda path: path.write_text(lines(TEXTS).decode(), encoding="utf-16")),
    ),
    Fault(
        39,
        "a byte order mark of plain text",
        from_file("a.txt", lambda path: path.write_text("<|endoftext|>".join(TEXTS), encoding="utf-8-sig")),
    ),
    Fault(
        39,
        "null rows",
        from_file("a.jsonl", lambda path: path.write_bytes(lines([TEXTS[0], None, *TEXTS[1:]]) + b"\nnull\n")),
        None,
        ("2 of 14 rows", "are null and were left out"),
    ),
    Fault(
        39,
        "line ends of another system",
        from_file("a.jsonl", lambda path: path.write_bytes(lines(TEXTS).replace(b"\n", b"\r\n"))),
    ),
    Fault(
        39,
        "half a character",
        act(lambda: gl.text_batches(mini(), ["a \ud800 dog", *TEXTS], length=8)),
        None,
        ("1 of 13 rows", "half a character"),
    ),
    Fault(
        39,
        "half a character in a prompt",
        act(lambda: gl.collect(mini(), "a \udfff dog", HOOKS)),
        None,
        ("half a character",),
    ),
    Fault(39, "parquet of ids", rows_of_ids(lambda folder: parquet_of_ids(folder / "a.parquet"))),
    Fault(
        39,
        "parquet of ids by name",
        rows_of_ids(lambda folder: parquet_of_ids(folder / "a.parquet"), column="input_ids"),
    ),
    Fault(42, "a terminal of ASCII", ascii_terminal("ascii", says_or("hooks"))),
    Fault(42, "a terminal of the C locale", ascii_terminal("ascii", says_or("hooks"), "surrogateescape")),
    Fault(42, "a terminal of Latin-1", ascii_terminal("latin-1", says_or("hooks"))),
    Fault(
        42,
        "a terminal of an old code page",
        ascii_terminal("cp1252", says_or("hooks")),
        guard={"gatelens.cli.main._write_anything": lambda: None},
    ),
    Fault(42, "a reader that has gone", in_a_shell("gatelens completion bash | true", 0)),
    Fault(42, "a reader of help that has gone", in_a_shell("gatelens --help | true", 0)),
    Fault(42, "no standard output", in_a_shell("gatelens --version >&-", 0)),
    Fault(42, "no output at all", in_a_shell("gatelens run nothing.yaml >&- 2>&-", 2)),
    Fault(
        42,
        "a narrow dumb terminal",
        in_a_shell("LC_ALL=C TERM=dumb COLUMNS=20 gatelens run 'Ä.yaml'", 2, "there is no config"),
    ),
    Fault(
        42, "hook points without data", hooks_of("model: {use: load_model, name: gpt2-mini}", "blocks.3.hook_mlp_out")
    ),
    Fault(
        42,
        "hook points of a network without data",
        hooks_of("model: {use: HookedMLP, sizes: [8, 4, 4, 2]}", "hook_post.1"),
    ),
]
