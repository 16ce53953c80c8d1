"""Whatever a file holds, a reader gives rows or a typed error, and takes little memory."""

from __future__ import annotations

import json
import resource
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msft.config.dataset_section import DatasetConfig
from msft.core.errors import UserError
from msft.data.detect import detect
from msft.data.sources import Source

MINUTES = 20
GIBIBYTE = 2**30
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
COLUMNS = st.sampled_from(
    ["prompt", "completion", "messages", "conversations", "instruction", "input", "output", "question", "choices",
     "answer", "text", "label"]
)  # fmt: skip
ROWS = st.lists(st.dictionaries(COLUMNS, JSON, max_size=4), max_size=6)


@st.composite
def damaged(draw, whole):
    """The bytes with a few changed, and the end perhaps cut off."""
    content = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 4))):
        if content:
            content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


def json_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows):
    sink = pa.BufferOutputStream()
    table = pa.table({"prompt": [f"p {n}" for n in range(rows)], "completion": [[{"x": n}] for n in range(rows)]})
    pq.write_table(table, sink, row_group_size=3, write_page_checksum=True)
    return sink.getvalue().to_pybytes()


CONTENT = st.one_of(
    st.tuples(st.just("jsonl"), damaged(ROWS.map(json_lines))),
    st.tuples(st.just("json"), damaged(ROWS.map(lambda rows: json.dumps(rows).encode()))),
    st.tuples(st.just("parquet"), damaged(st.integers(0, 9).map(parquet))),
    st.tuples(st.sampled_from(["jsonl", "json", "csv", "parquet"]), st.binary(max_size=200)),
    st.tuples(st.just("csv"), damaged(st.text(alphabet='prompt,"\n\r x1', max_size=80).map(str.encode))),
)


def read(folder, content):
    """Rows to samples, as loading does it; rows of the wrong kind raise ValueError, which loading turns into lines."""
    ending, raw = content
    path = folder / f"a.{ending}"
    path.write_bytes(raw)
    dataset = DatasetConfig.model_validate({"id": "d", "path": str(path)})
    try:
        rows = Source(dataset, 20).rows()
        form = detect(dataset, rows)
    except UserError as error:
        assert "Fix: " in str(error)
        return
    for row in rows:
        try:
            assert form.sample(row).question is not None
        except ValueError as error:
            assert str(error)


@pytest.mark.campaign
def test_readers_give_rows_or_typed_errors(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    @settings(max_examples=2000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(CONTENT)
    def campaign(content):
        read(tmp_path, content)

    end = time.monotonic() + 60 * MINUTES
    while time.monotonic() < end:
        campaign()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert peak < GIBIBYTE, f"{peak / 2**20:.0f} MiB, {before / 2**20:.0f} before"
