"""Addresses, links and names, without MLflow; that MLflow takes the names is asked of its own rules."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.errors import StoreError, UsageError
from llmops.records import Figure, Interval
from llmops.stores import tracking
from tests.faults.proxy import proxy

if TYPE_CHECKING:
    from pathlib import Path

ALLOWED = re.compile(r"[/\w.\- :]+")  # MLflow 3.17, utils/validation.py
TEXTS = st.text(max_size=300) | st.sampled_from(
    ["", ".", "..", "a//b", "../x", "n", "é", "a:b", "\ud800", "\0"]
)


# --- addresses --------------------------------------------------------------------------------------------


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    environment = {"MLFLOW_TRACKING_URI": "http://mlflow.example:5000"}
    found = tracking.resolve_uri("sqlite:///mlflow.db", root=tmp_path, environment=environment)
    assert found == "http://mlflow.example:5000"


@pytest.mark.parametrize(
    "written", ["sqlite:///mlflow.db", "sqlite:///./mlflow.db", "sqlite:///sub/../mlflow.db"]
)
def test_a_relative_database_starts_at_the_project(tmp_path: Path, written: str) -> None:
    assert tracking.resolve_uri(written, root=tmp_path, environment={}) == f"sqlite:///{tmp_path}/mlflow.db"


def test_an_absolute_database_stays(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/other.db"
    assert tracking.resolve_uri(uri, root=tmp_path / "x", environment={}) == uri
    assert tracking.database_path(uri) == f"{tmp_path}/other.db"


@pytest.mark.parametrize(
    "written", ["", "mlruns", "./mlruns", "file:///var/mlruns", "sqlite://", "sqlite:///:memory:"]
)
def test_a_folder_or_nothing_is_refused_with_what_to_write(tmp_path: Path, written: str) -> None:
    with pytest.raises(UsageError, match="write sqlite:///"):
        tracking.resolve_uri(written, root=tmp_path, environment={})


def test_credentials_do_not_go_to_a_host_that_only_a_file_names(tmp_path: Path) -> None:
    held = {"MLFLOW_TRACKING_TOKEN": "hunter2-token"}
    with pytest.raises(UsageError, match=r"LLMOPS_SECRET_HOSTS=evil\.example") as error:
        tracking.resolve_uri("https://evil.example", root=tmp_path, environment=held)
    assert "hunter2" not in str(error.value)
    allowed = held | {"LLMOPS_SECRET_HOSTS": "mlflow.example, evil.example"}
    assert tracking.resolve_uri("https://evil.example", root=tmp_path, environment=allowed)
    assert tracking.resolve_uri("https://evil.example", root=tmp_path, environment={})


def test_no_credential_is_shown() -> None:
    uri = "https://lead:s3cr%40t@mlflow.example:8443/base?password=x#y"
    assert tracking.shown(uri) == "https://mlflow.example:8443/base"
    assert tracking.shown("sqlite:////data/mlflow.db") == "sqlite:////data/mlflow.db"


def test_a_server_that_is_not_there_is_said_to_be_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(StoreError, match=f"MLflow at http://127.0.0.1:{port} cannot be reached"):
            tracking.check_reachable(f"http://u:p@127.0.0.1:{port}")
        taken.listen()
        tracking.check_reachable(f"http://u:p@127.0.0.1:{port}")
    tracking.check_reachable("sqlite:////nowhere/mlflow.db")


def test_a_server_that_takes_connections_and_says_nothing_is_told_from_one_that_fails_F56() -> None:
    with proxy(None, "stall") as stalling, proxy(None, "error") as failing, proxy(None, "refuse") as refusing:
        with pytest.raises(StoreError, match="MLflow has said nothing"):
            tracking.check_answers(stalling.uri, 0.1)
        with pytest.raises(StoreError, match="cannot be reached"):
            tracking.check_answers(refusing.uri, 0.1)
        tracking.check_answers(failing.uri, 60)
    tracking.check_answers("sqlite:////nowhere/mlflow.db", 0.1)


def test_pages_lead_to_a_server_and_for_a_database_to_the_one_a_command_starts() -> None:
    page = tracking.compare_page("7", candidate="c", baseline="b")
    assert page == "#/experiments/7/evaluation-runs?selectedRunUuid=c&compareToRunUuid=b"
    assert tracking.page_url("http://u:p@host:5000/", page) == f"http://host:5000/{page}"
    assert tracking.ui_command("http://host:5000") is None
    assert tracking.page_url("sqlite:////a b/m.db", tracking.run_page("7", "r")) == (
        "http://127.0.0.1:5000/#/experiments/7/runs/r"
    )
    assert (
        tracking.ui_command("sqlite:////a b/m.db")
        == "mlflow server --backend-store-uri 'sqlite:////a b/m.db'"
    )


# --- texts ------------------------------------------------------------------------------------------------


@given(TEXTS, st.integers(80, 400))
def test_a_shortened_text_is_storable_keeps_its_limit_and_says_so(text: str, limit: int) -> None:
    short = tracking.shorten(text, limit, whole="rows.jsonl")
    short.encode()
    assert "\0" not in short
    assert len(short) <= limit
    if len(tracking.storable(text)) > limit:
        assert short.endswith("whole in rows.jsonl]")
    else:
        assert short == tracking.storable(text)


# --- names ------------------------------------------------------------------------------------------------


@given(TEXTS)
def test_a_safe_name_is_one_that_mlflow_takes(text: str) -> None:
    name = f"slice/{tracking.safe_name(text)}/mean"
    assert ALLOWED.fullmatch(name)
    assert len(tracking.safe_name(text)) <= tracking.MAX_NAME_PART
    parts = name.split("/")
    assert len(parts) == 3
    assert not {"", ".", ".."} & set(parts)


@given(TEXTS, TEXTS)
def test_different_names_stay_different(one: str, other: str) -> None:
    assert (tracking.safe_name(one) == tracking.safe_name(other)) == (one == other)


def test_ordinary_names_stay_as_they_are() -> None:
    assert tracking.safe_name("exact_match") == "exact_match"
    assert tracking.safe_name("größe v1.2 - x") == "größe v1.2 - x"
    assert tracking.safe_name("a@b") == "a:40:b"


def figure(value: float | None = 0.5) -> Figure:
    return Figure(value=value, kind="mean", n=4, n_missing=1)


def test_an_evaluator_with_a_dot_is_not_taken_for_a_part() -> None:
    names = tracking.metric_values({"a.b": figure(), "a.b.c": figure()}, ["a", "a.b"])
    assert names == {"a.b/mean": 0.5, "a.b/n": 4.0, "a.b/missing": 1.0, "a.b/c": 0.5}


@given(st.lists(st.sampled_from(["n", "mean", "missing", "ci_low", "x"]), unique=True))
def test_a_part_never_hides_a_figure_of_its_evaluator(parts: list[str]) -> None:
    figures = {"e": figure(0.25)} | {f"e.{part}": figure(0.75) for part in parts}
    named = tracking.metric_values(figures, ["e"])
    assert len(named) == 3 + len(parts)
    assert (named["e/mean"], named["e/n"], named["e/missing"]) == (0.25, 4.0, 1.0)


def test_values_come_first_because_mlflow_keeps_the_order() -> None:
    interval = Interval(low=0.1, high=0.9, level=0.9)
    figures = {
        "e": figure().model_copy(update={"interval": interval}),
        "e.f1": figure(),
        "latency_s": figure(),
    }
    names = list(tracking.metric_values(figures, ["e"]))
    assert names == ["e/mean", "latency_s/mean", "e/f1", "e/ci_low", "e/ci_high", "e/n", "e/missing"]


def test_a_figure_nobody_knows_gives_its_counts_only() -> None:
    assert tracking.metric_values({"e": figure(None)}, ["e"]) == {"e/n": 4.0, "e/missing": 1.0}
