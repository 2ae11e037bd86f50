"""What of a store has been told elsewhere: which runs wait for a target, and how far each of the others got there.

Telling is left to `sync`; here it is only noted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, func, select

from llmops.records import REPLAYED
from llmops.stores.base import Area
from llmops.stores.rows import escape, time_text, to_json, unescape
from llmops.stores.statements import insert_for
from llmops.stores.tables import DELIVERIES, RUNS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmops.stores.base import Database


@dataclass(frozen=True, slots=True)
class Delivery:
    """How far a run has been delivered to a target. error: of the last attempt, None when it went well."""

    run_id: str
    target: str
    delivered_revision: int
    attempts: int
    error: str | None
    mlflow_ids: Mapping[str, Any]
    updated_at: datetime


class Deliveries:
    """The outbox of a store, by target. Reached as `journal.deliveries`; `Journal.delivering` keeps others off."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def waiting(self, target: str) -> list[str]:
        """Return the ids of runs saved since they were last delivered to a target, oldest first.

        What recordings answered stays here: nothing was asked, and whoever looks there looks for what models do.
        """
        here = (DELIVERIES.c.run_id == RUNS.c.id) & (DELIVERIES.c.target == escape(target))
        delivered = func.coalesce(DELIVERIES.c.delivered_revision, 0)
        query = (
            select(RUNS.c.id)
            .outerjoin(DELIVERIES, here)
            .where(RUNS.c.revision > delivered, RUNS.c.id.not_like(f"%{REPLAYED}%"))
        )
        oldest_first = query.order_by(RUNS.c.sequence)
        found = self._database.read(lambda connection: connection.scalars(oldest_first).all())
        return list(found)

    def mark_delivered(self, run_id: str, target: str, revision: int, mlflow_ids: Mapping[str, Any]) -> None:
        """Note that a run was delivered as it stood at `revision`, and what it is called there."""
        before = DELIVERIES.c.delivered_revision
        self._mark(
            run_id,
            target,
            {"delivered_revision": revision, "mlflow_ids": to_json(mlflow_ids), "error": None},
            {"delivered_revision": case((before > revision, before), else_=revision)},
        )

    def mark_failed(self, run_id: str, target: str, error: str) -> None:
        """Note that a delivery failed, and why; what was delivered before stays so."""
        before = {
            "delivered_revision": DELIVERIES.c.delivered_revision,
            "mlflow_ids": DELIVERIES.c.mlflow_ids,
        }
        self._mark(
            run_id, target, {"delivered_revision": 0, "mlflow_ids": "{}", "error": escape(error)}, before
        )

    def _mark(self, run_id: str, target: str, values: Mapping[str, Any], if_known: Mapping[str, Any]) -> None:
        insert = insert_for(self._database.engine.dialect, DELIVERIES).values(
            run_id=run_id,
            target=escape(target),
            attempts=1,
            updated_at=time_text(datetime.now(UTC)),
            **values,
        )
        changes = {"attempts": DELIVERIES.c.attempts + 1, "updated_at": insert.excluded.updated_at}
        changes |= {name: insert.excluded[name] for name in values} | dict(if_known)
        statement = insert.on_conflict_do_update(index_elements=["run_id", "target"], set_=changes)
        self._database.write(lambda connection: connection.execute(statement), Area.RUNS)

    def find(self, run_id: str, target: str) -> Delivery | None:
        """Return how far a run has been delivered to a target, None when that was never tried."""
        query = select(DELIVERIES).where(DELIVERIES.c.run_id == run_id, DELIVERIES.c.target == escape(target))
        row = self._database.read(lambda connection: connection.execute(query).one_or_none())
        if row is None:
            return None
        return Delivery(
            run_id=row.run_id,
            target=unescape(row.target),
            delivered_revision=row.delivered_revision,
            attempts=row.attempts,
            error=None if row.error is None else unescape(row.error),
            mlflow_ids=json.loads(row.mlflow_ids),
            updated_at=datetime.fromisoformat(row.updated_at),
        )
