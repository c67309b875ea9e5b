"""The store: what was committed comes back as it was, or is refused with a sentence that says why."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from gatelens import store
from gatelens.errors import NonFiniteError, StoreError, TooLargeError
from gatelens.store import artefact, files, manifest, shards


def save(folder: Path, value: int = 0, kind: str = "thing") -> None:
    with store.writing(folder, kind) as out:
        out.tensors("weights.safetensors", {"w": torch.full((3,), value)})
        out.json("about.json", {"value": value})


def value_in(folder: Path) -> int:
    stored = store.reading(folder, "thing")
    assert int(stored.tensors("weights.safetensors")["w"][0]) == stored.json("about.json")["value"]
    return stored.json("about.json")["value"]


def visible(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_everything_written_comes_back(tmp_path):
    source = tmp_path / "source.bin"
    source.write_bytes(b"\x00\xff")
    with store.writing(tmp_path / "a", "thing") as out:
        out.tensors("t.safetensors", {"x": torch.arange(4, dtype=torch.bfloat16), "y": torch.ones(2, 3).T})
        out.tensors("n.safetensors", {"x": np.arange(3)})
        out.json("below/j.json", {"a": [1, None, "\ud800 µ"]})
        out.text("t.txt", "Ċé")
        out.copy("c.dat", source)
    stored = store.reading(tmp_path / "a", "thing")
    assert torch.equal(stored.tensors("t.safetensors")["x"], torch.arange(4, dtype=torch.bfloat16))
    assert stored.tensors("t.safetensors")["y"].shape == (3, 2)
    assert stored.arrays("n.safetensors")["x"].tolist() == [0, 1, 2]
    assert stored.json("below/j.json") == {"a": [1, None, "\ud800 µ"]}
    assert (stored.text("t.txt"), stored.bytes("c.dat")) == ("Ċé", b"\x00\xff")
    assert visible(tmp_path / "a") == [
        "below/j.json",
        "c.dat",
        "manifest.json",
        "n.safetensors",
        "t.safetensors",
        "t.txt",
    ]


def test_same_values_give_the_same_bytes(tmp_path):
    for name in "ab":
        save(tmp_path / name, 3)
    for file in visible(tmp_path / "a"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_files_that_the_new_artefact_lacks_are_removed(tmp_path):
    save(tmp_path, 1)
    with store.writing(tmp_path, "thing") as out:
        out.json("about.json", {"value": 2})
    assert visible(tmp_path) == ["about.json", "manifest.json"]


@pytest.mark.parametrize("error", [RuntimeError("in the block"), KeyboardInterrupt()])
def test_an_error_in_the_block_leaves_the_earlier_artefact(tmp_path, error):
    save(tmp_path, 1)

    def fail():
        with store.writing(tmp_path, "thing") as out:
            out.json("about.json", {"value": 2})
            raise error

    with pytest.raises(type(error)):
        fail()
    assert value_in(tmp_path) == 1
    assert visible(tmp_path) == ["about.json", "manifest.json", "weights.safetensors"]


def steps_of_a_save(folder: Path, stop: int, monkeypatch) -> bool:
    """Save again, stopping as a killed process would at the `stop`-th rename; whether it was stopped."""
    count = 0
    replace, unlink = os.replace, Path.unlink

    class Killed(BaseException):
        pass

    def dying(step):
        def take(*args, **kwargs):
            nonlocal count
            if count == stop:
                raise Killed
            count += 1
            return step(*args, **kwargs)

        return take

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying(replace))
        # a process that is killed cleans nothing up
        patch.setattr(
            Path, "unlink", lambda self, missing_ok=False: None if count == stop else unlink(self, missing_ok)
        )
        patch.setattr(artefact.Writing, "discard", lambda self: None)
        try:
            save(folder, 2)
        except Killed:
            return True
    return False


def test_stopped_at_any_rename_there_is_one_whole_artefact(tmp_path, monkeypatch):
    seen, stop = [], 0
    while True:
        folder = tmp_path / str(stop)
        save(folder, 1)
        stopped = steps_of_a_save(folder, stop, monkeypatch)
        seen.append(value_in(folder))
        if not stopped:
            break
        save(folder, 3)  # the next writer finishes or forgets what was begun
        assert value_in(folder) == 3
        assert not (folder / manifest.PENDING).exists()
        stop += 1
    assert seen == [1, 2, 2, 2, 2]  # the commit is the first rename; two files and the manifest follow


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/../b", ".hidden", "", "a//b", "con.json", "x" * 129, "a\\b", "é", "a\n", "a."]
)
def test_names_that_could_lead_elsewhere_are_refused(tmp_path, name):
    with pytest.raises(StoreError, match="cannot name a stored file"), store.writing(tmp_path / "in", "thing") as out:
        out.json(name, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_links_are_refused_in_both_directions(tmp_path):
    save(tmp_path / "a", 1)
    outside = tmp_path / "outside.json"
    (tmp_path / "a" / "about.json").rename(outside)
    (tmp_path / "a" / "about.json").symlink_to(outside)
    with pytest.raises(StoreError, match=r"is a link to .*expected a plain file"):
        store.reading(tmp_path / "a", "thing").json("about.json")
    before = outside.read_bytes()
    with pytest.raises(StoreError, match="is a link"):
        save(tmp_path / "a", 2)
    assert outside.read_bytes() == before


def test_a_link_to_the_folder_itself_is_the_users_choice(tmp_path):
    save(tmp_path / "real", 1)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert value_in(tmp_path / "link") == 1


def edit(folder: Path, **changes) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_manifest_of_format_1_is_migrated(tmp_path):
    save(tmp_path, 5)
    old = json.loads((tmp_path / "manifest.json").read_text())
    del old["written_by"]
    (tmp_path / "manifest.json").write_text(json.dumps({**old, "format": 1}))
    stored = store.reading(tmp_path, "thing")
    assert stored.json("about.json") == {"value": 5}
    assert (stored.manifest["format"], stored.manifest["written_by"]) == (store.FORMAT, "0.1.0 or earlier")


def test_every_older_format_has_a_migration():
    assert sorted(manifest.MIGRATIONS) == list(range(1, store.FORMAT))


def test_a_manifest_of_a_later_format_is_neither_read_nor_overwritten(tmp_path):
    save(tmp_path, 5)
    edit(tmp_path, format=store.FORMAT + 1, written_by="9.9")
    before = (tmp_path / "manifest.json").read_bytes()
    for use in (lambda: store.reading(tmp_path, "thing"), lambda: save(tmp_path, 6)):
        with pytest.raises(
            StoreError, match=rf"format {store.FORMAT + 1}, written by gatelens 9.9.*reads formats 1 to"
        ):
            use()
    assert (tmp_path / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", "is not JSON"),
        (b"\xff{}", "is not JSON"),
        (b"[]", "expected an object, found list"),
        (b'{"format": 2, "kind": "thing"}', "lacks 'kind' or 'files'"),
        (b'{"format": true, "kind": "thing", "files": {}}', "its format is 'True'"),
        (b'{"format": 2, "format": 2, "kind": "thing", "files": {}}', "'format' twice"),
        (b'{"format": 2, "kind": "thing", "files": {}, "x": NaN}', "found NaN"),
        (b'{"format": 2, "kind": "thing", "files": {}, "x": 1e999}', "found 1e999"),
        (b'{"format": 2, "kind": "thing", "files": {"../x": {}}}', "cannot name a stored file"),
        (b'{"format": 2, "kind": "thing", "files": {"x": {"bytes": -1}}}', "has no size"),
        (b'{"format": 2, "kind": "thing", "files": {"x": {"bytes": 1, "sha256": "ab"}}}', "has no SHA-256"),
        (b"[" * 100_000, "nested too deeply|is not JSON"),
        (b'"' + b"x" * (17 << 20) + b'"', "at most 16777216 were expected"),
    ],
)
def test_manifests_that_are_not_ours_are_refused(tmp_path, text, sentence):
    save(tmp_path, 1)
    (tmp_path / "manifest.json").write_bytes(text)
    with pytest.raises(StoreError, match=sentence):
        store.reading(tmp_path, "thing")
    save(tmp_path, 2)  # what the sentence advises
    assert value_in(tmp_path) == 2


def test_another_kind_is_neither_read_nor_overwritten(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(StoreError, match="holds a thing; expected a circuit"):
        store.reading(tmp_path, "circuit")
    with pytest.raises(StoreError, match="holds a thing, which a circuit would overwrite"):
        save(tmp_path, 1, kind="circuit")


def test_an_empty_folder_and_an_unknown_file_say_so(tmp_path):
    with pytest.raises(StoreError, match=r"no finished thing: there is no manifest.json"):
        store.reading(tmp_path / "none", "thing")
    save(tmp_path, 1)
    with pytest.raises(StoreError, match=r"holds no x.json; it has about.json, weights.safetensors"):
        store.reading(tmp_path, "thing").json("x.json")


def test_a_pipe_in_place_of_a_manifest_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(StoreError, match="not a plain file"):
        store.reading(tmp_path, "thing")


def test_rewritten_while_read_is_said_to_be_that(tmp_path):
    save(tmp_path, 1)
    stored = store.reading(tmp_path, "thing")
    save(tmp_path, 2)
    with pytest.raises(StoreError, match="written anew while it was being read"):
        stored.json("about.json")


@pytest.mark.parametrize("what", ["tensors", "arrays", "json", "bytes", "copy"])
@pytest.mark.parametrize("when", ["opened", "checked"])
def test_a_writer_that_moves_files_into_place_disturbs_no_reader(tmp_path, monkeypatch, what, when):
    """Two workers: one reads what the other has committed while it renames its files. The reader must not notice."""
    with monkeypatch.context() as stopped:
        stopped.setattr(artefact, "roll_forward", lambda folder: None)  # a writer that has committed, and no more yet
        save(tmp_path / "a", 3)
    assert (tmp_path / "a" / manifest.PENDING).exists()
    stored = store.reading(tmp_path / "a", "thing")
    if when == "opened":
        artefact.roll_forward(tmp_path / "a")
    else:  # between the check of a file and its use
        right = artefact.damage

        def damage(path, entry):
            found = right(path, entry)
            artefact.roll_forward(tmp_path / "a")
            return found

        monkeypatch.setattr(artefact, "damage", damage)
    read = {
        "tensors": lambda: int(stored.tensors("weights.safetensors")["w"][0]),
        "arrays": lambda: int(stored.arrays("weights.safetensors")["w"][0]),
        "json": lambda: stored.json("about.json")["value"],
        "bytes": lambda: json.loads(stored.bytes("about.json"))["value"],
        "copy": lambda: stored.copy("about.json", tmp_path / "copied") or 3,
    }
    assert read[what]() == 3
    assert not (tmp_path / "a" / manifest.PENDING).exists()


def test_a_reader_that_looks_all_the_while(tmp_path):
    """A thread opens and reads a new artefact again and again while it is first written: nothing, or all of it."""
    found, errors, done = [], [], threading.Event()

    def look() -> None:
        while not done.is_set():
            try:
                found.append(value_in(folder))
            except StoreError as error:
                if "holds no finished" not in str(error):
                    errors.append(error)
            except Exception as error:
                errors.append(error)

    for i in range(40):
        folder = tmp_path / str(i)
        done.clear()
        reader = threading.Thread(target=look)
        reader.start()
        save(folder, 7)
        done.set()
        reader.join()
    assert not errors
    assert set(found) <= {7}


def test_nan_is_refused_with_its_place(tmp_path):
    with pytest.raises(NonFiniteError, match=r"at a\.b\[1\]"):
        store.dump_json({"a": {"b": [0.0, float("nan")]}})


def test_a_lock_names_its_owner_and_ends_with_its_block(tmp_path):
    with store.lock(tmp_path), pytest.raises(StoreError, match=rf"process {os.getpid()} on .* \(since 20"):
        save(tmp_path)
    save(tmp_path, 1)
    assert not list(tmp_path.glob(".*.lock"))


def test_shared_holders_exclude_only_an_owner(tmp_path):
    with (
        store.lock(tmp_path, "x", shared=True),
        store.lock(tmp_path, "x", shared=True),
        pytest.raises(StoreError, match=r"is being written by"),
        store.lock(tmp_path, "x"),
    ):
        pass
    with store.lock(tmp_path, "x"):
        pass
    assert not list(tmp_path.glob(".*.lock"))


def test_temporary_files_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    stray = tmp_path / f".x.json.{files._HOST}-{dead.pid}-0.tmp"
    living = tmp_path / f".x.json.{files._HOST}-{os.getppid()}-0.tmp"
    other = tmp_path / ".notes.tmp"
    for path in (stray, living, other):
        path.write_text("half")
    save(tmp_path, 1)
    assert (stray.exists(), living.exists(), other.exists()) == (False, True, True)


def test_a_full_disk_is_told_before_the_work(tmp_path):
    with pytest.raises(TooLargeError, match=r"collecting needs about 4194304\.0 TiB in .* are free"):
        store.check_space(tmp_path / "not" / "yet", 1 << 62, "collecting")
    store.check_space(tmp_path, 1, "collecting")


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "disk is full.*stored before is untouched"),
        (errno.EROFS, "is read-only"),
        (errno.EIO, "could not be"),
    ],
)
def test_what_the_system_says_is_put_into_words(tmp_path, monkeypatch, number, sentence):
    save(tmp_path, 1)
    with monkeypatch.context() as patch:

        def failing(descriptor):
            raise OSError(number, os.strerror(number))

        patch.setattr(os, "fsync", failing)
        with pytest.raises(StoreError, match=sentence):
            save(tmp_path, 2)
    assert value_in(tmp_path) == 1
    assert visible(tmp_path) == ["about.json", "manifest.json", "weights.safetensors"]


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"Check that .* is a folder"):
        save(tmp_path / "file" / "run")


def test_slugs_are_names_and_differ_where_texts_differ():
    texts = [
        "a",
        "A",
        "a/b",
        "a-b",
        "../..",
        "",
        "con",
        "blocks.0.hook_mlp_in -> blocks.0.hook_mlp_out",
        "é",
        "x" * 300,
        "x" * 301,
    ]
    slugs = [store.slug(text) for text in texts]
    assert len({s.lower() for s in slugs}) == len(texts)
    assert slugs[0] == "a"
    for s in slugs:
        store.check_name(s)


@pytest.mark.parametrize("name", ["w.pt", "w.bin", "w.npy", "w.safetensors"])
def test_pickles_are_refused_by_name_and_by_content(tmp_path, name):
    torch.save({"w": torch.ones(1)}, tmp_path / name)
    with pytest.raises(StoreError, match=r"Python pickle.*weights_only=True"):
        store.load_tensors(tmp_path / name)


def test_the_store_is_light_to_import():
    code = (
        "import sys, gatelens.store, gatelens.distributed; "
        "print(*(m for m in ('torch', 'numpy', 'transformer_lens') if m in sys.modules))"
    )
    heavy = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert heavy == []


def test_shards_resume_skip_the_good_and_redo_the_bad(tmp_path):
    config, made = {"seed": 0, "hooks": ("a", "b")}, []

    def run() -> shards.ShardFolder:
        with shards.ShardFolder(tmp_path, "acts", config, 4) as out:
            for i in out.missing():
                made.append(i)
                out.write(i, {"x": torch.full((2,), i)}, {"rows": 2})
            return out.finish()

    run()
    (tmp_path / shards.shard_name(2)).write_bytes(b"not it")
    (tmp_path / shards.record_name(3)).unlink()
    made.clear()
    stored = run()
    assert made == [2, 3]
    assert [int(stored.read(i)["x"][0]) for i in range(4)] == [0, 1, 2, 3]
    assert stored.meta(1) == {"rows": 2}
    assert shards.read_shards(tmp_path, "acts", config).count == 4


def test_shards_of_another_config_are_refused_with_the_difference(tmp_path):
    with shards.ShardFolder(tmp_path, "acts", {"seed": 0, "data": {"name": "a", "rows": 5}}, 1):
        pass
    asked = {"seed": 0, "data": {"name": "b"}, "model": "m"}
    expected = "data.name: stored 'a', asked for 'b'; data.rows: stored 5, asked for nothing; model: stored nothing"
    with pytest.raises(StoreError, match=expected), shards.ShardFolder(tmp_path, "acts", asked, 1):
        pass
    more = shards.ShardFolder(tmp_path, "acts", {"seed": 0, "data": {"name": "a", "rows": 5}}, 2)
    with pytest.raises(StoreError, match="shards: stored 1, asked for 2"), more:
        pass
    with pytest.raises(StoreError, match="holds acts, expected other"), shards.ShardFolder(tmp_path, "other", {}, 1):
        pass


def test_an_unfinished_shard_folder_is_not_read(tmp_path):
    with shards.ShardFolder(tmp_path, "acts", {}, 2) as out:
        out.write(0, {"x": torch.zeros(1)})
        with pytest.raises(StoreError, match=r"lacks 1 \(1\) of its 2 shards"):
            out.finish()
        with pytest.raises(StoreError, match=r"out of range: .* 0\.\.1"):
            out.write(2, {})
    with pytest.raises(StoreError, match="no finished acts"):
        shards.read_shards(tmp_path, "acts")


def test_spans_cover_everything_once():
    assert [list(r) for r in shards.spans(7, 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert shards.spans(0, 3) == []


def test_parts_are_committed_with_the_whole(tmp_path):
    with store.writing(tmp_path, "thing") as out:
        out.json("about.json", {"value": 1})
        inner = out.part("parts/0")
        inner.json("about.json", {"value": 2})
        inner.part("deeper").tensors("w.safetensors", {"w": torch.ones(1)})
        with pytest.raises(StoreError, match="a name of the store's own"):
            inner.json("manifest.json", {})
        with pytest.raises(StoreError, match="cannot name a stored file"):
            out.part("../elsewhere")
    stored = store.reading(tmp_path, "thing")
    part = stored.part("parts/0", "thing")
    assert (stored.json("about.json"), part.json("about.json")) == ({"value": 1}, {"value": 2})
    assert part.names() == ["about.json", "deeper/w.safetensors"]
    assert part.part("deeper", "thing").tensors("w.safetensors")["w"] == 1
    with pytest.raises(StoreError, match=r"parts/1 holds no about.json; it has no files"):
        stored.part("parts/1", "thing").json("about.json")
    assert visible(tmp_path) == ["about.json", "manifest.json", "parts/0/about.json", "parts/0/deeper/w.safetensors"]


def test_a_part_that_an_earlier_version_kept_by_itself_is_read(tmp_path):
    save(tmp_path / "parts" / "0", 5)
    save(tmp_path, 1)
    stored = store.reading(tmp_path, "thing")
    assert stored.part("parts/0", "thing").json("about.json") == {"value": 5}
    with pytest.raises(StoreError, match="holds a thing; expected a basis"):
        stored.part("parts/0", "basis")
