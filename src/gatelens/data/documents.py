"""Documents: the texts that a source holds, one after another, in an order that the seed decides."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError, HubError, unknown
from .hub import dataset_in_cache, hub_in_reach

#: texts inside this package
SHIPPED = {"gpt2-mini-sample": Path(__file__).resolve().parents[1] / "demo" / "sample.txt"}
SUFFIXES = (".txt", ".json", ".jsonl", ".parquet")


def documents_of(
    source: str | Path | Sequence[Any], column: str, split: str, subset: str | None, separator: str | None, seed: int
) -> Iterator[str]:
    """The documents of a file, a folder, a hub data set or a list; streamed ones are shuffled in a buffer only.

    Raises:
        DataError: nothing there, a kind that is not read, a missing column.
        HubError: a hub data set that is neither cached nor in reach.
    """
    if not isinstance(source, str | Path):
        documents = list(source)
        if not all(isinstance(d, str) for d in documents):
            raise DataError("a list of documents must hold strings; for token ids give a tensor [n, T]")
    elif (files := local_files(source)) is None:
        yield from _hub_documents(str(source), column, split, subset, seed)
        return
    else:
        documents = [d for file in files for d in _file_documents(file, column, separator)]
    random.Random(seed).shuffle(documents)
    yield from documents


def local_files(source: str | Path) -> list[Path] | None:
    """The files that a path means; None when it is the name of a hub data set."""
    path = SHIPPED.get(str(source)) or Path(source).expanduser()
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES and p.is_file())
        if not files:
            raise DataError(f"{path} holds no {', '.join(SUFFIXES)} file: give another folder")
        return files
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise DataError(f"{path} is none of {', '.join(SUFFIXES)}: convert it to plain text")
        return [path]
    if isinstance(source, Path) or str(source).startswith((".", "/", "~")) or path.suffix in SUFFIXES:
        raise DataError(f"there is no text at {path}: give a file or folder that exists, or the name of a hub data set")
    return None


def _file_documents(path: Path, column: str, separator: str | None) -> Iterator[str]:
    if path.suffix == ".txt":
        text = path.read_text(encoding="utf-8", errors="replace")
        yield from text.split(separator) if separator else [text]
    elif path.suffix == ".parquet":
        yield from _parquet_column(path, column)
    else:
        for row in _json_rows(path):
            yield row if isinstance(row, str) else _column(row, column, path)


def _json_rows(path: Path) -> list[Any]:
    """A JSON array, or one JSON value a line."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json" and text.lstrip().startswith("["):
            return json.loads(text)
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:  # bytes that are no UTF-8 among them
        raise DataError(
            f"{path} is not JSON ({error}): expected a list of texts or records, or one record a line"
        ) from error


def _column(row: Any, column: str, path: Path | str) -> str:
    if not isinstance(row, dict) or not isinstance(row.get(column), str):
        names = row if isinstance(row, dict) else []
        raise DataError(f"{path}: {unknown('text column', column, names)}. Set `column`")
    return row[column]


def _parquet_column(path: Path, column: str) -> Iterator[str]:
    from pyarrow import ArrowException, parquet

    try:
        file = parquet.ParquetFile(path)
        if column not in file.schema_arrow.names:
            raise DataError(f"{path}: {unknown('text column', column, file.schema_arrow.names)}. Set `column`")
        for batch in file.iter_batches(columns=[column]):
            yield from (text for text in batch.column(0).to_pylist() if text)
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a whole parquet file ({error}). Download it again") from error


def _hub_documents(name: str, column: str, split: str, subset: str | None, seed: int) -> Iterator[str]:
    local = "Give a local path instead: a .txt, .json or .parquet file, or a folder of them"
    if not dataset_in_cache(name) and not hub_in_reach():
        raise HubError(f"the data set {name!r} is not in the cache and the hub is out of reach. {local}")
    from datasets import load_dataset

    try:
        rows = load_dataset(name, subset, split=split, streaming=True).shuffle(seed=seed, buffer_size=1000)
    except Exception as error:  # the library raises nearly everything here; whatever it is, the data set cannot be had
        raise HubError(f"the data set {name!r} could not be loaded ({error}). {local}") from error
    for row in rows:
        yield _column(row, column, name)
