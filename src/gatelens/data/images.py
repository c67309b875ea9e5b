"""Images as rows of pixels in [0, 1]: the digits that ship with scikit-learn, MNIST from files or from the hub."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import DataError, HubError
from .batches import Batches
from .hub import MNIST_HUB, MNIST_LOCAL, find_mnist
from .sizes import check_count, check_seed, part_sizes

_IDX = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def image_batches(
    source: str = "digits",
    path: str | Path | None = None,
    rows: Any = (None, None),
    seed: int = 0,
    batch_size: int = 512,
) -> tuple[Batches, Batches]:
    """Labelled images: a fitting part and a held-out part.

    Args:
        source: "digits" (scikit-learn's 1,797 handwritten digits, 8 x 8; a quarter is held out) or "mnist" (60,000 and
            10,000, 28 x 28; from `path`, else from GATELENS_DATA/mnist, else from the hub).
        rows: examples to take from each part, (fitting, held out); None for all. One number is the fitting part, beside which
            a quarter as many are held out.
        seed: of the split of the digits, and of the order of the fitting part.
        batch_size: examples in one forward pass.

    Returns:
        (fitting part, held-out part), each `Batches` with inputs of [examples, pixels] in 0..1.

    Raises:
        DataError: unknown source, missing or damaged files, empty data.
        HubError: when the hub is needed and out of reach.

    Examples:
        >>> images, others = gl.image_batches("digits")
        >>> images
        Batches(digits: 1348 examples of shape (64,), ..., 1348 documents, accuracy)
    """
    rows = part_sizes(rows)
    check_count(batch_size, "batch_size", 1)
    check_seed(seed)
    if source == "digits":
        fit, held_out = _digits(seed)
    elif source == "mnist":
        fit, held_out = _mnist(path)
    else:
        raise DataError(f'unknown image source {source!r}: expected "digits" or "mnist"')
    order = torch.randperm(len(fit[0]), generator=torch.Generator().manual_seed(seed))
    fit = (fit[0][order], fit[1][order])
    return _batches(*fit, rows[0], batch_size, source), _batches(*held_out, rows[1], batch_size, f"{source}, held out")


def _batches(images: Tensor, labels: Tensor, count: int | None, batch_size: int, name: str) -> Batches:
    images, labels = images[:count], labels[:count]
    keep = torch.ones(len(images), dtype=torch.bool)
    return Batches(images, labels, keep, torch.arange(len(images)), batch_size, "accuracy", name)


def _digits(seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.tensor(bunch.data / 16.0, dtype=torch.float32)
    labels = torch.tensor(bunch.target, dtype=torch.long)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    held = len(images) // 4
    return (images[order[held:]], labels[order[held:]]), (images[order[:held]], labels[order[:held]])


def _mnist(path: str | Path | None) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    folder = find_mnist(path)
    if folder is None:
        return _mnist_hub()
    if any(folder.glob("*.parquet")):
        return _parquet(folder)
    return _idx_pair(folder, "train"), _idx_pair(folder, "test")


def _idx_pair(folder: Path, part: str) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
    images, labels = (_read_idx(folder, name) for name in _IDX[part])
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(
            f"{folder}: expected images [n, height, width] and as many labels for the {part} part, "
            f"got shapes {images.shape} and {labels.shape}. Download the files again"
        )
    pixels = torch.from_numpy(images.reshape(len(images), -1).astype(np.float32) / 255.0)
    return pixels, torch.from_numpy(labels.astype(np.int64))


def _read_idx(folder: Path, name: str) -> np.ndarray:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return parse_idx(path)
    raise DataError(f"{folder} has neither {name}.gz nor {name}. {MNIST_LOCAL}")


def parse_idx(path: Path) -> np.ndarray:
    """An unsigned-byte idx file, gzipped or not (format: LeCun's MNIST page).

    Raises:
        DataError: another magic number, or a length that the header does not account for.
    """
    raw = path.read_bytes()
    if path.suffix == ".gz":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is not a whole gzip file ({error}). Download it again") from error
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08" or raw[3] not in (1, 2, 3):
        raise DataError(
            f"{path} is not an idx file of bytes: it begins with {raw[:4].hex() or 'nothing'}, expected 000008 and 01 to 03"
        )
    dims = raw[3]
    if len(raw) < 4 + 4 * dims:
        raise DataError(f"{path} ends within its header. Download it again")
    shape = struct.unpack(f">{dims}I", raw[4 : 4 + 4 * dims])
    body = raw[4 + 4 * dims :]
    expected = 1
    for side in shape:
        expected *= side
    if expected != len(body):
        raise DataError(
            f"{path} should hold {expected} values ({' x '.join(map(str, shape))}), it holds {len(body)}. Download it again"
        )
    return np.frombuffer(body, np.uint8).reshape(shape)


def _parquet(folder: Path) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    files = {part: sorted(folder.glob(f"*{part}*.parquet")) for part in ("train", "test")}
    missing = [part for part, found in files.items() if not found]
    if missing:
        raise DataError(f"{folder} has no parquet file with {missing[0]!r} in its name. {MNIST_LOCAL}")
    return parse_parquet(files["train"]), parse_parquet(files["test"])


def parse_parquet(files: Sequence[Path]) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
    """Images and labels of parquet files as the hub stores them: an encoded image and a number a row.

    Raises:
        DataError: not a whole parquet file, other columns, or an image that cannot be decoded.
    """
    from pyarrow import ArrowException, concat_tables, parquet

    try:
        table = concat_tables([parquet.read_table(file) for file in files])
        names = set(table.column_names)
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{files[0].parent} holds no whole parquet files ({error}). Download them again") from error
    if not {"image", "label"} <= names:
        raise DataError(f"expected columns image and label, got {', '.join(sorted(names))}. {MNIST_LOCAL}")
    try:
        pixels = np.stack([_pixels(image) for image in table["image"].to_pylist()])
        labels = torch.tensor(table["label"].to_pylist(), dtype=torch.long)
    except Exception as error:  # a damaged image makes its decoder raise nearly everything
        raise DataError(
            f"{files[0].parent} holds images or labels that cannot be read ({error}). Download them again"
        ) from error
    return torch.from_numpy(pixels), labels


def _pixels(image: Any) -> Float[np.ndarray, " d"]:
    from PIL import Image

    encoded: Any = image["bytes"] if isinstance(image, dict) else image
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("L"), dtype=np.float32).flatten() / 255.0


def _mnist_hub() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    from datasets import load_dataset

    try:
        data = load_dataset(MNIST_HUB)
    except Exception as error:
        raise HubError(f"{MNIST_HUB} could not be loaded from the hub ({error}). {MNIST_LOCAL}") from error
    return _columns(data["train"]), _columns(data["test"])


def _columns(part) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
    names = set(part.column_names)
    if not {"image", "label"} <= names:
        raise DataError(f"expected columns image and label, got {', '.join(sorted(names))}. {MNIST_LOCAL}")
    images = np.stack([np.asarray(image, dtype=np.float32) for image in part["image"]]) / 255.0
    return torch.from_numpy(images.reshape(len(images), -1)), torch.tensor(part["label"], dtype=torch.long)
