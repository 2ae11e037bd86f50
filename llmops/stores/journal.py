"""The journal: what was asked, what came back and what it was worth, in SQL; the truth of every run.

It stores records and gives them back. What to call, what is missing and what it means is decided by others;
`writer.py` hands it what a run in progress leaves behind.
"""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from llmops.definitions.dataset import Case
from llmops.errors import StoreError, UsageError, nearest
from llmops.records import (
    REPLAYED,
    Call,
    CallState,
    Output,
    Row,
    RowNumbers,
    Run,
    Score,
    Span,
    Spent,
    Status,
    Verdict,
)
from llmops.stores import open_database
from llmops.stores.base import Area
from llmops.stores.numbers import read_numbers
from llmops.stores.rows import (
    ANSWERED_AT,
    Rows,
    account_of,
    account_row,
    call_of,
    escape,
    output_of,
    owned,
    run_of,
    run_texts,
    score_of,
    span_of,
    time_text,
    to_json,
    unescape,
    verdict_of,
)
from llmops.stores.statements import Inserts, insert_for
from llmops.stores.tables import (
    ACCOUNTS,
    CALLS,
    CASES,
    CELLS,
    DELIVERIES,
    LOOKS,
    METADATA,
    OUTPUTS,
    REVISIONS,
    RUNS,
    SCORES,
    SHARES,
    SPANS,
    STAMP,
    VERDICTS,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from llmops.stores.base import Database

READ_BATCH = 500  # cells read in one short transaction: memory stays flat, and no reader holds up the writer
WRITE_BATCH = 2_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cell:
    """One variant on one case, once. `cell_id` hashes all that determines its output; runs share outputs.

    position: place in the run's order, from 0. case_key: hash of the case's content, gold answer included.
    """

    position: int
    variant: str
    repeat: int
    case_id: str
    case_key: str
    cell_id: str


@dataclass(slots=True)
class Batch:
    """What one transaction writes. intents: calls about to be sent; calls: what came of others.

    scores: with the id of the cell and the key of the case they were given for.
    """

    intents: list[Call] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    scores: list[tuple[str, str, Score]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of the intents of one transaction; those neither answered nor elsewhere now stand as sent, by us.

    answered: by id, those that have their answer. elsewhere: ids of those that another runner has in flight.
    doubtful: by id, those of which nobody learnt what became of a request before, as they stood.
    """

    answered: Mapping[str, Call]
    elsewhere: Collection[str]
    doubtful: Mapping[str, Call] = field(default_factory=dict)


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


def open_journal(
    url: str, *, root: Path, create: bool = True, environment: Mapping[str, str] | None = None
) -> Journal:
    """Return the journal behind a database URL; a relative path starts at `root`.

    A new store is made, an older one migrated. With `create=False` there must be one.
    environment: where the database's password may stand.

    Raises StoreError when the store is damaged, newer than this code, something else, or cannot be written;
    what is there is then left as it is. Raises StoreHeldError when it must be migrated and a runner holds it.
    """
    database = open_database(url, root=root, environment=environment)
    try:
        found = _known_revision(database)
        if found is None and not create:
            raise StoreError(f"{database.name}: there is no store here yet; `llmops run` makes one")
        database.prepare()
        journal = Journal(database)
        if found != REVISIONS[-1]:
            with database.making():
                found = _known_revision(database)  # another process may have been quicker
                journal.create() if found is None else journal.migrate()
    except BaseException:
        database.close()
        raise
    return journal


def _known_revision(database: Database) -> str | None:
    found = database.found_revision()
    if found is not None and found not in REVISIONS:
        raise StoreError(
            f"{database.name}: its schema {found!r} is newer than {REVISIONS[-1]!r}, the newest this llmops knows; "
            "update llmops, nothing was changed"
        )
    return found


class Journal:
    """A store of runs. Made by `open_journal`; may be used from several threads, written from one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._dialect = database.engine.dialect
        self._inserts = Inserts(self._dialect)
        self._owner: str | None = None

    def close(self) -> None:
        """Close all connections; the next use would open new ones."""
        self._database.close()

    def create(self) -> None:
        """Make a new store at the newest version, as the migrations would; without them it is there at once."""

        def make(connection: Connection) -> None:
            METADATA.create_all(connection)
            STAMP.create(connection, checkfirst=True)
            connection.execute(insert(STAMP).values(version_num=REVISIONS[-1]))

        self._database.write(make, Area.RUNS)

    def migrate(self) -> None:
        """Bring the schema to the newest version, by alembic."""
        from llmops.stores.migrations import upgrade

        self._database.write(upgrade, Area.RUNS)

    @contextmanager
    def hold(self, owner: str) -> Iterator[None]:
        """Be the one process that works for `owner`, a run's id as a rule; its calls are marked as the owner's.

        Those that still stand as sent were left by a process that ended before it learnt what became of them.

        Raises StoreHeldError naming host and pid when another is, StoreError when the disk has no room.
        """
        with self._database.hold(owner):
            self._owner = owner
            try:
                self._bring_in()
                if self._number(select(func.count()).where(_in_flight(), CALLS.c.owner == owner)):
                    self._database.write(
                        lambda connection: self._give_up(connection, CALLS.c.owner == owner), Area.RESULTS
                    )
                yield
            finally:
                self._owner = None

    def _bring_in(self) -> None:
        """Commit the answers that the last holder could only set aside."""
        holder, calls = self._owner, self._database.aside()
        try:
            for self._owner, some in groupby(calls, key=lambda call: call.owner):
                rows = Rows(is_doubtful=True)  # whoever set them aside may have got them in after all
                for call in some:
                    rows.add_call(call, spent=_spent_for(call))
                self.commit(rows)
        finally:
            self._owner = holder
        if calls:
            self._database.set_aside(())

    def set_aside(self, rows: Rows) -> None:
        """Keep the answers among rows that cannot be committed for the next holder, as far as there is room."""
        self._database.set_aside(call.model_copy(update={"owner": self._owner}) for call in rows.answered())

    def release_reserve(self) -> None:
        """Give back the disk space that `hold` keeps, so that answers in flight can still be written."""
        self._database.release_reserve()

    # --- runs ---------------------------------------------------------------------------------------------

    def begin_run(self, run: Run, cells: Iterable[tuple[Cell, Case]]) -> None:
        """Store a run and its cells in one transaction, streaming; it is now the newest run.

        A run that was begun before has all its cells: neither they nor its record change.
        """

        def begin(connection: Connection) -> None:
            if connection.scalar(select(RUNS.c.id).where(RUNS.c.id == run.id)) is not None:
                newest = select(func.max(RUNS.c.sequence)).scalar_subquery()
                connection.execute(
                    update(RUNS)
                    .where(RUNS.c.id == run.id, RUNS.c.sequence < newest)
                    .values(sequence=newest + 1)
                )
                return
            self._upsert_run(connection, run, revision=0)
            for batch in _batches(cells, WRITE_BATCH):
                self._insert_cells(connection, run.id, batch)

        self._database.write(begin, Area.RUNS, again=False)  # the cells can be had but once

    def _insert_cells(self, connection: Connection, run_id: str, batch: Sequence[tuple[Cell, Case]]) -> None:
        cases = {cell.case_key: case for cell, case in batch}
        self._inserts.cases.run(connection, [(key, to_json(cases[key])) for key in sorted(cases)])
        rows = [
            (run_id, c.position, escape(c.variant), c.repeat, escape(c.case_id), c.case_key, c.cell_id)
            for c, _ in batch
        ]
        self._inserts.cells.run(connection, rows)

    def save_run(self, run: Run) -> None:
        """Store the record of a run as it is now; its revision goes up by one."""
        self._database.write(lambda connection: self._upsert_run(connection, run, revision=1), Area.RUNS)

    def _upsert_run(self, connection: Connection, run: Run, *, revision: int) -> None:
        """revision: of a run that is new; one that is there goes up by one."""
        record, comparisons = run_texts(run)
        insert = insert_for(self._dialect, RUNS).values(
            id=run.id,
            sequence=select(func.coalesce(func.max(RUNS.c.sequence), 0) + 1).scalar_subquery(),
            experiment=escape(run.experiment),
            identity=run.identity,
            fresh=run.fresh,
            status=str(run.status),
            created_at=time_text(run.created_at),
            record=record,
            comparisons=comparisons,
            revision=revision,
        )
        changes = {name: insert.excluded[name] for name in ("status", "record", "comparisons")}
        changes["revision"] = RUNS.c.revision + 1
        connection.execute(insert.on_conflict_do_update(index_elements=["id"], set_=changes))

    def find_run(self, run_id: str) -> Run | None:
        """Return the run of an id, None when there is none."""
        query = select(RUNS.c.record, RUNS.c.comparisons).where(RUNS.c.id == run_id)
        found = self._rows(query)
        return run_of(*found[0]) if found else None

    def latest_run(self, experiment: str | None = None) -> Run | None:
        """Return the run that was begun last, of all or of one experiment; None when there is none."""
        found = self._rows(_newest_runs(experiment, RUNS.c.record, RUNS.c.comparisons).limit(1))
        return run_of(*found[0]) if found else None

    def named_run(self, text: str | None) -> Run:
        """Return the run that people mean: by its id, by its experiment for the latest; None is the latest of all.

        Raises UsageError with the nearest spelling when there is none.
        """
        found = self.latest_run() if text is None else self.find_run(text) or self.latest_run(text)
        if found is None:
            known = [name for run in self.runs(with_comparisons=False) for name in (run.id, run.experiment)]
            there = f"there are: {', '.join(dict.fromkeys(known))}"
            if text is None or not known:
                raise UsageError("nothing has run here yet: `llmops run EXPERIMENT`")
            raise UsageError(f"no run is called {text!r}; {nearest(text, known) or there}")
        return found

    def runs(self, experiment: str | None = None, *, with_comparisons: bool = True) -> list[Run]:
        """Return all runs, or those of one experiment, the one begun last first.

        Without their comparisons, which hold every flip of every candidate, reading is much faster.
        """
        columns = [RUNS.c.record, RUNS.c.comparisons] if with_comparisons else [RUNS.c.record]
        return [run_of(*texts) for texts in self._rows(_newest_runs(experiment, *columns))]

    def _rows(self, query: Select[Any]) -> Sequence[Any]:
        return self._database.read(lambda connection: connection.execute(query).all())

    def _number(self, query: Select[Any]) -> int:
        return self._database.read(lambda connection: int(connection.scalar(query) or 0))

    def latest_fresh(self, experiment: str) -> int:
        """Return the highest `fresh` among the runs of an experiment, 0 when there are none."""
        query = select(func.coalesce(func.max(RUNS.c.fresh), 0)).where(
            RUNS.c.experiment == escape(experiment)
        )
        return self._number(query)

    # --- cells --------------------------------------------------------------------------------------------

    def cells(self, run_id: str) -> Iterator[tuple[Cell, Case]]:
        """Yield all cells of a run with their cases, in order: what `begin_run` was given."""
        for batch in self._cell_batches([CELLS.c.run_id == run_id]):
            yield from ((cell, case_) for cell, case_, _ in batch)

    def pending(
        self,
        run_id: str,
        evaluator_identities: Collection[str],
        *,
        variants: Collection[str] | None = None,
        cases: Collection[str] | None = None,
        limit: int | None = None,
    ) -> Iterator[tuple[Cell, Case, Output | None]]:
        """Yield the cells that still need work, in order: what `run` would do now.

        Those without an output, or with one whose status is error or unknown, come with None; those that lack
        a score of some evaluator come with their output and its spans. Read in batches: a cell finished
        meanwhile may be left out.

        variants, cases: names and ids to keep to. limit: keep to the first cases of the whole run's order,
        so that the same limit means the same cases each time.
        """
        wanted = _filter(run_id, variants, cases, limit)
        wanted.append(_needs_work(evaluator_identities))
        for batch in self._cell_batches(wanted):
            spans = self._spans([c.cell_id for c, _, output in batch if _is_kept(output)])
            for cell, case_, output in batch:
                kept = output_of(output, spans[cell.cell_id]) if _is_kept(output) else None
                yield cell, case_, kept

    def n_pending(
        self,
        run_id: str,
        evaluator_identities: Collection[str],
        *,
        variants: Collection[str] | None = None,
        cases: Collection[str] | None = None,
        limit: int | None = None,
    ) -> int:
        """Return how many cells `pending` would yield."""
        wanted = _filter(run_id, variants, cases, limit)
        query = select(func.count()).select_from(CELLS.outerjoin(OUTPUTS, _same_cell()))
        return self._number(query.where(*wanted, _needs_work(evaluator_identities)))

    def n_cells(
        self,
        run_id: str,
        *,
        variants: Collection[str] | None = None,
        cases: Collection[str] | None = None,
        limit: int | None = None,
    ) -> int:
        """Return how many cells a run has, finished or not; the filters are those of `pending`."""
        wanted = _filter(run_id, variants, cases, limit)
        return self._number(select(func.count()).select_from(CELLS).where(*wanted))

    def rows(self, run_id: str, *, variant: str | None = None, with_spans: bool = True) -> Iterator[Row]:
        """Yield every cell of a run, or of one variant of it, in order, with its output and scores.

        Scores are those of the run's own evaluators, in their order. Without spans reading is much faster.

        Raises StoreError when there is no such run.
        """
        order = {version.identity: place for place, version in enumerate(self._run(run_id).evaluators)}
        for batch in self._cell_batches(_filter(run_id, None if variant is None else [variant], None, None)):
            ids = [cell.cell_id for cell, _, _ in batch]
            scores = self._scores(ids, order)
            spans = self._spans(ids if with_spans else [])
            for cell, case_, output in batch:
                yield Row(
                    variant=cell.variant,
                    repeat=cell.repeat,
                    case=case_,
                    output=None if output[0] is None else output_of(output, spans[cell.cell_id]),
                    scores=tuple(scores[cell.cell_id, cell.case_key]),
                )

    def numbers(self, run_id: str, *, variant: str) -> Iterator[RowNumbers]:
        """Yield what figures need of the rows of one variant, in order; raises StoreError as `rows` does."""
        identities = [version.identity for version in self._run(run_id).evaluators]
        return read_numbers(self._rows, run_id, escape(variant), identities, READ_BATCH)

    def _run(self, run_id: str) -> Run:
        run = self.find_run(run_id)
        if run is None:
            raise StoreError(f"{self._database.name}: there is no run {run_id!r}")
        return run

    def _cell_batches(
        self, wanted: Sequence[ColumnElement[bool]]
    ) -> Iterator[list[tuple[Cell, Case, tuple[Any, ...]]]]:
        """Yield cells in order of position with their cases and the rows of their outputs, a batch at a time.

        Each batch is a transaction of its own: one over the whole run would keep SQLite from reusing its
        write-ahead log for as long as the run lasts.
        """
        columns = [column for column in CELLS.c if column is not CELLS.c.run_id]
        query = (
            select(*columns, CASES.c.content, *OUTPUTS.c)
            .select_from(CELLS.join(CASES).outerjoin(OUTPUTS, _same_cell()))
            .where(*wanted)
            .order_by(CELLS.c.position)
            .limit(READ_BATCH)
        )
        last = -1
        while True:
            found = self._rows(query.where(CELLS.c.position > last))
            if not found:
                return
            last = found[-1][0]
            cases: dict[str, Case] = {}
            yield [(_cell_of(row), _case_of(row[4], row[6], cases), row[7:]) for row in found]

    def _spans(self, cell_ids: Sequence[str]) -> Mapping[str, list[Span]]:
        found: dict[str, list[Span]] = defaultdict(list)
        query = select(SPANS).order_by(SPANS.c.cell_id, SPANS.c.index)
        if cell_ids:
            for row in self._rows(query.where(SPANS.c.cell_id.in_(cell_ids))):
                found[row[0]].append(span_of(row))
        return found

    def _scores(
        self, cell_ids: Sequence[str], order: Mapping[str, int]
    ) -> Mapping[tuple[str, str], list[Score]]:
        found: dict[tuple[str, str], list[Score]] = defaultdict(list)
        query = select(SCORES).where(SCORES.c.cell_id.in_(cell_ids), SCORES.c.evaluator_identity.in_(order))
        if cell_ids and order:
            for row in self._rows(query):
                found[row[0], row[2]].append(score_of(row))
        for scores in found.values():
            scores.sort(key=lambda score: order[score.evaluator_identity])
        return found

    # --- calls and what came of them ----------------------------------------------------------------------

    def find_call(self, call_id: str) -> Call | None:
        """Return the call of an id, None when there is none."""
        found = self._rows(select(CALLS).where(CALLS.c.id == call_id))
        return call_of(found[0]) if found else None

    def account(self, owner: str) -> Spent | None:
        """Return what all calls came to that were made for an owner; None before the first."""
        found = self._rows(select(ACCOUNTS).where(ACCOUNTS.c.owner == owner))
        return account_of(tuple(found[0])) if found else None

    def apply(self, batch: Batch) -> dict[str, Call]:
        """Write a batch in one transaction and return, by id, the intents that are answered already.

        Other intents stand as sent afterwards, but for those that another runner has in flight. Replies go in
        before what is derived from them; an output replaces the cell's earlier one with all its spans, a score
        the earlier one of its evaluator.
        Attempts of a call add up over runs, and its first answer stays.
        """
        rows = Rows()
        for call in batch.intents:
            rows.add_intent(call)
        for call in batch.calls:
            rows.add_call(call)
        for output in batch.outputs:
            rows.add_output(output)
        for cell_id, case_key, score in batch.scores:
            rows.add_score(cell_id, case_key, score)
        return dict(self.commit(rows).answered)

    def commit(self, rows: Rows) -> Taken:
        """Do what `apply` does, for rows that are encoded already; they go in in the order of their keys."""
        if not rows:
            return Taken({}, ())
        return self._database.write(lambda connection: self._commit(connection, rows), Area.RESULTS)

    def _commit(self, connection: Connection, rows: Rows) -> Taken:
        inserts = self._inserts
        self._add_up(connection, rows)
        rows.is_doubtful = True  # to whoever writes them once more
        inserts.calls.run(connection, [owned(row, self._owner) for row in _in_order(rows.calls)])
        taken = self._look_up(connection, rows.intents)
        settled = {*taken.answered, *taken.elsewhere, *rows.calls}
        ours = {key: row for key, row in rows.intents.items() if key not in settled}
        inserts.intents.run(connection, [owned(row, self._owner) for row in _in_order(ours)])
        inserts.outputs.run(connection, _in_order(rows.outputs))
        inserts.clear_spans(connection, rows.spans)
        inserts.spans.run(connection, [row for spans in _in_order(rows.spans) for row in spans])
        inserts.scores.run(connection, _in_order(rows.scores))
        return taken

    def _add_up(self, connection: Connection, rows: Rows) -> None:
        """Put to our account what calls came to, before their ends are there: an end said twice counts once."""
        spent = {call_id: each for call_id, each in rows.spent.items() if each != Spent()}
        if self._owner is None or not spent:
            return
        for some in _batches(list(spent) if rows.is_doubtful else (), READ_BATCH):
            query = select(CALLS.c.id, CALLS.c.answered_at).where(CALLS.c.id.in_(some))
            for call_id, answered_at in connection.execute(query).all():
                if answered_at == rows.calls[call_id][ANSWERED_AT]:
                    del spent[call_id]
        if spent:
            total = reduce(Spent.plus, spent.values())
            self._inserts.accounts.run(connection, [account_row(self._owner, total)])

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
        for some in _batches(ids, READ_BATCH):
            changes = {"state": str(CallState.UNKNOWN), "n_unknown": CALLS.c.n_unknown + 1}
            connection.execute(update(CALLS).where(CALLS.c.id.in_(some)).values(changes))
        self._inserts.accounts.run(connection, [account_row(owner, left[owner]) for owner in sorted(left)])

    def _look_up(self, connection: Connection, call_ids: Iterable[str]) -> Taken:
        answered: dict[str, Call] = {}
        doubtful: dict[str, Call] = {}
        owners: dict[str, str] = {}
        for some in _batches(call_ids, READ_BATCH):
            asked = {"ids": _filled_up(some), "owner": self._owner or ""}
            for row in connection.execute(_KNOWN_CALLS, asked):
                call = call_of(tuple(row))
                if call.state is CallState.ANSWERED:
                    answered[call.id] = call
                    continue
                if call.state is CallState.SENT:
                    owners[call.id] = row.owner
                owner = row.owner if row.owner == self._owner else None
                doubtful[call.id] = call.model_copy(update={"owner": owner})
        elsewhere = self._in_flight_elsewhere(connection, owners)
        return Taken(answered, elsewhere, {key: doubtful[key] for key in doubtful if key not in elsewhere})

    def _in_flight_elsewhere(self, connection: Connection, owners: Mapping[str, str]) -> Collection[str]:
        """Return the calls whose owners are at work, and give up those whose owners are gone."""
        alive = self._database.alive(connection, set(owners.values())) if owners else ()
        gone = [call_id for call_id, owner in owners.items() if owner not in alive]
        for some in _batches(gone, READ_BATCH):
            self._give_up(connection, CALLS.c.id.in_(some))
        return owners.keys() - set(gone)

    # --- limits -------------------------------------------------------------------------------------------

    @property
    def is_shared(self) -> bool:
        """Whether other runners may work on this store beside us, and ask the same deployments."""
        return self._database.is_shared

    def share_limits(self, learnt: Mapping[str, float | None]) -> Mapping[str, Sequence[float | None]]:
        """Say what we ask, and return by deployment what all say who ask it now, ourselves included.

        learnt: by deployment, requests a second that it bears of all together, None where nobody knows. It takes
        the place of what we said before.
        """
        owner = self._owner

        def share(connection: Connection) -> dict[str, list[float | None]]:
            found = connection.execute(select(SHARES).where(SHARES.c.owner != owner)).all()
            others = {row.owner for row in found}
            alive = self._database.alive(connection, others) if others else ()
            connection.execute(delete(SHARES).where(SHARES.c.owner.not_in(alive)))
            ours = [{"owner": owner, "deployment": key, "learnt_per_s": rate} for key, rate in learnt.items()]
            if ours:
                connection.execute(insert(SHARES), ours)
            said = {key: [rate] for key, rate in learnt.items()}
            for row in found:
                if row.owner in alive and row.deployment in said:
                    said[row.deployment].append(row.learnt_per_s)
            return said

        return {} if owner is None else self._database.write(share, Area.SHARES)

    def oldest_output(self, run_id: str, variant: str) -> datetime | None:
        """Return when the first of a variant's outputs came to be, None when it has none."""
        wanted = CELLS.c.run_id == run_id, CELLS.c.variant == escape(variant)
        query = select(func.min(OUTPUTS.c.created_at)).join(CELLS, CELLS.c.cell_id == OUTPUTS.c.cell_id)
        (found,) = self._rows(query.where(*wanted))[0]
        return None if found is None else datetime.fromisoformat(found)

    # --- verdicts -----------------------------------------------------------------------------------------

    def save_verdict(self, verdict: Verdict) -> None:
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

    def verdicts(self, experiment: str) -> list[Verdict]:
        """Return the verdicts on an experiment, the one saved last first."""
        query = select(VERDICTS.c.record).where(VERDICTS.c.experiment == escape(experiment))
        return [verdict_of(row.record) for row in self._rows(query.order_by(VERDICTS.c.sequence.desc()))]

    def n_looks(self, candidate: str, baseline: str | None = None) -> int:
        """Return how many verdicts looked at a candidate, beside a baseline or, with None, beside any.

        candidate, baseline: identities of variants; a baseline of "" is none.
        """
        wanted = [LOOKS.c.candidate == candidate]
        if baseline is not None:
            wanted.append(LOOKS.c.baseline == baseline)
        return self._number(select(func.count(LOOKS.c.sequence.distinct())).where(*wanted))

    # --- the outbox ---------------------------------------------------------------------------------------

    def delivering(self) -> AbstractContextManager[None]:
        """Be the only process that delivers from this store, on whatever machine.

        Raises StoreHeldError naming host and pid when another does.
        """
        return self._database.delivering()

    def revision(self, run_id: str) -> int:
        """Return how often the record of a run was saved."""
        return self._number(select(RUNS.c.revision).where(RUNS.c.id == run_id))

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
        return [row.id for row in self._rows(query.order_by(RUNS.c.sequence))]

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
        insert = insert_for(self._dialect, DELIVERIES).values(
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

    def delivery(self, run_id: str, target: str) -> Delivery | None:
        """Return how far a run has been delivered to a target, None when that was never tried."""
        query = select(DELIVERIES).where(DELIVERIES.c.run_id == run_id, DELIVERIES.c.target == escape(target))
        found = self._rows(query)
        if not found:
            return None
        row = found[0]
        return Delivery(
            run_id=row.run_id,
            target=unescape(row.target),
            delivered_revision=row.delivered_revision,
            attempts=row.attempts,
            error=None if row.error is None else unescape(row.error),
            mlflow_ids=json.loads(row.mlflow_ids),
            updated_at=datetime.fromisoformat(row.updated_at),
        )


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _filled_up(ids: list[str]) -> list[str]:
    """Return ids, the last of them repeated up to a power of two: of few statements each connection keeps few."""
    return ids + ids[-1:] * ((1 << (len(ids) - 1).bit_length()) - len(ids))


def _in_order(rows: Mapping[Any, T]) -> list[T]:
    """Return rows by key: two transactions that write the same ones then wait for each other, not in a ring."""
    return [rows[key] for key in sorted(rows)]


def _newest_runs(experiment: str | None, *columns: ColumnElement[str]) -> Select[Any]:
    query: Any = select(*columns).order_by(RUNS.c.sequence.desc())
    found: Select[Any] = query if experiment is None else query.where(RUNS.c.experiment == escape(experiment))
    return found


def _cell_of(row: Sequence[Any]) -> Cell:
    return Cell(row[0], unescape(row[1]), row[2], unescape(row[3]), row[4], row[5])


def _case_of(case_key: str, content: str, known: dict[str, Case]) -> Case:
    """Return the case of a row, the same object for all cells of a batch that have it."""
    if case_key not in known:
        known[case_key] = Case(**json.loads(content))
    return known[case_key]


def _same_cell() -> ColumnElement[bool]:
    return OUTPUTS.c.cell_id == CELLS.c.cell_id


def _is_kept(output: Sequence[Any]) -> bool:
    """Say whether the row of an output is there and need not be made again."""
    return output[2] is not None and output[2] not in _AGAIN


def _spent_for(call: Call) -> Spent:
    """Return what an answered call came to, as far as it says itself."""
    unpriced = call.cost_usd is None
    usd = call.upper_usd or 0.0 if call.cost_usd is None else call.cost_usd
    return Spent(
        n_calls=call.attempts, n_retried=max(call.attempts - 1, 0), n_unpriced=int(unpriced), usd=usd
    )


def _in_flight() -> ColumnElement[bool]:
    """The state in so many words, as the index of such calls has it."""
    return CALLS.c.state == literal_column(f"'{CallState.SENT}'")


# Made once: an `in_` for each transaction leaves a cycle behind, with all its ids, until Python looks for cycles.
_KNOWN_CALLS = select(CALLS).where(
    CALLS.c.id.in_(bindparam("ids", expanding=True)),
    or_(
        CALLS.c.state == str(CallState.ANSWERED),
        and_(CALLS.c.state == str(CallState.SENT), CALLS.c.owner != bindparam("owner")),
        CALLS.c.n_unknown > 0,
    ),
)
"""What is known of calls that are about to be sent; the owner is who asks, and nobody has the empty name."""

_AGAIN = (str(Status.ERROR), str(Status.UNKNOWN))


def _filter(
    run_id: str, variants: Collection[str] | None, cases: Collection[str] | None, limit: int | None
) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = [CELLS.c.run_id == run_id]
    if variants is not None:
        wanted.append(CELLS.c.variant.in_([escape(name) for name in variants]))
    if cases is not None:
        wanted.append(CELLS.c.case_id.in_([escape(case_id) for case_id in cases]))
    if limit is not None:
        wanted.append(CELLS.c.case_id.in_(_first_cases(run_id, limit)))
    return wanted


def _first_cases(run_id: str, limit: int) -> Select[tuple[str]]:
    cells = CELLS.alias("cells_in_order")
    ids = select(cells.c.case_id).where(cells.c.run_id == run_id).group_by(cells.c.case_id)
    return ids.order_by(func.min(cells.c.position)).limit(limit)


def _needs_work(evaluator_identities: Collection[str]) -> ColumnElement[bool]:
    identities = set(evaluator_identities)
    scores = (
        select(func.count())
        .where(
            SCORES.c.cell_id == CELLS.c.cell_id,
            SCORES.c.case_key == CELLS.c.case_key,
            SCORES.c.evaluator_identity.in_(identities),
        )
        .correlate(CELLS)
        .scalar_subquery()
    )
    return or_(OUTPUTS.c.cell_id.is_(None), OUTPUTS.c.status.in_(_AGAIN), scores < len(identities))
