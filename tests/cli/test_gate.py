"""`llmops gate` on a real git repository: what a change to a prompt does to exit code, files and store."""

from __future__ import annotations

import json
import sqlite3
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llmops.cli.exits import Exit
from llmops.cli.gate import PRECEDENCE, worst_exit
from llmops.records import Outcome
from tests.cli.command import llmops
from tests.gated import EXPERIMENT, HARM, NEUTRAL, PROMPT, Repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


# --- the three outcomes -----------------------------------------------------------------------------------


def test_a_harmful_edit_fails_on_every_face_and_on_the_line_of_the_prompt(repository: Repository) -> None:
    repository.edit(*HARM)
    repository.commit()
    files = {name: repository.left(f"verdict.{name}") for name in ("junit", "markdown", "html")}
    options = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    done = repository.gate("sort", "--annotations", *options)
    assert done.returncode == Exit.FAILED
    assert done.stdout.startswith("sort: fail")
    suite = ET.fromstring(files["junit"].read_text(encoding="utf-8"))[0]  # noqa: S314 - our own file
    failed = [case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None]
    assert failed == ["verdict", "exact_match not_worse_than baseline, margin 0.05"]
    assert "### sort: fail" in files["markdown"].read_text(encoding="utf-8")
    assert "sort: fail" in files["html"].read_text(encoding="utf-8")
    line = 1 + (repository.root / PROMPT).read_text(encoding="utf-8").splitlines().index(
        "      Answer with one word only: red, purple, blue."
    )
    errors = [said for said in done.stderr.splitlines() if said.startswith("::error")]
    assert errors and all(said.startswith(f"::error file={PROMPT},line={line},") for said in errors)


def test_an_edit_that_changes_no_answer_passes(repository: Repository) -> None:
    repository.edit(*NEUTRAL)
    verdict, done = repository.verdict()
    assert (done.returncode, verdict.outcome) == (Exit.DONE, Outcome.PASS)
    (candidate,) = verdict.candidates
    assert candidate.baseline is not None and candidate.baseline.identity != candidate.candidate.identity
    assert candidate.gates[0].n == 90 and candidate.gates[0].candidate == 1.0


def test_what_is_the_baseline_itself_needs_no_test(repository: Repository) -> None:
    repository.edit("A label", "One label")  # a description changes no identity
    verdict, done = repository.verdict()
    assert (done.returncode, verdict.outcome) == (Exit.DONE, Outcome.PASS)
    assert "nothing changed" in verdict.candidates[0].gates[0].reason
    assert verdict.candidates[0].changed == ()


@pytest.mark.parametrize(("policy", "code"), [("warn", Exit.DONE), ("block", Exit.INCONCLUSIVE)])
def test_too_few_cases_are_inconclusive_and_the_policy_decides(
    repository: Repository, policy: str, code: Exit
) -> None:
    repository.edit("margin: 0.05", "margin: 0.01", EXPERIMENT)
    repository.edit("baseline: git:main", f"baseline: git:main\non_inconclusive: {policy}", EXPERIMENT)
    repository.edit(*NEUTRAL)
    verdict, done = repository.verdict()
    assert (done.returncode, verdict.outcome) == (code, Outcome.INCONCLUSIVE)
    assert verdict.blocks is (policy == "block")
    assert "below 299 it cannot pass" in done.stderr, "it is told before anything is paid for"


def test_a_slice_and_a_variant_narrow_a_gate(repository: Repository) -> None:
    repository.edit(
        "  plain: {prompt: sort}",
        "  plain: {prompt: sort}\n  other: {prompt: sort, parameters: {max_tokens: 9}}",
        EXPERIMENT,
    )
    repository.edit(
        "  - {metric: error_rate",
        "  - {metric: exact_match, at_least: 0.5, slice: edge, variant: other}\n  - {metric: error_rate",
        EXPERIMENT,
    )
    verdict, _ = repository.verdict()
    gates = {each.candidate.variant: [gate.slice for gate in each.gates] for each in verdict.candidates}
    assert gates == {"plain": [None, None], "other": [None, "edge", None]}
    assert verdict.candidates[1].gates[1].n == 23


# --- what keeps a verdict from being ------------------------------------------------------------------------


def test_no_rows_never_pass_F64(repository: Repository) -> None:
    repository.write("datasets/tickets.jsonl", "")
    assert repository.gate("sort").returncode == Exit.WRONG
    verdict, done = repository.verdict("--allow-empty")
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert done.returncode == Exit.DONE
    assert {gate.outcome for gate in verdict.candidates[0].gates} == {Outcome.INCONCLUSIVE}


def test_outputs_of_another_form_are_incomparable_F72(repository: Repository) -> None:
    form = "response_format: {type: string, enum: [red, green, blue]}\n"
    repository.write(PROMPT, (repository.root / PROMPT).read_text(encoding="utf-8") + form)
    repository.commit()
    repository.git("branch", "-f", "main")
    repository.edit("[red, green, blue]", "[red, green, blue, grey]")
    done = repository.gate("sort")
    assert done.returncode == Exit.WRONG
    assert "response_format is not the same on both sides" in done.stderr


@pytest.mark.parametrize(
    ("policy", "code", "outcome"),
    [("fail", Exit.WRONG, None), ("skip", Exit.DONE, Outcome.PASS), ("create", Exit.DONE, Outcome.PASS)],
)
def test_a_missing_baseline_is_a_policy_F81(
    repository: Repository, policy: str, code: Exit, outcome: Outcome | None
) -> None:
    repository.edit("baseline: git:main", f"baseline: git:gone\nmissing_baseline: {policy}", EXPERIMENT)
    if outcome is None:
        done = repository.gate("sort")
        assert (done.returncode, done.stdout) == (code, "")
        assert "gone" in done.stderr
        return
    verdict, done = repository.verdict()
    assert (done.returncode, verdict.outcome) == (code, outcome)
    compared = verdict.candidates[0].gates[0]
    assert compared.reason.startswith(f"no baseline at git:gone: not asked, by `missing_baseline: {policy}`")
    assert compared.blocks is (policy == "create")
    assert "has no baseline at git:gone" in done.stderr


def test_skipping_the_only_gate_is_no_pass_F81(repository: Repository) -> None:
    repository.edit("baseline: git:main", "baseline: git:gone\nmissing_baseline: skip", EXPERIMENT)
    repository.edit("  - {metric: error_rate, at_most: 0.01}\n", "", EXPERIMENT)
    assert repository.verdict()[0].outcome is Outcome.INCONCLUSIVE


def test_a_margin_that_allows_everything_is_refused_at_its_line(repository: Repository) -> None:
    repository.edit("margin: 0.05", "margin: 1.5", EXPERIMENT)
    done = repository.gate("sort")
    assert done.returncode == Exit.WRONG
    assert f"{EXPERIMENT}:7:" in done.stderr and "a margin of 1.5" in done.stderr


def test_experiments_without_gates_are_told(repository: Repository) -> None:
    text = (repository.root / EXPERIMENT).read_text(encoding="utf-8")
    repository.write(EXPERIMENT, text[: text.index("gates:")])
    for names in ((), ("sort",)):
        done = repository.gate(*names)
        assert done.returncode == Exit.WRONG and "gates" in done.stderr


# --- again and again ----------------------------------------------------------------------------------------


def test_the_same_question_costs_nothing_and_is_counted(repository: Repository) -> None:
    repository.edit(*NEUTRAL)
    first, _ = repository.verdict()
    second, done = repository.verdict()
    assert first.id == second.id
    assert (first.n_calls, second.n_calls) == (180, 0)
    assert (first.looks.n_verdicts, second.looks.n_verdicts, second.looks.n_fresh) == (1, 2, 0)
    assert "every output is there" in done.stderr
    with repository.journal() as journal:
        assert [verdict.id for verdict in journal.verdicts.of("sort")] == [second.id, first.id]


def test_outputs_paid_for_anew_are_judged_at_half_the_level(repository: Repository) -> None:
    repository.edit(*NEUTRAL)
    first, _ = repository.verdict()
    assert llmops("run", EXPERIMENT, "--fresh", "--no-sync", cwd=repository.root).returncode == 0
    again, _ = repository.verdict()
    assert again.looks.n_fresh == 1
    assert [verdict.candidates[0].gates[0].alpha for verdict in (first, again)] == [0.05, 0.025]
    assert again.policy["alpha"] == "0.025"
    assert again.outcome is Outcome.PASS, "90 unchanged cases exclude 5 points at 0.025 too"


# --- for GitHub ---------------------------------------------------------------------------------------------


def test_the_step_gets_summary_outputs_and_annotations_and_no_text_of_a_model(repository: Repository) -> None:
    repository.edit("{{ ticket }}", "{{ ticket }} ::error::pwned")
    repository.edit(*HARM)
    summary, outputs = repository.left("summary"), repository.left("outputs")
    more = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(summary),
        "GITHUB_OUTPUT": str(outputs),
    }
    done = repository.gate("sort", more=more)
    assert done.returncode == Exit.FAILED
    assert "::error file=" in done.stderr
    shown = summary.read_text(encoding="utf-8")
    assert "### sort: fail" in shown and "lamp 1" not in shown and "pwned" not in shown
    lines = outputs.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("outcome<<llmops-") and lines[1] == "fail"
    ends = [line.partition("<<")[2] for line in lines if "<<" in line]
    assert len(set(ends)) == len(ends) == 3


def test_annotations_reach_a_runner_that_was_told_to_listen_to_nothing(repository: Repository) -> None:
    repository.edit(*HARM)
    done = llmops("gate", "sort", "--no-sync", cwd=repository.root, more={"GITHUB_ACTIONS": "true"})
    assert done.returncode == Exit.FAILED
    lines = done.stderr.splitlines()
    token = next(line for line in lines if line.startswith("::stop-commands::")).removeprefix(
        "::stop-commands::"
    )
    listening, heard = True, []
    for line in lines:
        if line == f"::stop-commands::{token}":
            listening = False
        elif line == f"::{token}::":
            listening = True
        elif line.startswith("::"):
            assert listening
            heard.append(line)
    assert heard and all(line.startswith(f"::error file={PROMPT}") for line in heard)


# --- several ------------------------------------------------------------------------------------------------


def test_without_a_name_all_that_have_gates_are_judged_and_files_are_named_after_them(
    repository: Repository,
) -> None:
    text = (repository.root / EXPERIMENT).read_text(encoding="utf-8")
    repository.write("experiments/second.experiment.yaml", text.replace("seed: 1", ""))
    repository.write("experiments/third.experiment.yaml", text[: text.index("baseline:")])
    done = repository.gate("--json", "--markdown", str(repository.left("v.md")))
    assert done.returncode == Exit.DONE, done.stderr
    assert [verdict["experiment"] for verdict in json.loads(done.stdout)] == ["second", "sort"]
    assert {path.name for path in repository.left("v.md").parent.iterdir()} == {"v.second.md", "v.sort.md"}


def test_what_keeps_one_from_being_judged_keeps_no_other(repository: Repository) -> None:
    text = (repository.root / EXPERIMENT).read_text(encoding="utf-8")
    repository.write("experiments/broken.experiment.yaml", text.replace("git:main", "git:gone"))
    repository.edit(*HARM)
    done = repository.gate("--json")
    assert [verdict["outcome"] for verdict in json.loads(done.stdout)] == ["fail"]
    assert done.returncode == Exit.WRONG, "a broken definition stands before a gate that fails"
    assert "broken: " in done.stderr


def test_exit_codes_come_by_precedence() -> None:
    assert [int(code) for code in PRECEDENCE] == [2, 5, 4, 3, 1, 6, 0]
    for place, code in enumerate(PRECEDENCE):
        assert worst_exit(list(reversed(PRECEDENCE[place:]))) == code


# --- what a change affects, and what time does --------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("# Tickets", "# Many tickets", "README.md"),
        ("A label", "One label", PROMPT),
        ("dataset: tickets", "dataset: tickets   # all of them", EXPERIMENT),
    ],
)
def test_what_means_the_same_is_not_asked_about(
    repository: Repository, old: str, new: str, name: str
) -> None:
    repository.edit(old, new, name)
    repository.commit()
    done = repository.gate("--changed-since", "main", "--json", "--junit", str(repository.left("v.xml")))
    assert (done.returncode, json.loads(done.stdout)) == (Exit.DONE, [])
    assert "sort: means what it did at main" in done.stderr
    assert not (repository.root / ".llmops").exists(), "nothing ran"
    assert "<testcase" not in repository.left("v.xml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        (*HARM, PROMPT),
        ("margin: 0.05", "margin: 0.06", EXPERIMENT),
        ('"lamp 1 is green"', '"lamp 1 is quite green"', "datasets/tickets.jsonl"),
    ],
)
def test_what_means_something_else_is_judged_wherever_it_changed(
    repository: Repository, old: str, new: str, name: str
) -> None:
    repository.edit(old, new, name)
    done = repository.gate("--changed-since", "main", "--json")
    assert [verdict["experiment"] for verdict in json.loads(done.stdout)] == ["sort"], done.stderr


def test_a_revision_nobody_knows_is_wrong_usage(repository: Repository) -> None:
    done = repository.gate("--changed-since", "gone")
    assert done.returncode == Exit.WRONG and "gone" in done.stderr


def grow_old(repository: Repository, days: int) -> None:
    """Let every output of the store be so many days older."""
    with sqlite3.connect(repository.root / ".llmops" / "store.db") as store:
        born = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="microseconds")
        store.execute("UPDATE outputs SET created_at = ?", (born,))
    store.close()


def test_the_age_of_a_baseline_that_is_used_again_is_shown(repository: Repository) -> None:
    repository.verdict()
    grow_old(repository, 3)
    repository.edit(*NEUTRAL)
    verdict, _ = repository.verdict()
    age_s = verdict.candidates[0].baseline_age_s
    assert age_s is not None and 3 * 86_400 <= age_s < 4 * 86_400
    assert "the baseline's oldest reply is 3 days old" in repository.gate("sort").stdout


def test_an_old_baseline_is_asked_again_beside_the_candidate(repository: Repository) -> None:
    first, _ = repository.verdict()
    grow_old(repository, 8)
    repository.edit(*NEUTRAL)
    verdict, done = repository.verdict()
    assert "more than 7 days old: both sides are asked again" in done.stderr
    assert verdict.candidates[0].baseline_age_s is None
    assert verdict.run_id != first.run_id and verdict.run_id.endswith(".1")
    assert verdict.n_calls == 180
    assert repository.verdict()[0].n_calls == 0, "what was asked again is young"


# --- quarantine ---------------------------------------------------------------------------------------------


def quarantine(repository: Repository, *ids: str, until: str = "2999-01-01") -> None:
    entry = "  - {{experiment: sort, case: {}, owner: ann, reason: two answers are right, until: {}}}\n"
    repository.write(
        "experiments/quarantine.yaml", "cases:\n" + "".join(entry.format(case_id, until) for case_id in ids)
    )


def test_a_case_in_quarantine_counts_on_no_side_and_is_shown(repository: Repository) -> None:
    repository.edit("lamp 1 is green", "lamp 1 is red", "datasets/tickets.jsonl")  # wrong on both sides
    quarantine(repository, "c001", "gone")
    repository.edit(*NEUTRAL)
    verdict, _ = repository.verdict()
    gate = verdict.candidates[0].gates[0]
    assert (gate.n, gate.n_missing, gate.candidate) == (89, 0, 1.0)
    assert verdict.quarantined == ("c001",)
    assert "1 case in quarantine as flaky, not counted: c001" in repository.gate("sort").stdout


def test_a_quarantine_ends(repository: Repository) -> None:
    quarantine(repository, "c001", until="2026-01-01")
    verdict, done = repository.verdict()
    assert verdict.quarantined == () and verdict.candidates[0].gates[0].n == 90
    assert "they count again: c001" in done.stderr


def test_a_quarantine_buys_no_pass(repository: Repository) -> None:
    quarantine(repository, *(f"c{number:03}" for number in range(1, 90, 3)))
    repository.edit(*HARM)
    done = repository.gate("sort")
    assert done.returncode == Exit.WRONG and "30 of 90 cases are in quarantine" in done.stderr


def test_a_case_without_an_owner_is_refused(repository: Repository) -> None:
    repository.write(
        "experiments/quarantine.yaml",
        "cases:\n  - {experiment: sort, case: c1, reason: flaky, until: 2999-01-01}\n",
    )
    done = repository.gate("sort")
    assert (
        done.returncode == Exit.WRONG
        and "experiments/quarantine.yaml:2" in done.stderr
        and "owner" in done.stderr
    )


# --- held out -----------------------------------------------------------------------------------------------


def test_looks_at_a_held_out_split_are_counted_and_run_out(repository: Repository) -> None:
    definition = "datasets/tickets.dataset.yaml"
    repository.edit("slices:", "splits: {by: metadata.slice}\nheld_out: {plain: 2}\nslices:", definition)
    repository.edit("dataset: tickets", "dataset: tickets/plain", EXPERIMENT)
    for edit, n_looks in ((NEUTRAL, 1), (("Reply with", "Respond with"), 2), (("A label", "One label"), 2)):
        repository.edit(*edit)
        assert repository.verdict()[0].looks.n_held_out == n_looks
    assert "the held-out split has been looked at 2 times" in repository.gate("sort").stdout
    repository.edit("Respond with", "Return")
    done = repository.gate("sort")
    assert (done.returncode, done.stdout) == (Exit.STOPPED, "")
    assert "tickets/plain is held out, and gates have looked at it 2 times of 2" in done.stderr
    with repository.journal() as journal:
        assert len(journal.runs("sort")) == 2, "nothing was paid for"


def test_mlflow_is_told_what_the_gates_said_and_told_again_when_that_changes(repository: Repository) -> None:
    def tags() -> list[str]:
        with sqlite3.connect(repository.root / "mlflow.db") as store:
            found = store.execute("SELECT value FROM tags WHERE key = 'llmops.gate' ORDER BY value")
            values = [value for (value,) in found]
        store.close()
        return values

    repository.edit(*NEUTRAL)
    assert llmops("gate", "sort", cwd=repository.root).returncode == Exit.DONE
    assert tags() == ["pass"] * 3, "of the run and both its variants, which carry what is said of the whole"
    repository.edit("margin: 0.05", "margin: 0.01", EXPERIMENT)
    assert llmops("gate", "sort", cwd=repository.root).returncode == Exit.DONE
    assert tags() == ["inconclusive"] * 3
