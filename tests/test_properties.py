"""Properties of everything that is parsed: any input gives a value or one of our errors, and what is written reads back."""

from __future__ import annotations

import gzip
import json
import os
import string
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatelens import Gate, GateKind, TruthTable, store
from gatelens.data.images import parse_idx
from gatelens.distributed import Worker, this_worker
from gatelens.errors import ConfigError, DataError, GateLensError, StoreError
from gatelens.evaluation import Report
from gatelens.gates.saving import gate_from_dict, gate_to_dict
from gatelens.pipeline import read_config
from gatelens.pipeline.config import Config, check_config
from gatelens.store.manifest import check_manifest
from gatelens.store.shards import differences, spans

#: the same examples in every run, so that a find never stops an unrelated change; set GATELENS_FUZZ_SEED to look elsewhere
FEW = settings(
    max_examples=60,
    deadline=None,
    derandomize="GATELENS_FUZZ_SEED" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
MANY = settings(FEW, max_examples=300)

TEXT = st.text(max_size=20)
NUMBER = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUE = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def ours(act: Any, error: type[GateLensError] = GateLensError) -> Any:
    """The value of `act`, or None when it raised one of our errors."""
    try:
        return act()
    except error:
        return None


@MANY
@given(VALUE)
def test_json_reads_back_as_it_was(value):
    data = store.dump_json(value)
    assert store.parse_json(data, "x") == value
    assert store.dump_json(store.parse_json(data, "x")) == data


@MANY
@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_refused(data):
    ours(lambda: store.parse_json(data, "x"), StoreError)


@FEW
@given(st.sampled_from(["NaN", "Infinity", "-Infinity", "1e999", "-1e400"]), VALUE)
def test_numbers_that_are_none_are_refused_wherever_they_stand(number, value):
    data = json.dumps({"a": [value, "PLACE"]}).replace('"PLACE"', number).encode()
    with pytest.raises(StoreError, match="expected finite numbers"):
        store.parse_json(data, "x")


@FEW
@given(st.dictionaries(TEXT, st.integers(), min_size=1, max_size=5), st.data())
def test_a_key_twice_is_refused(value, data):
    key = data.draw(st.sampled_from(sorted(value)))
    pairs = ", ".join(f"{json.dumps(k)}: {v}" for k, v in [*value.items(), (key, 0)])
    with pytest.raises(StoreError, match="twice"):
        store.parse_json(f"{{{pairs}}}".encode(), "x")


@MANY
@given(VALUE)
def test_any_json_is_a_manifest_or_refused(value):
    found = ours(lambda: check_manifest(value, "x"), StoreError)
    assert found is None or found["format"] == store.FORMAT


@MANY
@given(st.dictionaries(st.sampled_from(["format", "kind", "files", "written_by"]), VALUE | st.integers(0, 4)))
def test_near_manifests_are_checked(value):
    found = ours(lambda: check_manifest(value, "x"), StoreError)
    assert found is None or (isinstance(found["kind"], str) and isinstance(found["files"], dict))


@MANY
@given(st.text(alphabet="ab./\\-_~:\0 é" + string.ascii_uppercase[:3], max_size=24) | TEXT)
def test_a_name_that_is_allowed_stays_inside(tmp_path, name):
    if ours(lambda: store.check_name(name), StoreError) is not None:
        root = tmp_path.resolve()
        path = (root / name).resolve()
        assert path != root
        assert root in path.parents


@MANY
@given(TEXT, TEXT)
def test_slugs_are_allowed_names_and_tell_texts_apart(a, b):
    assert store.check_name(store.slug(a))
    assert (store.slug(a).lower() == store.slug(b).lower()) == (a == b)


@MANY
@given(st.binary(max_size=64) | st.binary(max_size=40).map(lambda b: b"\x00\x00\x08\x01" + b), st.booleans())
def test_any_bytes_are_an_idx_file_or_refused(tmp_path, data, compressed):
    path = tmp_path / ("x.gz" if compressed else "x")
    path.write_bytes(gzip.compress(data) if compressed and len(data) % 3 else data)
    found = ours(lambda: parse_idx(path), DataError)
    assert found is None or found.size <= len(data)


@FEW
@given(st.integers(0, 9), st.integers(1, 9), st.integers(1, 9))
def test_idx_files_read_back(tmp_path, n, height, width):
    values = torch.arange(n * height * width, dtype=torch.uint8).reshape(n, height, width)
    header = b"\x00\x00\x08\x03" + b"".join(side.to_bytes(4, "big") for side in (n, height, width))
    (tmp_path / "x").write_bytes(header + values.numpy().tobytes())
    assert torch.equal(torch.from_numpy(parse_idx(tmp_path / "x").copy()), values)


SECTIONS = st.sampled_from([*Config.model_fields, "solvr", "use", ""])


@MANY
@given(st.dictionaries(SECTIONS, VALUE, max_size=8))
def test_any_mapping_is_a_config_or_refused(values):
    ours(lambda: check_config(values), ConfigError)


@FEW
@given(st.binary(max_size=120) | st.dictionaries(SECTIONS, VALUE).map(lambda v: yaml.safe_dump(v).encode()))
def test_any_file_is_a_config_or_refused(tmp_path, data):
    (tmp_path / "c.yaml").write_bytes(data)
    ours(lambda: read_config(tmp_path / "c.yaml"), ConfigError)


@FEW
@given(st.lists(st.text(alphabet="abms.=: {}[]'\"&*\n", max_size=16), max_size=3))
def test_any_change_is_applied_or_refused(tmp_path, changes):
    (tmp_path / "c.yaml").write_text("model: {}\ndata: {}\nbases: {}\n")
    ours(lambda: read_config(tmp_path / "c.yaml", changes), ConfigError)


@FEW
@given(VALUE | st.dictionaries(st.sampled_from([*Report.__dataclass_fields__]), VALUE))
def test_any_json_is_a_report_or_refused(value):
    def read() -> Report:
        with store.understood("report.json"):
            return Report.from_dict(value)

    ours(read, StoreError)


@FEW
@given(VALUE | st.dictionaries(st.sampled_from([*Gate.__dataclass_fields__]), VALUE))
def test_any_json_is_a_gate_or_refused(value):
    def read() -> Gate:
        with store.understood("gates-0.json"):
            return gate_from_dict(value)

    ours(read, StoreError)


@FEW
@given(
    st.sampled_from(list(GateKind)),
    st.lists(st.tuples(st.integers(0, 99), st.floats(-9, 9, width=32)), max_size=3),
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=4),
)
def test_gates_read_back(kind, wires, cells):
    patterns = torch.tensor([[i & 1, i >> 1] for i in range(len(cells))], dtype=torch.bool)
    count = torch.tensor([max(c) for c in cells])
    table = TruthTable(patterns, count, torch.tensor([min(c) for c in cells]), torch.zeros(len(cells)))
    gate = Gate(3, kind, tuple(i for i, _ in wires), tuple(w for _, w in wires), 0.5, table=table)
    again = gate_from_dict(store.parse_json(store.dump_json(gate_to_dict(gate)), "x"))
    assert again.table is not None
    assert torch.equal(again.table.patterns, patterns)
    assert gate_to_dict(again) == gate_to_dict(gate)


@FEW
@given(
    st.dictionaries(st.sampled_from(["RANK", "WORLD_SIZE", "GATELENS_RANK", "GATELENS_WORLD", "SLURM_PROCID"]), TEXT)
)
def test_any_environment_is_a_worker_or_refused(environment):
    found = ours(lambda: this_worker(environment), ConfigError)
    assert found is None or 0 <= found.rank < found.world


@FEW
@given(st.integers(0, 200), st.integers(1, 50), st.integers(1, 9))
def test_every_row_is_in_one_shard_of_one_worker(total, size, world):
    pieces = spans(total, size)
    rows = [r for rank in range(world) for i in Worker(rank, world).owned(len(pieces)) for r in pieces[i]]
    assert sorted(rows) == list(range(total))


@FEW
@given(VALUE, VALUE)
def test_differences_are_found_exactly_where_values_differ(a, b):
    assert differences(a, a) == []
    same = store.dump_json(a) == store.dump_json(b)
    assert bool(differences({"x": a}, {"x": b})) == (not same)
