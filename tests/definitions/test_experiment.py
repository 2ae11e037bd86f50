"""An experiment as it is written, and the variants that its matrix makes of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.definitions.base import identity_of
from llmops.definitions.build import build
from llmops.definitions.experiment import EvaluatorUse, Experiment, expand, fixes
from llmops.definitions.yaml_reader import read_yaml
from llmops.errors import DefinitionError

PATH = "experiments/support.experiment.yaml"
DESIGNED = """\
dataset: support_tickets/test
variants:
  zero-shot: {prompt: support_triage, set: {examples.k: 0}}
  few-shot:  {prompt: support_triage}
matrix: {model: [default]}
repeats: 1
seed: 7
evaluators:
  - exact_match
  - classification
  - judge: {name: tone, prompt: judge_tone, model: judge, scale: [1, 5]}
baseline: zero-shot
gates:
  - {metric: exact_match, at_least: 0.80}
  - {metric: exact_match, not_worse_than: baseline, margin: 0.05}
  - {metric: cost_usd, at_most: 0.50}
budget: {usd: 2.00}
"""
SMALL = "dataset: d\nvariants: {a: {prompt: p}, b: {chain: c}}\n"


def experiment_of(text: str) -> Experiment:
    return build(Experiment, read_yaml(text.encode(), PATH))


def findings_of(text: str) -> str:
    with pytest.raises(DefinitionError) as caught:
        experiment_of(text)
    return "\n".join(str(finding).removeprefix(f"{PATH}:") for finding in caught.value.findings)


def names_of(text: str) -> list[str]:
    return [trial.name for trial in expand(experiment_of(text))]


def test_the_experiment_of_the_design_is_read_as_written() -> None:
    experiment = experiment_of(DESIGNED)
    assert experiment.variants["zero-shot"].set == {"examples.k": 0}
    assert [use.name for use in experiment.evaluators] == ["exact_match", "classification", "tone"]
    assert experiment.evaluators[2].options == {"prompt": "judge_tone", "model": "judge", "scale": [1, 5]}
    assert experiment.budget.usd == 2.0
    assert experiment.missing_baseline == "fail"


@pytest.mark.parametrize(
    ("value", "kind", "name", "options"),
    [
        ("exact_match", "exact_match", "exact_match", {}),
        ({"number": {}}, "number", "number", {}),
        ({"number": {"name": "amount", "tolerance": 1}}, "number", "amount", {"tolerance": 1}),
        ({"number": {"x-note": "why", "output": "{{ output }}"}}, "number", "number", {}),
        ({"python": "judges:polite"}, "python", "polite", {"function": "judges:polite"}),
        ({"python": {"function": "m:f", "name": "g"}}, "python", "g", {"function": "m:f"}),
        ({"python": {}}, "python", "python", {}),
    ],
)
def test_an_evaluator_is_a_name_or_a_name_with_options(
    value: Any, kind: str, name: str, options: Any
) -> None:
    use = EvaluatorUse.model_validate(value)
    assert (use.kind, use.name, use.options) == (kind, name, options)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SMALL + "evaluators: [5]", "an evaluator is a name, or a name with its options"),
        (SMALL + "evaluators: [{a: {}, b: {}}]", "start each with its own '-'"),
        (SMALL + "evaluators: [{a: [1]}]", "the options of 'a' are keys and values"),
        (SMALL + "evaluators: [a, a]", "3:1: evaluators: two evaluators are called 'a'"),
        (SMALL + "evaluators: [{number: {name: latency_s}}]", "'latency_s' is measured unasked"),
        (SMALL + "evaluators: [{number: {name: a b}}]", "does not have the form"),
        (
            SMALL + "baseline: c",
            "3:1: baseline: 'c' is no variant, nor git:REV or alias:NAME; variants: a, b",
        ),
        ("dataset: d\nvariants: {first: {prompt: p}}\nbaseline: frist", "did you mean 'first'?"),
        (SMALL + "baseline: 'git:'", "3:1: baseline: 'any@git:': after @ stands"),
        (SMALL + "baseline: 'git:--all'", "after @ stands"),
        (SMALL + "baseline: 'alias:3'", "numbers differ"),
        (SMALL + "matrix: {model: []}", "3:1: matrix: axis 'model' has no values"),
        (SMALL + "matrix: {k: [1, '1']}", "axis 'k' names a value twice"),
        (SMALL + "matrix: {k: [1, 1.0]}", "twice"),
        (SMALL + "matrix: {k: [[1]]}", "3:"),
        (SMALL + "repeats: 0", "3:1: repeats: should be at least 1, not 0"),
        (SMALL + "seed: 1.5", "seed: should be a whole number"),
        (SMALL + "gates: [{metric: m}]", "a gate asks exactly one of at_least, at_most, not_worse_than"),
        (SMALL + "gates: [{metric: m, at_least: 1, at_most: 2}]", "exactly one of"),
        (
            SMALL + "gates: [{metric: m, at_least: 1, margin: 0.1}]",
            "margin and relative belong to not_worse_than",
        ),
        (SMALL + "gates: [{metric: m, not_worse_than: baseline, margin: 0}]", "should be more than 0"),
        (SMALL + "gates: [{metric: m, at_leats: 1}]", "did you mean 'at_least'?"),
        (SMALL + "gates: [{metric: m, at_least: .inf}]", "infinity and NaN are refused"),
        (SMALL + "budget: {usd: -1}", "should be at least 0"),
        (SMALL + "missing_baseline: ignore", "should be 'fail', 'create' or 'skip'"),
        ("dataset: d\nvariants: {}", "variants: needs at least 1 of them"),
        ("dataset: d\nvariants: {a: {}}", "2:12: a: a variant has either a prompt, a chain, or recorded"),
        ("dataset: d\nvariants: {a: {prompt: p, chain: c}}", "either a prompt, a chain, or recorded"),
        (
            "dataset: d\nvariants: {a: {prompt: p, recorded: o/a.csv}}",
            "either a prompt, a chain, or recorded",
        ),
        (
            "dataset: d\nvariants: {a: {recorded: o/a.txt}}",
            "2:16: recorded: 'o/a.txt': outputs are read from",
        ),
        (
            "dataset: d\nvariants: {a: {recorded: prompts/a.csv}}",
            "2:16: recorded: 'prompts/a.csv': outputs are no",
        ),
        ("dataset: d\nvariants: {a: {recorded: ../a.csv}}", "2:16: recorded: '../a.csv' is no path inside"),
        ("dataset: d\nvariants: {a: {recorded: /etc/a.csv}}", "no path inside the project"),
        (
            "dataset: d\nvariants: {a: {recorded: o/a.csv, model: m}}",
            "2:12: a: recorded outputs are there already",
        ),
        (
            "dataset: d\nvariants: {a: {recorded: o/a.csv, parameters: {seed: 1}}}",
            "model, parameters and set change",
        ),
        ("dataset: d\nvariants: {a: {recorded: o/a.csv, set: {k: 1}}}", "model, parameters and set change"),
        ("dataset: d\nvariants: {a: {prompt: p@3}}", "2:16: prompt: 'p@3': numbers differ"),
        ("dataset: d\nvariants: {a/b: {prompt: p}}", "2:12: "),
        ("dataset: ../d\nvariants: {a: {prompt: p}}", "1:1: dataset: '../d' is no reference"),
        ("dataset: d@7\nvariants: {a: {prompt: p}}", "numbers differ"),
        ("datset: d\nvariants: {a: {prompt: p}}", "did you mean 'dataset'?"),
    ],
)
def test_a_slip_is_told_with_its_place(text: str, said: str) -> None:  # F62 F73
    assert said in findings_of(text)


@pytest.mark.parametrize("baseline", ["a", "git:main", "git:v1.0~3", "alias:production"])
def test_a_baseline_is_a_variant_a_revision_or_an_alias(baseline: str) -> None:
    assert experiment_of(SMALL + f"baseline: '{baseline}'").baseline == baseline


def test_an_axis_of_one_value_does_not_show_and_one_of_more_does() -> None:
    assert names_of(SMALL + "matrix: {model: [m], examples.k: [0, 4]}") == ["a/0", "a/4", "b/0", "b/4"]
    assert names_of(SMALL + "matrix: {model: [m]}") == ["a", "b"]


def test_recorded_outputs_are_not_multiplied() -> None:
    text = "dataset: d\nvariants: {a: {prompt: p}, r: {recorded: o/a.csv}}\n"
    matrix = "matrix: {model: [m, n], k: [1, 2]}"
    assert names_of(text + matrix) == ["a/m/1", "a/m/2", "a/n/1", "a/n/2", "r"]


def test_the_matrix_multiplies_only_variants_that_do_not_fix_the_key() -> None:
    text = """\
dataset: d
variants:
  free: {prompt: p}
  asks: {prompt: p, model: x}
  sets: {prompt: p, set: {model: y}}
  cool: {prompt: p, parameters: {temperature: 0}}
matrix: {model: [m, n], parameters.temperature: [0.5, 1]}
"""
    trials = {trial.name: trial for trial in expand(experiment_of(text))}
    assert list(trials) == [
        *("free/m/0.5", "free/m/1", "free/n/0.5", "free/n/1"),
        *("asks/0.5", "asks/1", "sets/0.5", "sets/1", "cool/m", "cool/n"),
    ]
    assert trials["free/n/1"].definition.model == "n"
    assert trials["free/n/1"].definition.set == {"parameters.temperature": 1}
    assert trials["asks/1"].definition.model == "x"
    assert (trials["free/n/1"].group, trials["asks/1"].group) == ("n/1", "1")


@pytest.mark.parametrize(
    ("value", "shown"), [("true", "true"), ("null", "null"), ("0.50", "0.5"), ("a b", "a b")]
)
def test_a_value_shows_in_a_name_as_yaml_has_it(value: str, shown: str) -> None:
    assert names_of(SMALL + f"matrix: {{k: [{value}, other]}}")[0] == f"a/{shown}"


@given(
    st.lists(st.integers(1, 4), max_size=3),
    st.lists(st.sampled_from(["v", "w", "x"]), min_size=1, max_size=3, unique=True),
)
def test_there_is_one_variant_for_each_cell_and_all_names_differ(sizes: list[int], names: list[str]) -> None:
    experiment = Experiment.model_validate(
        {
            "dataset": "d",
            "variants": {name: {"prompt": "p"} for name in names},
            "matrix": {f"axis{n}": list(range(size)) for n, size in enumerate(sizes)},
            "baseline": names[0],
        }
    )
    trials = list(expand(experiment))
    product = 1
    for size in sizes:
        product *= size
    assert len({trial.name for trial in trials}) == len(trials) == product * len(names)
    assert len({trial.group for trial in trials}) == product
    assert sum(trial.is_baseline for trial in trials) == product
    for name in names:
        assert {axis: fixes(experiment.variants[name], axis) for axis in experiment.matrix} == dict.fromkeys(
            experiment.matrix, False
        )


def test_a_matrix_that_explodes_is_refused_before_it_does() -> None:  # S29
    axes = ", ".join(f"k{n}: [{', '.join(map(str, range(10)))}]" for n in range(9))
    assert "that makes 2,000,000,000 variants" in findings_of(SMALL + f"matrix: {{{axes}}}")


def identity(text: str) -> str:
    return identity_of(experiment_of(text).meaning())


def test_description_budget_comments_and_key_order_change_no_meaning() -> None:
    lines = DESIGNED.replace("usd: 2.00", "calls: 5").splitlines()
    assert identity("description: why\n" + "\n".join(lines) + "\n# end") == identity(DESIGNED)
    assert identity("seed: 7\n" + DESIGNED.replace("seed: 7\n", "")) == identity(DESIGNED)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("support_tickets/test", "support_tickets/train"),
        ("examples.k: 0", "examples.k: 1"),
        ("few-shot:  {prompt: support_triage}", "few-shot:  {prompt: support_triage, model: default}"),
        ("model: [default]", "model: [other]"),
        ("repeats: 1", "repeats: 2"),
        ("seed: 7", "seed: 8"),
        ("  - classification\n", ""),
        ("scale: [1, 5]", "scale: [1, 4]"),
        ("scale: [1, 5]", "scale: null"),
        ("baseline: zero-shot", "baseline: few-shot"),
        ("at_least: 0.80", "at_least: 0.81"),
        ("margin: 0.05", "margin: 0.04"),
    ],
)
def test_any_other_change_changes_the_meaning(old: str, new: str) -> None:
    assert old in DESIGNED
    assert identity(DESIGNED.replace(old, new)) != identity(DESIGNED)
