"""What all tests share: golden files, a fixed environment, and throw-away projects with real git."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.model_server import ModelServer, running_model_server
from tests.postgres_server import PostgresServer, find_programs, running_postgres
from tests.workplace import Workplace

ROOT = Path(__file__).parent.parent
settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="Rewrite golden files; review the diff.")
    parser.addoption("--fault-seed", type=int, default=36, help="What tests/faults draws its choices from.")


@pytest.fixture(autouse=True)
def fixed_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No key, address or setting of whoever runs the tests reaches them."""
    for name in list(os.environ):
        if name.startswith(("MLFLOW_", "OPENAI_", "AZURE_", "LLMOPS_", "PG")) or name.lower().endswith(
            "_proxy"
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    yield


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare text with the golden file of that name beside the test, or rewrite it on request."""

    def check(name: str, text: str) -> None:
        path = request.path.parent / "golden" / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8"), f"{path} differs; --update-golden rewrites it"

    return check


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """Give a model server of the test's own."""
    with running_model_server() as server:
        yield server


@pytest.fixture
def place(tmp_path: Path, server: ModelServer) -> Workplace:
    """Give a project whose models that server serves."""
    return Workplace(tmp_path, server)


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """Write files into a throw-away project and return its root; `llmops.yaml` is there if not given."""

    def write(files: dict[str, str | bytes] | None = None, **_: object) -> Path:
        for name, content in {"llmops.yaml": "", **(files or {})}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return write


@pytest.fixture
def git(tmp_path: Path) -> Callable[..., str]:
    """Run git in the throw-away project, with a name and a clock of its own."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in _PERSON.items()},
    }

    def run(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "init.defaultBranch=main", *arguments]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    return run


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Give a real PostgreSQL; whoever asks for it is skipped where it is not installed."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    programs = find_programs()
    if programs is None:
        pytest.skip("the programs of PostgreSQL are not installed")
    with running_postgres(programs) as server:
        yield server


_PERSON = {"NAME": "Test", "EMAIL": "test@example.invalid", "DATE": "2026-01-01T00:00:00+00:00"}
