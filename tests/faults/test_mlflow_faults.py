"""MLflow refuses, stalls, fails, is slow, full or restarted: the run is as without it, and all arrives later, once."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmops.records import RunStatus
from llmops.stores.journal import open_journal
from tests.cli.command import PATIENCE_S, start
from tests.cli.inside import Done, llmops_inside
from tests.faults.mlflow_server import Held, MlflowServer, mlflow_server
from tests.faults.proxy import Proxy, proxy
from tests.workplace import FILES, STORE, case_of, jsonl

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow"),
]
N_CASES = 5
FAULTS = ("refused", "stalled", "errors", "slow", "full", "restarted")
SOME_REQUESTS = 30
"""After so many a delivery is in the middle of its runs."""


@dataclass
class Project:
    """A project of its own for each fault, so that they can happen at the same time."""

    root: Path
    fault: str
    uri: str

    def __post_init__(self) -> None:
        files = {
            "llmops.yaml": "",
            f"prompts/{self.fault}.prompt.yaml": FILES["prompts/sort.prompt.yaml"],
            "datasets/tickets.dataset.yaml": FILES["datasets/tickets.dataset.yaml"],
            "datasets/tickets.jsonl": jsonl([case_of(number) for number in range(N_CASES)]),
            f"experiments/{self.fault}.experiment.yaml": FILES["experiments/sort.experiment.yaml"].replace(
                "prompt: sort", f"prompt: {self.fault}"
            ),
        }
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    @property
    def more(self) -> dict[str, str]:
        return {"MLFLOW_TRACKING_URI": self.uri}

    def start(self) -> subprocess.Popen[str]:
        return start("run", f"experiments/{self.fault}.experiment.yaml", cwd=self.root, more=self.more)

    def sync(self) -> Done:
        """Deliver what waits, inside this process: MLflow is imported once for all."""
        return llmops_inside("sync", cwd=self.root, more=self.more)


def ended(process: subprocess.Popen[str]) -> Done:
    with process:
        printed, said = process.communicate(timeout=PATIENCE_S)
    return Done(process.returncode, printed, said)


@dataclass(frozen=True)
class Outage:
    """What became of one project. ran: its run, while the fault lasted; held: what MLflow has in the end."""

    project: Project
    ran: Done
    synced: Done
    held: Held


@pytest.fixture(scope="module")
def outages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outage]]:
    """Let every fault happen to a run of its own, mend them all, and deliver."""
    folder = tmp_path_factory.mktemp("outages")
    (folder / "server").mkdir()
    with (
        mlflow_server(folder / "server") as server,
        proxy(server.port, "refuse") as refusing,
        proxy(server.port, "error") as failing,
        proxy(server.port, "slow") as slow,
        proxy(server.port) as cut,
    ):
        uris = {
            "refused": refusing.uri,
            "stalled": server.uri,
            "errors": failing.uri,
            "slow": slow.uri,
            "full": server.uri,
            "restarted": cut.uri,
        }
        projects = {fault: Project(folder / fault, fault, uris[fault]) for fault in FAULTS}
        ran = let_happen(server, cut, projects)
        for wire in (refusing, failing, slow):
            wire.mend()
        synced = {fault: project.sync() for fault, project in projects.items()}
        yield {
            fault: Outage(project, ran[fault], synced[fault], server.held(fault))
            for fault, project in projects.items()
        }


def let_happen(server: MlflowServer, cut: Proxy, projects: dict[str, Project]) -> dict[str, Done]:
    """Carry out each project's run while its fault lasts; return how each ended."""
    ran: dict[str, Done] = {}

    def carry_out(*faults: str) -> None:
        started = {fault: projects[fault].start() for fault in faults}
        ran.update({fault: ended(process) for fault, process in started.items()})

    server.signal(signal.SIGSTOP)
    carry_out("refused", "stalled", "errors")
    server.signal(signal.SIGCONT)
    with server.full_disk():
        carry_out("slow", "full")
    cut.on_request = lambda number: server.kill() if number == SOME_REQUESTS else None
    carry_out("restarted")
    server.start()
    return ran


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_ends_as_without_mlflow_while_it_is_out_of_order_F56(
    outages: dict[str, Outage], fault: str
) -> None:
    ran = outages[fault].ran
    assert ran.returncode == 0, ran.stderr
    assert "exact_match" in ran.stdout and "MLflow" not in ran.stdout
    assert "not in MLflow yet" in ran.stderr and "`llmops sync` delivers it" in ran.stderr
    assert "Traceback" not in ran.stderr
    unmoved = llmops_inside("report", fault, cwd=outages[fault].project.root)
    assert unmoved.stdout == ran.stdout, "the report differs from that of the store"


@pytest.mark.parametrize("fault", FAULTS)
def test_all_results_are_in_the_store_while_mlflow_is_out_of_order_F56(
    outages: dict[str, Outage], fault: str
) -> None:
    with closing(open_journal(STORE, root=outages[fault].project.root)) as journal:
        run = journal.latest_run(fault)
        assert run is not None and (run.status, run.n_done) == (RunStatus.COMPLETE, N_CASES)
        assert sum(len(row.scores) for row in journal.rows(run.id)) == N_CASES


@pytest.mark.parametrize("fault", FAULTS)
def test_all_of_a_run_arrives_later_and_exactly_once_F56(outages: dict[str, Outage], fault: str) -> None:
    outage = outages[fault]
    assert outage.synced.returncode == 0, outage.synced
    cases = sorted(f"c{number}" for number in range(N_CASES))
    assert len(outage.held.runs) == 2, "a parent, and one for the variant"
    assert (sorted(outage.held.traced), sorted(outage.held.rows)) == (cases, cases)
    assert outage.held.assessments == 2 * N_CASES  # what was expected, and one score
    again = outage.project.sync()
    assert (again.returncode, again.stdout) == (0, "nothing is waiting\n")


def test_a_delivery_that_was_cut_off_had_begun_and_was_gone_on_with_F56(outages: dict[str, Outage]) -> None:
    root = outages["restarted"].project.root
    with closing(sqlite3.connect(root / ".llmops" / "store.db")) as store:
        rows = store.execute("SELECT attempts, error FROM deliveries").fetchall()
    assert [(attempts > 1, error) for attempts, error in rows] == [(True, None)]
