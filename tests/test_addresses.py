from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from llmops import addresses
from llmops.addresses import is_forbidden, is_listed, is_loopback, literal
from llmops.definitions.project import ModelDefinition
from llmops.errors import AccessError, ModelError, UnavailableError, UsageError
from llmops.models import open_model
from llmops.models.access import resolve_access
from llmops.records import Message, Request
from llmops.stores import tracking

KEY = "sk-canary/0123+456789="

METADATA = (
    "169.254.169.254", "169.254.169.254:80", "2852039166", "0xa9fea9fe", "0xA9.0xFE.0xA9.0xFE", "0251.0376.0251.0376",
    "025177524776", "169.16689662", "169.254.43518", "0xa9.254.169.254", "169.0xfe.43518", "0251.254.169.254",
    "00000251.0376.00251.0376", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[0:0:0:0:0:ffff:a9fe:a9fe]",
    "[::a9fe:a9fe]", "[::169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b::169.254.169.254]", "[2002:a9fe:a9fe::]",
    "[2002:a9fe:a9fe::1]", "[fe80::1]", "[FE80::1]:80", "[febf::1]", "169.254.0.1", "169.254.170.2", "169.254.170.23",
    "100.100.100.200", "0x646464c8", "1684301000", "168.63.129.16", "192.0.0.192", "[fd00:ec2::254]", "[fd20:ce::254]",
    "[::ffff:100.100.100.200]", "[::ffff:a83f:8110]",
)  # fmt: skip
DOUBTFUL = (
    "http://api.openai.com:x@169.254.169.254:port/", "http://evil.test\\@api.openai.com/", "http://evil.test\\.openai.com",
    "http://evil.test#@api.openai.com/", "http://evil.test?@api.openai.com/", "http://evil.test;api.openai.com/",
    "http://[::1", "http://::1/", "http://evil%2etest/", "http://ⓔvil.test/", "http://evil。test/",
    "http://①⑥⑨.②⑤④.①⑥⑨.②⑤④/", "http:///evil.test", "http://", "https://evil.test/\r\nHost: x", "http://evil.test\t/",
    "http://evil .test/", "http://evil.test:80:90/", "http://evil.test:port/", "http://[fe80::1%25eth0]/",
    "http://169.254.169.254%00.openai.com/", "http://localhost\0.evil.test/", "http://evil.test/?key=1", "http://evil.test/#x",
)  # fmt: skip
OTHER = ("//evil.test/", "http:/evil.test", "http:evil.test", "https:\\\\evil.test", "ftp://evil.test", "file:///etc/passwd",
         "gopher://169.254.169.254", "dict://169.254.169.254:11211/", "data:,x", "evil.test")  # fmt: skip

_connects: list[Any] = []
sys.addaudithook(lambda event, about: _connects.append(about[1]) if event == "socket.connect" else None)


@pytest.fixture
def connects() -> Iterator[list[Any]]:
    """Give the addresses that sockets of this process are connected to from now on."""
    _connects.clear()
    yield _connects


def endpoint_is_refused(endpoint: str) -> bool:
    given: list[tuple[dict[str, Any], dict[str, str]]] = [
        ({"endpoint": endpoint}, {}),
        ({"endpoint_env": "URL"}, {"URL": endpoint}),
        ({"endpoint_env": "URL", "api_key_env": "KEY"}, {"URL": endpoint, "KEY": KEY}),
    ]
    for fields, environment in given:
        definition = ModelDefinition(provider="openai", model="m", **fields)
        try:
            resolve_access("m", definition, environment, default_endpoint=None, own_hosts=())
        except UsageError as error:
            assert KEY not in str(error)
        else:
            return False
    return True


def test_there_are_at_least_60_spellings_S14() -> None:
    assert len({*METADATA, *DOUBTFUL, *OTHER}) >= 60


def test_no_spelling_of_a_metadata_address_is_ever_connected_to_S14(
    connects: list[Any], tmp_path: Path
) -> None:
    for host in METADATA:
        assert endpoint_is_refused(f"http://{host}/latest"), host
        with pytest.raises(UsageError, match="link-local"):
            tracking.resolve_uri(f"http://{host}/", root=tmp_path, environment={})
    assert connects == []


def test_no_address_that_two_parsers_could_read_differently_is_connected_to_S14(
    connects: list[Any], tmp_path: Path
) -> None:
    for endpoint in (*DOUBTFUL, *OTHER):
        assert endpoint_is_refused(endpoint), endpoint
    for uri in DOUBTFUL:
        with pytest.raises(UsageError, match="names no host for certain"):
            tracking.resolve_uri(uri, root=tmp_path, environment={"MLFLOW_TRACKING_URI": uri})
    assert connects == []


@pytest.mark.parametrize(
    "host", ["localhost:11434", "127.0.0.1:1", "[::1]:8080", "10.0.0.5:11434", "ollama", "my_host"]
)
def test_a_server_of_ones_own_needs_no_key_and_no_permission_S14(host: str) -> None:
    definition = ModelDefinition(provider="openai", model="m", endpoint=f"http://{host}/v1")
    access = resolve_access("m", definition, {}, default_endpoint=None, own_hosts=())
    assert (access.endpoint, access.key) == (f"http://{host}/v1", None)


def test_what_is_near_a_forbidden_address_is_none() -> None:
    near = (
        "169.253.255.255",
        "169.255.0.0",
        "[::1]",
        "[fec0::1]",
        "[64:ff9b::a00:1]",
        "100.100.100.201",
        "10.0.0.1",
        "host",
    )
    assert [host for host in near if is_forbidden(host)] == []
    assert str(literal("[64:ff9b::a00:1]")) == "10.0.0.1"
    assert (is_loopback("0x7f000001"), is_loopback("localhost"), is_loopback("127.0.0.1.test")) == (
        True,
        True,
        False,
    )


def test_a_list_of_hosts_allows_what_stands_in_it_and_nothing_when_it_is_empty() -> None:
    assert not is_listed({}, {""})
    assert not is_listed({"LLMOPS_SECRET_HOSTS": " , "}, {"", "a.test"})
    assert is_listed({"LLMOPS_SECRET_HOSTS": "x.test, a.test"}, {"a.test"})
    assert is_listed({"LLMOPS_SECRET_HOSTS": "K=a.test"}, {"a.test"}, "K")
    assert not is_listed({"LLMOPS_SECRET_HOSTS": "K=a.test"}, {"a.test"}, "L")


# --- names ------------------------------------------------------------------------------------------------

PROVIDERS = {
    "lean": {"provider": "openai"},
    "sdk": {"provider": "openai", "client": "sdk"},
    "azure": {"provider": "azure_inference"},
}


def asked(kind: str, url: str) -> ModelError:
    definition = ModelDefinition(model="m", endpoint_env="URL", api_key_env="KEY", **PROVIDERS[kind])  # type: ignore[arg-type]

    async def ask() -> None:
        model = open_model("m", definition, {"URL": url, "KEY": KEY})
        try:
            request = Request(messages=(Message(role="user", content="hello"),))
            await model.complete(request, call_id="c", timeout_s=10)
        finally:
            await model.close()

    with pytest.raises(ModelError) as caught:
        asyncio.run(ask())
    return caught.value


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Give the name server of these tests: answers by name, the next at each look-up, the last for good."""
    answers: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def look_up(host: Any, *more: Any, **options: Any) -> Any:
        known = answers.get(host.decode() if isinstance(host, bytes) else str(host))
        if known:
            host = known.pop(0) if len(known) > 1 else known[0]
        return real(host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return answers


@pytest.mark.parametrize("kind", PROVIDERS)
@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254"])
def test_a_name_that_leads_to_metadata_is_not_connected_to_S14(
    kind: str, address: str, names: dict[str, list[str]], connects: list[Any]
) -> None:
    names["metadata.test"] = [address]
    error = asked(kind, "https://metadata.test/v1")
    assert (type(error), error.sent) == (AccessError, False)
    assert "link-local" in str(error)
    assert connects == []


@pytest.mark.parametrize("kind", PROVIDERS)
def test_a_name_that_changes_its_answer_is_told_nothing_S14(
    kind: str, names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second answer is a forbidden address, as which one of this machine stands in: somebody listens there."""
    monkeypatch.setattr(addresses, "_FORBIDDEN", (ip_network("127.0.0.1/32"),))
    with socket.create_server(("127.0.0.1", 0)) as forbidden:
        port = forbidden.getsockname()[1]
        names["rebinding.test"] = ["127.0.0.2", "127.0.0.1"]
        error = asked(kind, f"https://rebinding.test:{port}/v1")
        assert type(error) in (AccessError, UnavailableError)
        assert error.sent is False
        forbidden.settimeout(0.2)
        try:
            connection, _ = forbidden.accept()
        except TimeoutError:
            return
        with connection:
            connection.settimeout(2)
            assert connection.recv(1) == b""


# --- MLflow -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri", ["https://evil.test", "HTTPS://evil.test", "Http://evil.test:80/", "postgresql://me@evil.test/x"]
)
@pytest.mark.parametrize("held", ["MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PGPASSWORD", "file"])
def test_credentials_go_to_no_tracking_server_that_only_a_file_names_S14(
    uri: str, held: str, tmp_path: Path
) -> None:
    environment = {"HOME": str(tmp_path), held: "cred-0123456789"}
    if held == "file":
        (tmp_path / ".mlflow").mkdir()
        (tmp_path / ".mlflow" / "credentials").write_text("[mlflow]\n")
    if (held == "PGPASSWORD") == uri.startswith("postgresql"):
        with pytest.raises(UsageError, match=r"LLMOPS_SECRET_HOSTS=evil\.test") as caught:
            tracking.resolve_uri(uri, root=tmp_path, environment=environment)
        assert "cred-0123456789" not in str(caught.value)
    for more in ({"MLFLOW_TRACKING_URI": uri}, {"LLMOPS_SECRET_HOSTS": "evil.test,evil.test:80"}):
        assert tracking.resolve_uri(uri, root=tmp_path, environment={**environment, **more})


def test_a_tracking_server_whose_name_leads_to_metadata_is_not_tried_S14(
    names: dict[str, list[str]], connects: list[Any]
) -> None:
    names["metadata.test"] = ["169.254.169.254"]
    with pytest.raises(Exception, match="link-local"):
        tracking.check_reachable("http://metadata.test/")
    assert connects == []
