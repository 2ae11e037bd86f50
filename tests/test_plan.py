"""What a plan is made of: identities that change with meaning alone, cells in a fixed order, twins, reasons."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmops.errors import DefinitionError, UsageError
from llmops.plan import Plan, estimate, find_source, reasons, select
from llmops.records import RunStatus
from tests.model_server import ModelServer
from tests.workplace import FILES, Workplace, case_of

SHOTS = """
inputs: {ticket: string}
messages:
  - {role: system, content: "Answer with one word only: red, green, blue."}
  - examples: {from: shown, k: 2, select: first}
    user: "{{ ticket }}"
    assistant: "{{ expected }}"
  - {role: user, content: "{{ ticket }}"}
"""
SHOWN = """
{"id": "s1", "inputs": {"ticket": "apple"}, "expected": "red"}
{"id": "s2", "inputs": {"ticket": "leaf"}, "expected": "green"}
""".lstrip()
CHAIN = """
inputs: {ticket: string}
steps:
  - {id: colour, prompt: shots, with: {ticket: "{{ ticket }}"}}
  - {id: again, chain: inner, with: {ticket: "{{ ticket }}"}}
"""
INNER = """
inputs: {ticket: string}
steps:
  - {id: said, python: "code:say", with: {ticket: "{{ ticket }}"}}
  - {id: sorted, prompt: sort, with: {ticket: "{{ said.output }}"}}
"""

PRICED = "provider: embedded, price: {input_per_mtok: 1, output_per_mtok: 2}, limits: {concurrency: 4}"
EMBEDDED = f"""
models:
  default: {{{PRICED}, model: m}}
  other: {{{PRICED}, model: n}}
"""


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    place = Workplace(tmp_path, ModelServer())
    place.write("llmops.yaml", EMBEDDED)
    place.write("prompts/shots.prompt.yaml", SHOTS)
    place.write("datasets/shown.dataset.yaml", "kind: few_shot\ninputs: {ticket: string}\n")
    place.write("datasets/shown.jsonl", SHOWN)
    place.write("chains/both.chain.yaml", CHAIN)
    place.write("chains/inner.chain.yaml", INNER)
    place.write("chains/code.py", "def say(ticket):\n    return ticket\n")
    return place


def experiment(place: Workplace, variants: str, more: str = "", *, seed: int = 3) -> Plan:
    """Plan an experiment of the given variants."""
    place.write(
        "experiments/sort.experiment.yaml",
        f"dataset: tickets\nvariants:\n{variants}\nevaluators: [exact_match]\nseed: {seed}\n{more}\n",
    )
    return place.plan()


def identity(place: Workplace, variant: str, *, seed: int = 3) -> str:
    return experiment(place, f"  a: {variant}", seed=seed).run.variants[0].identity


def cells(plan: Plan) -> list[str]:
    return [cell.cell_id for cell, _ in plan.cells()]


# --- identities -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("{prompt: shots}", "{prompt: shots, set: {examples.k: 2}}"),
        ("{prompt: shots}", "{prompt: shots, model: default}"),
        (
            "{prompt: shots, set: {examples.k: 0}}",
            "{prompt: shots, set: {examples.k: 0, examples.select: random}}",
        ),
        ("{prompt: sort}", "{prompt: sort, set: {parameters.max_tokens: 8}}"),
        (
            "{prompt: sort, parameters: {temperature: 1}}",
            "{prompt: sort, set: {parameters.temperature: 1.0}}",
        ),
        ("{chain: both}", "{chain: both, set: {colour.examples.k: 2}}"),
        ("{chain: both, model: default}", "{chain: both, set: {again.model: default}}"),
    ],
)
def test_what_means_the_same_is_the_same_variant(place: Workplace, one: str, other: str) -> None:
    assert identity(place, one) == identity(place, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("{prompt: shots}", "{prompt: sort}"),
        ("{prompt: shots}", "{prompt: shots, set: {examples.k: 1}}"),
        ("{prompt: shots}", "{prompt: shots, set: {examples.select: random}}"),
        ("{prompt: shots}", "{prompt: shots, model: other}"),
        ("{prompt: sort}", "{prompt: sort, parameters: {max_tokens: 9}}"),
        ("{chain: both}", "{chain: both, model: other}"),
        ("{chain: both}", "{chain: both, set: {colour.examples.k: 1}}"),
        ("{chain: both}", "{chain: both, set: {again.model: other}}"),
        ("{chain: both}", "{chain: both, set: {again.sorted.parameters.max_tokens: 9}}"),
        ("{chain: both}", "{chain: both, set: {parameters.temperature: 1}}"),
    ],
)
def test_what_can_change_an_output_is_another_variant(place: Workplace, one: str, other: str) -> None:
    assert identity(place, one) != identity(place, other)


def test_the_seed_belongs_to_a_variant_that_draws_by_it_and_to_no_other(place: Workplace) -> None:
    drawn, fixed = "{prompt: shots, set: {examples.select: random}}", "{prompt: shots}"
    assert identity(place, drawn, seed=1) != identity(place, drawn, seed=2)
    assert identity(place, fixed, seed=1) == identity(place, fixed, seed=2)


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("chains/code.py", "return ticket", "return  ticket  # the same", False),
        ("chains/code.py", "return ticket", "return ticket + '!'", True),
        ("prompts/sort.prompt.yaml", "description: A label for a ticket.", "# none", False),
        ("prompts/sort.prompt.yaml", "red, green", "green, red", True),
        ("datasets/shown.jsonl", "apple", "tomato", True),
        ("datasets/shown.dataset.yaml", "kind", "# a comment\nkind", False),
        ("chains/inner.chain.yaml", "{{ said.output }}", "{{ ticket }}", True),
    ],
)
def test_a_chain_changes_with_all_it_refers_to(
    place: Workplace, file: str, old: str, new: str, changes: bool
) -> None:
    before = identity(place, "{chain: both}")
    place.edit(file, old, new)
    assert (identity(place, "{chain: both}") != before) == changes


@pytest.mark.parametrize(
    "more",
    [
        "# a comment",
        "description: said otherwise",
        "budget: {calls: 3}",
        "gates: [{metric: exact_match, at_least: 0.5}]",
        "x-note: mine",
    ],
)
def test_what_decides_no_output_and_no_score_changes_no_run(place: Workplace, more: str) -> None:
    before = experiment(place, "  a: {prompt: sort}").run
    assert experiment(place, "  a: {prompt: sort}", more).run.id == before.id


def test_a_changed_evaluator_changes_the_run_and_no_cell(place: Workplace) -> None:
    before = experiment(place, "  a: {prompt: sort}")
    place.edit("experiments/sort.experiment.yaml", "[exact_match]", "[exact_match: {normalise: true}]")
    after = place.plan()
    assert after.run.id != before.run.id
    assert cells(after) == cells(before)
    place.edit("experiments/sort.experiment.yaml", "normalise: true", "normalise: false")
    assert place.plan().run.id == before.run.id


def test_a_changed_gold_answer_changes_the_key_of_its_case_and_no_cell(place: Workplace) -> None:
    before = experiment(place, "  a: {prompt: sort}")
    place.write_cases({**case_of(0), "expected": "other"}, *(case_of(n) for n in range(1, 6)))
    after = place.plan()
    assert cells(after) == cells(before)
    changed = {
        cell.case_id
        for (cell, _), (then, _) in zip(after.cells(), before.cells(), strict=True)
        if cell.case_key != then.case_key
    }
    assert changed == {"c0"}
    assert after.run.identity != before.run.identity


def test_the_baseline_is_part_of_what_a_run_says(place: Workplace) -> None:
    two = "  a: {prompt: sort}\n  b: {prompt: shots}"
    runs = {experiment(place, two, f"baseline: {name}").run.id for name in ("a", "b")}
    assert len(runs | {experiment(place, two).run.id}) == 3


# --- cells ------------------------------------------------------------------------------------------------


def test_cells_are_interleaved_case_by_case_in_an_order_drawn_by_the_seed(place: Workplace) -> None:
    two = "  a: {prompt: sort}\n  b: {prompt: shots}"
    plan = experiment(place, two, "repeats: 2")
    listed = [(cell.repeat, cell.case_id, cell.variant) for cell, _ in plan.cells()]
    assert [cell.position for cell, _ in plan.cells()] == list(range(24)) == list(range(plan.run.n_cells))
    assert [name for _, _, name in listed] == ["a", "b"] * 12
    order = [case_id for _, case_id, name in listed if name == "a"]
    assert order[:6] == order[6:]
    assert [repeat for repeat, _, _ in listed] == [0] * 12 + [1] * 12
    assert order != sorted(order)
    other = experiment(place, two, "repeats: 2", seed=4)
    assert [cell.case_id for cell, _ in other.cells()] != [cell.case_id for cell, _ in plan.cells()]


def test_the_order_of_many_cases_is_the_one_that_stored_runs_have(place: Workplace) -> None:  # F65
    place.write_cases(*(case_of(number) for number in range(1500)))
    order = list(range(1500))
    random.Random(3).shuffle(order)
    assert list(place.plan().order) == order


def test_every_cell_has_an_id_of_its_own_and_cases_and_repeats_share_none(place: Workplace) -> None:
    plan = experiment(place, "  a: {prompt: sort}\n  b: {prompt: shots}", "repeats: 3")
    assert max(Counter(cells(plan)).values()) == 1
    assert not set(cells(plan)) & set(cells(experiment(place, "  a: {prompt: sort, model: other}")))


# --- the matrix -------------------------------------------------------------------------------------------


def test_the_matrix_names_and_groups_what_it_multiplies(place: Workplace) -> None:
    plan = experiment(
        place,
        "  a: {prompt: sort}\n  b: {prompt: shots, model: other}",
        "matrix: {model: [default, other], parameters.temperature: [0, 1]}\nbaseline: a",
    )
    assert [(v.name, v.group, v.is_baseline) for v in plan.run.variants] == [
        ("a/default/0", "default/0", True),
        ("a/default/1", "default/1", True),
        ("a/other/0", "other/0", True),
        ("a/other/1", "other/1", True),
        ("b/0", "0", False),
        ("b/1", "1", False),
    ]
    assert {v.models[0].name for v in plan.run.variants if v.name.startswith("b/")} == {"other"}
    assert [v.parameters["temperature"] for v in plan.run.variants] == [0, 1, 0, 1, 0, 1]


def test_an_axis_of_one_value_shows_in_no_name(place: Workplace) -> None:
    plan = experiment(place, "  a: {prompt: sort}", "matrix: {model: [other]}")
    assert [(v.name, v.group, v.models[0].name) for v in plan.run.variants] == [("a", "", "other")]


def test_a_set_that_reaches_nothing_is_found_with_its_variant(place: Workplace) -> None:
    with pytest.raises(DefinitionError, match=r"sort\.experiment\.yaml:4.*variant ab.*examples\.k"):
        experiment(place, "  a: {prompt: sort}\n  ab: {prompt: sort, set: {examples.k: 1}}")


# --- a part of a run --------------------------------------------------------------------------------------


def test_a_part_is_chosen_by_variant_model_and_case(place: Workplace) -> None:
    plan = experiment(
        place, "  a: {prompt: sort}\n  ab: {prompt: shots}", "matrix: {model: [default, other]}"
    )
    assert select(plan).variants is None
    assert select(plan, variants=["a"]).variants == frozenset({"a/default", "a/other"})
    assert select(plan, variants=["a"], models=["other"]).variants == frozenset({"a/other"})
    assert select(plan, variants=["a/other", "ab"]).variants == frozenset(
        {"a/other", "ab/default", "ab/other"}
    )
    assert select(plan, cases=["c1"], limit=3).filters() == {"variants": None, "cases": {"c1"}, "limit": 3}


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"variants": ["c"]}, "there are: a, b"),
        ({"models": ["c"]}, "there are: default, other"),
        ({"cases": ["c11"]}, "did you mean 'c1'"),
        ({"variants": ["a"], "models": ["other"]}, "none of a asks other"),
    ],
)
def test_a_part_that_does_not_exist_is_refused_with_what_does(
    place: Workplace, wanted: dict[str, list[str]], says: str
) -> None:
    plan = experiment(place, "  a: {prompt: sort}\n  b: {prompt: shots, model: other}")
    with pytest.raises(UsageError, match=says):
        select(plan, **wanted)  # type: ignore[arg-type]


# --- twins ------------------------------------------------------------------------------------------------


@pytest.fixture
def committed(place: Workplace, git: Callable[..., str]) -> Iterator[Workplace]:
    """Give a project whose state is the commit `v1`."""
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    git("tag", "v1")
    yield place


def test_a_twin_at_a_revision_has_the_prompt_of_then_and_all_else_of_today(committed: Workplace) -> None:
    then = identity(committed, "{prompt: shots}")
    committed.edit("prompts/shots.prompt.yaml", "red, green, blue", "blue, green, red")
    committed.edit("datasets/shown.jsonl", "apple", "tomato")
    plan = experiment(committed, "  a: {prompt: shots}", "baseline: git:v1")
    twin, today = plan.run.variants
    assert (twin.name, twin.is_baseline, twin.reference) == ("a@git:v1", True, "shots@git:v1")
    assert (today.name, today.is_baseline) == ("a", False)
    assert twin.identity == then != today.identity
    assert (
        experiment(committed, "  a: {prompt: shots, model: other}", "baseline: git:v1")
        .run.variants[0]
        .models[0]
        .name
        == "other"
    )


def test_a_twin_of_a_chain_runs_the_code_of_then(committed: Workplace) -> None:
    committed.write("chains/code.py", "def say(ticket):\n    return ticket.upper()\n")
    plan = experiment(committed, "  a: {chain: both}", "baseline: git:v1")
    run = committed.run().run
    said = {
        row.variant: {span.output for span in row.output.spans if span.name == "said"}
        for row in committed.rows(run)
        if row.output is not None and row.case.id == "c1"
    }
    assert said == {"a@git:v1": {"ticket 1 is green "}, "a": {"TICKET 1 IS GREEN "}}
    assert plan.run.status is RunStatus.RUNNING


def test_a_twin_at_an_alias_has_the_model_and_parameters_of_its_release(committed: Workplace) -> None:
    release = {
        "kind": "prompt",
        "name": "shots",
        "alias": "production",
        "identity": committed.workspace().identity("prompt", "shots"),
        "model": "other",
        "parameters": {"temperature": 0.5},
    }
    committed.write("experiments/releases.jsonl", json.dumps(release) + "\n")
    committed.edit("prompts/shots.prompt.yaml", "red, green, blue", "blue, green, red")
    plan = experiment(
        committed, "  a: {prompt: shots}", "matrix: {model: [default]}\nbaseline: alias:production"
    )
    twin, today = plan.run.variants
    assert (twin.name, twin.reference) == ("a@production", "shots@production")
    assert (twin.models[0].name, twin.parameters) == ("other", {"temperature": 0.5})
    assert (today.models[0].name, today.parameters) == ("default", {})
    assert twin.definition_identity == release["identity"] != today.definition_identity


@pytest.mark.parametrize("policy", ["create", "skip"])
def test_a_twin_that_does_not_exist_is_left_out_with_a_note_when_the_policy_says_so_F81(
    committed: Workplace, policy: str
) -> None:
    committed.write("prompts/new.prompt.yaml", FILES["prompts/sort.prompt.yaml"])
    more = f"baseline: git:v1\nmissing_baseline: {policy}"
    plan = experiment(committed, "  a: {prompt: sort}\n  b: {prompt: new}", more)
    assert [v.name for v in plan.run.variants] == ["a@git:v1", "a", "b"]
    assert len(plan.notes) == 1 and "b has no baseline at git:v1" in plan.notes[0]


@pytest.mark.parametrize("baseline", ["git:no-such-revision", "alias:production", "git:v1"])
def test_a_twin_that_does_not_exist_fails_by_default_F81(committed: Workplace, baseline: str) -> None:
    committed.write("prompts/new.prompt.yaml", FILES["prompts/sort.prompt.yaml"])
    with pytest.raises(DefinitionError, match=r"sort\.experiment\.yaml:\d+"):
        experiment(committed, "  b: {prompt: new}", f"baseline: {baseline}")


def test_the_source_is_the_commit_and_whether_the_work_tree_is_clean(
    committed: Workplace, git: Callable[..., str]
) -> None:
    source = find_source(committed.workspace())
    assert (source.commit, source.branch, source.dirty) == (git("rev-parse", "HEAD"), "main", False)
    committed.edit("prompts/sort.prompt.yaml", "red", "pink")
    assert find_source(committed.workspace()).dirty


def test_without_a_repository_there_is_no_source(place: Workplace) -> None:
    source = find_source(place.workspace())
    assert (source.commit, source.branch, source.dirty) == (None, None, False)


# --- what it takes, and why -------------------------------------------------------------------------------


def test_an_estimate_counts_calls_and_prices_what_is_sure(place: Workplace) -> None:
    place.edit("llmops.yaml", "input_per_mtok: 1,", "input_per_mtok: 1000000,")
    plan = experiment(place, "  a: {prompt: sort}\n  b: {chain: both}")
    alone = estimate(place.workspace(), plan, {"a": 6})
    assert alone.n_calls == 6
    assert alone.input_tokens is not None and alone.input_tokens > 6 * 10
    assert alone.input_usd == pytest.approx(alone.input_tokens, rel=0.05)
    both = estimate(place.workspace(), plan, {"a": 6, "b": 6})
    assert (both.n_calls, both.input_tokens, both.input_usd) == (18, None, None)
    assert estimate(place.workspace(), plan, {"a": 0, "b": 0}).n_calls == 0


def test_a_chain_that_asks_no_model_costs_nothing(place: Workplace) -> None:
    place.write(
        "chains/none.chain.yaml",
        'inputs: {ticket: string}\nsteps:\n  - {id: s, python: "code:say", with: {ticket: "{{ ticket }}"}}\n',
    )
    plan = experiment(place, "  a: {chain: none}")
    found = estimate(place.workspace(), plan, {"a": 6})
    assert (found.n_calls, found.input_tokens, found.input_usd) == (0, 0, 0.0)


def test_there_is_a_reason_for_each_class_of_change(place: Workplace) -> None:
    two = "  a: {prompt: sort}\n  b: {prompt: shots}"
    before = experiment(place, two, "baseline: a").run
    assert reasons(before, None) == ["sort has not run here before"]
    assert reasons(before, before) == ["the same experiment, begun and not finished"]
    again = before.model_copy(update={"fresh": 1})
    assert reasons(again, before) == ["the same experiment, paid for again as number 1"]
    place.edit("prompts/sort.prompt.yaml", "red", "pink")
    place.edit("datasets/tickets.jsonl", "ticket 0", "ticket nought")
    place.write(
        "experiments/sort.experiment.yaml",
        "dataset: tickets\nvariants:\n  a: {prompt: sort, model: other, parameters: {top_p: 0.5}}\n"
        "  c: {prompt: shots}\nevaluators: [contains: {text: x}]\nseed: 4\nrepeats: 2\nbaseline: c\n",
    )
    said = reasons(place.plan().run, before)
    starts = ["the dataset changed", "variant a changed: prompts/sort", "variant c is new"]
    starts += ["evaluator contains is new", "evaluator exact_match is gone", "variant b is gone"]
    starts += ["repeats: 1 -> 2", "the seed changed: 3 -> 4", "the baseline changed: a -> c"]
    assert [any(one.startswith(start) for one in said) for start in starts] == [True] * len(starts)
    assert len(said) == len(starts)
    assert "model default (m) -> other (n), parameters" in said[1]


def test_a_changed_override_or_evaluator_is_named(place: Workplace) -> None:
    before = experiment(place, "  a: {prompt: shots}").run
    after = experiment(place, "  a: {prompt: shots, set: {examples.k: 1}}").run
    assert reasons(after, before) == ["variant a changed: set"]
    place.edit("experiments/sort.experiment.yaml", "[exact_match]", "[exact_match: {normalise: true}]")
    assert reasons(place.plan().run, after) == [
        "evaluator exact_match changed: outputs are kept, its scores are worked out"
    ]


@pytest.mark.parametrize("dataset", ["nowhere", "tickets/train"])
def test_a_dataset_that_is_not_there_is_found_in_the_experiment(place: Workplace, dataset: str) -> None:
    place.write(
        "experiments/sort.experiment.yaml", f"dataset: {dataset}\nvariants: {{a: {{prompt: sort}}}}\n"
    )
    with pytest.raises(DefinitionError, match=r"sort\.experiment\.yaml:1"):
        place.plan()
