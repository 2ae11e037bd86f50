"""For promotion and the ledger of looks: verdicts as they were reached, and whom each looked at."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add both tables, empty."""
    op.create_table(
        "verdicts",
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("experiment", TEXT, nullable=False),
        sa.Column("record", TEXT, nullable=False),
    )
    op.create_index("verdicts_by_experiment", "verdicts", ["experiment", "sequence"])
    op.create_index("verdicts_by_id", "verdicts", ["id", "created_at"], unique=True)
    op.create_table(
        "looks",
        sa.Column(
            "sequence",
            sa.BigInteger,
            sa.ForeignKey("verdicts.sequence"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("candidate", TEXT, primary_key=True),
        sa.Column("baseline", TEXT, primary_key=True),
    )
    op.create_index("looks_by_candidate", "looks", ["candidate", "baseline"])
