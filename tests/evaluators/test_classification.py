"""Labels case by case, and their figures against scikit-learn's own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn import metrics

from llmops.errors import EvaluatorError
from llmops.evaluators import open_evaluator
from llmops.evaluators.base import Subject
from llmops.evaluators.classification import OTHER, Classification, macro_f1_statistic
from llmops.records import Figure, Interval, Score, Status
from llmops.stats.bootstrap import weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llmops.evaluators.base import Judgement

    Judge = Callable[..., Judgement]

TEAMS = ["billing", "shipping", "other"]


def opened(**options: Any) -> Classification:
    evaluator = open_evaluator("classification", options)
    assert isinstance(evaluator, Classification)
    return evaluator


def scored(pairs: Sequence[tuple[Any, Any]], evaluator: Classification) -> list[Score]:
    """Scores as a run would have them: of (expected, output), None as expected for one without a score."""
    scores = []
    for expected, output in pairs:
        try:
            j = asyncio.run(evaluator.judge(Subject("c", {}, output, expected)))
            found: dict[str, Any] = {"value": j.value, "label": j.label, "truth": j.truth}
        except EvaluatorError as error:
            found = {"error": str(error)}
        scores.append(Score(evaluator="team", evaluator_identity="0", **found))
    return scores


def figures_of(
    pairs: Sequence[tuple[Any, Any]], clusters: Sequence[str] | None = None, **options: Any
) -> Mapping[str, Figure]:
    evaluator = opened(**options)
    return evaluator.summarise(scored(pairs, evaluator), clusters, level=0.95, seed=7)


@pytest.mark.parametrize(
    ("output", "expected", "label", "truth", "value"),
    [
        ("billing", "billing", "billing", "billing", 1),
        (" Billing.\n", "billing", "billing", "billing", 1),
        ("billing", "Billing", "billing", "billing", 1),
        ("shipping", "billing", "shipping", "billing", 0),
        ("(other)", "other", "other", "other", 1),
        ("legal", "billing", OTHER, "billing", 0),
        ("", "billing", OTHER, "billing", 0),
        (None, "billing", OTHER, "billing", 0),
        ({"team": "billing"}, "billing", OTHER, "billing", 0),
    ],
)
def test_declared_labels_are_told_apart_from_all_else(
    judge: Judge, output: Any, expected: Any, label: str, truth: str, value: int
) -> None:
    found = judge("classification", output, expected, labels=TEAMS)
    assert (found.label, found.truth, found.value) == (label, truth, value)


@pytest.mark.parametrize(
    ("output", "expected", "label", "truth", "value"),
    [
        ("BILLING", "Billing", "Billing", "Billing", 1),
        ("Legal!", "Billing", "legal", "Billing", 0),
        ("", "Billing", OTHER, "Billing", 0),
        (True, True, "true", "true", 1),
        (3, "3", "3", "3", 1),
        ("x" * 500, "a", "x" * 200, "a", 0),
    ],
)
def test_without_declared_labels_the_expected_one_is_named_as_the_case_writes_it(
    judge: Judge, output: Any, expected: Any, label: str, truth: str, value: int
) -> None:
    found = judge("classification", output, expected)
    assert (found.label, found.truth, found.value) == (label, truth, value)


def test_without_normalising_only_space_around_is_forgiven(judge: Judge) -> None:
    assert judge("classification", " billing\n", "billing", normalise=False).value == 1
    assert judge("classification", "Billing", "billing", normalise=False).value == 0
    assert judge("classification", "Other", "Other", normalise=False, labels=["other", "Other"]).value == 1


def test_a_wrong_label_says_which_and_a_right_one_nothing(judge: Judge) -> None:
    assert judge("classification", "legal", "billing", labels=TEAMS).rationale == "'(other)' is not 'billing'"
    assert judge("classification", "billing", "billing", labels=TEAMS).rationale is None


@pytest.mark.parametrize("status", [Status.ERROR, Status.CRASHED])
def test_a_case_that_failed_is_wrong_whatever_it_holds(judge: Judge, status: Status) -> None:
    found = judge("classification", "billing", "billing", status=status)
    assert (found.value, found.label, found.truth) == (0, OTHER, "billing")


def test_a_truncated_label_counts_as_it_stands(judge: Judge) -> None:
    assert judge("classification", "billing", "billing", status=Status.TRUNCATED).value == 1


@pytest.mark.parametrize(
    ("expected", "options", "message"),
    [
        (
            "biling",
            {"labels": TEAMS},
            "case 'case-1' expects 'biling', none of the labels; did you mean 'billing'",
        ),
        ("zzz", {"labels": TEAMS}, "labels: billing, shipping, other"),
        (" ", {}, "which cannot be a label"),
        (OTHER, {}, "which cannot be a label"),
        ("x" * 201, {}, "which cannot be a label"),
    ],
)
def test_an_expected_that_is_no_label_is_an_error(
    judge: Judge, expected: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(EvaluatorError) as caught:
        judge("classification", "billing", expected, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("labels", [["one"], ["a", "A."], ["a", "a"], [OTHER, "a"], [1, 2]])
def test_labels_that_cannot_be_told_apart_are_refused(labels: list[Any]) -> None:
    with pytest.raises(ValidationError):
        opened(labels=labels)


WORKED = [("a", "a")] * 3 + [("a", "b")] + [("b", "b")] * 2 + [("b", "x")] + [("c", "a")]


def test_figures_of_a_worked_example() -> None:
    figures = figures_of(WORKED, labels=["a", "b", "c", "d"])
    values = {name: figure.value for name, figure in figures.items()}
    assert values == pytest.approx(
        {
            "accuracy": 5 / 8,
            "macro_f1": (6 / 8 + 4 / 6 + 0) / 3,
            "f1.a": 6 / 8,
            "f1.b": 4 / 6,
            "f1.c": 0,
            "f1.d": None,
            "precision.a": 3 / 4,
            "precision.b": 2 / 3,
            "precision.c": None,
            "precision.d": None,
            "recall.a": 3 / 4,
            "recall.b": 2 / 3,
            "recall.c": 0,
            "recall.d": None,
        }
    )
    assert {name: figure.n for name, figure in figures.items() if name.endswith((".a", ".b", ".c"))} == {
        "f1.a": 5,
        "f1.b": 4,
        "f1.c": 1,
        "precision.a": 4,
        "precision.b": 3,
        "precision.c": 0,
        "recall.a": 4,
        "recall.b": 3,
        "recall.c": 1,
    }
    assert figures["precision.c"].note == "no case to tell from"
    assert (figures["accuracy"].kind, figures["macro_f1"].kind) == ("share", "statistic")


def test_confusion_of_a_worked_example() -> None:
    evaluator = opened()
    assert evaluator.confusion(scored(WORKED, evaluator)) == [
        ("a", "a", 3),
        ("a", "b", 1),
        ("b", "b", 2),
        ("b", OTHER, 1),
        ("c", "a", 1),
    ]
    assert evaluator.confusion([]) == []


def test_spellings_of_one_class_are_one_class() -> None:
    figures = figures_of([("Billing", "billing"), ("billing", "BILLING."), ("Shipping", "billing")])
    assert set(figures) == {"accuracy", "macro_f1"} | {
        f"{name}.{label}" for name in ("f1", "precision", "recall") for label in ("Billing", "Shipping")
    }
    assert figures["recall.Billing"].value == 1


def test_a_class_called_other_is_not_the_class_of_strange_answers() -> None:
    figures = figures_of(
        [("other", "other"), ("other", "legal"), ("billing", "other")], labels=["other", "billing"]
    )
    assert figures["recall.other"].value == 0.5
    assert figures["precision.other"].value == 0.5
    assert not any(OTHER in name for name in figures)


CASES = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcdxy")), min_size=1, max_size=40)


@settings(max_examples=30, deadline=None)
@given(CASES)
def test_figures_are_those_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    figures = figures_of(pairs)
    truth, found = zip(*pairs, strict=True)
    labels = sorted(set(truth))
    assert figures["accuracy"].value == pytest.approx(metrics.accuracy_score(truth, found))
    macro = metrics.f1_score(truth, found, labels=labels, average="macro", zero_division=0)
    assert figures["macro_f1"].value == pytest.approx(macro)
    for label in labels:
        one = {"labels": [label], "average": "macro", "zero_division": 0}
        assert figures[f"f1.{label}"].value == pytest.approx(metrics.f1_score(truth, found, **one))
        assert figures[f"recall.{label}"].value == pytest.approx(metrics.recall_score(truth, found, **one))
        precision = figures[f"precision.{label}"].value
        assert precision == (
            pytest.approx(metrics.precision_score(truth, found, **one)) if label in found else None
        )
    evaluator = opened()
    confusion = evaluator.confusion(scored(pairs, evaluator))
    assert sum(count for _, _, count in confusion) == len(pairs)
    for true, label, count in confusion:
        expected = sum(t == true and (f if f in labels else OTHER) == label for t, f in pairs)
        assert count == expected


@settings(max_examples=25, deadline=None)
@given(CASES, st.integers(0, 10))
def test_a_resampled_macro_f1_is_that_of_the_cases_drawn(pairs: list[tuple[str, str]], seed: int) -> None:
    evaluator = opened()
    drawn = weights(len(pairs), resamples=5, seed=seed)
    figures = macro_f1_statistic(evaluator.classify(scored(pairs, evaluator)))(drawn)
    for row, figure in zip(drawn, figures, strict=True):
        truth, found = zip(*np.repeat(np.array(pairs), row, axis=0).tolist(), strict=True)
        expected = metrics.f1_score(truth, found, labels=sorted(set(truth)), average="macro", zero_division=0)
        assert figure == pytest.approx(expected)


@settings(max_examples=25, deadline=None)
@given(CASES)
def test_intervals_hold_their_figures(pairs: list[tuple[str, str]]) -> None:
    for clusters in (None, [str(i // 2) for i in range(len(pairs))]):
        accuracy = figures_of(pairs, clusters)["accuracy"]
        assert accuracy.interval is not None
        assert accuracy.value is not None
        assert 0 <= accuracy.interval.low <= accuracy.value <= accuracy.interval.high <= 1


def test_the_interval_of_macro_f1_covers_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    f1 = 0.8  # of every class, where each is answered rightly this often and the rest spread evenly
    n_classes, n, covered = 3, 150, 0
    for _ in range(40):
        truth = rng.integers(0, n_classes, n)
        found = np.where(rng.random(n) < f1, truth, (truth + rng.integers(1, n_classes, n)) % n_classes)
        scores = [
            Score(evaluator="t", evaluator_identity="0", value=float(t == f), label=str(f), truth=str(t))
            for t, f in zip(truth, found, strict=True)
        ]
        interval = opened().summarise(scores, None, level=0.90, seed=3)["macro_f1"].interval
        assert interval is not None
        covered += interval.low <= f1 <= interval.high
    assert 31 <= covered < 40


def test_clusters_widen_the_intervals() -> None:
    pairs = [("a", "a" if i % 3 else "b") for i in range(30)] + [
        ("b", "b" if i % 5 else "a") for i in range(30)
    ]
    clusters = [f"{expected}{output}" for expected, output in pairs]
    alone, together = figures_of(pairs), figures_of(pairs, clusters)
    for name in ("accuracy", "macro_f1"):
        assert alone[name].value == together[name].value
        assert width(together[name]) > width(alone[name])


def width(figure: Figure) -> float:
    assert isinstance(figure.interval, Interval)
    return figure.interval.high - figure.interval.low


def test_few_cases_are_said_to_make_a_rough_interval() -> None:
    assert figures_of([("a", "a")] * 50)["macro_f1"].note is None
    assert figures_of([("a", "a")] * 49)["macro_f1"].note == "a rough interval: fewer than 50 cases"


def test_missing_scores_are_counted_and_never_wrong() -> None:
    figures = figures_of([("a", "a"), (None, "b"), ("b", "b"), (None, "a")], ["1", "2", "3", "4"])
    assert {figure.n_missing for figure in figures.values()} == {2}
    assert (figures["accuracy"].value, figures["accuracy"].n) == (1, 2)
    nothing = figures_of([(None, "a")])
    assert nothing == {
        "accuracy": Figure(value=None, kind="share", n=0, n_missing=1),
        "macro_f1": Figure(value=None, kind="statistic", n=0, n_missing=1),
    }


def test_a_cluster_too_few_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        figures_of([("a", "a"), ("b", "b")], ["1"])
