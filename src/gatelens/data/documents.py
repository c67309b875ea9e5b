"""Documents: the texts, or rows of token ids, that a source holds, one after another, in an order that the seed decides."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError, GateLensWarning, HubError, unknown
from ..store.packages import package_folder
from .hub import dataset_in_cache, hub_in_reach
from .rows import IDS, TokenRows, rows_in

#: texts of our own making, by name: inside this package, or in the data package of that name
SHIPPED = {"gpt2-mini-sample": Path(__file__).resolve().parents[1] / "demo" / "sample.txt"}
PACKAGED = {"smollm2-sample": ("smollm2", "sample.txt", "pip install ./dictionaries/smollm2 in a clone of gatelens")}
SUFFIXES = (".txt", ".json", ".jsonl", ".parquet")
_ENCODINGS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def documents_of(
    source: Any, column: str, split: str, subset: str | None, separator: str | None, seed: int
) -> Iterator[str | TokenRows]:
    """The documents of a file, a folder, a hub data set, a list or a data set; streams are shuffled in a buffer only.

    Raises:
        DataError: nothing there, a kind that is not read, a missing column.
        HubError: a hub data set that is neither cached nor in reach.
    """
    if not isinstance(source, str | Path):
        documents = rows_in(_rows_of(source, column, split), column, "the data")
        if _streams(source):
            yield from documents
            return
        documents = list(documents)
    elif (files := local_files(source)) is None:
        yield from rows_in(_hub_rows(str(source), split, subset, seed), column, str(source))
        return
    else:
        documents = [d for file in files for d in _file_documents(file, column, separator)]
    random.Random(seed).shuffle(documents)
    yield from documents


def local_files(source: str | Path) -> list[Path] | None:
    """The files that a path means; None when it is the name of a hub data set."""
    path = SHIPPED.get(str(source)) or _packaged(str(source)) or Path(source).expanduser()
    if "\x00" in str(path) or not str(source).strip():
        raise DataError(
            f"{str(source)[:80]!r} is no path and no data set: give a file, a folder, or a list of documents"
        )
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


def _packaged(name: str) -> Path | None:
    """A text of ours in a data package; None for a name that is none of these."""
    if name not in PACKAGED:
        return None
    package, file, how = PACKAGED[name]
    folder = package_folder(package)
    if folder is None:
        raise DataError(f"{name} is part of a package that is not installed: {how}")
    return folder / file


def _rows_of(source: Any, column: str, split: str) -> Any:
    """What to iterate over for rows: a table iterates over its columns, a `datasets.DatasetDict` over its splits."""
    if hasattr(source, "to_dict") and hasattr(source, "columns"):
        return source.to_dict("records")  # a data frame
    if not isinstance(source, Mapping):
        return source
    if source and all(hasattr(v, "column_names") for v in source.values()):
        if split not in source:
            raise DataError(f"{unknown('split', split, map(str, source))}. Set `split`")
        return source[split]
    if IDS in source and column not in source:
        return [source]
    if column not in source:
        raise DataError(f"{unknown('text column', column, map(str, source))}. Set `column`")
    return source[column]


def _streams(source: Any) -> bool:
    """Whether a `datasets.IterableDataset`, which may have no end, is given; whoever wants it shuffled has shuffled it."""
    return hasattr(source, "column_names") and not hasattr(source, "__len__")


def _file_documents(path: Path, column: str, separator: str | None) -> Iterator[str | TokenRows]:
    if path.suffix == ".txt":
        text = _text_of(path)
        yield from rows_in(text.split(separator) if separator else [text], column, str(path))
    elif path.suffix == ".parquet":
        yield from rows_in(_parquet_rows(path, column), column, str(path))
    else:
        yield from rows_in(_json_rows(path), column, str(path))


def _text_of(path: Path) -> str:
    """A text file's content, without its byte order mark; bytes that are no text are replaced, and counted."""
    raw = path.read_bytes()
    encoding = _ENCODINGS.get(raw[:2], "utf-8-sig")
    text = raw.decode(encoding, errors="replace")
    if (strange := text.count("\ufffd") - raw.count("\ufffd".encode())) > 0:
        message = f"{path}: {strange} characters are not {encoding.removesuffix('-sig').upper()} and were replaced; save it as UTF-8"
        warnings.warn(message, GateLensWarning, stacklevel=2)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _json_rows(path: Path) -> list[Any]:
    """A JSON array, or one JSON value a line; a line ends at "\\n" and nowhere else."""
    try:
        raw = path.read_bytes()
        text = raw.decode(_ENCODINGS.get(raw[:2], "utf-8-sig"))
        if path.suffix == ".json" and text.lstrip().startswith("["):
            return json.loads(text)
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    except (ValueError, RecursionError) as error:  # bytes that are no UTF-8 among them
        raise DataError(
            f"{path} is not JSON ({error}): expected a list of texts or records, or one record a line"
        ) from error


def _parquet_rows(path: Path, column: str) -> Iterator[Any]:
    from pyarrow import ArrowException, parquet

    try:
        file = parquet.ParquetFile(path)
        names = file.schema_arrow.names
        wanted = [name for name in (column, "input_ids", "attention_mask") if name in names]
        if column not in names and "input_ids" not in names:
            raise DataError(f"{path}: {unknown('text column', column, names)}. Set `column`")
        for batch in file.iter_batches(columns=wanted):
            yield from batch.to_pylist()
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a whole parquet file ({error}). Download it again") from error


def _hub_rows(name: str, split: str, subset: str | None, seed: int) -> Iterable[Any]:
    local = "Give a local path instead: a .txt, .json or .parquet file, or a folder of them"
    if not dataset_in_cache(name) and not hub_in_reach():
        raise HubError(f"the data set {name!r} is not in the cache and the hub is out of reach. {local}")
    from datasets import load_dataset

    try:
        return load_dataset(name, subset, split=split, streaming=True).shuffle(seed=seed, buffer_size=1000)
    except Exception as error:  # the library raises nearly everything here; whatever it is, the data set cannot be had
        raise HubError(f"the data set {name!r} could not be loaded ({error}). {local}") from error
