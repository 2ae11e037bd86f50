"""For teams: whose a call is; what a score adds up and asked; the comparisons of a run apart from its record."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
RUNS = sa.table("runs", sa.column("id"), sa.column("record"), sa.column("comparisons"))


def upgrade() -> None:
    """Add the columns, and move each run's comparisons into theirs."""
    op.add_column("calls", sa.Column("owner", TEXT))
    for name in ("sums", "call_ids"):
        op.add_column("scores", sa.Column(name, TEXT, nullable=False, server_default="[]"))
    op.add_column("runs", sa.Column("comparisons", TEXT, nullable=False, server_default="[]"))
    connection = op.get_bind()
    for run_id in connection.scalars(sa.select(RUNS.c.id)).all():
        _move_comparisons(connection, run_id)


def _move_comparisons(connection: sa.Connection, run_id: str) -> None:
    this = RUNS.c.id == run_id
    record = json.loads(connection.scalar(sa.select(RUNS.c.record).where(this)) or "{}")
    comparisons = record.pop("comparisons", [])
    changes = {"record": _json(record), "comparisons": _json(comparisons)}
    connection.execute(sa.update(RUNS).where(this).values(changes))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))
