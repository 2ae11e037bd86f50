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
    false,
    text,
)

REVISIONS = ("0001", "0002", "0003", "0004", "0005")
"""The schema's versions, oldest first; the last is the one this code reads and writes."""

TEXT = Text().with_variant(Text(collation="C"), "postgresql")
"""Text in the order of its bytes, as SQLite has it; PostgreSQL's own order depends on the server's language."""

METADATA = MetaData()

STAMP = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
"""Where alembic keeps the version; made here too, so that a new store need not wait for its import."""

RUNS = Table(
    "runs",
    METADATA,
    Column("id", TEXT, primary_key=True),
    Column("sequence", BigInteger, nullable=False, unique=True),  # order of beginning; clocks jump
    Column("experiment", TEXT, nullable=False),
    Column("identity", TEXT, nullable=False),
    Column("fresh", BigInteger, nullable=False),
    Column("status", TEXT, nullable=False),
    Column("created_at", TEXT, nullable=False),
    Column("record", TEXT, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("comparisons", TEXT, nullable=False, server_default="[]"),  # apart: every flip of every candidate
    Index("runs_by_experiment", "experiment", "sequence"),
)

CASES = Table(
    "cases",
    METADATA,
    Column("case_key", TEXT, primary_key=True),
    Column("content", TEXT, nullable=False),
)

CELLS = Table(
    "cells",
    METADATA,
    Column("run_id", TEXT, ForeignKey("runs.id"), primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("variant", TEXT, nullable=False),
    Column("repeat", BigInteger, nullable=False),
    Column("case_id", TEXT, nullable=False),
    Column("case_key", TEXT, ForeignKey("cases.case_key"), nullable=False),
    Column("cell_id", TEXT, nullable=False),
    Index("cells_by_cell_id", "run_id", "cell_id"),
    sqlite_with_rowid=False,  # stored in the order of the key, which is the order they are read in
)

_IN_FLIGHT = "state = 'sent'"

CALLS = Table(
    "calls",
    METADATA,
    Column("id", TEXT, primary_key=True),
    Column("model", TEXT, nullable=False),
    Column("model_identity", TEXT, nullable=False),
    Column("state", TEXT, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("request", TEXT, nullable=False),
    Column("reply", TEXT),
    Column("raw", LargeBinary),
    Column("cost_usd", Double),
    Column("error", TEXT),
    Column("created_at", TEXT, nullable=False),
    Column("answered_at", TEXT),
    Column("owner", TEXT),  # whose intent it was; its hold says whether it is still in flight
    Column("n_unknown", BigInteger, nullable=False, server_default="0"),
    Column("upper_usd", Double),
    # Few at a time: those in flight, and what kills left behind.
    Index("calls_in_flight", "owner", sqlite_where=text(_IN_FLIGHT), postgresql_where=text(_IN_FLIGHT)),
)

ACCOUNTS = Table(
    "accounts",
    METADATA,
    Column(
        "owner", TEXT, primary_key=True
    ),  # a run's id; it adds up with the ends of its calls, so kills lose nothing
    Column("n_calls", BigInteger, nullable=False),
    Column("n_retried", BigInteger, nullable=False),
    Column("n_repeated", BigInteger, nullable=False),
    Column("n_unknown", BigInteger, nullable=False),
    Column("n_adrift", BigInteger, nullable=False),
    Column("n_unbounded", BigInteger, nullable=False),
    Column("n_unpriced", BigInteger, nullable=False),
    Column("usd", Double, nullable=False),
    Column("hidden_usd", Double, nullable=False),
)

OUTPUTS = Table(
    "outputs",
    METADATA,
    Column("cell_id", TEXT, primary_key=True),
    Column("value", TEXT, nullable=False),
    Column("status", TEXT, nullable=False),
    Column("error", TEXT),
    Column("valid", Boolean),
    Column("latency_s", Double),
    Column("ttft_s", Double),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("usage_estimated", Boolean, nullable=False),
    Column("cost_usd", Double),
    Column("returned_model", TEXT),
    Column("created_at", TEXT, nullable=False),
    Column("unfiltered", Boolean, nullable=False, server_default=false()),
)

SPANS = Table(
    "spans",
    METADATA,
    Column("cell_id", TEXT, primary_key=True),
    Column("index", BigInteger, primary_key=True, autoincrement=False),
    Column("parent", BigInteger),
    Column("name", TEXT, nullable=False),
    Column("kind", TEXT, nullable=False),
    Column("inputs", TEXT, nullable=False),
    Column("output", TEXT, nullable=False),
    Column("status", TEXT, nullable=False),
    Column("call_id", TEXT),
    Column("model", TEXT),
    Column("usage", TEXT),
    Column("cost_usd", Double),
    Column("start_s", Double, nullable=False),
    Column("duration_s", Double, nullable=False),
    Column("ttft_s", Double),
    Column("tpot_s", Double),
    Column("error", TEXT),
)

SCORES = Table(
    "scores",
    METADATA,
    Column("cell_id", TEXT, primary_key=True),
    Column("evaluator_identity", TEXT, primary_key=True),
    Column("case_key", TEXT, primary_key=True),
    Column("evaluator", TEXT, nullable=False),
    Column("value", Double),
    Column("label", TEXT),
    Column("truth", TEXT),
    Column("parts", TEXT, nullable=False),
    Column("rationale", TEXT),
    Column("error", TEXT),
    Column("sums", TEXT, nullable=False, server_default="[]"),
    Column("call_ids", TEXT, nullable=False, server_default="[]"),
    sqlite_with_rowid=False,  # the key is most of the row
)

DELIVERIES = Table(
    "deliveries",
    METADATA,
    Column("run_id", TEXT, ForeignKey("runs.id"), primary_key=True),
    Column("target", TEXT, primary_key=True),
    Column("delivered_revision", BigInteger, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("error", TEXT),
    Column("mlflow_ids", TEXT, nullable=False),
    Column("updated_at", TEXT, nullable=False),
)

SHARES = Table(
    "shares",
    METADATA,
    Column("owner", TEXT, primary_key=True),  # its hold says whether it still asks
    Column("deployment", TEXT, primary_key=True),
    Column("learnt_per_s", Double),  # of all who ask; null as long as it has refused nothing
)

VERDICTS = Table(
    "verdicts",
    METADATA,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),  # order of saving; clocks jump
    Column("id", TEXT, nullable=False),
    Column("created_at", TEXT, nullable=False),
    Column("experiment", TEXT, nullable=False),
    Column("record", TEXT, nullable=False),
    Index("verdicts_by_experiment", "experiment", "sequence"),
    Index("verdicts_by_id", "id", "created_at", unique=True),  # the same look again, not another one
)

LOOKS = Table(
    "looks",
    METADATA,
    Column("sequence", BigInteger, ForeignKey("verdicts.sequence"), primary_key=True, autoincrement=False),
    Column("candidate", TEXT, primary_key=True),
    Column("baseline", TEXT, primary_key=True),  # empty where no gate compares
    Index("looks_by_candidate", "candidate", "baseline"),
)
