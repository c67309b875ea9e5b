"""Text as windows: BOS and padding out of statistics, parts split by document, every kind of source, bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from gatelens import load_model, text_batches
from gatelens.data.prose import prose
from gatelens.errors import DataError, GateLensWarning, HubError
from support.small_models import TEXT, gpt2_folder

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
from _books import articles, chapters


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(gpt2_folder(tmp_path_factory.mktemp("text") / "mini"))


def test_packed_windows_are_the_documents_in_turn(model):
    fit, held = text_batches(model, TEXT, length=16)
    bos = model.tokenizer.bos_token_id
    assert (fit.inputs[:, 0] == bos).all()
    assert torch.equal(fit.keep, fit.inputs != bos)
    assert fit.metric == "ce"
    texts = [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXT]
    for part in (fit, held):
        numbers = part.document.unique().tolist()
        for number in numbers[:-1]:  # the last one may be cut off
            assert part.inputs[(part.document == number) & part.keep].tolist() in texts
    assert len(torch.unique(held.document)) >= 2


def test_targets_are_the_next_tokens(model):
    fit, _ = text_batches(model, TEXT, length=16)
    real = fit.targets != -100
    assert torch.equal(fit.targets[:, :-1][real[:, :-1]], fit.inputs[:, 1:][real[:, :-1]])
    assert not real[:, -1].any()
    assert (fit.targets != model.tokenizer.bos_token_id).all()
    assert real[:, 0].all()  # the first word is predicted from BOS


def test_unpacked_windows_hold_one_document_and_padding_counts_nowhere(model):
    fit, held = text_batches(model, TEXT, length=32, packed=False)
    for part in (fit, held):
        assert all(len(set(row)) == 1 for row in part.document.tolist())
        last = part.keep.long().cumsum(1).argmax(1)
        for window, end in zip(range(len(part.inputs)), last.tolist(), strict=True):
            assert not part.keep[window, end + 1 :].any()
            assert (part.targets[window, end:] == -100).all()
        tokens = sum(len(model.tokenizer(t, add_special_tokens=False)["input_ids"]) for t in TEXT)
    assert fit.rows + held.rows == tokens
    assert f"{fit.keep.numel() - fit.rows} positions left out (BOS, padding)" in repr(fit)


def test_no_document_is_in_both_parts_and_duplicates_are_dropped(model):
    fit, held = text_batches(model, TEXT + TEXT, length=32, packed=False)
    assert not set(fit.document.unique().tolist()) & set(held.document.unique().tolist())
    assert len(fit.document.unique()) + len(held.document.unique()) == len(set(TEXT))


def test_rows_and_seed(model):
    fit, held = text_batches(model, TEXT, rows=(20, 5), length=16, seed=1)
    assert (fit.examples, held.examples) == (20, 5)
    again, _ = text_batches(model, TEXT, rows=(20, 5), length=16, seed=1)
    other, _ = text_batches(model, TEXT, rows=(20, 5), length=16, seed=2)
    assert torch.equal(fit.inputs, again.inputs)
    assert not torch.equal(fit.inputs, other.inputs)


def test_bos_can_be_kept_or_left_away(model):
    bos = model.tokenizer.bos_token_id
    fit, _ = text_batches(model, TEXT, length=16, keep_bos=True)
    assert fit.keep.all()
    fit, _ = text_batches(model.tokenizer, TEXT, length=16, prepend_bos=False)
    assert (fit.inputs != bos).all()


def test_every_kind_of_file(model, tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    records = [{"text": t, "other": i} for i, t in enumerate(TEXT)]
    (tmp_path / "a.txt").write_text("<|endoftext|>".join(TEXT))
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps(r) for r in records))
    (tmp_path / "c.json").write_text(json.dumps(records))
    (tmp_path / "d.json").write_text(json.dumps(TEXT))
    parquet.write_table(pa.table({"text": TEXT}), tmp_path / "e.parquet")
    parts = [
        text_batches(model, tmp_path / name, length=16, seed=3)[0]
        for name in sorted(p.name for p in tmp_path.iterdir())
    ]
    for part in parts[1:]:
        assert torch.equal(part.inputs, parts[0].inputs)
    together = text_batches(model, tmp_path, length=16)[0]
    assert together.examples == pytest.approx(parts[0].examples, rel=0.2)  # the same documents five times count once


def test_held_out_from_another_source(model, tmp_path):
    (tmp_path / "one.txt").write_text("the old king said the young queen went " * 9)
    fit, held = text_batches(model, tmp_path / "one.txt", length=16, held_out=TEXT)
    assert fit.name == "one.txt"
    assert held.examples > fit.examples
    with pytest.raises(DataError, match=r"at least two documents.*found 1.*held_out"):
        text_batches(model, tmp_path / "one.txt", length=16)


def test_tokens_that_are_there_already(model):
    bos = model.tokenizer.bos_token_id
    tokens = torch.randint(1, 200, (10, 8))
    tokens[:, 0] = bos
    tokens[3, 5:] = bos  # this tokenizer pads with the same id
    model.tokenizer.pad_token = model.tokenizer.bos_token
    fit, held = text_batches(model, tokens, rows=(7, 3))
    assert (fit.examples, held.examples) == (7, 3)
    for part in (fit, held):
        assert torch.equal(part.keep, part.inputs != bos)
        assert (part.targets[:, :-1][~part.keep[:, 1:]] == -100).all()
    plain, _ = text_batches(None, tokens)
    assert plain.keep.all()
    with pytest.raises(DataError, match="9 and 3 rows were asked for, the tensor has 10"):
        text_batches(model, tokens, rows=(9, 3))
    with pytest.raises(DataError, match="integer token ids"):
        text_batches(model, tokens.float())


def test_bad_text(model, tmp_path):
    with pytest.raises(DataError, match="there is no text at"):
        text_batches(model, tmp_path / "nowhere.txt", length=16)
    with pytest.raises(DataError, match=r"holds no \.txt"):
        text_batches(model, tmp_path, length=16)
    (tmp_path / "a.csv").write_text("a,b")
    with pytest.raises(DataError, match="is none of"):
        text_batches(model, tmp_path / "a.csv", length=16)
    (tmp_path / "a.json").write_text("{]")
    with pytest.raises(DataError, match="is not JSON"):
        text_batches(model, tmp_path / "a.json", length=16)
    (tmp_path / "b.jsonl").write_text('{"txt": "a"}\n{"txt": "b"}')
    with pytest.raises(DataError, match=r"unknown text column 'text'; did you mean 'txt'"):
        text_batches(model, tmp_path / "b.jsonl", length=16)
    (tmp_path / "c.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="not a whole parquet"):
        text_batches(model, tmp_path / "c.parquet", length=16)
    with pytest.raises(DataError, match="at least two documents.*found 0"):
        text_batches(model, ["", "  "], length=16)
    with pytest.raises(DataError, match="gives no window of 16 tokens"):
        text_batches(model, ["the old", "young man"], length=16)
    with pytest.raises(DataError, match="at most 32.*got 64"):
        text_batches(model, TEXT, length=64)
    with pytest.raises(DataError, match="no tokenizer"):
        text_batches(None, TEXT)
    with pytest.raises(DataError, match="must hold strings"):
        text_batches(model, [["a"], ["b"]], length=16)
    with pytest.warns(GateLensWarning, match=r"windows, 9000 were asked for"):
        text_batches(model, TEXT, rows=(9000, 2), length=16)


def test_a_hub_that_is_out_of_reach_is_told_at_once(model, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(HubError, match=r"'someone/some-text' is not in the cache.*Give a local path"):
        text_batches(model, "someone/some-text", length=16)


def test_books_and_articles_become_running_text():
    book = "CONTENTS\n\nCHAPTER I.\n\nCHAPTER I.\n\n“A long\nday,” he_ said_—\n\n[Illustration: x\n y]It’s.\n\nCHAPTER 2\n\nShort."
    assert prose("“A\nb”\n\n\n c ") == '"A b"\n\nc'
    assert chapters(book, shortest=10) == ['"A long day," he said--\n\nIt\'s.']
    wiki = ' = Du Fu = \n He was 25 @,@ 000 miles away , " so far " ( said he ) . \n = = Life = = \n It \'s odd . \n'
    assert articles(wiki, shortest=1) == ['He was 25,000 miles away, "so far" (said he).\n\nIt\'s odd.']
