"""A run recorded and replayed: with a real server first, then with none, no key and no network."""

from __future__ import annotations

import base64
import gzip
import html
import json
import subprocess
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

from llmops.records import REPLAYED, Run, RunStatus
from llmops.stores.journal import open_journal
from tests.cli.command import PATIENCE_S, command_line, environment, llmops
from tests.cli.inside import Done, llmops_inside
from tests.judged import EXPERIMENT, judge_everything, noted
from tests.model_server import ModelServer
from tests.stores.samples import Batch, apply
from tests.workplace import KEY, Workplace, case_of

FILE = "experiments/recordings/sort.jsonl.gz"
N_CALLS = 16
"""Of six cases: an answer, a judgement and vectors of each, less two pairs of texts that are the same."""
STREAMED = "    limits: {concurrency: 4, attempts: 1, timeout_s: 20}\n  other:"


@pytest.fixture
def place(tmp_path: Path, server: ModelServer) -> Workplace:
    """Give a project with a streamed model, a judge on a whole one, and vectors."""
    place = judge_everything(Workplace(tmp_path, server))
    place.edit("llmops.yaml", STREAMED, f"    stream: true\n{STREAMED}")
    place.edit(EXPERIMENT, "[exact_match,", "[exact_match, {cosine: {model: other}},")
    return place


def record(place: Workplace, *arguments: str) -> Done:
    asked = ("run", EXPERIMENT, "--no-sync", "--record", "--json", *arguments)
    return llmops_inside(*asked, cwd=place.root, more=place.environment)


def replay(place: Workplace, *arguments: str) -> Done:
    """Replay without any variable that a model names."""
    return llmops_inside("run", EXPERIMENT, "--replay", "only", "--json", *arguments, cwd=place.root)


def lines(place: Workplace) -> list[str]:
    return gzip.decompress((place.root / FILE).read_bytes()).decode().splitlines()


def without_store(place: Workplace) -> None:
    """Leave the project as a fork has it."""
    for path in (place.root / ".llmops").iterdir():
        path.unlink()


# --- there and back ---------------------------------------------------------------------------------------


def test_a_replay_without_server_key_or_store_gives_the_same_figures_to_the_last_bit(
    place: Workplace,
) -> None:
    done = record(place)
    live = Run.model_validate_json(done.stdout)
    assert (done.returncode, live.status, live.n_calls) == (0, RunStatus.COMPLETE, N_CALLS)
    assert f"{N_CALLS} recordings in {FILE}" in done.stderr
    place.new_requests()
    without_store(place)
    again = replay(place)
    replayed = Run.model_validate_json(again.stdout)
    assert (again.returncode, replayed.status, replayed.n_calls, replayed.n_reused) == (
        0,
        RunStatus.COMPLETE,
        0,
        18,
    )
    assert replayed.summary == live.summary
    assert replayed.summary["plain"]["latency_s"].value == live.summary["plain"]["latency_s"].value
    assert replayed.summary["plain"]["ttft_s"].n == 6
    assert replayed.slices == live.slices
    assert place.new_requests() == []
    assert not (place.root / "mlflow.db").exists()


def test_outputs_scores_and_spans_of_a_replay_are_those_of_the_run(place: Workplace) -> None:
    live = place.rows(Run.model_validate_json(record(place).stdout))
    replayed = place.rows(Run.model_validate_json(replay(place).stdout))
    told = {"created_at", "cell_id", "spans"}
    for ours, theirs in zip(live, replayed, strict=True):
        assert ours.output is not None and theirs.output is not None
        assert ours.output.model_dump(exclude=told) == theirs.output.model_dump(exclude=told)
        assert ours.output.cell_id != theirs.output.cell_id
        for a, b in zip(ours.output.spans, theirs.output.spans, strict=True):
            assert a.model_dump(exclude={"call_id"}) == b.model_dump(exclude={"call_id"})
            assert REPLAYED in str(b.call_id) and REPLAYED not in str(a.call_id)
        for x, y in zip(ours.scores, theirs.scores, strict=True):
            assert x.model_dump(exclude={"call_ids"}) == y.model_dump(exclude={"call_ids"})


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode != 0,
    reason="no network namespace may be made here",
)
def test_a_replay_finishes_where_there_is_no_network(place: Workplace) -> None:
    record(place)
    without_store(place)
    done = subprocess.run(
        ["unshare", "-rn", *command_line("run", EXPERIMENT, "--replay", "only")],
        cwd=place.root,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "replayed (" in done.stdout and "latency are those of recordings" in done.stdout


def test_a_replay_leaves_a_team_store_alone_and_keeps_its_own_beside_it(place: Workplace) -> None:
    record(place)
    without_store(place)
    text = (place.root / "llmops.yaml").read_text(encoding="utf-8")
    place.write("llmops.yaml", text + "store: {url: postgresql://nobody.invalid/llmops}\n")
    assert replay(place).returncode == 0
    assert (place.root / ".llmops" / "store.db").exists()


# --- what is recorded -------------------------------------------------------------------------------------


def test_a_run_that_is_there_already_is_recorded_without_a_call(place: Workplace) -> None:
    place.run()
    place.new_requests()
    done = record(place)
    assert done.returncode == 0 and "nothing to do" in done.stderr and f"{N_CALLS} recordings" in done.stderr
    assert place.new_requests() == []
    assert "unchanged" in record(place).stderr


def test_a_part_adds_and_a_complete_run_keeps_its_own_alone(place: Workplace) -> None:
    assert "6 recordings" in record(place, "--limit", "2").stderr
    part = set(lines(place))
    assert f"{N_CALLS} recordings" in record(place).stderr
    whole = set(lines(place))
    assert part < whole
    place.write_cases(*(noted(number) for number in range(3)))
    assert record(place).returncode == 0
    assert set(lines(place)) < whole


def test_a_fresh_run_is_recorded_under_the_keys_that_a_fork_asks_for(place: Workplace) -> None:
    record(place)
    keys = [json.loads(line)["key"] for line in lines(place)]
    done = record(place, "--fresh")
    assert Run.model_validate_json(done.stdout).fresh == 1
    assert [json.loads(line)["key"] for line in lines(place)] == keys
    without_store(place)
    assert replay(place).returncode == 0


def test_repeats_are_recorded_each_for_itself(place: Workplace) -> None:
    place.edit(EXPERIMENT, "seed: 3", "seed: 3\nrepeats: 2")
    assert f"{2 * N_CALLS} recordings" in record(place).stderr
    assert replay(place).returncode == 0


def test_one_run_on_two_machines_is_recorded_in_the_same_bytes(place: Workplace) -> None:
    record(place)
    first = (place.root / FILE).read_bytes()
    calls = {}
    with place.journal() as journal:
        run = journal.latest_run("sort")
        assert run is not None
        cells, rows = list(journal.cells(run.id)), list(journal.rows(run.id))
        for row in rows:
            assert row.output is not None
            ids = [span.call_id for span in row.output.spans] + [i for s in row.scores for i in s.call_ids]
            calls.update({call_id: journal.find_call(str(call_id)) for call_id in ids})

    without_store(place)
    (place.root / FILE).unlink()
    with closing(open_journal("sqlite:///.llmops/store.db", root=place.root)) as journal:
        journal.begin_run(run, cells)
        for call in reversed(list(calls.values())):
            assert call is not None
            apply(journal, Batch(calls=[call]))
        outputs = [row.output for row in reversed(rows) if row.output is not None]
        scores = [
            (cell.cell_id, cell.case_key, score)
            for (cell, _), row in zip(cells, rows, strict=True)
            for score in row.scores
        ]
        apply(journal, Batch(outputs=outputs, scores=scores))
        journal.save_run(run)
    record(place)
    assert (place.root / FILE).read_bytes() == first


def test_errors_are_not_recorded_and_said(place: Workplace) -> None:
    place.write_cases(*(noted(number) for number in range(2)), case_of(2, "[[fault:500]]"))
    done = record(place)
    assert "6 recordings" in done.stderr and "1 step without a reply" in done.stderr
    assert "[[fault:500]]" not in "".join(lines(place))


def test_a_project_of_embedded_alone_has_nothing_to_record_and_replays_all_the_same(tmp_path: Path) -> None:
    assert llmops_inside("init", cwd=tmp_path).returncode == 0
    done = llmops_inside("run", "review_mood", "--record", "--no-sync", cwd=tmp_path)
    assert (done.returncode, "nothing to record" in done.stderr) == (0, True)
    assert not (tmp_path / "experiments" / "recordings").exists()
    live = llmops_inside("report", "review_mood", "--json", cwd=tmp_path)
    again = llmops_inside("run", "review_mood", "--replay", "only", "--json", cwd=tmp_path)
    assert again.returncode == 0
    assert json.loads(again.stdout)["summary"] == json.loads(live.stdout)["summary"]


@pytest.mark.parametrize("spelled", ["plain", "url", "html", "json", "base64", "hex"])
def test_no_spelling_of_a_key_reaches_the_file_S07(place: Workplace, spelled: str) -> None:
    spelling = {
        "plain": KEY,
        "url": quote(KEY, safe=""),
        "html": html.escape(KEY),
        "json": json.dumps(KEY)[1:-1].replace("/", "\\/"),
        "base64": base64.b64encode(KEY.encode()).decode(),
        "hex": KEY.encode().hex(),
    }[spelled]
    place.write_cases(noted(0), {**case_of(1, f"[[say:{spelling}]]"), "metadata": {"note": spelling}})
    assert record(place).returncode == 0
    text = "\n".join(lines(place))
    assert spelling not in text and KEY not in text and json.dumps(spelling)[1:-1] not in text
    assert "***" in text
    assert not {"raw", "request_id"} & {key for line in lines(place) for key in json.loads(line)["reply"]}
    assert replay(place).returncode == 0


# --- what is missing --------------------------------------------------------------------------------------


def test_a_changed_word_is_told_with_the_field_and_the_words_that_differ(place: Workplace) -> None:
    record(place)
    place.new_requests()
    place.edit("prompts/sort.prompt.yaml", "red, green, blue", "red, brown, blue")
    done = replay(place)
    assert done.returncode == 3
    assert "6 x missing_recording: no recording for model 'default'; the nearest differs in " in done.stderr
    assert 'messages[0].content: "...only: red, green, blue." recorded, ' in done.stderr
    assert '"...only: red, brown, blue." now' in done.stderr
    assert done.stderr.count("the nearest differs") == 1
    assert f"`llmops run sort --record`, and commit {FILE}" in done.stderr
    assert place.new_requests() == []


def test_a_new_case_is_told_with_the_case_most_like_it_and_the_others_are_scored(place: Workplace) -> None:
    record(place)
    place.write_cases(
        *(noted(number) for number in range(6)),
        {**noted(4), "id": "new", "inputs": {"ticket": "ticket 4 is greenish"}},
    )
    done = replay(place)
    assert done.returncode == 3
    assert 'messages[1].content: "...4 is green" recorded, "...4 is greenish" now' in done.stderr
    run = Run.model_validate_json(done.stdout)
    assert (run.status, run.n_done, run.summary["plain"]["fit"].n) == (RunStatus.PARTIAL, 6, 6)


def test_a_missing_judgement_alone_is_incomplete(place: Workplace) -> None:
    record(place)
    place.edit("prompts/fit.prompt.yaml", "How well", "How badly")
    done = replay(place)
    assert done.returncode == 3
    assert "missing_recording: fit: no recording for model 'other'; the nearest differs in" in done.stderr


def test_a_file_that_is_not_there_is_told(place: Workplace) -> None:
    done = replay(place)
    assert done.returncode == 3
    assert f"no recording for model 'default'; {FILE} has none" in done.stderr


def test_what_a_live_run_paid_for_is_no_recording(place: Workplace) -> None:
    record(place, "--limit", "2")
    place.run()
    assert replay(place).returncode == 3


# --- no evidence ------------------------------------------------------------------------------------------


def test_a_live_run_takes_no_recorded_reply_for_one_it_paid_for(place: Workplace) -> None:
    record(place)
    forged = [json.loads(line) for line in lines(place)]
    for each in forged:
        each["reply"] |= {"text": "red"} if "text" in each["reply"] else {}
    packed = gzip.compress("".join(json.dumps(each) + "\n" for each in forged).encode())
    (place.root / FILE).write_bytes(packed)
    without_store(place)
    fork = Run.model_validate_json(replay(place).stdout)
    assert fork.replayed is not None and REPLAYED in fork.id
    place.new_requests()
    live = place.run().run
    assert (len(place.new_requests()), live.replayed, live.identity) == (N_CALLS, None, fork.identity)
    assert {row.output.value for row in place.rows(live) if row.output} == {"red", "green", "blue"}
    with place.journal() as journal:
        assert journal.deliveries.waiting("anywhere") == [live.id]
    place.run()
    assert place.new_requests() == []


def test_changed_recordings_are_replayed_anew(place: Workplace) -> None:
    record(place, "--limit", "2")
    part = Run.model_validate_json(replay(place).stdout)
    record(place)
    whole = replay(place)
    assert whole.returncode == 0
    assert Run.model_validate_json(whole.stdout).id != part.id
    assert "nothing to do" in replay(place).stderr


def test_a_replayed_run_says_so_in_every_report_and_is_not_scored_by_judges_of_today(
    place: Workplace,
) -> None:
    record(place)
    replay(place)
    page = place.root / "page.html"
    shown = llmops_inside("report", "sort", "--html", str(page), cwd=place.root)
    for text in (" ".join(shown.stdout.split()), page.read_text(encoding="utf-8")):
        assert "replies and latency are those of recordings that came with the files" in text
    refused = llmops_inside("score", "sort", cwd=place.root, more=place.environment)
    assert refused.returncode == 2
    assert "--replay only" in refused.stderr


# --- the command line -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("run", EXPERIMENT, "--replay", "only", "--record"), "without --record"),
        (("run", EXPERIMENT, "--replay", "only", "--fresh"), "without --fresh"),
        (("run", "prompts/sort", "--input", "ticket=x", "--replay", "only"), "belongs to an experiment"),
        (("run", "prompts/sort", "--input", "ticket=x", "--record"), "belongs to an experiment"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(
    place: Workplace, arguments: tuple[str, ...], why: str
) -> None:
    done = llmops_inside(*arguments, cwd=place.root, more=place.environment)
    assert done.returncode == 2
    assert why in done.stderr
    assert place.new_requests() == []


def test_a_broken_file_stops_a_replay_in_one_line(place: Workplace) -> None:
    record(place)
    text = gzip.decompress((place.root / FILE).read_bytes())
    (place.root / FILE).write_bytes(gzip.compress(text.replace(b'{"identity"', b'{"identify"', 1)))
    done = llmops("run", EXPERIMENT, "--replay", "only", cwd=place.root)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"{FILE}:1: no recording" in done.stderr
    assert record(place).returncode == 0
    assert replay(place).returncode == 0
