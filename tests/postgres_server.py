"""A real PostgreSQL on this machine: its own folder and port, stopped and started as a test asks."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal

HOST = "127.0.0.1"
ROLE = "postgres"
GUEST = "guest"  # a role that has to give its password
GUEST_PASSWORD = "c4nary/p+ss word"
SETTINGS = """
listen_addresses = '127.0.0.1'
fsync = off
max_connections = 40
deadlock_timeout = '200ms'
lc_messages = 'C'
"""
ACCESS = f"""
host all {GUEST} {HOST}/32 scram-sha-256
host all all {HOST}/32 trust
local all all trust
"""


def find_programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, None where they are not installed."""
    found: list[Path] = []
    with suppress(OSError, subprocess.CalledProcessError):
        asked = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True)
        found.append(Path(asked.stdout.strip()))
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "initdb").exists()), None)


@dataclass
class PostgresServer:
    """A server that runs; `stop` and `start` do as an administrator would."""

    programs: Path
    folder: Path
    port: int
    _numbers: Iterator[int] = field(default_factory=count)

    def url(self, database: str, role: str = ROLE, port: int | None = None) -> str:
        return f"postgresql://{role}@{HOST}:{port or self.port}/{database}"

    def new_database(self) -> str:
        """Make a database and return its URL."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        self.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def drop(self, url: str) -> None:
        """Remove a database, whoever is still connected to it."""
        self.execute(f'DROP DATABASE "{url.rpartition("/")[2]}" WITH (FORCE)')

    def execute(self, sql: str, *values: object, database: str = ROLE) -> list[tuple[Any, ...]]:
        """Carry out a statement as administrator and return its rows."""
        with connected(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        self._pg_ctl("start", "-w", "-l", str(self.folder / "log"), "-o", f"-p {self.port} -k {self.folder}")

    def stop(self, mode: Literal["fast", "immediate"]) -> None:
        """fast: sessions are ended in order. immediate: as a crash, with recovery at the next start."""
        self._pg_ctl("stop", "-w", "-m", mode)

    def restart(self, mode: Literal["fast", "immediate"]) -> None:
        self.stop(mode)
        self.start()

    def make(self) -> None:
        """Make the cluster; its texts sort as people do, not as bytes do."""
        order = ["--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"]
        self._run("initdb", "--no-sync", "-U", ROLE, "-A", "trust", *order, "-D", str(self.data))
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.write(SETTINGS)
        (self.data / "pg_hba.conf").write_text(ACCESS)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def _pg_ctl(self, *arguments: str) -> None:
        self._run("pg_ctl", "-s", "-D", str(self.data), *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), *arguments]
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            command = ["runuser", "-u", ROLE, "--", *command]
        nothing = subprocess.DEVNULL
        done = subprocess.run(command, cwd="/", stdin=nothing, stdout=nothing, stderr=nothing, check=False)
        log = self.folder / "log"
        told = log.read_text(errors="replace")[-2_000:] if log.exists() else ""
        assert done.returncode == 0, f"{program} {arguments} failed: {told}"


@contextmanager
def running_postgres(programs: Path) -> Iterator[PostgresServer]:
    """Give a server with nothing in it but a role that has a password."""
    folder = Path(tempfile.mkdtemp(prefix="llmops-postgres-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, ROLE, ROLE)
        server = PostgresServer(programs, folder, free_port())
        server.make()
        server.start()
        try:
            server.execute(f"CREATE ROLE {GUEST} LOGIN PASSWORD '{GUEST_PASSWORD}'")
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def connected(url: str, **options: Any) -> Any:
    """Return a connection of psycopg, which need not be installed where no test asks for a server."""
    import psycopg

    return psycopg.connect(url, **options)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        port: int = taken.getsockname()[1]
        return port
