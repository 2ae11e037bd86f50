"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables."""
    _make_runs()
    _make_results()
    _make_outbox()


def _make_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False, unique=True),
        sa.Column("experiment", sa.Text, nullable=False),
        sa.Column("identity", sa.Text, nullable=False),
        sa.Column("fresh", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
    )
    op.create_index("runs_by_experiment", "runs", ["experiment", "sequence"])
    op.create_table(
        "cases",
        sa.Column("case_key", sa.Text, primary_key=True),
        sa.Column("content", sa.Text, nullable=False),
    )
    op.create_table(
        "cells",
        sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("variant", sa.Text, nullable=False),
        sa.Column("repeat", sa.BigInteger, nullable=False),
        sa.Column("case_id", sa.Text, nullable=False),
        sa.Column("case_key", sa.Text, sa.ForeignKey("cases.case_key"), nullable=False),
        sa.Column("cell_id", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("cells_by_cell_id", "cells", ["run_id", "cell_id"])


def _make_results() -> None:
    op.create_table(
        "calls",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("model_identity", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("reply", sa.Text),
        sa.Column("raw", sa.LargeBinary),
        sa.Column("cost_usd", sa.Double),
        sa.Column("error", sa.Text),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("answered_at", sa.Text),
    )
    op.create_table(
        "outputs",
        sa.Column("cell_id", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("valid", sa.Boolean),
        sa.Column("latency_s", sa.Double),
        sa.Column("ttft_s", sa.Double),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("usage_estimated", sa.Boolean, nullable=False),
        sa.Column("cost_usd", sa.Double),
        sa.Column("returned_model", sa.Text),
        sa.Column("created_at", sa.Text, nullable=False),
    )
    op.create_table(
        "spans",
        sa.Column("cell_id", sa.Text, primary_key=True),
        sa.Column("index", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("parent", sa.BigInteger),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("inputs", sa.Text, nullable=False),
        sa.Column("output", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("call_id", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("usage", sa.Text),
        sa.Column("cost_usd", sa.Double),
        sa.Column("start_s", sa.Double, nullable=False),
        sa.Column("duration_s", sa.Double, nullable=False),
        sa.Column("ttft_s", sa.Double),
        sa.Column("tpot_s", sa.Double),
        sa.Column("error", sa.Text),
    )
    op.create_table(
        "scores",
        sa.Column("cell_id", sa.Text, primary_key=True),
        sa.Column("evaluator_identity", sa.Text, primary_key=True),
        sa.Column("case_key", sa.Text, primary_key=True),
        sa.Column("evaluator", sa.Text, nullable=False),
        sa.Column("value", sa.Double),
        sa.Column("label", sa.Text),
        sa.Column("truth", sa.Text),
        sa.Column("parts", sa.Text, nullable=False),
        sa.Column("rationale", sa.Text),
        sa.Column("error", sa.Text),
        sqlite_with_rowid=False,
    )


def _make_outbox() -> None:
    op.create_table(
        "deliveries",
        sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("target", sa.Text, primary_key=True),
        sa.Column("delivered_revision", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("mlflow_ids", sa.Text, nullable=False),
        sa.Column("updated_at", sa.Text, nullable=False),
    )
