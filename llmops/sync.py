"""Journal -> MLflow: what is waiting is delivered, oldest first, each run exactly once.

Reads runs, their rows and the prompts they used; writes what came of it into the journal's outbox. Meant for a
process of its own, because importing MLflow and its stalls would hold up whoever waits for a result.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from llmops.compare import compare_run
from llmops.definitions.prompt import Prompt, as_written
from llmops.definitions.reference import FOLDERS
from llmops.definitions.trees import GitTree, find_commits, git
from llmops.definitions.workspace import Workspace
from llmops.errors import LlmopsError, StoreError, UsageError
from llmops.records import Comparison, Row, Run
from llmops.report.comment import verdict_note
from llmops.report.markdown import run_markdown
from llmops.report.plain import verdict_tags
from llmops.report.rows import row_line
from llmops.stores import tracking
from llmops.stores.journal import Journal
from llmops.stores.mlflow import MlflowIds, MlflowStore, open_mlflow
from llmops.stores.shipment import REPORT_FILE, RUN_FILE, PromptText, Shipment
from llmops.stores.traces import ROWS_FILE, CaseTrace, Choice, Teller

COMPARISONS_FILE = "comparisons.json"
_TOLD_EVERY = 200
_MAX_MODELS = 10

Tell = Callable[[str], None]
Prompts = dict[tuple[str, str], PromptText | str]


@dataclass(frozen=True)
class Delivered:
    """What became of one run. error: why it is still waiting, None when it arrived; ids: as in `MlflowIds`.

    link: where to look at it, and with which command when no server is running.
    """

    run_id: str
    experiment: str
    target: str
    error: str | None = None
    link: str | None = None
    ids: Mapping[str, Any] = field(default_factory=dict)


def sync_runs(
    journal: Journal,
    workspace: Workspace,
    uri: str,
    *,
    now: Callable[[], datetime],
    progress: Tell,
    run_ids: Collection[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> list[Delivered]:
    """Deliver the runs that are waiting, or those of them that are named; return what became of each.

    progress: called with what is being done, so that whoever watches can tell slow from stuck.
    environment: where MLflow's variables are read; this process's own when None.

    Raises StoreError when MLflow is not there, all then stay waiting; StoreHeldError while another delivers.
    """
    environment = os.environ if environment is None else environment
    uri = tracking.resolve_uri(uri, root=workspace.root, environment=environment)
    target = tracking.shown(uri)
    with journal.delivering():
        waiting = journal.deliveries.waiting(target)
        waiting = [run_id for run_id in waiting if run_ids is None or run_id in run_ids]
        if not waiting:
            return []
        progress("open MLflow")
        try:
            tracking.check_reachable(uri)
            store = open_mlflow(uri, environment=environment)
        except StoreError as error:
            for run_id in waiting:
                journal.deliveries.mark_failed(run_id, target, str(error))
            raise
        with closing(store):
            sync = _Sync(journal, workspace, store, target, now, progress)
            return [sync.deliver(run_id) for run_id in waiting]


@dataclass
class _Sync:
    """One session of delivering to one MLflow. prompts: found before, by name and identity."""

    journal: Journal
    workspace: Workspace
    store: MlflowStore
    target: str
    now: Callable[[], datetime]
    progress: Tell
    prompts: Prompts = field(default_factory=dict)

    def deliver(self, run_id: str) -> Delivered:
        """Deliver one run and note what came of it.

        Raises StoreError when the server is gone: then nothing else would arrive either.
        """
        revision = self.journal.revision(run_id)
        run = self.journal.find_run(run_id)
        if run is None:
            raise StoreError(f"the journal has no run {run_id!r}")
        try:
            with tempfile.TemporaryDirectory(prefix="llmops-") as folder:
                ids = self.store.deliver(self._shipment(run, revision, Path(folder)), self.progress)
        except (LlmopsError, OSError) as error:
            self.journal.deliveries.mark_failed(run_id, self.target, str(error))
            tracking.check_reachable(self.store.uri)
            return Delivered(run_id, run.experiment, self.target, error=str(error))
        self.journal.deliveries.mark_delivered(run_id, self.target, revision, asdict(ids))
        return Delivered(
            run_id, run.experiment, self.target, link=where_to_look(self.store.uri, ids), ids=asdict(ids)
        )

    def _shipment(self, run: Run, revision: int, folder: Path) -> Shipment:
        self.progress(f"{run.id}: comparing")
        comparisons = _comparisons(self.journal, run, self.now())
        report = run_markdown(run, comparisons, self.journal)
        baselines = {found.candidate.variant: found.baseline.variant for found in comparisons}
        choice = Choice(run, baselines)
        rows = _Rows(run, folder)
        self._read_rows(run, choice, rows)
        teller = Teller(run, call_of=self.journal.find_call, yes_or_no=choice.yes_or_no)
        chosen = choice.cases

        def traces(variant: str) -> Iterator[CaseTrace]:
            for row in self.journal.rows(run.id, variant=variant):
                if (row.case.id, row.repeat) in chosen and (trace := teller.tell(row)) is not None:
                    yield trace

        return Shipment(
            run=run,
            revision=revision,
            report=report,
            prompts=self._prompts(run),
            baselines=baselines,
            models=rows.models,
            files=_write_files(folder, run, comparisons, report),
            rows=rows.paths,
            traces=traces,
            **_verdict_told(self.journal, run),
        )

    def _read_rows(self, run: Run, choice: Choice, rows: _Rows) -> None:
        # Cells lie case by case across variants, so those of one case come together.
        with rows:
            by_case = groupby(self.journal.rows(run.id), key=lambda row: (row.case.id, row.repeat))
            for place, (_, found) in enumerate(by_case):
                group = list(found)
                choice.add(group)
                rows.add(group)
                if place % _TOLD_EVERY == 0:
                    self.progress(f"{run.id}: case {place + 1}")

    def _prompts(self, run: Run) -> Prompts:
        used = {key for variant in run.variants for key in variant.prompts.items()}
        used |= {key for evaluator in run.evaluators for key in evaluator.prompts.items()}
        for key in sorted(used - self.prompts.keys()):
            self.prompts[key] = find_prompt(self.workspace, *key, self.progress)
        return {key: self.prompts[key] for key in used}


def _verdict_told(journal: Journal, run: Run) -> dict[str, Any]:
    """Return what the newest verdict on a run says of it, and of each candidate; nothing where no gate has judged."""
    found = next((each for each in journal.verdicts.of(run.experiment) if each.run_id == run.id), None)
    if found is None:
        return {}
    labels = {"": verdict_tags(found)} | {
        each.candidate.variant: verdict_tags(found, each) for each in found.candidates
    }
    return {"verdict": labels, "verdict_note": verdict_note(found)}


def _comparisons(journal: Journal, run: Run, now: datetime) -> list[Comparison]:
    """A run begun in part may have nothing to compare yet."""
    try:
        return compare_run(journal, run, now=now)
    except UsageError:
        return []


@dataclass
class _Rows:
    """The rows of each variant as a file, and the models that answered."""

    run: Run
    folder: Path
    models: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    _stack: ExitStack = field(default_factory=ExitStack)

    @property
    def paths(self) -> dict[str, Path]:
        return {v.name: self.folder / str(place) / ROWS_FILE for place, v in enumerate(self.run.variants)}

    def __enter__(self) -> None:
        for path in self.paths.values():
            path.parent.mkdir()
        self._files = {
            name: self._stack.enter_context(path.open("w", encoding="ascii"))
            for name, path in self.paths.items()
        }

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._files[row.variant].write(row_line(row))
            model = row.output.returned_model if row.output is not None else None
            known = self.models[row.variant]
            if model and model not in known and len(known) < _MAX_MODELS:
                known.append(model)


def _write_files(folder: Path, run: Run, comparisons: Sequence[Comparison], report: str) -> list[Path]:
    compared = ",\n".join(comparison.model_dump_json() for comparison in comparisons)
    texts = {
        RUN_FILE: run.model_dump_json(indent=1),
        COMPARISONS_FILE: f"[{compared}]\n",
        REPORT_FILE: report,
    }
    for name, text in texts.items():
        (folder / name).write_text(tracking.storable(text), encoding="utf-8")
    return [folder / name for name in texts]


def where_to_look(uri: str, ids: MlflowIds) -> str:
    """Return the address of a delivered run, and the command to type first when no server is running."""
    url = tracking.page_url(uri, tracking.run_page(ids.experiment_id, ids.run_id))
    command = tracking.ui_command(uri)
    return url if command is None else f"{url} (start it with `{command}`)"


# --- prompts ----------------------------------------------------------------------------------------------


def find_prompt(workspace: Workspace, name: str, identity: str, tell: Tell) -> PromptText | str:
    """Return a prompt as it stood when it had an identity, from today's files or git's history.

    Where it stands in neither, return that: a run is not held up by the text of a prompt.
    """
    for then in _workspaces(workspace):
        tell(f"prompt {name}")  # a long history takes its time
        try:
            if then.identity("prompt", name) == identity:
                return _text_of(then, name, identity)
        except LlmopsError:
            continue  # broken or absent there: not the one that is looked for
    return "stands neither in today's files nor in git's history"


def _workspaces(workspace: Workspace) -> Iterator[Workspace]:
    yield workspace
    with suppress(UsageError):  # no repository, or no git
        for commit in find_commits(workspace.root, FOLDERS.values()):
            yield workspace.at(commit)


def _text_of(workspace: Workspace, name: str, identity: str) -> PromptText:
    prompt = workspace.prompt(name)
    path = workspace.path("prompt", name)
    commit, message = _last_change(workspace, path)
    return PromptText(
        name=name,
        identity=identity,
        messages=list(_messages(prompt)),
        response_format=prompt.response_format,
        model=prompt.model,
        parameters=prompt.parameters.given(),
        path=path,
        commit=commit,
        message=message or prompt.description or path,
    )


def _messages(prompt: Prompt) -> Iterator[dict[str, str]]:
    """Messages as they are written; where examples go stands what they are and how one is shown."""
    for message in prompt.messages:
        role, content = as_written(message)
        yield {"role": role, "content": content}


def _last_change(workspace: Workspace, path: str) -> tuple[str | None, str | None]:
    """Return the commit a definition stands in and what its last change said; None where git has it not."""
    tree, root = workspace.tree, workspace.root
    try:
        if isinstance(tree, GitTree):
            commit = tree.commit
        elif git(root, "status", "--porcelain", "--", path):
            return None, None
        else:
            commit = git(root, "rev-parse", "HEAD").decode().strip()
        said = git(root, "log", "-1", "--format=%s (%h)", commit, "--", path)
    except UsageError:
        return None, None
    return commit, said.decode(errors="replace").strip() or None
