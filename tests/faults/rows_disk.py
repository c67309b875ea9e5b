"""Rows about what is on the disk: damage, interruption, full and read-only folders, other writers, hostile names."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from fault import HOOKS, Counting, Fault, Injected, files_in, forty_rows, rehash, rewrite_json, strays, tiny_model

from gatelens import Activations, Circuit, Connector, collect, store
from gatelens.errors import ConfigError, StoreError, TooLargeError
from gatelens.pipeline import read_config
from gatelens.store import shards

KILLED_WRITER = Path(__file__).with_name("killed_writer.py")


def collected(folder: Path, model: Any = None, batches: Any = None, hooks: Any = HOOKS, **options: Any) -> Activations:
    return collect(model or tiny_model(), batches or forty_rows(), hooks, store=folder, shard_rows=8, **options)


def connector(value: float = 1.0) -> Connector:
    return Connector.from_dense(torch.full((2, 3), value), torch.zeros(2))


# 16, 17: damaged shards


def flipped(folder: Path) -> Injected:
    collected(folder)
    flip_last_bit(folder / shards.shard_name(2))
    return Injected(lambda: Activations.open(folder)[HOOKS[0]])


def flip_last_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def one_is_redone(damage: Any) -> Any:
    """After `damage` to shard 2, resuming makes that one again and no other."""

    def inject(folder: Path) -> Injected:
        model = Counting()
        before = collected(folder, model)
        intact = files_in(folder)
        damage(folder / shards.shard_name(2))
        passes = model.passes

        def after(acts: Activations) -> None:
            assert (
                model.passes - passes == 1 + 2
            )  # what is kept is compared with the model at its first and its last shard
            assert files_in(folder) == intact
            assert all(torch.equal(acts[hook], before[hook]) for hook in HOOKS)

        return Injected(lambda: collected(folder, model), after)

    return inject


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def giant_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 1 << 62) + path.read_bytes()[8:])


def malformed(change: Any) -> Any:
    """A connector whose weights were changed, and the manifest with them."""

    def inject(folder: Path) -> Injected:
        connector().save(folder)
        change(folder / "connector.safetensors")
        rehash(folder, "connector.safetensors")
        return Injected(lambda: Connector.load(folder))

    return inject


def other_shape(folder: Path) -> Injected:
    """circuit.json with a right hash and wrong contents."""
    with store.writing(folder, "circuit") as out:
        out.json("circuit.json", {"segments": [{"hook_in": 3}], "bases": [], "connectors": [], "info": {}})
    return Injected(lambda: Circuit.load(folder))


# 18: kill -9


def killed_writer(folder: Path, what: str, *options: str) -> dict[str, Any]:
    command = [sys.executable, str(KILLED_WRITER), str(folder), what, *options]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout)


def killed(what: str) -> Any:
    def after(found: dict[str, Any]) -> None:
        assert found["tries"] == 50
        assert found["killed"] >= 40
        assert found["torn"] == []
        assert found["left"] == []  # what killed writers left behind is gone after the next one
        assert found["old"] > 0
        assert found["new"] > 0

    return lambda folder: Injected(lambda: killed_writer(folder, what), after)


def killed_shard_writer(folder: Path) -> Injected:
    def after(found: dict[str, Any]) -> None:
        assert (found["tries"], found["torn"], found["left"]) == (50, [], [])
        assert found["killed"] >= 40

    return Injected(lambda: killed_writer(folder, "shards"), after)


# 19: full, read-only


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A file system of one MiB at `folder`; yields False where the machine does not allow one."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "gatelens-test", str(folder)], capture_output=True)
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def full_disk(folder: Path) -> Injected:
    def act() -> None:
        with small_disk(folder / "disk") as real:
            target = folder / "disk" / "connector"
            connector(1.0).save(target)
            try:
                if real:
                    with store.writing(target, "connector") as out:
                        out.bytes("large.bin", os.urandom(2 << 20))
                else:
                    with mock.patch.object(os, "fsync", failing(errno.ENOSPC)):
                        connector(2.0).save(target)
            finally:
                assert float(Connector.load(target).weight.values()[0]) == 1.0
                assert strays(target) == []

    return Injected(act)


def failing(number: int) -> Any:
    def fail(*arguments: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def read_only(folder: Path) -> Injected:
    def act() -> None:
        with small_disk(folder / "disk") as real:
            target = folder / "disk" / "connector"
            connector(1.0).save(target)
            if real:
                subprocess.run(["mount", "-o", "remount,ro", str(folder / "disk")], check=True)
            else:
                target.chmod(0o555)
            try:
                connector(2.0).save(target)
            finally:
                assert float(Connector.load(target).weight.values()[0]) == 1.0
                if not real:
                    target.chmod(0o755)

    return Injected(act)


def too_large_for_the_disk(folder: Path) -> Injected:
    model = Counting()

    def act() -> None:
        with mock.patch("shutil.disk_usage", return_value=mock.Mock(free=1000)):
            collected(folder, model)

    injected = Injected(act)

    def no_shard_was_begun() -> None:
        assert not list(folder.glob("shard-*"))

    return injected_with_state(injected, no_shard_was_begun)


def injected_with_state(injected: Injected, state: Any) -> Injected:
    """Look at the disk also when `act` raises."""

    def act() -> Any:
        try:
            return injected.act()
        finally:
            state()

    return Injected(act, injected.after)


# 20: two processes


#: holds the folder until it is killed, or until this process is gone
HOLDER = "import sys\nfrom gatelens import store\nwith store.lock(sys.argv[1], 'run'):\n print('held', flush=True)\n sys.stdin.read()\n"


def holder(folder: Path) -> subprocess.Popen:
    pipe = subprocess.PIPE
    other = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdin=pipe, stdout=pipe, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    return other


def second_process(folder: Path) -> Injected:
    from gatelens.pipeline import run
    from gatelens.pipeline.config import check_config

    def act() -> None:
        from fault import config_values

        other = holder(folder)
        try:
            with pytest.raises(StoreError, match=f"process {other.pid} ") as found:
                run(check_config(config_values()), folder)
            assert not (folder / "config.yaml").exists()
            raise found.value
        finally:
            other.kill()
            other.communicate()

    return Injected(act)


def owner_was_killed(folder: Path) -> Injected:
    """A lock ends with its process, also when that is killed."""

    def act() -> None:
        other = holder(folder)
        other.kill()
        other.communicate()
        with store.lock(folder, "run"):
            pass

    def after(result: None) -> None:
        assert strays(folder) == []

    return Injected(act, after)


# 21: resumed with something else


def resumed_with(**changed: Any) -> Any:
    def inject(folder: Path) -> Injected:
        collected(folder)
        before = files_in(folder)

        def nothing_changed() -> None:
            assert files_in(folder) == before

        return injected_with_state(Injected(lambda: collected(folder, **changed)), nothing_changed)

    return inject


def run_with_another_config(folder: Path) -> Injected:
    from fault import config_values

    from gatelens.pipeline.config import check_config
    from gatelens.pipeline.resume import claim

    folder.mkdir(parents=True, exist_ok=True)
    claim(folder, check_config(config_values()))
    other = {**config_values(), "seed": 7, "solver": {"use": "ReluOMP", "max_fan_in": 9}}
    return Injected(lambda: claim(folder, check_config(other)))


# 23: names and links that lead elsewhere


def run_named_dotdot(folder: Path) -> Injected:
    from fault import config_values

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "c.yaml").write_text(json.dumps({**config_values(), "name": ".."}))
    return Injected(lambda: read_config(folder / "c.yaml"))


def manifest_with_dotdot(folder: Path) -> Injected:
    connector().save(folder / "run")
    (folder / "secret.json").write_text("{}")
    secret = shards.fingerprint(b"{}")
    rewrite_json(folder / "run/manifest.json", lambda m: {**m, "files": {**m["files"], "../secret.json": secret}})
    return Injected(lambda: store.reading(folder / "run", "connector").json("../secret.json"))


def shard_is_a_link(folder: Path) -> Injected:
    collected(folder / "acts")
    shard, outside = folder / "acts" / shards.shard_name(1), folder / "outside"
    shard.rename(outside)
    shard.symlink_to(outside)
    before = outside.read_bytes()

    def outside_is_untouched() -> None:
        assert outside.read_bytes() == before

    return injected_with_state(Injected(lambda: collected(folder / "acts")), outside_is_untouched)


def basis_is_a_link(folder: Path) -> Injected:
    """A stored file that is a link to a file elsewhere, with the right contents."""
    connector().save(folder / "run")
    file = folder / "run" / "connector.json"
    file.rename(folder / "outside.json")
    file.symlink_to(folder / "outside.json")
    return Injected(lambda: Connector.load(folder / "run"))


# 24: manifests


def manifest(change: Any) -> Any:
    def inject(folder: Path) -> Injected:
        connector().save(folder)
        path = folder / "manifest.json"
        path.write_bytes(change(path.read_bytes()))
        return Injected(lambda: Connector.load(folder))

    return inject


def newer(data: bytes) -> bytes:
    return data.replace(b'"format": 2', b'"format": 3').replace(b'"kind"', b'"x": 1,\n "kind"')


def oversized(data: bytes) -> bytes:
    return data + b" " * (17 << 20)


def with_a_key_twice(data: bytes) -> bytes:
    return data.replace(b'"kind"', b'"kind": "connector",\n "kind"')


def with_nan(data: bytes) -> bytes:
    return data.replace(b'"kind"', b'"x": NaN,\n "kind"')


def no_damage(*arguments: Any) -> str:
    return ""


def unguarded_inside(folder: Path, name: str) -> Path:
    return folder / name


ROWS = [
    Fault(
        16,
        "flipped bit is seen",
        flipped,
        StoreError,
        ("shard-000002", "SHA-256"),
        guard={"gatelens.store.damage": no_damage},
    ),
    Fault(
        16,
        "flipped bit one shard redone",
        one_is_redone(flip_last_bit),
        guard={"gatelens.store.damage": no_damage},
    ),
    Fault(17, "truncated shard redone", one_is_redone(truncate), guard={"gatelens.store.damage": no_damage}),
    Fault(17, "overlong shard redone", one_is_redone(lengthen)),
    Fault(17, "giant header shard redone", one_is_redone(giant_header)),
    Fault(17, "truncated with a right hash", malformed(truncate), StoreError, ("not a whole safetensors file",)),
    Fault(17, "overlong with a right hash", malformed(lengthen), StoreError, ("not a whole safetensors file",)),
    Fault(17, "giant header with a right hash", malformed(giant_header), StoreError, ("not a whole safetensors",)),
    Fault(17, "json of another shape with a right hash", other_shape, StoreError, ("does not hold what", "KeyError")),
    Fault(18, "killed 50 times while writing an artefact", killed("thing")),
    Fault(18, "killed 50 times while writing a circuit", killed("circuit")),
    Fault(18, "killed 50 times while writing shards", killed_shard_writer),
    Fault(
        19,
        "full disk",
        full_disk,
        StoreError,
        ("the disk is full", "What was stored before is untouched"),
        guard={"gatelens.store.files.explained": lambda path: contextlib.nullcontext()},
    ),
    Fault(19, "read-only folder", read_only, StoreError, ("is read-only", "Give another folder")),
    Fault(
        19,
        "more than the disk has",
        too_large_for_the_disk,
        TooLargeError,
        ("are free", "float16"),
        guard={"gatelens.activations.capture._check_room": lambda *arguments: None},
    ),
    Fault(
        20,
        "two processes in one run folder",
        second_process,
        StoreError,
        ("is being written by process", "Wait until it has finished"),
        guard={"gatelens.store.lock": lambda *arguments, **options: contextlib.nullcontext()},
    ),
    Fault(20, "owner of the lock was killed", owner_was_killed),
    Fault(
        21,
        "resumed with other data",
        resumed_with(batches=forty_rows(1)),
        StoreError,
        ("data: stored", "asked for", "Give another folder"),
        guard={"gatelens.store.shards.differences": lambda *arguments: []},
    ),
    Fault(21, "resumed with another model", resumed_with(model=tiny_model(1)), StoreError, ("model.weights: stored",)),
    Fault(21, "resumed with other hooks", resumed_with(hooks=HOOKS[:1]), StoreError, ("hooks: stored",)),
    Fault(
        21,
        "run folder of another config",
        run_with_another_config,
        StoreError,
        ("seed: stored 0, asked for 7", "solver.max_fan_in: stored 3, asked for 9"),
    ),
    Fault(23, "run named dotdot", run_named_dotdot, ConfigError, ("name",)),
    Fault(
        23,
        "manifest with dotdot",
        manifest_with_dotdot,
        StoreError,
        ("cannot name a stored file",),
        guard={"gatelens.store.manifest.check_name": str, "gatelens.store.artefact.inside": unguarded_inside},
    ),
    Fault(23, "shard is a link", shard_is_a_link, StoreError, ("is a link to",)),
    Fault(
        23,
        "stored file is a link",
        basis_is_a_link,
        StoreError,
        ("is a link to", "can lead out of"),
        guard={"gatelens.store.artefact.inside": unguarded_inside},
    ),
    Fault(
        24,
        "manifest of a newer version",
        manifest(newer),
        store.NewerFormatError,
        ("has format 3", "reads formats 1 to 2"),
    ),
    Fault(
        24,
        "oversized manifest",
        manifest(oversized),
        StoreError,
        ("at most 16777216",),
        guard={"gatelens.store.manifest.MAX_MANIFEST": 1 << 30},
    ),
    Fault(
        24,
        "manifest with a key twice",
        manifest(with_a_key_twice),
        StoreError,
        ("'kind' twice",),
        guard={"gatelens.store.strict_json._unique": dict},
    ),
    Fault(
        24,
        "manifest with NaN",
        manifest(with_nan),
        StoreError,
        ("found NaN",),
        guard={"gatelens.store.strict_json._constant": float},
    ),
]
