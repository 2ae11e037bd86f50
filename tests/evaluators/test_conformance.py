"""What holds for every kind of evaluator, over the whole table."""

from __future__ import annotations

import asyncio
import copy
import json
import math
import random
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from llmops.errors import EvaluatorError, UsageError
from llmops.evaluators import EVALUATORS, asks_models, evaluator_class, open_evaluator
from llmops.evaluators.base import Judgement, Subject
from llmops.records import Score, Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def share_of_expected(output: Any, expected: Any, metadata: dict[str, Any]) -> dict[str, Any]:
    """A project's function that also tries to change what it was given."""
    metadata["seen"] = True
    text = str(output)
    return {"score": float(text == expected), "short": len(text) < 20, "rationale": text[:30]}


@dataclass(frozen=True)
class Example:
    """One way to set up a kind, and outputs with what was expected of them."""

    kind: str
    options: dict[str, Any]
    cases: list[tuple[Any, Any]]
    function: Callable[..., Any] | None = None

    def open(self) -> Any:
        return open_evaluator(self.kind, self.options, function=self.function)

    def subjects(self) -> list[Subject]:
        return [
            Subject(f"case-{i}", {"text": "x"}, output, expected, {"tags": ["a"]})
            for i, (output, expected) in enumerate(self.cases)
        ]


TEXTS = [("billing", "billing"), ("Shipping.", "shipping"), ("no idea", "other"), ("", "billing")]
DOCUMENTS = [
    ('{"team": "billing"}', None),
    ({"team": 3}, None),
    ("{", None),
    (None, None),
    ([1.5, True], None),
]
SENTENCES = [
    ("the cat sat on the mat", ["the cat sat on the mat", "a cat sat"]),
    ("a cat on a mat", ["the cat sat on the mat", "a dog"]),
    ("xyz", ["a dog", "the cat"]),
    ("", ["a dog", "the cat"]),
]
RANKINGS = [
    ([{"id": "a", "text": "one"}, "b"], ["a", "b"]),
    ("c", ["a"]),
    ({"passages": [{"source": "d", "text": "a  cat"}]}, [{"source": "d", "quote": "a cat"}]),
    ([], [["a", "b"]]),
]
SCHEMA = {"type": "object", "properties": {"team": {"type": "string", "pattern": "^[a-z]+$"}}}
EXAMPLES = [
    Example("bleu", {"lowercase": True, "tokenize": "intl"}, SENTENCES),
    Example("chrf", {"word_order": 2}, SENTENCES),
    Example("classification", {"labels": ["billing", "shipping", "other"]}, TEXTS),
    Example("classification", {}, TEXTS),
    Example("contains", {"any": ["bill", "ship"], "ignore_case": True}, TEXTS),
    Example("contains", {}, TEXTS),
    Example("exact_match", {"normalise": True}, TEXTS),
    Example("exact_match", {"any_of": True}, [("a", ["a", "b"]), ({"k": [1, None]}, [{"k": [1.0, None]}])]),
    Example("json_schema", {"schema": SCHEMA}, DOCUMENTS),
    Example("json_valid", {}, DOCUMENTS),
    Example("length", {"at_least": 3, "at_most": 12}, TEXTS),
    Example("number", {"tolerance": 0.5}, [("It is 41.7.", 42), ("none", 42), (42.5, "42"), ("none", None)]),
    Example("python", {"function": "t:f"}, TEXTS, share_of_expected),
    Example("regex", {"pattern": "^[bs]", "ignore_case": True}, TEXTS),
    Example("regex", {"mode": "fullmatch"}, TEXTS),
    Example("retrieval", {"k": [1, 2]}, RANKINGS),
    Example("rouge", {"use_stemmer": True, "with_precision_and_recall": True}, SENTENCES),
    Example("squad_exact_match", {}, TEXTS),
    Example("ter", {}, SENTENCES),
    Example("token_f1", {}, TEXTS),
]
SUMMARISING = [example for example in EXAMPLES if hasattr(evaluator_class(example.kind), "summarise")]
HOSTILE = [
    "\ud800 \udfff",
    "a\0b",
    "x" * 100_000,
    "[" * 100_000,
    "9" * 100_000,
    "1,111," * 16_000,
    "a" + "\u0327\u0301" * 50_000,
    "\u202egnillib\u2066",
    "NaN",
    '{"a": 1e999}',
    '"\\ud800"',
]

every_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.kind)


def judgements(example: Example, subjects: list[Subject]) -> list[Judgement]:
    async def ask() -> list[Judgement]:
        evaluator = example.open()
        return [await evaluator.judge(subject) for subject in subjects]

    return asyncio.run(ask())


def assert_keeps(judgement: Judgement) -> None:
    """A judgement goes into stores and reports: as a score, as JSON, as UTF-8."""
    score = Score(
        evaluator="e",
        evaluator_identity="0",
        value=judgement.value,
        label=judgement.label,
        truth=judgement.truth,
        parts=judgement.parts,
        sums=judgement.sums,
        rationale=judgement.rationale,
    )
    assert Score.model_validate_json(score.model_dump_json()) == score
    assert len(judgement.rationale or "") < 1000


def test_every_kind_that_asks_no_model_has_an_example() -> None:
    assert {example.kind for example in EXAMPLES} == {kind for kind in EVALUATORS if not asks_models(kind)}


@every_example
def test_options_survive_json(example: Example) -> None:
    options = evaluator_class(example.kind).Options.model_validate(example.options)
    dumped = json.loads(options.model_dump_json(by_alias=True))
    assert evaluator_class(example.kind).Options.model_validate(dumped) == options


@every_example
def test_an_unknown_option_is_refused(example: Example) -> None:
    with pytest.raises(ValidationError, match="tolerence"):
        open_evaluator(example.kind, {**example.options, "tolerence": 1}, function=example.function)


@every_example
def test_version_range_and_need_are_declared(example: Example) -> None:
    evaluator = example.open()
    assert isinstance(evaluator.version, str)
    assert evaluator.version
    assert (evaluator.low, evaluator.high) in {(0.0, 1.0), (0.0, 100.0), (0.0, None)}
    assert isinstance(evaluator.needs_expected, bool)


@every_example
def test_scores_and_parts_stay_in_range(example: Example) -> None:
    evaluator = example.open()
    for judgement in judgements(example, example.subjects()):
        assert judgement.value is not None
        numbers = [judgement.value, *judgement.parts.values()]
        high = math.inf if evaluator.high is None else evaluator.high
        assert all(evaluator.low <= number <= high for number in numbers)
        assert_keeps(judgement)


@every_example
def test_examples_reach_both_ends_of_the_range_or_agree_throughout(example: Example) -> None:
    values = {judgement.value for judgement in judgements(example, example.subjects())}
    ends = {0.0, example.open().high or 100.0}
    assert values >= ends or example.options == {"any_of": True}
    assert values == ends or example.cases is SENTENCES or example.options == {"any_of": True}


@every_example
def test_the_same_subject_gets_the_same_judgement(example: Example) -> None:
    subjects = example.subjects()
    assert judgements(example, subjects) == judgements(example, subjects)
    assert judgements(example, subjects + subjects)[len(subjects) :] == judgements(example, subjects)


@every_example
def test_the_order_of_cases_changes_no_score(example: Example) -> None:
    subjects = example.subjects()
    forwards = judgements(example, subjects)
    assert judgements(example, subjects[::-1]) == forwards[::-1]


@pytest.mark.parametrize("example", SUMMARISING, ids=lambda example: example.kind)
def test_the_order_of_cases_changes_no_figure(example: Example) -> None:
    evaluator = example.open()
    rows = [
        (
            Score(
                evaluator="e",
                evaluator_identity="0",
                value=j.value,
                label=j.label,
                truth=j.truth,
                sums=j.sums,
            ),
            cluster,
        )
        for cluster in ("north", "south", "west")
        for j in judgements(example, example.subjects())
    ]
    figures = []
    for seed in range(4):
        random.Random(seed).shuffle(rows)
        scores, clusters = [score for score, _ in rows], [cluster for _, cluster in rows]
        figures.append(
            (
                evaluator.summarise(scores, None, level=0.95, seed=7),
                evaluator.summarise(scores, clusters, level=0.95, seed=7),
                evaluator.confusion(scores) if hasattr(evaluator, "confusion") else None,
            )
        )
    assert all(figure == figures[0] for figure in figures)


@every_example
def test_a_subject_is_left_as_it_was(example: Example) -> None:
    subjects = example.subjects()
    before = copy.deepcopy(subjects)
    judgements(example, subjects)
    assert subjects == before


@every_example
def test_a_case_that_expects_nothing_is_an_error_only_where_something_is_needed(example: Example) -> None:
    subject = replace(example.subjects()[0], expected=None)
    if example.open().needs_expected:
        with pytest.raises(EvaluatorError, match="'case-0' has no expected"):
            judgements(example, [subject])
    else:
        assert judgements(example, [subject])[0].value in (0.0, 1.0)


@every_example
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("status", [Status.OK, Status.TRUNCATED])
def test_a_hostile_output_is_judged(example: Example, text: str, status: Status) -> None:
    subject = replace(example.subjects()[0], output=text, status=status)
    assert_keeps(judgements(example, [subject])[0])


@every_example
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_expected_is_judged_or_refused_in_words(example: Example, text: str) -> None:
    subject = replace(example.subjects()[0], expected=text)
    try:
        assert_keeps(judgements(example, [subject])[0])
    except EvaluatorError as error:
        assert 0 < len(str(error).encode()) < 1000


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
    max_leaves=6,
)


@every_example
@settings(max_examples=25, deadline=None)
@given(output=JSON_VALUES, expected=JSON_VALUES)
def test_any_json_value_is_judged_or_refused_in_words(example: Example, output: Any, expected: Any) -> None:
    subject = replace(example.subjects()[0], output=output, expected=expected)
    try:
        assert_keeps(judgements(example, [subject])[0])
    except EvaluatorError as error:
        assert str(error).encode()


def test_an_unknown_kind_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"no evaluator is called 'exactmatch'; did you mean 'exact_match'\?"
    ):
        open_evaluator("exactmatch", {})
    with pytest.raises(UsageError, match=r"known evaluators: bleu, chrf, classification, contains"):
        open_evaluator("zzz", {})


def test_another_package_can_add_a_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "acme.py").write_text(
        "from llmops.evaluators.exact import ExactMatch\nclass Acme(ExactMatch):\n    version = 'acme'\n"
    )
    described = tmp_path / "acme-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[llmops.evaluators]\nacme = acme:Acme\nregex = acme:Acme\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert open_evaluator("acme", {}).version == "acme"
    assert open_evaluator("regex", {"pattern": "x"}).version == "1"


def test_checking_options_loads_no_heavy_library() -> None:
    code = (
        "import sys; from llmops.evaluators import EVALUATORS, evaluator_class\n"
        "for kind in EVALUATORS: evaluator_class(kind).Options\n"
        "print({'numpy', 'scipy', 'sklearn', 'jsonschema', 'pandas', 'sacrebleu', 'nltk'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
