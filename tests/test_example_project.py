"""The example project is what its documentation says, read with nothing but json and yaml.

Whether llmops itself loads and runs it is left to the tests of the steps.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
TEAMS = ("billing", "shipping", "returns", "account", "technical", "other")
INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


def load_cases(name: str) -> list[dict[str, Any]]:
    lines = (ROOT / "datasets" / f"{name}.jsonl").read_bytes().decode("utf-8").split("\n")
    assert lines.pop() == "", "the file ends with a newline"
    return [json.loads(line) for line in lines]


def load_yaml(path: str) -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def ticket_of(case: dict[str, Any]) -> str:
    return str(case["inputs"]["ticket"])


def in_split(name: str) -> list[dict[str, Any]]:
    return [case for case in load_cases("support_tickets") if case["metadata"]["split"] == name]


def word_trigrams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[start : start + 3]) for start in range(max(1, len(words) - 2))}


def likeness(left: set[tuple[str, ...]], right: set[tuple[str, ...]]) -> float:
    return len(left & right) / len(left | right)


def load_ticket_fields() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "example_ticket_fields", ROOT / "chains" / "ticket_fields.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["support_tickets", "ticket_fields"])
def test_ids_and_tickets_are_unique(name: str) -> None:
    cases = load_cases(name)
    assert len({case["id"].casefold() for case in cases}) == len(cases)
    assert len({ticket_of(case).casefold() for case in cases}) == len(cases)


@pytest.mark.parametrize("name", ["support_tickets", "ticket_fields"])
def test_cases_have_one_shape_and_no_hidden_characters(name: str) -> None:
    for case in load_cases(name):
        assert list(case) == ["id", "inputs", "expected", "metadata"]
        assert list(case["inputs"]) == ["ticket"]
        assert ticket_of(case).strip() == ticket_of(case) != ""
    assert not INVISIBLE.search((ROOT / "datasets" / f"{name}.jsonl").read_text(encoding="utf-8"))


def test_every_support_ticket_is_labelled_as_the_definition_allows() -> None:
    assert load_yaml("datasets/support_tickets.dataset.yaml")["expected"]["enum"] == list(TEAMS)
    for case in load_cases("support_tickets"):
        assert case["expected"] in TEAMS
        assert list(case["metadata"]) == ["split", "slice", "customer"]


def test_there_are_enough_tickets_in_each_split_and_team() -> None:
    splits = Counter(case["metadata"]["split"] for case in load_cases("support_tickets"))
    assert set(splits) == {"train", "test"}
    assert splits["train"] >= 220
    assert splits["test"] >= 220
    for split in splits:
        teams = Counter(case["expected"] for case in in_split(split))
        assert set(teams) == set(TEAMS)
        assert min(teams.values()) >= 30
    teams = Counter(case["expected"] for case in load_cases("support_tickets"))
    assert all(55 <= count <= 95 for count in teams.values())


def test_the_test_split_has_the_slices_that_the_definition_asks_for() -> None:
    at_least = load_yaml("datasets/support_tickets.dataset.yaml")["slices"]["at_least"]
    assert at_least == {"essential": 40, "average": 80, "edge": 40, "adversarial": 20}
    slices = Counter(case["metadata"]["slice"] for case in in_split("test"))
    assert set(slices) == set(at_least)
    assert all(slices[name] >= count for name, count in at_least.items())


def test_adversarial_tickets_cover_every_team() -> None:
    adversarial = [case for case in in_split("test") if case["metadata"]["slice"] == "adversarial"]
    assert {case["expected"] for case in adversarial} == set(TEAMS)


def test_examples_come_mostly_from_plain_tickets() -> None:
    plain = [case for case in in_split("train") if case["metadata"]["slice"] in {"essential", "average"}]
    assert len(plain) >= 0.75 * len(in_split("train"))


def test_customers_write_a_few_tickets_each_and_stay_in_one_split() -> None:
    splits = defaultdict(set)
    tickets: Counter[str] = Counter()
    for case in load_cases("support_tickets"):
        splits[case["metadata"]["customer"]].add(case["metadata"]["split"])
        tickets[case["metadata"]["customer"]] += 1
    assert all(len(found) == 1 for found in splits.values())
    assert 120 <= len(tickets) <= 160
    assert max(tickets.values()) <= 6


def test_no_tickets_resemble_each_other_across_splits_or_datasets() -> None:
    groups = {
        "train": in_split("train"),
        "test": in_split("test"),
        "fields": load_cases("ticket_fields"),
    }
    grams = {
        name: [(case["id"], word_trigrams(ticket_of(case))) for case in cases]
        for name, cases in groups.items()
    }
    twins = [
        (left_id, right_id)
        for left, right in (("train", "test"), ("train", "fields"), ("test", "fields"))
        for left_id, left_grams in grams[left]
        for right_id, right_grams in grams[right]
        if likeness(left_grams, right_grams) > 0.6
    ]
    assert twins == []


def test_likeness_sees_a_ticket_that_was_only_touched_up() -> None:
    first = word_trigrams("Where is my parcel? It was due on Tuesday and has not come.")
    second = word_trigrams("Where is my PARCEL! It was due on Tuesday and has not come yet")
    assert likeness(first, second) > 0.6


def test_the_triage_prompt_describes_every_team_and_takes_examples_from_train_only() -> None:
    prompt = load_yaml("prompts/support_triage.prompt.yaml")
    system, examples, last = prompt["messages"]
    for team in TEAMS:
        assert f"\n- {team}: " in system["content"]
    assert examples["examples"] == {"from": "support_tickets/train", "k": 8, "select": "similar"}
    assert last["content"] == "{{ ticket }}"
    assert prompt["response_format"]["enum"] == list(TEAMS)


@pytest.mark.parametrize("name", ["support_tickets", "ticket_fields"])
def test_experiments_name_files_and_variants_that_exist(name: str) -> None:
    experiment = load_yaml(f"experiments/{name}.experiment.yaml")
    dataset = experiment["dataset"].partition("/")[0]
    assert (ROOT / "datasets" / f"{dataset}.dataset.yaml").is_file()
    assert experiment["baseline"] in experiment["variants"]
    for variant in experiment["variants"].values():
        kind = "prompt" if "prompt" in variant else "chain"
        assert (ROOT / f"{kind}s" / f"{variant[kind]}.{kind}.yaml").is_file()


def test_the_project_needs_no_key() -> None:
    project = load_yaml("llmops.yaml")
    assert project["models"] == {"default": {"provider": "embedded"}}


def test_the_chain_calls_a_function_that_takes_what_it_gives() -> None:
    chain = load_yaml("chains/ticket_fields.chain.yaml")
    step = next(step for step in chain["steps"] if "python" in step)
    module_name, _, function = step["python"].partition(":")
    assert module_name == "ticket_fields"
    found = getattr(load_ticket_fields(), function)(**dict.fromkeys(step["with"], "Nothing to find."))
    used = re.findall(r"fields\.output\.(\w+)", json.dumps(chain["outputs"]))
    assert found == dict.fromkeys(used)


@pytest.mark.parametrize(
    ("ticket", "field", "value"),
    [
        ("Order ll 48213, please.", "order", "LL-48213"),
        ("my order no. 48213 is late", "order", "LL-48213"),
        ("Tracking 77120-48816 says nothing.", "order", None),
        ("You took £1,290 of me", "amount", 1290.0),
        ("Rechnung: 1.290,50 €", "amount", 1290.5),
        ("give me the 9.95 pounds back", "amount", 9.95),
        ("I have 14 ground sheets", "amount", None),
        ("64,90 EUR twice", "currency", "EUR"),
        ("paid on 3/2/2026", "date", "2026-02-03"),
        ("on 12 May 2026 you wrote", "date", "2026-05-12"),
        ("since the 3rd of March", "date", "--03-03"),
        ("I bought 3 decent pots", "date", None),
        ('the "Tarn 2" tent', "product", "Tarn 2"),
        ('it says "in transit"', "product", None),
    ],
)
def test_fields_are_read_from_a_ticket(ticket: str, field: str, value: object) -> None:
    assert load_ticket_fields().parse_fields(ticket=ticket)[field] == value


def test_an_absurd_amount_stays_a_finite_number() -> None:
    found = load_ticket_fields().parse_fields(ticket="£" + "9" * 5000)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_fields_are_found_in_most_cases_but_not_in_all() -> None:
    parse = load_ticket_fields().parse_fields
    cases = load_cases("ticket_fields")
    assert len(cases) >= 65
    for field in ("order", "amount"):
        right = sum(parse(ticket=ticket_of(case))[field] == case["expected"][field] for case in cases)
        assert 0.80 * len(cases) <= right < len(cases)
