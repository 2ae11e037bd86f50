"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make all tables."""
    _make_runs()
    _make_results()
    _make_outbox()


def _make_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False, unique=True),
        sa.Column("experiment", TEXT, nullable=False),
        sa.Column("identity", TEXT, nullable=False),
        sa.Column("fresh", sa.BigInteger, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("record", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
    )
    op.create_index("runs_by_experiment", "runs", ["experiment", "sequence"])
    op.create_table(
        "cases",
        sa.Column("case_key", TEXT, primary_key=True),
        sa.Column("content", TEXT, nullable=False),
    )
    op.create_table(
        "cells",
        sa.Column("run_id", TEXT, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("variant", TEXT, nullable=False),
        sa.Column("repeat", sa.BigInteger, nullable=False),
        sa.Column("case_id", TEXT, nullable=False),
        sa.Column("case_key", TEXT, sa.ForeignKey("cases.case_key"), nullable=False),
        sa.Column("cell_id", TEXT, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("cells_by_cell_id", "cells", ["run_id", "cell_id"])


def _make_results() -> None:
    op.create_table(
        "calls",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("model_identity", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("request", TEXT, nullable=False),
        sa.Column("reply", TEXT),
        sa.Column("raw", sa.LargeBinary),
        sa.Column("cost_usd", sa.Double),
        sa.Column("error", TEXT),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("answered_at", TEXT),
    )
    op.create_table(
        "outputs",
        sa.Column("cell_id", TEXT, primary_key=True),
        sa.Column("value", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("error", TEXT),
        sa.Column("valid", sa.Boolean),
        sa.Column("latency_s", sa.Double),
        sa.Column("ttft_s", sa.Double),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("usage_estimated", sa.Boolean, nullable=False),
        sa.Column("cost_usd", sa.Double),
        sa.Column("returned_model", TEXT),
        sa.Column("created_at", TEXT, nullable=False),
    )
    op.create_table(
        "spans",
        sa.Column("cell_id", TEXT, primary_key=True),
        sa.Column("index", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("parent", sa.BigInteger),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("inputs", TEXT, nullable=False),
        sa.Column("output", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("call_id", TEXT),
        sa.Column("model", TEXT),
        sa.Column("usage", TEXT),
        sa.Column("cost_usd", sa.Double),
        sa.Column("start_s", sa.Double, nullable=False),
        sa.Column("duration_s", sa.Double, nullable=False),
        sa.Column("ttft_s", sa.Double),
        sa.Column("tpot_s", sa.Double),
        sa.Column("error", TEXT),
    )
    op.create_table(
        "scores",
        sa.Column("cell_id", TEXT, primary_key=True),
        sa.Column("evaluator_identity", TEXT, primary_key=True),
        sa.Column("case_key", TEXT, primary_key=True),
        sa.Column("evaluator", TEXT, nullable=False),
        sa.Column("value", sa.Double),
        sa.Column("label", TEXT),
        sa.Column("truth", TEXT),
        sa.Column("parts", TEXT, nullable=False),
        sa.Column("rationale", TEXT),
        sa.Column("error", TEXT),
        sqlite_with_rowid=False,
    )


def _make_outbox() -> None:
    op.create_table(
        "deliveries",
        sa.Column("run_id", TEXT, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("target", TEXT, primary_key=True),
        sa.Column("delivered_revision", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("error", TEXT),
        sa.Column("mlflow_ids", TEXT, nullable=False),
        sa.Column("updated_at", TEXT, nullable=False),
    )
