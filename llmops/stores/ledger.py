"""What calls came to, and what became of those that nobody heard of again: told inside the journal's transactions.

The rows of calls are written by the journal; here they are looked up, given up and added up by owner.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Connection, and_, bindparam, func, literal_column, or_, select, update

from llmops.records import NOTHING, Call, CallState, Spent
from llmops.stores.base import Area
from llmops.stores.rows import ANSWERED_AT, Rows, account_row, call_of
from llmops.stores.statements import batches
from llmops.stores.tables import CALLS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from llmops.stores.base import Database
    from llmops.stores.statements import Inserts

_BATCH = 500  # calls asked for in one statement

# Calls of these ids that are answered, in flight for somebody else, or in doubt; nobody has the empty name. Made once:
# an `in_` for each commit takes longer than the look, and leaves a cycle behind, with all its ids.
_KNOWN = select(CALLS).where(
    CALLS.c.id.in_(bindparam("ids", expanding=True)),
    or_(
        CALLS.c.state == str(CallState.ANSWERED),
        and_(CALLS.c.state == str(CallState.SENT), CALLS.c.owner != bindparam("owner")),
        CALLS.c.n_unknown > 0,
    ),
)


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of the intents of one transaction; those neither answered nor elsewhere now stand as sent, by us.

    answered: by id, those that have their answer. elsewhere: ids of those that another runner has in flight.
    doubtful: by id, those of which nobody learnt what became of a request before, as they stood.
    """

    answered: Mapping[str, Call]
    elsewhere: Collection[str]
    doubtful: Mapping[str, Call] = field(default_factory=dict)


class Ledger:
    """The calls of a store and the accounts of those they were made for. owner: a run's id as a rule."""

    def __init__(self, database: Database, inserts: Inserts) -> None:
        self._database = database
        self._inserts = inserts

    def add_up(self, connection: Connection, rows: Rows, owner: str) -> None:
        """Put to an account what calls came to, before their ends are there: an end said twice counts once."""
        spent = {call_id: each for call_id, each in rows.spent.items() if each != NOTHING}
        for some in batches(list(spent) if rows.is_doubtful else (), _BATCH):
            query = select(CALLS.c.id, CALLS.c.answered_at).where(CALLS.c.id.in_(some))
            for call_id, answered_at in connection.execute(query).all():
                if answered_at == rows.calls[call_id][ANSWERED_AT]:
                    del spent[call_id]
        if spent:
            total = reduce(Spent.plus, spent.values())
            self._inserts.accounts.run(connection, [account_row(owner, total)])

    def give_up_of(self, owner: str) -> None:
        """Give up the calls that an owner left as sent."""
        left = CALLS.c.owner == owner
        query = select(func.count()).where(_in_flight(), left)
        if self._database.read(lambda connection: connection.scalar(query)):
            self._database.write(lambda connection: self._give_up(connection, left), Area.RESULTS)

    def _give_up(self, connection: Connection, which: ColumnElement[bool]) -> None:
        """Note of calls that stand as sent, by whoever is gone, that nobody will learn what became of them."""
        query = select(CALLS.c.id, CALLS.c.owner, CALLS.c.upper_usd).where(_in_flight(), which)
        left: dict[str, Spent] = defaultdict(Spent)
        ids: list[str] = []
        for call_id, owner, upper_usd in connection.execute(query).all():
            lost = Spent(
                n_unknown=1, n_adrift=1, n_unbounded=int(upper_usd is None), hidden_usd=upper_usd or 0.0
            )
            left[owner] = left[owner].plus(lost)
            ids.append(call_id)
        for some in batches(ids, _BATCH):
            changes = {"state": str(CallState.UNKNOWN), "n_unknown": CALLS.c.n_unknown + 1}
            connection.execute(update(CALLS).where(CALLS.c.id.in_(some)).values(changes))
        self._inserts.accounts.run(connection, [account_row(owner, left[owner]) for owner in sorted(left)])

    def look_up(self, connection: Connection, call_ids: Collection[str], owner: str | None) -> Taken:
        """Return what became of calls that are about to be made for an owner."""
        answered: dict[str, Call] = {}
        doubtful: dict[str, Call] = {}
        owners: dict[str, str] = {}
        for some in batches(call_ids, _BATCH):
            for row in connection.execute(_KNOWN, {"ids": _filled_up(some), "owner": owner or ""}):
                call = call_of(tuple(row))
                if call.state is CallState.ANSWERED:
                    answered[call.id] = call
                    continue
                if call.state is CallState.SENT:
                    owners[call.id] = row.owner
                asked_by = owner if row.owner == owner else None
                doubtful[call.id] = call.model_copy(update={"owner": asked_by})
        elsewhere = self._in_flight_elsewhere(connection, owners)
        return Taken(answered, elsewhere, {key: doubtful[key] for key in doubtful if key not in elsewhere})

    def _in_flight_elsewhere(self, connection: Connection, owners: Mapping[str, str]) -> Collection[str]:
        """Return the calls whose owners are at work, and give up those whose owners are gone."""
        alive = self._database.alive(connection, set(owners.values())) if owners else ()
        gone = [call_id for call_id, owner in owners.items() if owner not in alive]
        for some in batches(gone, _BATCH):
            self._give_up(connection, CALLS.c.id.in_(some))
        return owners.keys() - set(gone)


def spent_for(call: Call) -> Spent:
    """Return what an answered call came to, as far as it says itself."""
    unpriced = call.cost_usd is None
    usd = call.upper_usd or 0.0 if call.cost_usd is None else call.cost_usd
    return Spent(
        n_calls=call.attempts, n_retried=max(call.attempts - 1, 0), n_unpriced=int(unpriced), usd=usd
    )


def _in_flight() -> ColumnElement[bool]:
    """The state in so many words, as the index of such calls has it."""
    return CALLS.c.state == literal_column(f"'{CallState.SENT}'")


def _filled_up(ids: list[str]) -> list[str]:
    """Return ids, the last of them repeated up to a power of two: of few statements each connection keeps few."""
    return ids + ids[-1:] * ((1 << (len(ids) - 1).bit_length()) - len(ids))
