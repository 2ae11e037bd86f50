"""A real `mlflow server` on this machine: its own folder and port, stopped, killed and starved as a test asks."""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

from tests.cli.command import PATIENCE_S, environment
from tests.postgres_server import HOST, free_port

_RUNS = "SELECT run_uuid FROM runs JOIN experiments USING (experiment_id) WHERE experiments.name = ?"
_TRACED = """
SELECT trace_tags.value FROM trace_tags JOIN trace_info USING (request_id) JOIN experiments USING (experiment_id)
WHERE trace_tags.key = 'case_id' AND experiments.name = ?
"""
_ASSESSMENTS = """
SELECT assessment_id FROM assessments JOIN trace_info ON trace_id = request_id
JOIN experiments USING (experiment_id) WHERE experiments.name = ?
"""


@dataclass(frozen=True)
class Held:
    """What a server has of one experiment. rows: case ids in the files of all rows."""

    runs: list[str]
    traced: list[str]
    assessments: int
    rows: list[str]


@dataclass
class MlflowServer:
    """A server that runs, with all the processes it is made of."""

    folder: Path
    port: int = field(default_factory=free_port)

    @property
    def uri(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def database(self) -> Path:
        return self.folder / "mlflow.db"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.database}", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self._is_up():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2_000:]
            time.sleep(0.1)

    def _is_up(self) -> bool:
        with suppress(OSError), urlopen(f"{self.uri}/health", timeout=5) as reply:
            return bool(reply.status == 200)
        return False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self._process.wait()

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Let no file of the server grow until the block ends."""
        for limit in (0, resource.RLIM_INFINITY):
            for pid in self._pids():
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            if limit == 0:
                yield

    def _pids(self) -> list[int]:
        listing = ["ps", "-o", "pid=", "--sid", str(self._process.pid)]
        found = subprocess.run(listing, capture_output=True, text=True, check=True)
        return [int(pid) for pid in found.stdout.split()]

    def held(self, experiment: str) -> Held:
        """Return what the database and the files of the server have of an experiment."""
        with closing(sqlite3.connect(self.database)) as database:

            def column(query: str) -> list[str]:
                return [row[0] for row in database.execute(query, (experiment,))]

            runs = column(_RUNS)
            return Held(
                runs=runs,
                traced=column(_TRACED),
                assessments=len(column(_ASSESSMENTS)),
                rows=[case_id for run in runs for case_id in self._rows_of(run)],
            )

    def _rows_of(self, run: str) -> list[str]:
        files = (self.folder / "artifacts").glob(f"*/{run}/artifacts/rows.jsonl")
        lines = [line for path in files for line in path.read_bytes().splitlines()]
        return [json.loads(line)["case"]["id"] for line in lines]


@contextmanager
def mlflow_server(folder: Path) -> Iterator[MlflowServer]:
    """Give a server that has nothing in it."""
    server = MlflowServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
