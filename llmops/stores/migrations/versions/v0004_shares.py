"""For runners that share a deployment's limits: who asks which, and what each has learnt of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the table; nobody shares anything while a store is migrated."""
    op.create_table(
        "shares",
        sa.Column("owner", TEXT, primary_key=True),
        sa.Column("deployment", TEXT, primary_key=True),
        sa.Column("learnt_per_s", sa.Double),
    )
