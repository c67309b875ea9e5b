"""Circuits on the hub: what `Circuit.save` writes, and a card; only safetensors and JSON come back."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import store
from ..circuits import Circuit
from ..errors import HubError, shown
from ..evaluation.report import Report
from .card import card

_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
FETCHED = ["*.json", "*.safetensors"]


def push(circuit: Circuit, repo: str, report: Report | None, private: bool) -> str:
    """Upload the circuit, its card and its report in one commit; the repository is made where it does not exist.

    Raises:
        HubError: see `Circuit.push_to_hub`.
    """
    from huggingface_hub import HfApi

    name = _checked(repo)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        circuit.save(folder)
        (folder / "README.md").write_text(card(circuit, report, name), encoding="utf-8")
        if report is not None:
            (folder / "report.json").write_bytes(store.dump_json(report.to_dict()))
        with _told(name, "log in (`hf auth login`) as somebody who may write there"):
            api = HfApi(library_name="gatelens")
            api.create_repo(name, private=private, exist_ok=True)
            done = api.upload_folder(
                repo_id=name,
                folder_path=folder,
                allow_patterns=[*FETCHED, "README.md"],
                commit_message=f"Circuit of {len(circuit.segments)} segments",
            )
    return str(done.commit_url).split("/commit/")[0]


@contextmanager
def fetched(name: str | Path, revision: str | None = None) -> Iterator[Path]:
    """A folder with the circuit that is meant: that folder itself, else the files of a hub repository, from its cache.

    The cache is made of links, which the store does not follow: the files are laid out plainly for as long as they are read.

    Raises:
        HubError: see `Circuit.from_pretrained`.
    """
    if Path(name).is_dir():
        yield Path(name)
        return
    from huggingface_hub import snapshot_download

    repo = _checked(str(name))
    with _told(repo, "check the name, or give a folder that `circuit.save` wrote"):
        found = Path(snapshot_download(repo, revision=revision, allow_patterns=FETCHED, library_name="gatelens"))
    with tempfile.TemporaryDirectory() as temporary:
        plain = Path(temporary) / "circuit"
        shutil.copytree(found, plain, symlinks=False)
        yield plain


def _checked(name: Any) -> str:
    if not isinstance(name, str) or not _REPO.fullmatch(name) or ".." in name:
        raise HubError(f'{shown(name)} is neither a folder nor a hub repository: expected a text such as "name/repo"')
    return name


@contextmanager
def _told(repo: str, advice: str) -> Iterator[None]:
    """What the hub's client raises, as one sentence; what it says of the cause is kept."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:  # its errors are of these kinds, its http client's among them
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise HubError(f"{repo} on the hub: {cause}. Expected a repository in reach; {advice}") from error
