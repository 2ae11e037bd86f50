"""`llmops report`: which run is meant, and what is shown or written of it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator

import pytest

from llmops.records import Row, Run
from tests.cli.inside import Done, llmops_inside
from tests.model_server import ModelServer, running_model_server
from tests.workplace import Workplace


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with running_model_server() as server:
        yield server


def report(place: Workplace, *arguments: str) -> Done:
    return llmops_inside("report", *arguments, cwd=place.root)


def test_a_run_is_named_by_its_id_or_its_experiment_or_is_the_latest(place: Workplace) -> None:
    run = place.run().run
    for name in ([run.id], ["sort"], []):
        done = report(place, *name, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        assert Run.model_validate_json(done.stdout) == run
    place.edit("prompts/sort.prompt.yaml", "Answer", "Reply")
    later = place.run().run
    assert json.loads(report(place, "--json").stdout)["id"] == later.id
    assert json.loads(report(place, run.id, "--json").stdout)["id"] == run.id


def test_a_report_shows_figures_with_n_and_interval(place: Workplace) -> None:
    place.run()
    shown = report(place).stdout
    assert "exact_match" in shown and "90% interval" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_rows_are_written_one_a_line_and_can_be_read_back(place: Workplace) -> None:
    run = place.run().run
    done = report(place, "--rows", "rows.jsonl")
    assert done.returncode == 0
    assert "6 rows written to rows.jsonl" in done.stderr
    lines = (place.root / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert [Row.model_validate_json(line) for line in lines] == place.rows(run)


def test_rows_are_a_table_by_the_end_of_the_files_name(place: Workplace) -> None:
    run = place.run().run
    done = report(place, "--rows", "rows.csv", "--json")
    assert (done.returncode, done.stderr) == (0, "6 rows written to rows.csv\n")
    assert Run.model_validate_json(done.stdout) == run
    with (place.root / "rows.csv").open(encoding="utf-8-sig", newline="") as file:
        assert [row["run"] for row in csv.DictReader(file)] == [run.id] * 6
    report(place, "--rows", "rows.parquet")
    assert (place.root / "rows.parquet").read_bytes()[:4] == b"PAR1"


def test_a_run_is_one_page_beside_what_is_printed(place: Workplace) -> None:
    run = place.run().run
    plain = report(place)
    done = report(place, "sort", "--html", "page.html")
    assert (done.returncode, done.stdout) == (0, plain.stdout)
    assert done.stderr == "page written to page.html\n"
    page = (place.root / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and page.endswith("</html>")
    assert run.id in page


def test_what_cannot_be_written_leaves_what_was_there(place: Workplace) -> None:
    place.run()
    (place.root / "rows.txt").write_text("mine", encoding="utf-8")
    done = report(place, "--rows", "rows.txt")
    assert done.returncode == 2
    assert "rows.txt: rows are written as .jsonl, .csv, .parquet" in done.stderr
    assert (place.root / "rows.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["srt"], "did you mean 'sort'"),
        (["no-such-thing-at-all"], "there are: sort-"),
        (["--html", "nowhere/page.html"], "nowhere/page.html cannot be written: No such file"),
        (["--rows", "nowhere/rows.jsonl"], "nowhere/rows.jsonl cannot be written: No such file"),
    ],
)
def test_what_cannot_be_done_is_said_with_what_can(place: Workplace, arguments: list[str], says: str) -> None:
    place.run()
    done = report(place, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


@pytest.mark.parametrize("command", [["report"], ["score", "sort"], ["compare", "a:b", "c:d"]])
def test_before_anything_has_run_nothing_is_made(place: Workplace, command: list[str]) -> None:
    done = llmops_inside(*command, cwd=place.root)
    assert done.returncode == 2
    assert "nothing has run here yet: `llmops run EXPERIMENT`" in done.stderr
    assert not (place.root / ".llmops").exists()
