"""Verdicts on real recorded outputs (LLM versions, GSM8K and SQuAD systems), against scipy and statsmodels."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from llmops.stats.decision import decide
from llmops.stats.limits import Limit, judge_limit
from llmops.stats.looks import Look, decide_looks, judge_look, look_order, planned_looks
from llmops.stats.noninferiority import judge_pairs
from llmops.stats.outcome import Rule

Floats = npt.NDArray[np.float64]
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
RULE = Rule(0.05, 0.0, 1.0)

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="the public evaluation data are not beside this checkout"
)


def rows(name: str) -> Iterator[dict[str, Any]]:
    with (DATA / name).open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def boxed(text: str) -> str | None:
    found = re.search(r"\\+boxed\{([^}]*)\}", text)
    return None if found is None else found.group(1).strip()


def happy_numbers(*systems: str) -> list[Floats]:
    expected = {
        row["id"]: boxed(row["expected"])
        for row in rows("drift_llm_versions_a/counthappynumber.questions.jsonl")
    }
    right: dict[str, dict[str, float]] = {system: {} for system in systems}
    for row in rows("drift_llm_versions_a/counthappynumber.outputs.jsonl"):
        if row["system"] in right:
            right[row["system"]][row["question_id"]] = boxed(row["output"]) == expected[row["question_id"]]
    return [np.array([right[system][case] for case in expected], dtype=float) for system in systems]


def gsm8k(*systems: str) -> list[Floats]:
    problems = list(rows("llm_gsm8k_a/problems.jsonl"))
    return [np.array([p["outputs"][s]["is_correct"] for p in problems], dtype=float) for s in systems]


def squad(*systems: str) -> tuple[list[Floats], list[str]]:
    """Exact match of each system, missing where it gave no answer, and the paragraph of each question."""
    questions = list(rows("rag_xquad_en/questions.jsonl"))
    gold = {question["id"]: question["expected"] for question in questions}
    given: dict[tuple[str, str], float] = {
        (row["system"], row["question_id"]): float(
            plain(row["output"]) in map(plain, gold[row["question_id"]])
        )
        for row in rows("rag_xquad_en/system_outputs.jsonl")
    }
    scores = [np.array([given.get((s, question["id"]), math.nan) for question in questions]) for s in systems]
    return scores, [question["inputs"]["doc_id"] for question in questions]


def plain(text: str) -> str:
    return " ".join(re.sub(r"\b(a|an|the)\b|[^\w\s]", " ", text.lower()).split())


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [("gpt-4-0314", "gpt-4-0613", "fail"), ("gpt-4-0613", "gpt-4-0314", "pass")],
)
def test_gpt_4_forgot_happy_numbers_from_march_to_june(before: str, after: str, verdict: str) -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    march, june = happy_numbers(before, after)
    found, swapped = judge_pairs(march, june, RULE), judge_pairs(june, march, RULE)
    assert found.verdict == verdict
    n_changed = len(found.regressed) + len(found.improved)
    expected = stats.binomtest(len(found.regressed), n_changed, 0.5, alternative="greater").pvalue
    assert found.p_worse == pytest.approx(expected, rel=1e-9)
    table = [[np.sum((march == a) & (june == b)) for b in (1, 0)] for a in (1, 0)]
    two_sided = tables.mcnemar(table, exact=True).pvalue
    assert 2 * min(found.p_worse, swapped.p_worse) == pytest.approx(two_sided, rel=1e-9, abs=1e-300)
    assert found.estimate == pytest.approx(june.mean() - march.mean())


def test_shares_of_each_version_have_the_interval_of_statsmodels() -> None:
    proportion_confint = pytest.importorskip("statsmodels.stats.proportion").proportion_confint
    for scores in happy_numbers("gpt-3.5-turbo-0301", "gpt-3.5-turbo-0613", "gpt-4-0314", "gpt-4-0613"):
        found = judge_limit(scores, Limit(0.5, "at_least", 0.0, 1.0))
        expected = proportion_confint(int(scores.sum()), scores.size, alpha=0.10, method="beta")
        assert found.interval == pytest.approx(expected)
        kept = stats.binomtest(int(scores.sum()), scores.size, 0.5, alternative="greater").pvalue
        assert found.p_pass == pytest.approx(kept)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ("175b_verification", "6b_finetuning", "fail"),
        ("6b_finetuning", "175b_verification", "pass"),
        ("6b_verification", "6b_verification", "pass"),
    ],
)
def test_gsm8k_systems_are_told_apart(before: str, after: str, verdict: str) -> None:
    old, new = gsm8k(before, after)
    found = judge_pairs(old, new, RULE)
    assert found.verdict == verdict
    losses, gains = len(found.regressed), len(found.improved)
    if losses + gains:
        expected = stats.binomtest(losses, losses + gains, 0.5, alternative="greater").pvalue
        assert found.p_worse == pytest.approx(expected, rel=1e-9, abs=1e-300)
        # The bound guards more than a t interval, and on 660 cases by little.
        t = stats.ttest_1samp(new - old, 0).confidence_interval(0.9)
        assert found.interval == pytest.approx((t.low, t.high), abs=0.006)


def test_gsm8k_is_settled_after_a_part_of_the_cases() -> None:
    before, after = gsm8k("175b_verification", "6b_finetuning")
    order = look_order(before.size, seed=1)
    looks: list[Look] = []
    for n in planned_looks(before.size):
        done = order[:n]
        looks.append(judge_look(before[done], after[done], RULE, n_total=before.size, previous=looks))
        stop = decide_looks({"is_correct": looks}, alpha=0.05)
        if stop.verdict is not None:
            break
    assert stop.verdict == "fail"
    assert looks[-1].fraction <= 0.2


def test_squad_regression_fails_with_questions_of_one_paragraph_together() -> None:
    (strong, weak), paragraphs = squad("bert-ensemble", "match-lstm-ensemble")
    found = judge_pairs(strong, weak, RULE, clusters=paragraphs)
    assert (found.verdict, found.n_clusters) == ("fail", 240)
    back = judge_pairs(weak, strong, RULE, clusters=paragraphs)
    assert back.verdict == "pass"
    assert decide({"exact": found, "other": back}, alpha=0.05).verdict == "fail"


def test_clustered_interval_is_near_that_of_statsmodels() -> None:
    api = pytest.importorskip("statsmodels.api")
    (before, after), paragraphs = squad("r-net-plus-ensemble", "slqa-plus-ensemble")
    found = judge_pairs(before, after, RULE, clusters=paragraphs)
    codes = np.unique(paragraphs, return_inverse=True)[1]
    fitted = api.OLS(after - before, np.ones(before.size)).fit(
        cov_type="cluster", cov_kwds={"groups": codes}, use_t=True
    )
    assert found.interval is not None
    alone = judge_pairs(before, after, RULE).interval
    assert alone is not None
    # CR1 and CR2 differ little over 240 paragraphs of much the same size; the interval is the wider of both keys.
    low, high = fitted.conf_int(alpha=0.10)[0]
    assert found.interval == pytest.approx((min(low, alone[0]), max(high, alone[1])), abs=2e-4)


def test_answers_that_are_missing_may_be_the_worst() -> None:
    (before, after), _ = squad("logistic-regression", "bert-ensemble")
    found = judge_pairs(before, after, RULE)
    assert (found.n, found.n_missing, found.verdict) == (1188, 2, "pass")
    assert found.guarded_pass >= found.p_pass
