"""For paying once: requests of which nobody learnt what became of them, and what each run's calls came to."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
RUNS = sa.table("runs", sa.column("id"), sa.column("record"))
COUNTS = ("n_calls", "n_retried", "n_repeated", "n_unknown", "n_adrift", "n_unbounded", "n_unpriced")
IN_FLIGHT = sa.text("state = 'sent'")


def upgrade() -> None:
    """Add the columns and the accounts; each run's account opens with what its record says."""
    op.add_column("calls", sa.Column("n_unknown", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("calls", sa.Column("upper_usd", sa.Double))
    op.create_index("calls_in_flight", "calls", ["owner"], sqlite_where=IN_FLIGHT, postgresql_where=IN_FLIGHT)
    op.add_column("outputs", sa.Column("unfiltered", sa.Boolean, nullable=False, server_default=sa.false()))
    accounts = op.create_table(
        "accounts",
        sa.Column("owner", TEXT, primary_key=True),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in COUNTS),
        sa.Column("usd", sa.Double, nullable=False),
        sa.Column("hidden_usd", sa.Double, nullable=False),
    )
    connection = op.get_bind()
    for run_id in connection.scalars(sa.select(RUNS.c.id)).all():
        record = json.loads(connection.scalar(sa.select(RUNS.c.record).where(RUNS.c.id == run_id)) or "{}")
        cost = record.get("cost_usd", 0.0)
        known = {
            "owner": run_id,
            "n_calls": record.get("n_calls", 0),
            "n_unpriced": int(cost is None),
            "usd": cost or 0.0,
            "hidden_usd": 0.0,
        }
        connection.execute(sa.insert(accounts).values({**dict.fromkeys(COUNTS, 0), **known}))
