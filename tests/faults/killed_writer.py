"""Writes something fifty times, each time in a process that is killed at a random byte or rename.

    killed_writer.py FOLDER thing|shards|circuit [--plain]

Prints what was found after each kill. `--plain` takes the write protocol away, to show that the test would notice.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path

import numpy as np

from gatelens import store
from gatelens.errors import StoreError
from gatelens.store import artefact, files, shards

TRIES, RENAME = 50, 400  # a rename counts as so many bytes


class Doomed:
    """Counts bytes and renames, and kills its process when the count is reached, half a write done."""

    def __init__(self, limit: int):
        self.left = limit

    def spend(self, cost: int) -> int:
        granted = min(cost, self.left)
        self.left -= granted
        return granted

    def write(self, file, data) -> int:
        granted = self.spend(len(data))
        file.write(data[:granted])
        if granted < len(data):
            self.die(file)
        return granted

    def die(self, file=None) -> None:
        if file is not None:
            file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    def replace(self, source, target) -> None:
        if self.spend(RENAME) < RENAME:
            self.die()
        REPLACE(source, target)


REPLACE = os.replace
WRITE = files.write_temporary


def install(doomed: Doomed) -> None:
    class File:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            return doomed.write(self.file, data)

    def write_temporary(path, write):
        return WRITE(path, lambda file: write(File(file)))

    artefact.write_temporary = files.write_temporary = write_temporary
    os.replace = doomed.replace


def take_protocol_away() -> None:
    def plain(path, write):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            write(file)
        return path

    def commit(writing, earlier):
        writing._staged = {}
        manifest = store.dump_json(store.new_manifest(writing.kind, writing.files))
        artefact.write_temporary(writing.folder / store.MANIFEST, lambda file: file.write(manifest))

    global WRITE
    WRITE = plain
    artefact.Writing.commit = commit
    artefact.write_temporary = plain


def arrays(version: int) -> dict[str, np.ndarray]:
    return {"w": np.full(400, version, np.int32)}


def save(folder: Path, version: int) -> None:
    with store.writing(folder, "thing") as out:
        out.tensors("w.safetensors", arrays(version))
        out.json("about.json", {"version": version, "note": "x" * 500})


def load(folder: Path) -> int:
    stored = store.reading(folder, "thing").check()
    version = stored.json("about.json")["version"]
    if not (stored.arrays("w.safetensors")["w"] == version).all():
        raise StoreError("two versions in one artefact")
    return version


def save_shards(folder: Path, version: int) -> None:
    with shards.ShardFolder(folder, "thing", {}, 3) as out:
        for i in out.missing():
            out.write(i, arrays(i), {"i": i})
        out.finish()


def load_shards(folder: Path) -> int:
    """Every shard that counts as done is whole; how many are."""
    stored = shards.ShardFolder(folder, "thing", {}, 3)
    good = [i for i in range(3) if stored.done(i)]
    for i in good:
        if not (stored.arrays(i)["w"] == i).all() or stored.meta(i) != {"i": i}:
            raise StoreError(f"shard {i} is another")
    return len(good)


def save_circuit(folder: Path, version: int) -> None:
    """Two bases, a connector and a gate, each of which says which version it is of."""
    import torch

    from gatelens import Circuit, Connector, Gate, GateKind, Rotation
    from gatelens.segments import Segment

    segment = Segment("in", "out", torch.relu, 4, 4)
    bases = {hook: Rotation(torch.eye(4).roll(version, 0)) for hook in ("in", "out")}
    wires = Connector.from_dense(torch.eye(4) * version, torch.full((4,), float(version)))
    gates = [Gate(0, GateKind.COPY, (1,), (float(version),), 0.0)]
    Circuit([segment], bases, {segment.name: wires}, {segment.name: gates}, {"version": version}).save(folder)


def load_circuit(folder: Path) -> int:
    import torch

    from gatelens import Circuit

    found = Circuit.load(folder)
    version, wires = found.info["version"], found.connectors["in -> out"]
    whole = all(torch.equal(basis.matrix, torch.eye(4).roll(version, 0)) for basis in found.bases.values())
    if not (whole and wires.bias[0] == version and found.gates["in -> out"][0].weights == (version,)):
        raise StoreError("two versions in one circuit")
    return version


#: what -> (how it is written, how it is read, what bytes and renames of a whole save come to, about)
WORKS = {
    "thing": (save, load, 5500),
    "shards": (save_shards, load_shards, 9000),
    "circuit": (save_circuit, load_circuit, 8600),
}


def main() -> None:
    folder, what, options = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    rng = random.Random(0)
    write, read, cost = WORKS[what]
    if "--plain" in options:
        take_protocol_away()
    found = {"tries": TRIES, "killed": 0, "old": 0, "new": 0, "torn": [], "left": []}
    for attempt in range(TRIES):
        at = folder / str(attempt)
        if what != "shards":
            write(at, 1)
        child = os.fork()
        if child == 0:
            install(Doomed(rng.randrange(cost)))
            write(at, 2)
            os._exit(0)
        rng.random()
        _, status = os.waitpid(child, 0)
        found["killed"] += os.WIFSIGNALED(status)
        try:
            version = read(at)
            found["new" if version == 2 else "old"] += 1
        except StoreError as error:
            found["torn"].append(str(error)[:300])
        write(at, 3)
        if read(at) != 3:
            found["torn"].append("the next writer did not finish")
        found["left"] += [p.name for p in at.rglob(".*")]
    print(json.dumps(found))


main()
