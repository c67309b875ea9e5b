"""Images from files: a folder of parquet reads as the idx files do; damaged and foreign ones are refused."""

from __future__ import annotations

import gzip
import io
import struct

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

import gatelens as gl
from gatelens.errors import DataError

SIDE = 28
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", 7),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", 3),
}


def encoded(pixels: np.ndarray) -> dict[str, object]:
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "png")
    return {"bytes": png.getvalue(), "path": None}


@pytest.fixture
def both(tmp_path):
    """One folder of idx files and one of parquet, with the same images."""
    rng = np.random.default_rng(0)
    idx, table = tmp_path / "idx", tmp_path / "parquet"
    idx.mkdir()
    table.mkdir()
    for part, (images, labels, count) in FILES.items():
        pixels = rng.integers(0, 256, (count, SIDE, SIDE), np.uint8)
        numbers = rng.integers(0, 10, count, np.uint8)
        head = struct.pack(">4B3I", 0, 0, 8, 3, count, SIDE, SIDE)
        (idx / f"{images}.gz").write_bytes(gzip.compress(head + pixels.tobytes()))
        (idx / labels).write_bytes(struct.pack(">4BI", 0, 0, 8, 1, count) + numbers.tobytes())
        rows = {"image": [encoded(p) for p in pixels], "label": numbers.astype(np.int64)}
        parquet.write_table(pa.table(rows), table / f"{part}-00000-of-00001.parquet")
    return idx, table


def test_parquet_reads_as_idx_does(both):
    ours, theirs = (gl.image_batches("mnist", path=folder) for folder in both)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.targets, b.targets)
    assert ours[0].inputs.shape == (7, SIDE * SIDE)
    assert 0 <= float(ours[0].inputs.min()) < float(ours[0].inputs.max()) <= 1


def test_what_is_no_parquet_of_images_is_refused(both, tmp_path):
    _, folder = both
    train = folder / "train-00000-of-00001.parquet"
    for table, says in (
        (pa.table({"picture": [1], "label": [0]}), "expected columns image and label, got label, picture"),
        (pa.table({"image": [{"bytes": b"no image"}], "label": [0]}), "images or labels that cannot be read"),
        (
            pa.table({"image": [encoded(np.zeros((2, 2), np.uint8))], "label": [None]}),
            "images or labels that cannot be read",
        ),
    ):
        parquet.write_table(table, train)
        with pytest.raises(DataError, match=says):
            gl.image_batches("mnist", path=folder)
    train.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="no whole parquet files"):
        gl.image_batches("mnist", path=folder)
    train.unlink()
    with pytest.raises(DataError, match="no parquet file with 'train' in its name"):
        gl.image_batches("mnist", path=folder)
