"""What `llmops gate` carries out before it judges: what is missing on both sides, in parts if it looks on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmops.cli.exits import Exit
from llmops.cli.recordings import tell_misses
from llmops.cli.run import carry_out, tell_result
from llmops.cli.session import Session, say, utc_now
from llmops.errors import RecordingError
from llmops.gate import Carried, Court, look_at
from llmops.gate.looks import portions
from llmops.gate.watch import Watch
from llmops.plan import Plan, Selection
from llmops.run import find_finished

if TYPE_CHECKING:
    from llmops.call.replay import Replay
    from llmops.records import Run
    from llmops.stores.journal import Journal


@dataclass
class Work:
    """The work on one experiment. code: how far it came; n_not_recorded: replies that no recording had."""

    session: Session
    court: Court
    replaying: Replay | None
    concurrency: int | None
    code: int = Exit.DONE
    n_not_recorded: int = 0

    @property
    def plan(self) -> Plan:
        """What the court is to judge."""
        return self.court.plan

    @property
    def journal(self) -> Journal:
        """Where it stands."""
        return self.court.journal

    def finish(self, *, is_sequential: bool) -> tuple[Run, Carried, Watch | None]:
        """Return the run with what was missing, as far as its gates had to see, and what it took."""
        begun, before = utc_now(), self._spent()
        parts = portions(self.plan) if is_sequential else []
        watch = self._watched(parts) if len(parts) > 1 else None
        if watch is None:
            self._carry_out(None)
        if self.court.again is not None:
            with self.journal.hold(self.plan.run.id):
                self.journal.begin_run(self.plan.run, self.plan.cells())  # people mean this one by the latest
        run = self.journal.find_run(self.plan.run.id)
        assert run is not None  # noqa: S101 - it was carried out
        after = self._spent()
        usd = None if after[1] is None or before[1] is None else max(0.0, after[1] - before[1])
        return run, Carried(after[0] - before[0], usd, self.n_not_recorded, begun), watch

    def _watched(self, parts: list[frozenset[str]]) -> Watch | None:
        """Carry out part by part until the answer is sure; None where something kept it from being looked at."""
        watch, done = Watch(), set[str]()
        for part in parts:
            run = self._carry_out(part)
            if self.code != Exit.DONE or self.n_not_recorded:
                return None
            done |= part
            if look_at(self.court, run, watch, now=utc_now(), asked=done):
                break
        return watch

    def _carry_out(self, part: frozenset[str] | None) -> Run:
        """Carry out a part of the cases, None all, and flaky ones among them more often; return the run."""
        run, again = self._step(self.plan, Selection(cases=part)), self.court.again
        for selection in self._flaky(part):
            if again is not None and self.code == Exit.DONE and not self.n_not_recorded:
                self._step(again.plan, selection)
        return run

    def _flaky(self, part: frozenset[str] | None) -> Iterator[Selection]:
        again = self.court.again
        for name, cases in (again.cases if again is not None else {}).items():
            chosen = cases if part is None else cases & part
            if chosen:
                yield Selection(variants=frozenset({name}), cases=chosen)

    def _step(self, plan: Plan, selection: Selection) -> Run:
        done = find_finished(plan, self.journal, selection)
        if done is not None:
            for note in plan.notes if plan is self.plan else ():
                say(f"note: {note}")
            return done
        run, result = carry_out(self.session, plan, self.journal, selection, self.concurrency, self.replaying)
        n_not_recorded = result.errors.get(RecordingError.kind, (0, ""))[0]
        code = tell_result(result)
        if self.replaying is not None:
            tell_misses(self.replaying, result)
            code = Exit.DONE if n_not_recorded and code == Exit.INCOMPLETE else code
        self.code, self.n_not_recorded = code, n_not_recorded
        return run

    def _spent(self) -> tuple[int, float | None]:
        """Return the calls and the money that the runs concerned have taken so far."""
        again = self.court.again
        ids = {self.plan.run.id} | ({again.plan.run.id} if again is not None else set())
        known = [run for run in map(self.journal.find_run, ids) if run is not None]
        costs = [run.cost_usd for run in known]
        usd = None if None in costs else sum((cost or 0.0 for cost in costs), 0.0)
        return sum(run.n_calls for run in known), usd
