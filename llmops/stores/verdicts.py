"""The verdicts of a store: saved for good, and counted by whom they looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, func, insert, select

from llmops.records import Verdict
from llmops.stores.base import Area
from llmops.stores.rows import escape, time_text, to_json, verdict_of
from llmops.stores.tables import LOOKS, VERDICTS

if TYPE_CHECKING:
    from llmops.stores.base import Database


class Verdicts:
    """What gates said of the runs of a store. Reached as `journal.verdicts`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, verdict: Verdict) -> None:
        """Store a verdict for good: nothing changes or removes it; one that is there already is not added."""
        at = time_text(verdict.created_at)
        is_there = select(VERDICTS.c.id).where(VERDICTS.c.id == verdict.id, VERDICTS.c.created_at == at)
        pairs = {
            (each.candidate.identity, each.baseline.identity if each.baseline else "")
            for each in verdict.candidates
        }

        def save(connection: Connection) -> None:
            if connection.scalar(is_there) is not None:
                return
            sequence = (connection.scalar(select(func.max(VERDICTS.c.sequence))) or 0) + 1
            experiment, record = escape(verdict.experiment), to_json(verdict)
            connection.execute(insert(VERDICTS).values((sequence, verdict.id, at, experiment, record)))
            for pair in sorted(pairs):
                connection.execute(insert(LOOKS).values((sequence, *pair)))

        self._database.write(save, Area.RUNS)

    def of(self, experiment: str) -> list[Verdict]:
        """Return the verdicts on an experiment, the one saved last first."""
        query = select(VERDICTS.c.record).where(VERDICTS.c.experiment == escape(experiment))
        newest_first = query.order_by(VERDICTS.c.sequence.desc())
        found = self._database.read(lambda connection: connection.execute(newest_first).all())
        return [verdict_of(row.record) for row in found]

    def n_looks(self, candidate: str, baseline: str | None = None) -> int:
        """Return how many verdicts looked at a candidate, beside a baseline or, with None, beside any.

        candidate, baseline: identities of variants; a baseline of "" is none.
        """
        wanted = [LOOKS.c.candidate == candidate]
        if baseline is not None:
            wanted.append(LOOKS.c.baseline == baseline)
        query = select(func.count(LOOKS.c.sequence.distinct())).where(*wanted)
        return self._database.read(lambda connection: int(connection.scalar(query) or 0))
