"""What `llmops report NAME --history` shows: which name is meant, and what journal and MLflow have of it.

MLflow is asked in a thread of its own and waited for no longer than a delivery would be: when it is down, deaf or
empty, the journal's history is shown alone, and that is said.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmops.cli.session import Session, say
from llmops.cli.sync import OWN_WORK_S, STALL_S
from llmops.definitions.base import is_name
from llmops.definitions.reference import FOLDERS, Kind
from llmops.errors import LlmopsError, StoreError, UsageError, nearest

if TYPE_CHECKING:
    from llmops.report.history import History
    from llmops.stores.entries import Entry

KINDS: tuple[Kind, ...] = ("experiment", "prompt", "chain")


def find_history(session: Session, text: str, *, limit: int) -> History:
    """Return the history of a name; says on standard error where it comes from, unless from both.

    Raises UsageError when the name is none, is not clear, or has never run.
    """
    from llmops.report.history import merge, tell_history

    journal = _journal_entries(session)
    kind, name = find_name(session, text, journal)
    mirrored, problem = mlflow_entries(session, kind, name)
    released = session.workspace.releases
    history = tell_history(kind, name, merge(journal, mirrored), released, limit=limit)
    if not history.lines:
        raise _never_ran(session, history.title, problem, journal)
    if problem:
        say(f"{problem}: the journal's history alone")
    return history


def _journal_entries(session: Session) -> list[Entry]:
    if not session.has_journal():
        return []
    from llmops.stores.entries import entries_of

    with closing(session.journal(create=False)) as journal:
        runs = journal.runs(with_comparisons=False)
    return [entry for run in runs for entry in entries_of(run)]


def find_name(session: Session, text: str, known: Sequence[Entry]) -> tuple[Kind, str]:
    """Return the kind and name a history is asked of; what has no file any more may still have run.

    Raises UsageError when it is no name, or that of several.
    """
    if "/" in text or text.endswith(".yaml") or _kinds_with_file(session, text):
        kind, name = session.target(text, KINDS)
    else:
        found = [kind for kind in KINDS if any(entry.is_of(kind, text) for entry in known)]
        if len(found) > 1:
            ways = " or ".join(f"{FOLDERS[kind]}/{text}" for kind in found)
            raise UsageError(f"{text!r} is the name of {' and '.join(found)}: write {ways}")
        kind, name = found[0] if found else "experiment", text
    if not is_name(name):
        raise UsageError(f"{text!r}: a history is that of a name: EXPERIMENT, prompts/NAME or chains/NAME")
    return kind, name


def _kinds_with_file(session: Session, name: str) -> list[Kind]:
    return [kind for kind in KINDS if name in session.workspace.names(kind)]


def _never_ran(session: Session, title: str, problem: str, known: Sequence[Entry]) -> UsageError:
    """Return what to say of a name that nobody knows or that has not run yet."""
    ran = {name for entry in known for name in (entry.experiment, entry.definition)}
    files = {f"{FOLDERS[kind]}/{name}" for kind in KINDS for name in session.workspace.names(kind)}
    name = title.partition("/")[2]
    if title in files:
        hint = (
            "`llmops run EXPERIMENT` runs it"
            if not title.startswith("experiments/")
            else f"`llmops run {name}`"
        )
    else:
        hint = (
            nearest(name, ran) or nearest(title, ran) or f"there are: {', '.join(sorted(ran)) or 'none yet'}"
        )
    return UsageError(
        f"{title} has not run, as far as is known here; {hint}" + (f"\n{problem}" if problem else "")
    )


# --- MLflow -----------------------------------------------------------------------------------------------


def mlflow_entries(session: Session, kind: Kind, name: str) -> tuple[list[Entry], str]:
    """Return what MLflow has, and in a line why it is nothing."""
    from llmops.report.texts import one_line
    from llmops.stores import tracking

    try:
        uri = tracking.resolve_uri(session.tracking_uri, root=session.root, environment=session.environment)
        tracking.check_reachable(uri)
        found = _Asked(session, uri, kind, name).answer() if tracking.is_begun(uri) else []
    except LlmopsError as error:
        return [], one_line(str(error).partition("; ")[0])
    where = f"MLflow at {tracking.shown(uri)}"
    return found, "" if found else one_line(f"{where} has no run of {FOLDERS[kind]}/{name}")


@dataclass(frozen=True)
class _Asked:
    """A question to an MLflow, and where."""

    session: Session
    uri: str
    kind: Kind
    name: str

    def answer(self) -> list[Entry]:
        """Return what MLflow has, while it shows signs of life (StoreError when it does not)."""
        os.environ.update(
            self.session.environment
        )  # where MLflow looks for credentials, those of .env included
        signs: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        answer: Future[list[Entry]] = Future()
        threading.Thread(target=self._ask, args=(signs, answer), daemon=True).start()
        patience_s = OWN_WORK_S
        while True:
            try:
                if signs.get(timeout=patience_s) is None:
                    return answer.result()
            except queue.Empty:
                raise StoreError(f"MLflow has said nothing for {patience_s:.0f} s") from None
            patience_s = OWN_WORK_S if self.uri.startswith("sqlite:") else STALL_S

    def _ask(self, signs: queue.SimpleQueue[str | None], answer: Future[list[Entry]]) -> None:
        """Open MLflow and read; a sign after each step, None once there is an answer."""
        from llmops.stores.mlflow import open_mlflow

        try:
            with closing(open_mlflow(self.uri, environment=self.session.environment)) as store:
                signs.put("open")
                found = store.entries(self.kind, self.name, signs.put)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits for the answer
            answer.set_exception(error)
        else:
            answer.set_result(found)
        signs.put(None)
