"""The tables of the journal, as SQLAlchemy Core sees them; `migrations/` makes them, `rows.py` fills them.

Everything that people or models wrote is ASCII here, JSON or its escapes, because no two databases agree on
NUL and lone surrogates. What came over the wire is kept as bytes beside it.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

REVISIONS = ("0001",)
"""The schema's versions, oldest first; the last is the one this code reads and writes."""

METADATA = MetaData()

STAMP = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
"""Where alembic keeps the version; made here too, so that a new store need not wait for its import."""

RUNS = Table(
    "runs",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("sequence", BigInteger, nullable=False, unique=True),  # order of beginning; clocks jump
    Column("experiment", Text, nullable=False),
    Column("identity", Text, nullable=False),
    Column("fresh", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("record", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Index("runs_by_experiment", "experiment", "sequence"),
)

CASES = Table(
    "cases",
    METADATA,
    Column("case_key", Text, primary_key=True),
    Column("content", Text, nullable=False),
)

CELLS = Table(
    "cells",
    METADATA,
    Column("run_id", Text, ForeignKey("runs.id"), primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("variant", Text, nullable=False),
    Column("repeat", BigInteger, nullable=False),
    Column("case_id", Text, nullable=False),
    Column("case_key", Text, ForeignKey("cases.case_key"), nullable=False),
    Column("cell_id", Text, nullable=False),
    Index("cells_by_cell_id", "run_id", "cell_id"),
    sqlite_with_rowid=False,  # stored in the order of the key, which is the order they are read in
)

CALLS = Table(
    "calls",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("model_identity", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("request", Text, nullable=False),
    Column("reply", Text),
    Column("raw", LargeBinary),
    Column("cost_usd", Double),
    Column("error", Text),
    Column("created_at", Text, nullable=False),
    Column("answered_at", Text),
)

OUTPUTS = Table(
    "outputs",
    METADATA,
    Column("cell_id", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("error", Text),
    Column("valid", Boolean),
    Column("latency_s", Double),
    Column("ttft_s", Double),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("usage_estimated", Boolean, nullable=False),
    Column("cost_usd", Double),
    Column("returned_model", Text),
    Column("created_at", Text, nullable=False),
)

SPANS = Table(
    "spans",
    METADATA,
    Column("cell_id", Text, primary_key=True),
    Column("index", BigInteger, primary_key=True, autoincrement=False),
    Column("parent", BigInteger),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("output", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("call_id", Text),
    Column("model", Text),
    Column("usage", Text),
    Column("cost_usd", Double),
    Column("start_s", Double, nullable=False),
    Column("duration_s", Double, nullable=False),
    Column("ttft_s", Double),
    Column("tpot_s", Double),
    Column("error", Text),
)

SCORES = Table(
    "scores",
    METADATA,
    Column("cell_id", Text, primary_key=True),
    Column("evaluator_identity", Text, primary_key=True),
    Column("case_key", Text, primary_key=True),
    Column("evaluator", Text, nullable=False),
    Column("value", Double),
    Column("label", Text),
    Column("truth", Text),
    Column("parts", Text, nullable=False),
    Column("rationale", Text),
    Column("error", Text),
    sqlite_with_rowid=False,  # the key is most of the row
)

DELIVERIES = Table(
    "deliveries",
    METADATA,
    Column("run_id", Text, ForeignKey("runs.id"), primary_key=True),
    Column("target", Text, primary_key=True),
    Column("delivered_revision", BigInteger, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("error", Text),
    Column("mlflow_ids", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
)
