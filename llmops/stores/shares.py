"""What runners that share a store tell one another of the deployments they ask, so that each keeps to its share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, delete, insert, select

from llmops.stores.base import Area
from llmops.stores.tables import SHARES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmops.stores.base import Database


def share_limits(
    database: Database, owner: str, learnt: Mapping[str, float | None]
) -> Mapping[str, Sequence[float | None]]:
    """Say what an owner asks, and return what all say; as `Journal.share_limits`."""

    def share(connection: Connection) -> dict[str, list[float | None]]:
        found = connection.execute(select(SHARES).where(SHARES.c.owner != owner)).all()
        others = {row.owner for row in found}
        alive = database.alive(connection, others) if others else ()
        connection.execute(delete(SHARES).where(SHARES.c.owner.not_in(alive)))
        ours = [{"owner": owner, "deployment": key, "learnt_per_s": rate} for key, rate in learnt.items()]
        if ours:
            connection.execute(insert(SHARES), ours)
        said = {key: [rate] for key, rate in learnt.items()}
        for row in found:
            if row.owner in alive and row.deployment in said:
                said[row.deployment].append(row.learnt_per_s)
        return said

    return database.write(share, Area.SHARES)
