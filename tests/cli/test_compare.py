"""`llmops compare`: two variants, runs and versions, in a real git repository, and what cannot be compared."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmops.records import Comparison
from tests.cli.inside import Done, llmops_inside
from tests.mirrored_run import empty_database
from tests.model_server import ModelServer, running_model_server
from tests.workplace import FILES, Workplace

EXPERIMENT = "experiments/sort.experiment.yaml"
PROMPT = "prompts/sort.prompt.yaml"
RELEASES = "experiments/releases.jsonl"
HOSTILE = "\x1b]8;;http://evil.example\x07\x1b[31mred\x1b[0m \u202etxet\u202c ##[error]z"


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with running_model_server() as server:
        yield server


@pytest.fixture
def place(tmp_path: Path, server: ModelServer) -> Workplace:
    place = Workplace(tmp_path, server)
    place.write("prompts/kind.prompt.yaml", FILES["prompts/sort.prompt.yaml"].replace("one word", "a word"))
    place.edit(EXPERIMENT, "{prompt: sort}", "{prompt: sort}\n  kind: {prompt: kind}")
    return place


def compare(place: Workplace, *arguments: str) -> Done:
    return llmops_inside("compare", *arguments, cwd=place.root)


def test_two_variants_are_compared_case_by_case(place: Workplace) -> None:
    run = place.run().run
    done = compare(place, "sort:plain", f"{run.id}:kind", "--json")
    assert done.returncode == 0, done.stderr
    found = Comparison.model_validate_json(done.stdout)
    assert (found.baseline.variant, found.candidate.variant, found.n_cases) == ("plain", "kind", 6)
    assert {"exact_match", "latency_s", "cost_usd"} <= {effect.metric for effect in found.effects}
    text = compare(place, "sort:plain", "sort:kind").stdout
    assert "kind" in text and "exact_match" in text


def test_runs_of_two_versions_are_compared_too(place: Workplace) -> None:
    first = place.run().run
    place.edit("prompts/kind.prompt.yaml", "Answer", "Reply")
    second = place.run().run
    done = compare(place, f"{first.id}:kind", f"{second.id}:kind", "--json")
    found = Comparison.model_validate_json(done.stdout)
    assert (found.baseline.run_id, found.candidate.run_id) == (first.id, second.id)


@pytest.mark.parametrize(
    ("baseline", "says"),
    [
        ("sort", "no variant of one name is on both sides, write RUN:VARIANT"),
        ("srt:plain", "did you mean 'sort'"),
        ("sort:plane", "did you mean 'plain'"),
    ],
)
def test_a_side_that_does_not_exist_is_refused(place: Workplace, baseline: str, says: str) -> None:
    place.run()
    done = compare(place, baseline, "sort:kind")
    assert done.returncode == 2
    assert says in done.stderr


def test_other_evaluators_on_either_side_are_refused_F72(place: Workplace) -> None:
    first = place.run().run
    place.edit(EXPERIMENT, "[exact_match]", "[exact_match: {normalise: true}]")
    second = place.run().run
    done = compare(place, f"{first.id}:plain", f"{second.id}:plain")
    assert done.returncode == 2
    assert "exact_match is not the same on both sides" in done.stderr


def test_other_types_of_the_dataset_are_refused_F72(place: Workplace) -> None:
    first = place.run().run
    place.edit("datasets/tickets.dataset.yaml", "{type: string}", "{type: string, enum: [red, green, blue]}")
    place.edit(PROMPT, "Answer", "Reply")
    second = place.run().run
    done = compare(place, f"{first.id}:plain", f"{second.id}:plain")
    assert done.returncode == 2
    assert "types of dataset tickets are not the same on both sides" in done.stderr
    assert first.id in done.stderr and second.id in done.stderr


def test_another_response_format_is_refused_F72(place: Workplace) -> None:
    declared = "response_format: {type: string, enum: [red, green, blue]}\n"
    place.write(PROMPT, FILES[PROMPT] + declared)
    first = place.run().run
    place.edit(PROMPT, "green, blue]", "green, blue, other]")
    second = place.run().run
    done = compare(place, f"{first.id}:plain", f"{second.id}:plain")
    assert done.returncode == 2
    assert f"response_format is not the same on both sides: {first.id}:plain" in done.stderr


# --- runs -------------------------------------------------------------------------------------------------------


def test_a_bare_run_is_the_variant_that_the_other_side_names(place: Workplace) -> None:
    first = place.run().run
    place.edit("prompts/kind.prompt.yaml", "Answer", "Reply")
    second = place.run().run
    for sides in ((first.id, f"{second.id}:kind"), (f"{first.id}:kind", second.id)):
        found = Comparison.model_validate_json(compare(place, *sides, "--json").stdout)
        assert (found.baseline.run_id, found.baseline.variant) == (first.id, "kind")
        assert (found.candidate.run_id, found.candidate.variant) == (second.id, "kind")


def test_two_runs_are_compared_variant_by_variant(place: Workplace) -> None:
    first = place.run().run
    place.edit("prompts/kind.prompt.yaml", "Answer", "Reply")
    second = place.run().run
    found = json.loads(compare(place, first.id, "sort", "--json").stdout)
    assert [(each["baseline"]["variant"], each["candidate"]["variant"]) for each in found] == [
        ("plain", "plain"),
        ("kind", "kind"),
    ]
    text = compare(place, first.id, second.id).stdout
    assert f"{second.id}:kind against {first.id}:kind" in text


# --- versions ---------------------------------------------------------------------------------------------------


@pytest.fixture
def edited(tmp_path: Path, server: ModelServer, git: Callable[..., str]) -> Workplace:
    """Give a repository of two commits, each with a version of a prompt that has run."""
    place = Workplace(tmp_path, server)
    git("init", "-q")
    for old, new in (("", ""), ("Answer with one word only: red, green", "One word, please: red")):
        place.edit(PROMPT, old, new)
        git("add", "llmops.yaml", "prompts", "datasets", "experiments")
        git("commit", "-qm", "a version")
        place.run()
    return place


def identities(place: Workplace) -> list[str]:
    """Return the identities of the prompt in the runs, the older first."""
    with place.journal() as journal:
        return [run.variants[0].definition_identity for run in reversed(journal.runs("sort"))]


def test_versions_are_found_in_the_run_that_tried_them(edited: Workplace) -> None:
    old, new = identities(edited)
    released = {"kind": "prompt", "name": "sort", "alias": "production", "identity": old}
    edited.write(RELEASES, json.dumps(released) + "\n")
    written = ["sort@git:HEAD~1", "prompts/sort@git:HEAD~1", f"sort@{old[:12]}", "sort@production"]
    for baseline in written:
        done = compare(edited, baseline, "sort", "--in", "sort", "--json")
        assert done.returncode == 0, done.stderr
        found = Comparison.model_validate_json(done.stdout)
        with edited.journal() as journal:
            tried = [journal.named_run(side.run_id) for side in (found.baseline, found.candidate)]
        assert [run.variants[0].definition_identity for run in tried] == [old, new]


def test_an_alias_means_the_model_it_was_released_with(edited: Workplace) -> None:
    old, _ = identities(edited)
    released = {"kind": "prompt", "name": "sort", "alias": "production", "identity": old, "model": "other"}
    edited.write(RELEASES, json.dumps(released) + "\n")
    done = compare(edited, "sort@production", "sort", "--in", "sort")
    assert done.returncode == 2
    assert "sort@production has not been tried in sort: write `baseline: alias:production`" in done.stderr


def test_the_newest_run_that_tried_a_version_counts(edited: Workplace) -> None:
    edited.edit(EXPERIMENT, "seed: 3", "seed: 4\nbaseline: git:HEAD~1")
    latest = edited.run().run
    done = compare(edited, "sort@git:HEAD~1", "sort@git:HEAD", "--in", "sort", "--json")
    found = Comparison.model_validate_json(done.stdout)
    assert {found.baseline.run_id, found.candidate.run_id} == {latest.id}
    assert (found.baseline.variant, found.candidate.variant) == ("plain@git:HEAD~1", "plain")


def test_a_prompt_is_found_in_the_chain_that_uses_it(edited: Workplace) -> None:
    chain = "inputs: {ticket: string}\nsteps:\n  - {id: ask, prompt: sort, with: {ticket: '{{ ticket }}'}}\n"
    edited.write("chains/ask.chain.yaml", chain)
    edited.edit(EXPERIMENT, "plain: {prompt: sort}", "chained: {chain: ask}")
    first = edited.run().run
    edited.edit(PROMPT, "One word", "A word")
    second = edited.run().run
    done = compare(edited, first.id, "sort", "--in", "sort")
    assert done.returncode == 0, done.stderr
    assert f"{second.id}:chained" in done.stdout
    assert "chains/ask@" in done.stdout
    assert "-One word, please: red, blue.\n+A word, please: red, blue." in done.stdout
    done = compare(edited, "chains/ask@git:HEAD", "sort", "--in", "sort")
    assert "no chain is called 'ask'" in done.stderr


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("sort", "has not been tried in sort: `llmops run sort` tries it"),
        (
            "sort@git:main",
            "write `baseline: git:main` in experiments/sort.experiment.yaml, then `llmops run sort`",
        ),
        ("sort@0123456789ab", "no prompt of that identity stands here or in git's history"),
        ("sort@production", "no release of it stands in experiments/releases.jsonl"),
        ("sort@git:man", "did you mean 'main'"),
        ("srt", "did you mean 'sort'"),
        ("unused", "add a variant `{prompt: unused}` to experiments/sort.experiment.yaml"),
        ("chains/sort@7", "MLflow numbers the versions of prompts"),
        ("sort@7", "MLflow has no sort@7 that ran"),
    ],
)
def test_what_was_not_tried_is_refused_with_the_command_that_would(
    edited: Workplace, git: Callable[..., str], reference: str, says: str
) -> None:
    edited.write("prompts/unused.prompt.yaml", FILES[PROMPT])
    edited.edit(PROMPT, "One word", "Just a word")
    git("commit", "-qam", "not tried")
    if reference != "sort@git:main":
        edited.edit(PROMPT, "Just", "Only")
    done = compare(edited, reference, "sort@git:HEAD~1", "--in", "sort")
    assert done.returncode == 2
    assert says in done.stderr


def test_an_experiment_that_never_ran_is_refused(edited: Workplace) -> None:
    done = compare(edited, "sort", "sort@git:HEAD~1", "--in", "srt")
    assert (done.returncode, "did you mean 'sort'" in done.stderr) == (2, True)


def test_the_diff_of_the_prompt_and_flipped_cases_come_before_the_tables(edited: Workplace) -> None:
    text = compare(edited, "sort@git:HEAD~1", "sort", "--in", "sort").stdout
    removed = text.index("-Answer with one word only: red, green, blue.")
    added = text.index("+One word, please: red, blue.")
    flipped = re.search(r"^exact_match: \d+ cases? (worse|better) with", text, re.MULTILINE)
    assert flipped is not None
    assert removed < added < flipped.start() < text.index("metric ")


def test_a_version_that_was_never_committed_is_shown_by_what_was_sent(edited: Workplace) -> None:
    edited.edit(PROMPT, "One word", "Just a word")
    first = edited.run().run
    edited.edit(PROMPT, "Just", "Only")
    second = edited.run().run
    text = compare(edited, first.id, second.id).stdout
    assert "-Just a word, please: red, blue." in text
    assert "+Only a word, please: red, blue." in text
    assert "the messages sent for case" in text


def test_settings_that_differ_are_told(place: Workplace) -> None:
    first = place.run().run
    place.edit(
        EXPERIMENT, "plain: {prompt: sort}", "plain: {prompt: sort, model: other, parameters: {seed: 5}}"
    )
    second = place.run().run
    text = compare(place, f"{first.id}:plain", f"{second.id}:plain").stdout
    assert "model: default -> other" in text
    assert "seed: not given -> 5" in text


def test_nothing_hostile_in_prompts_and_outputs_reaches_the_terminal_S11(edited: Workplace) -> None:
    edited.edit(PROMPT, "{{ ticket }}", f"{{{{ ticket }}}}\\n::error ::[[say:{json.dumps(HOSTILE)[1:-1]}]]")
    edited.run()
    done = compare(edited, "sort@git:HEAD", "sort", "--in", "sort")
    assert done.returncode == 0, done.stderr
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", done.stdout)
    assert not re.search(r"##\[|^\s*::|evil\.example", done.stdout, re.MULTILINE)
    assert re.search(r"^  plain|^  candidate +red txet ## \[error\]z$", done.stdout, re.MULTILINE)
    assert "+: :error ::[[say:red txet ## [error]z]]" in done.stdout


def test_the_page_holds_the_diff_and_the_cases(edited: Workplace) -> None:
    done = compare(edited, "sort@git:HEAD~1", "sort", "--in", "sort", "--html", "page.html")
    assert done.returncode == 0, done.stderr
    page = (edited.root / "page.html").read_text(encoding="utf-8")
    assert "<del>-Answer with one word only: red, green, blue.</del>" in page
    assert "<ins>+One word, please: red, blue.</ins>" in page
    assert "\x1b" not in page and "<script" not in page
    assert 'class="case"' in page


@pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")
@pytest.mark.filterwarnings("ignore::FutureWarning:mlflow")
def test_delivered_versions_are_known_by_their_numbers_and_linked_row_by_row(edited: Workplace) -> None:
    database = edited.root / "mlflow.db"
    database.write_bytes(empty_database())
    more = {"MLFLOW_TRACKING_URI": f"sqlite:///{database}"}
    assert "in MLflow" not in compare(edited, "sort@git:HEAD~1", "sort", "--in", "sort").stderr
    assert llmops_inside("sync", cwd=edited.root, more=more).returncode == 0
    done = llmops_inside("compare", "sort@1", "sort@2", "--in", "sort", cwd=edited.root, more=more)
    assert done.returncode == 0, done.stderr
    assert "-Answer with one word only" in done.stdout
    with edited.journal() as journal:
        runs = [run.id for run in reversed(journal.runs("sort"))]
        target = next(iter(more.values()))
        found = [journal.deliveries.find(run_id, target) for run_id in runs]
    ids = [each.mlflow_ids["variants"]["plain"] for each in found if each is not None]
    assert f"selectedRunUuid={ids[1]}&compareToRunUuid={ids[0]}" in done.stderr
    done = llmops_inside("compare", "sort@3", "sort@2", "--in", "sort", cwd=edited.root, more=more)
    assert (done.returncode, "it has 1, 2" in done.stderr) == (2, True)
