"""What commands share: the project they stand in, its environment and `.env`, and the names people type."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llmops.cli.session import Session, open_session, read_environment
from llmops.errors import UsageError
from llmops.secrets import scrub

KEY = "sk-canary/0123+456789="
FILES: dict[str, str | bytes] = {
    "llmops.yaml": "models:\n  default: {provider: openai, model: m, api_key_env: MY_KEY}\n",
    "prompts/both.prompt.yaml": "messages: [{role: user, content: x}]\n",
    "chains/both.chain.yaml": "steps: [{id: a, prompt: both}]\n",
    "experiments/alone.experiment.yaml": "dataset: d\nvariants: {a: {prompt: both}}\n",
}


@pytest.fixture
def root(project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    root = project(FILES)
    monkeypatch.chdir(root)
    return root


def environment(root: Path) -> tuple[dict[str, str], list[str]]:
    """Return the environment that a project gives, and what was said of it."""
    told: list[str] = []
    return read_environment(root, told.append), told


# --- .env -------------------------------------------------------------------------------------------------


def test_a_dot_env_adds_what_is_missing_and_overrides_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / ".env").write_text("# keys\nMY_KEY=from-file\nMY_URL='http://x/${HOME}'\nEMPTY=\nBARE\n")
    monkeypatch.setenv("MY_KEY", "from-process")
    found, told = environment(root)
    assert found["MY_KEY"] == "from-process"
    assert found["MY_URL"] == "http://x/${HOME}"
    assert found["EMPTY"] == "" and "BARE" not in found
    assert told == []
    assert "MY_URL" not in os.environ


@pytest.mark.parametrize(
    "name", ["LLMOPS_SECRET_HOSTS", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "no_proxy", "HTTP_PROXY"]
)
def test_a_dot_env_says_not_where_keys_may_go(root: Path, name: str) -> None:
    (root / ".env").write_text(f"{name}=https://evil.example\nMY_KEY=x\n")
    found, _ = environment(root)
    assert name not in found
    assert found["MY_KEY"] == "x"


def test_a_dot_env_that_git_tracks_is_not_read_and_its_owner_is_told(
    root: Path, git: Callable[..., str]
) -> None:
    git("init", "-q")
    (root / ".env").write_text(f"MY_KEY={KEY}\n")
    assert environment(root)[0]["MY_KEY"] == KEY
    git("add", "-f", ".env")
    found, told = environment(root)
    assert "MY_KEY" not in found
    assert len(told) == 1 and "tracked by git" in told[0]


def test_a_dot_env_that_is_no_text_is_refused_in_a_line(root: Path) -> None:
    (root / ".env").write_bytes(b"MY_KEY=\xff\xfe\n")
    with pytest.raises(UsageError, match=r"\.env cannot be read"):
        environment(root)


def test_the_tracking_address_of_the_environment_wins(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_session().tracking_uri == "sqlite:///mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    assert open_session().tracking_uri == "http://elsewhere"


# --- secrets ----------------------------------------------------------------------------------------------


def test_what_the_project_names_as_keys_is_secret_from_then_on_S07(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-session/0123+456789=")
    assert scrub("Bearer sk-session/0123+456789=") == "Bearer sk-session/0123+456789="
    open_session()
    assert scrub("Bearer sk-session/0123+456789= and sk-session%2F0123%2B456789%3D") == "Bearer *** and ***"


def test_a_dot_env_is_secret_as_the_environment_is_and_a_broken_project_has_no_key_S07(root: Path) -> None:
    (root / ".env").write_text(
        "PGPASSWORD=tru-dotenv-99\nHTTPS_PROXY=x\nMY_URL=https://me:sess1on-pass@host.test/\n"
    )
    (root / "llmops.yaml").write_text("models: [")
    open_session()
    assert scrub("tru-dotenv-99, https://me:sess1on-pass@host.test/") == "***, https://***@host.test/"


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("alone", ("experiment", "alone")),
        ("prompts/both", ("prompt", "both")),
        ("chains/both", ("chain", "both")),
        ("prompts/both.prompt.yaml", ("prompt", "both")),
        ("chains/both@git:main", ("chain", "both@git:main")),
        ("alone@production", ("experiment", "alone@production")),
    ],
)
def test_a_target_is_a_name_a_name_with_its_folder_or_a_file(
    root: Path, text: str, found: tuple[str, str]
) -> None:
    assert open_session().target(text, ("experiment", "prompt", "chain")) == found


def test_a_file_is_named_from_where_the_command_stands(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root / "prompts")
    session = open_session()
    assert session.root == root
    assert session.target("both.prompt.yaml", ("prompt",)) == ("prompt", "both")
    assert session.target(str(root / "chains/both.chain.yaml"), ("chain",)) == ("chain", "both")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("both", "'both' names prompt and chain: write prompts/both or chains/both"),
        ("alnoe", "did you mean 'alone'"),
        ("zzz", "there are: alone, both, both"),
        ("datasets/d", "expected one of experiments, prompts, chains"),
        ("nowhere.prompt.yaml", "no file nowhere.prompt.yaml"),
        ("/etc/hosts.yaml", "no file /etc/hosts.yaml"),
        ("a b", "'a b'"),
    ],
)
def test_a_target_that_is_none_or_several_is_refused_with_what_there_is(
    root: Path, text: str, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        open_session().target(text, ("experiment", "prompt", "chain"))


def test_a_file_outside_the_project_is_refused(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "x.prompt.yaml"
    outside.write_text("messages: []\n")
    with pytest.raises(UsageError, match="lies outside the project"):
        open_session().target(str(outside), ("prompt",))
    (root / "prompts" / "link.prompt.yaml").symlink_to(outside)
    with pytest.raises(UsageError, match="lies outside the project"):
        open_session().target("prompts/link.prompt.yaml", ("prompt",))


def test_outside_of_a_project_there_is_no_session(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    with pytest.raises(UsageError, match="llmops init"):
        open_session()


def test_a_journal_is_made_only_when_asked(root: Path) -> None:
    session = Session(root, {})
    assert not session.has_journal()
    with pytest.raises(UsageError, match="nothing has run here yet"):
        session.journal(create=False)
    session.journal().close()
    assert session.has_journal()
    session.journal(create=False).close()
