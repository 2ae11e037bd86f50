"""Delivering what waits: in order, exactly once, by one process at a time, and later when MLflow is not there."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from contextlib import closing, contextmanager
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Any

import pytest

from llmops.errors import StoreError, StoreHeldError
from llmops.records import Run
from llmops.stores.mlflow import open_mlflow
from llmops.stores.sqlite import hold_file
from llmops.sync import find_prompt
from tests.mirrored_run import PROMPT, Mirror

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow"),
]


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    with closing(Mirror(tmp_path)) as made:
        yield made


def test_all_that_waits_is_delivered_oldest_first_and_once(mirror: Mirror) -> None:
    runs = [mirror.whole_run(n_cases=2, hostile=False, fresh=number) for number in range(3)]
    delivered = mirror.sync()
    assert [found.run_id for found in delivered] == [run.id for run in runs]
    assert all(found.error is None for found in delivered)
    assert mirror.journal.deliveries.waiting(mirror.address) == []
    assert mirror.sync() == []
    note = mirror.journal.deliveries.find(runs[0].id, mirror.address)
    assert note is not None
    assert note.mlflow_ids == delivered[0].ids
    assert delivered[0].link is not None
    assert delivered[0].ids["run_id"] in delivered[0].link
    assert "mlflow server --backend-store-uri" in delivered[0].link


def test_named_runs_alone_are_delivered(mirror: Mirror) -> None:
    first, second = (mirror.whole_run(n_cases=2, hostile=False, fresh=number) for number in (0, 1))
    assert [found.run_id for found in mirror.sync(run_ids=[second.id])] == [second.id]
    assert mirror.journal.deliveries.waiting(mirror.address) == [first.id]


def test_a_run_saved_while_it_was_delivered_waits_again(mirror: Mirror) -> None:
    run = mirror.mirrored_run(n_cases=2, hostile=False)
    run.begin()
    run.carry_out(range(2))
    saved = run.save()
    grown: list[Run] = []

    def grow(stage: str) -> None:
        if stage == "report" and not grown:
            grown.append(run.save())

    assert mirror.sync(progress=grow)[0].error is None
    assert mirror.journal.deliveries.waiting(mirror.address) == [saved.id]


def test_two_do_not_deliver_at_once(mirror: Mirror) -> None:
    mirror.whole_run(n_cases=2, hostile=False)
    with hold_file(mirror.root / ".llmops" / "sync"), pytest.raises(StoreHeldError, match="pid"):
        mirror.sync()
    assert mirror.sync()[0].error is None


def test_one_run_that_fails_holds_up_no_other(mirror: Mirror) -> None:
    first, second = (mirror.whole_run(n_cases=2, hostile=False, fresh=number) for number in (0, 1))

    def fail(stage: str) -> None:
        if stage == f"{first.id}: comparing":
            raise StoreError("no room")

    failed, delivered = mirror.sync(progress=fail)
    assert (failed.run_id, failed.error) == (first.id, "no room")
    assert (delivered.run_id, delivered.error) == (second.id, None)
    assert mirror.journal.deliveries.waiting(mirror.address) == [first.id]
    note = mirror.journal.deliveries.find(first.id, mirror.address)
    assert note is not None
    assert note.error == "no room"


def test_a_run_that_was_hardly_begun_is_delivered_without_comparison(mirror: Mirror) -> None:
    run = mirror.mirrored_run(n_cases=2, hostile=False)
    run.begin()
    run.save(summary={}, slices={}, n_done=0)
    (found,) = mirror.sync()
    assert found.error is None
    assert found.ids["n_traces"] == 0


def test_mlflow_is_not_imported_when_nothing_waits(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from datetime import UTC, datetime\n"
        "from llmops.sync import sync_runs; from llmops.stores.journal import open_journal\n"
        "from llmops.definitions.workspace import load_workspace\n"
        f"root = Path({str(tmp_path)!r}); journal = open_journal('sqlite:///store.db', root=root)\n"
        "found = sync_runs(journal, load_workspace(root), 'sqlite:///mlflow.db', now=lambda: datetime.now(UTC),"
        " progress=print, environment={})\n"
        "print(found, 'mlflow' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[] False"


# --- prompts ----------------------------------------------------------------------------------------------


def test_a_prompt_is_found_as_it_stood_with_what_its_change_said(
    mirror: Mirror, git: Callable[..., str], project: Callable[..., Path]
) -> None:
    git("init")
    git("add", "prompts", "datasets")
    git("commit", "-m", "Ask for the team")
    then = mirror.workspace.identity("prompt", "triage")
    today = find_prompt(mirror.workspace, "triage", then, print)
    assert not isinstance(today, str)
    assert today.commit == git("rev-parse", "HEAD")
    assert today.message.startswith("Ask for the team (")

    mirror.edit_prompt(PROMPT.replace("of the team", "of one team"))
    edited = find_prompt(mirror.workspace, "triage", mirror.workspace.identity("prompt", "triage"), print)
    assert not isinstance(edited, str)
    assert edited.commit is None
    assert edited.message == "Which team should take this ticket?"
    before = find_prompt(mirror.workspace, "triage", then, print)
    assert not isinstance(before, str)
    assert before.commit == today.commit
    assert before.messages == today.messages
    assert "neither in today" in str(find_prompt(mirror.workspace, "triage", "0" * 64, print))


# --- a server ---------------------------------------------------------------------------------------------


def free_port() -> int:
    with closing(socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def running_server(root: Path, port: int) -> Iterator[None]:
    """A tracking server on this machine, as people start it."""
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    command += [
        "--backend-store-uri",
        f"sqlite:///{root}/mlflow.db",
        "--artifacts-destination",
        str(root / "files"),
    ]
    with (root / "server.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=root, stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server)
        yield
    finally:
        server.terminate()
        server.wait(timeout=30)


def wait_for(url: str, server: subprocess.Popen[Any]) -> None:
    for _ in range(600):
        assert server.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the server never answered")


def test_what_waited_for_a_server_is_delivered_once_it_is_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    mirror = Mirror(tmp_path, uri=f"http://lead:hunter2secret@127.0.0.1:{port}")
    target = f"http://127.0.0.1:{port}"
    run = mirror.whole_run(n_cases=12)
    with pytest.raises(StoreError, match="cannot be reached") as refused:
        mirror.sync()
    assert "hunter2" not in str(refused.value)
    assert mirror.journal.deliveries.waiting(target) == [run.id]
    note = mirror.journal.deliveries.find(run.id, target)
    assert note is not None
    assert "cannot be reached" in str(note.error)

    with running_server(tmp_path, port):
        (found,) = mirror.sync()
        assert found.error is None
        assert found.link == f"{target}/#/experiments/{found.ids['experiment_id']}/runs/{found.ids['run_id']}"
        traces = mirror.traces(found, "few-shot")
        assert len(traces) == 12
        assert {len(trace.data.spans) for key, trace in traces.items() if key != "t-00005"} == {3}
        assert traces["t-00001"].info.assessments[0].value is True
        assert mirror.journal.deliveries.waiting(target) == []

        with closing(open_mlflow(mirror.uri, environment={})) as store:
            history = store.entries("experiment", "triage", mirror.stages.append)
        assert {entry.run_id for entry in history} == {run.id}
        assert sorted(
            f"{target}/#/experiments/1/runs/{key}" for key in found.ids["variants"].values()
        ) == sorted(entry.link or "" for entry in history)

        mirror.mirrored_run(n_cases=12).save()
        (again,) = mirror.sync()
        assert again.ids == found.ids
        assert capfd.readouterr() == ("", "")
        assert mirror.traces(again, "few-shot").keys() == traces.keys()

    mirror.mirrored_run(n_cases=12).save()
    with pytest.raises(StoreError, match="cannot be reached"):
        mirror.sync()
    mirror.close()
