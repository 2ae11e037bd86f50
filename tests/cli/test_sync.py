"""What `run` leaves to MLflow arrives, now or later, and never at the cost of the run."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cli.command import PATIENCE_S, closed_pipe, llmops, start
from tests.model_server import running_model_server

LATER = "`llmops sync` delivers it later"
COMPARED = re.compile(
    r"http://127\.0\.0\.1:5000/#/experiments/\d+/evaluation-runs\?"
    r"selectedRunUuid=(?P<candidate>\w+)&compareToRunUuid=(?P<baseline>\w+)$",
    re.MULTILINE,
)


@pytest.fixture(scope="module")
def undelivered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a project with one run that MLflow has not got. Not to be changed: copy it."""
    root = tmp_path_factory.mktemp("undelivered")
    assert llmops("init", cwd=root).returncode == 0
    done = llmops("run", "review_mood", "--no-sync", cwd=root)
    assert done.returncode == 0, done.stderr
    assert "MLflow" not in done.stderr
    return root


@pytest.fixture
def root(undelivered: Path, tmp_path: Path) -> Path:
    return shutil.copytree(undelivered, tmp_path / "project")


@dataclass
class DeafServer:
    """A server that says it is well and answers nothing else. asked: what each connection sent, if it sent more."""

    uri: str
    connections: list[socket.socket] = field(default_factory=list)
    asked: list[bytes] = field(default_factory=list)
    connected: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    left: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def listen(self, connection: socket.socket) -> None:
        """Take down what one client says, until it leaves."""
        self.connected.release()
        said = b""
        with connection:
            while piece := connection.recv(65536):
                said += piece
                if said.startswith(b"GET /health "):
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK")
                    said = b""
                    break
        self.asked.append(said)
        self.left.release()


@contextmanager
def deaf_server() -> Iterator[DeafServer]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = DeafServer(f"http://127.0.0.1:{listening.getsockname()[1]}")

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:  # the test is over
                    return
                threading.Thread(target=server.listen, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield server
        listening.shutdown(socket.SHUT_RDWR)


def dead_address() -> str:
    """Return the address of a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


# --- delivered after a run --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    """A run that was delivered. imported: the modules its own process had."""

    root: Path
    stdout: str
    said: str
    imported: frozenset[str]


@pytest.fixture(scope="module")
def ran(undelivered: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    root = shutil.copytree(undelivered, tmp_path_factory.mktemp("ran") / "a project")
    done = llmops("run", "review_mood", "--fresh", cwd=root, options=("-X", "importtime"))
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines(keepends=True)
    said = "".join(line for line in lines if not line.startswith("import time:"))
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    return Ran(root, done.stdout, said, frozenset(imported))


def names_in_mlflow(root: Path) -> dict[str, str]:
    """Return the names of the runs that MLflow has, by their ids there."""
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        return dict(database.execute("SELECT run_uuid, name FROM runs"))


def test_a_run_says_where_baseline_and_candidate_stand_side_by_side(ran: Ran) -> None:
    found = COMPARED.search(ran.said)
    assert found, ran.said
    names = names_in_mlflow(ran.root)
    assert names[found["candidate"]] == "few-shot"
    assert names[found["baseline"]] == "zero-shot"
    assert f"once this runs: mlflow server --backend-store-uri 'sqlite:///{ran.root}/mlflow.db'\n" in ran.said
    assert "MLflow" not in ran.stdout


def test_a_run_delivers_in_a_process_of_its_own_and_all_that_waited_before(ran: Ran) -> None:
    assert "llmops.cli.sync" in ran.imported
    assert not {name for name in ran.imported if name.partition(".")[0] == "mlflow"}
    parents = [name for name in names_in_mlflow(ran.root).values() if name.startswith("review_mood-")]
    assert len(parents) == 2, "the one before, which was not synced, and this one"


def test_nothing_is_left_to_deliver_and_where_to_look_is_said_again(ran: Ran) -> None:
    before = names_in_mlflow(ran.root)
    done = llmops("sync", cwd=ran.root)
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing is waiting\n", "")
    record = llmops("sync", "--json", cwd=ran.root)
    assert (record.returncode, json.loads(record.stdout)) == (0, [])
    again = llmops("run", "review_mood", cwd=ran.root)
    assert "nothing to do" in again.stderr
    assert COMPARED.search(again.stderr)
    assert names_in_mlflow(ran.root) == before


# --- sync -------------------------------------------------------------------------------------------------


def test_a_project_without_runs_has_nothing_waiting(tmp_path: Path) -> None:
    llmops("init", cwd=tmp_path)
    done = llmops("sync", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "nothing is waiting\n")
    assert not (tmp_path / "mlflow.db").exists()


def test_a_run_that_does_not_exist_is_told_with_the_nearest(root: Path) -> None:
    done = llmops("sync", "--run", "review_mod", cwd=root)
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'review_mood'?" in done.stderr


def test_doctor_counts_what_waits(root: Path) -> None:
    done = llmops("doctor", cwd=root)
    assert done.returncode == 0
    assert "ok       store: sqlite:///.llmops/store.db, runs: 1\n" in done.stdout
    assert (
        f"tracking: sqlite:///{root}/mlflow.db, runs not there yet: 1\n         fix: llmops sync\n"
        in done.stdout
    )


def test_an_interrupted_run_is_delivered_by_the_next_sync(root: Path) -> None:
    with running_model_server(delay_ms=400) as server:
        slow = f"{{provider: openai, model: slow, endpoint: {server.base_url}, limits: {{concurrency: 2}}}}"
        (root / "llmops.yaml").write_text(f"models: {{default: {slow}}}\n", encoding="utf-8")
        with start("run", "review_mood", "--limit", "6", cwd=root) as process:
            while not server.received:
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + signal.SIGINT
    assert "MLflow" not in said
    done = llmops("sync", cwd=root)
    assert done.returncode == 0, done.stderr
    *delivered, server_line = done.stdout.splitlines()
    assert [line.partition("-")[0] for line in delivered] == ["review_mood", "review_mood"]
    assert all("http://127.0.0.1:5000/#/experiments/1/" in line for line in delivered)
    assert server_line.startswith("once this runs: mlflow server ")


def test_a_delivery_ends_when_nobody_waits_for_it_any_more(root: Path) -> None:
    unread = closed_pipe()
    done = llmops("sync", "--json", cwd=root, stderr=unread)
    os.close(unread)
    assert (done.returncode, done.stdout) == (128 + signal.SIGINT, "")
    assert not (root / "mlflow.db").exists()


# --- MLflow that is not there -----------------------------------------------------------------------------


def test_a_dead_server_costs_the_run_nothing_and_sync_says_what_to_do(root: Path) -> None:
    address = dead_address()
    more = {"MLFLOW_TRACKING_URI": address}
    plain = llmops("run", "review_mood", "--no-sync", cwd=root)
    done = llmops("run", "review_mood", cwd=root, more=more)
    assert (done.returncode, done.stdout) == (0, plain.stdout)
    assert f"not in MLflow yet: MLflow at {address} cannot be reached" in done.stderr
    assert "`llmops sync` delivers it once the server is up" in done.stderr
    synced = llmops("sync", cwd=root, more=more)
    assert (synced.returncode, synced.stdout) == (3, "")
    assert synced.stderr.startswith(f"error: MLflow at {address} cannot be reached")
    assert synced.stderr.count("\n") == 1


def test_a_tracking_address_that_is_none_costs_the_run_nothing(root: Path) -> None:
    more = {"MLFLOW_TRACKING_URI": "mlruns"}
    done = llmops("run", "review_mood", cwd=root, more=more)
    assert done.returncode == 0
    assert "not in MLflow yet: tracking: 'mlruns' is a folder" in done.stderr
    assert LATER in done.stderr
    synced = llmops("sync", cwd=root, more=more)
    assert (synced.returncode, synced.stdout) == (2, "")


def test_a_deaf_server_is_left_to_later_and_gets_the_credentials_of_dotenv(root: Path) -> None:
    with deaf_server() as server:
        (root / ".env").write_text(
            f"MLFLOW_TRACKING_URI={server.uri}\nMLFLOW_TRACKING_TOKEN=token-0123456789\n", encoding="utf-8"
        )
        done = llmops("run", "review_mood", cwd=root)
        assert done.returncode == 0
        assert re.search(rf"not in MLflow yet: MLflow has said nothing for \d+ s\n +{LATER}\n", done.stderr)
        assert "token" not in done.stderr
        asked = wait_for_request(server)
    assert b"Authorization: Bearer token-0123456789" in asked


def wait_for_request(server: DeafServer) -> bytes:
    """Return what the delivery asked before it was ended; connections that only look send nothing."""
    for _ in range(20):
        assert server.left.acquire(timeout=PATIENCE_S)
        if server.asked[-1]:
            return server.asked[-1]
    raise AssertionError("nothing was asked")


def test_ctrl_c_while_mlflow_is_waited_for_ends_the_delivery_and_keeps_the_run(root: Path) -> None:
    with deaf_server() as server:
        more = {"MLFLOW_TRACKING_URI": server.uri}
        with start("run", "review_mood", cwd=root, more=more) as process:
            assert server.connected.acquire(timeout=PATIENCE_S)  # the run looks whether somebody is there
            children = started_children(process.pid)
            process.send_signal(signal.SIGINT)
            printed, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert "few-shot" in printed
    assert f"not in MLflow yet: interrupted\n    {LATER}\n" in said
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def started_children(pid: int) -> list[int]:
    """Return what a process has started, as soon as that is anything."""
    listing = ["ps", "-o", "pid=", "--ppid", str(pid)]
    while True:
        found = subprocess.run(listing, capture_output=True, text=True, check=False)
        if found.stdout.split():
            return [int(child) for child in found.stdout.split()]
        time.sleep(0.01)
