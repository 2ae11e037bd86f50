"""One server for all faults, a project for each, and the seed from which each draws what is hit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from tests.certificates import certificate
from tests.faults.scene import Scene, Way
from tests.model_server import ModelServer, running_model_server


@pytest.fixture(scope="session")
def fault_server() -> Iterator[ModelServer]:
    """Give one server for all scenes; each looks at its own requests."""
    with running_model_server() as server:
        yield server


@pytest.fixture
def fault_seed(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> str:
    """Give the seed of a scenario: the option's, and which scenario it is."""
    seed = f"{request.config.getoption('--fault-seed')}:{request.node.name}"
    print(f"fault seed {seed}")
    record_property("fault_seed", seed)
    return seed


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a retry wait for milliseconds where the service asks for nothing: how long is tested with the limiter."""
    monkeypatch.setattr("llmops.call.caller._BACKOFF_S", (0.002, 0.01))
    monkeypatch.setattr("llmops.call.breaker.FIRST_OPEN_S", 0.01)
    monkeypatch.setattr("llmops.call.limits.FIRST_PAUSE_S", 0.01)


@pytest.fixture(scope="session")
def few_certificates(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give a file of one certificate to trust: to read all that there are takes longer than a run."""
    return str(certificate(tmp_path_factory.mktemp("certificates"), host="127.0.0.1", days=1))


@pytest.fixture
def scene(
    way: Way,
    tmp_path: Path,
    fault_server: ModelServer,
    fault_seed: str,
    few_certificates: str,
    quick_retries: None,
) -> Iterator[Scene]:
    """Give a project whose model is asked in one way."""
    yield Scene(tmp_path, fault_server, way, Random(fault_seed), certificates=few_certificates)
    fault_server.script, fault_server.outage, fault_server.revoked = [], "", set()
