"""The journal: what was asked, what came back and what it was worth, in SQL; the truth of every run.

It stores records and gives them back. What to call, what is missing and what it means is decided by others;
`writer.py` hands it what a run in progress leaves behind. Runs, their cells and what came of them are its own;
`verdicts` and `deliveries` stand in modules of these names, and what calls came to in `ledger`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, func, or_, select, update

from llmops.definitions.dataset import Case
from llmops.errors import StoreError, UsageError, nearest
from llmops.records import Call, Output, Row, RowNumbers, Run, Spent, Status
from llmops.stores import open_database
from llmops.stores.base import Area
from llmops.stores.cells import READ_BATCH, Cell, read_cells, read_scores, read_spans, same_cell
from llmops.stores.deliveries import Deliveries
from llmops.stores.ledger import Ledger, Taken, spent_for
from llmops.stores.numbers import read_numbers
from llmops.stores.rows import (
    Rows,
    account_of,
    call_of,
    call_row,
    escape,
    output_of,
    owned,
    run_of,
    run_texts,
    time_text,
    to_json,
)
from llmops.stores.schema import bring_up_to_date
from llmops.stores.shares import share_limits
from llmops.stores.statements import Inserts, batches, insert_for
from llmops.stores.tables import ACCOUNTS, CALLS, CELLS, OUTPUTS, RUNS, SCORES
from llmops.stores.verdicts import Verdicts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from llmops.stores.base import Database

__all__ = ["Cell", "Journal", "Taken", "open_journal"]

WRITE_BATCH = 2_000

T = TypeVar("T")


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
        bring_up_to_date(database, create=create)
        return Journal(database)
    except BaseException:
        database.close()
        raise


class Journal:
    """A store of runs. Made by `open_journal`; may be used from several threads, written from one.

    verdicts: what was judged of its runs. deliveries: what of them has been told elsewhere.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._dialect = database.engine.dialect
        self._inserts = Inserts(self._dialect)
        self._ledger = Ledger(database, self._inserts)
        self._owner: str | None = None
        self.verdicts = Verdicts(database)
        self.deliveries = Deliveries(database)

    def close(self) -> None:
        """Close all connections; the next use would open new ones."""
        self._database.close()

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
                self._ledger.give_up_of(owner)
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
                    rows.add_call(call_row(call), spent_for(call))
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

    def delivering(self) -> AbstractContextManager[None]:
        """Be the only process that delivers from this store, on whatever machine.

        Raises StoreHeldError naming host and pid when another does.
        """
        return self._database.delivering()

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
            for batch in batches(cells, WRITE_BATCH):
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

    def revision(self, run_id: str) -> int:
        """Return how often the record of a run was saved."""
        return self._number(select(RUNS.c.revision).where(RUNS.c.id == run_id))

    def latest_fresh(self, experiment: str) -> int:
        """Return the highest `fresh` among the runs of an experiment, 0 when there are none."""
        query = select(func.coalesce(func.max(RUNS.c.fresh), 0)).where(
            RUNS.c.experiment == escape(experiment)
        )
        return self._number(query)

    # --- cells --------------------------------------------------------------------------------------------

    def cells(self, run_id: str) -> Iterator[tuple[Cell, Case]]:
        """Yield all cells of a run with their cases, in order: what `begin_run` was given."""
        for batch in read_cells(self._rows, [CELLS.c.run_id == run_id]):
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
        for batch in read_cells(self._rows, wanted):
            spans = read_spans(self._rows, [c.cell_id for c, _, output in batch if _is_kept(output)])
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
        query = select(func.count()).select_from(CELLS.outerjoin(OUTPUTS, same_cell()))
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
        for batch in read_cells(
            self._rows, _filter(run_id, None if variant is None else [variant], None, None)
        ):
            ids = [cell.cell_id for cell, _, _ in batch]
            scores = read_scores(self._rows, ids, order)
            spans = read_spans(self._rows, ids if with_spans else [])
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

    def oldest_output(self, run_id: str, variant: str) -> datetime | None:
        """Return when the first of a variant's outputs came to be, None when it has none."""
        wanted = CELLS.c.run_id == run_id, CELLS.c.variant == escape(variant)
        query = select(func.min(OUTPUTS.c.created_at)).join(CELLS, CELLS.c.cell_id == OUTPUTS.c.cell_id)
        (found,) = self._rows(query.where(*wanted))[0]
        return None if found is None else datetime.fromisoformat(found)

    def _run(self, run_id: str) -> Run:
        run = self.find_run(run_id)
        if run is None:
            raise StoreError(f"{self._database.name}: there is no run {run_id!r}")
        return run

    # --- calls and what came of them ----------------------------------------------------------------------

    def find_call(self, call_id: str) -> Call | None:
        """Return the call of an id, None when there is none."""
        found = self._rows(select(CALLS).where(CALLS.c.id == call_id))
        return call_of(found[0]) if found else None

    def account(self, owner: str) -> Spent | None:
        """Return what all calls came to that were made for an owner; None before the first."""
        found = self._rows(select(ACCOUNTS).where(ACCOUNTS.c.owner == owner))
        return account_of(tuple(found[0])) if found else None

    def commit(self, rows: Rows) -> Taken:
        """Write rows in one transaction, in the order of their keys, and return what became of the intents.

        Replies go in before what is derived from them; an output replaces the cell's earlier one with all its
        spans, a score the earlier one of its evaluator. Attempts of a call add up over runs, and its first answer
        stays.
        """
        if not rows:
            return Taken({}, ())
        return self._database.write(lambda connection: self._commit(connection, rows), Area.RESULTS)

    def _commit(self, connection: Connection, rows: Rows) -> Taken:
        inserts = self._inserts
        if self._owner is not None:
            self._ledger.add_up(connection, rows, self._owner)
        rows.is_doubtful = True  # to whoever writes them once more
        inserts.calls.run(connection, [owned(row, self._owner) for row in _in_order(rows.calls)])
        taken = self._ledger.look_up(connection, rows.intents, self._owner)
        settled = {*taken.answered, *taken.elsewhere, *rows.calls}
        ours = {key: row for key, row in rows.intents.items() if key not in settled}
        inserts.intents.run(connection, [owned(row, self._owner) for row in _in_order(ours)])
        inserts.outputs.run(connection, _in_order(rows.outputs))
        inserts.clear_spans(connection, rows.spans)
        inserts.spans.run(connection, [row for spans in _in_order(rows.spans) for row in spans])
        inserts.scores.run(connection, _in_order(rows.scores))
        return taken

    # --- beside other runners -----------------------------------------------------------------------------

    @property
    def is_shared(self) -> bool:
        """Whether other runners may work on this store beside us, and ask the same deployments."""
        return self._database.is_shared

    def share_limits(self, learnt: Mapping[str, float | None]) -> Mapping[str, Sequence[float | None]]:
        """Say what we ask, and return by deployment what all say who ask it now, ourselves included.

        learnt: by deployment, requests a second that it bears of all together, None where nobody knows. It takes
        the place of what we said before.
        """
        return {} if self._owner is None else share_limits(self._database, self._owner, learnt)


def _in_order(rows: Mapping[Any, T]) -> list[T]:
    """Return rows by key: two transactions that write the same ones then wait for each other, not in a ring."""
    return [rows[key] for key in sorted(rows)]


def _newest_runs(experiment: str | None, *columns: ColumnElement[str]) -> Select[Any]:
    query: Any = select(*columns).order_by(RUNS.c.sequence.desc())
    found: Select[Any] = query if experiment is None else query.where(RUNS.c.experiment == escape(experiment))
    return found


def _is_kept(output: Sequence[Any]) -> bool:
    """Say whether the row of an output is there and need not be made again."""
    return output[2] is not None and output[2] not in _AGAIN


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
