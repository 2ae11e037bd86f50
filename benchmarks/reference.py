"""Our metrics beside published ones, on outputs that real systems gave: `python -m benchmarks.reference`.

Each set of public data becomes a project whose variants are recorded outputs; the command line runs it, and what its
journal then holds is laid beside the values that came with the data. The data is not part of this repository, only
the values are: `--write docs/metrics.md` puts the table there.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import llmops
from llmops.records import Run
from llmops.stores.journal import Journal, open_journal

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
BEGIN, END = "<!-- reference values: begin -->", "<!-- reference values: end -->"
HEADER = ("set", "metric", "system", "n", "theirs", "ours", "difference", "basis", "signature or note")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Project:
    """One set as a project. cases: as in a dataset's file. outputs: of each system, by case id.

    evaluators, dataset: as in the files of an experiment and a dataset. code: of `chains/ours.py`.
    """

    cases: Sequence[Row]
    outputs: Mapping[str, Mapping[str, str]]
    evaluators: Sequence[Any]
    dataset: Row = field(default_factory=dict)
    code: str = ""


@dataclass(frozen=True, slots=True)
class Sought:
    """One reference value, what its metric is called here, and the run in which it is looked for."""

    journal: Journal
    run: Run
    reference: Row
    metric: str


@dataclass(frozen=True, slots=True)
class Found:
    """What we make of one reference value: our figure, or the score of one case, and over how many cases."""

    value: float | None
    n: int
    note: str | None = None


@dataclass(frozen=True)
class Part:
    """One set, and how its metrics are called here.

    metrics: of the reference file, to ours and the factor between them. find: the figure of a reference value.
    """

    dataset: str
    project: Callable[[], Project]
    metrics: Mapping[str, tuple[str, float]]
    find: Callable[[Sought], Found]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table. digits: decimals that the reference value has."""

    reference: Row
    ours: Found
    digits: int

    @property
    def difference(self) -> float | None:
        """Ours less theirs, None where we have no value."""
        return None if self.ours.value is None else self.ours.value - float(self.reference["value"])

    @property
    def agrees(self) -> bool:
        """Whether ours, rounded as theirs is, is theirs, worked out in the same way."""
        if self.difference is None or abs(self.difference) > 0.5 * 10**-self.digits + 1e-9:
            return False
        return self.signature in ("", self.reference.get("signature")) or "signature" not in self.reference

    @property
    def signature(self) -> str:
        """How ours was worked out, where it says so."""
        return (self.ours.note or "").partition("; a rough")[0]

    def cells(self) -> tuple[str, ...]:
        """Return the line as texts, one a column."""
        theirs = f"{self.reference['value']:.{self.digits}f}"
        ours = "none" if self.ours.value is None else f"{self.ours.value:.{self.digits}f}"
        difference = "0" if self.agrees else f"**{self.difference}**"
        about = (self.reference["dataset"], self.reference["metric"], self.reference["system"])
        return (*about, str(self.ours.n), theirs, ours, difference, self.reference["basis"], self.signature)


# --- the sets -----------------------------------------------------------------------------------------------


def _rows(name: str) -> list[dict[str, Any]]:
    with (DATA / name).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _by_system(rows: Iterable[Row], key: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        found.setdefault(row["system"], {})[row[key]] = row["output"]
    return found


def _case(row: Row, expected: Any, **metadata: str) -> Row:
    return {"id": row["id"], "inputs": {"input": "as recorded"}, "expected": expected, "metadata": metadata}


def _squad() -> Project:
    cases = [_case(row, row["expected"]) for row in _rows("rag_xquad_en/questions.jsonl")]
    outputs = _by_system(_rows("rag_xquad_en/system_outputs.jsonl"), "question_id")
    return Project(cases, outputs, ["squad_exact_match", "token_f1"])


_CONTAINS = """from llmops.evaluators.overlap import squad_words


def contains_gold(output, expected):
    found = " ".join(squad_words(output))
    return any(" ".join(squad_words(answer)) in found for answer in expected)
"""


def _trivia() -> Project:
    questions = _rows("qa_evouna_triviaqa/questions.jsonl")
    cases = [_case(row, row["expected"]) for row in questions if not row["metadata"]["improper"]]
    proper = {case["id"] for case in cases}
    rows = _rows("qa_evouna_triviaqa/system_outputs.jsonl")
    outputs = _by_system((row for row in rows if row["question_id"] in proper), "question_id")
    evaluators = ["squad_exact_match", "token_f1", {"python": "ours:contains_gold"}]
    return Project(cases, outputs, evaluators, code=_CONTAINS)


def _summeval() -> Project:
    cases = [_case(row, row["references"][0]) for row in _rows("summ_summeval/documents.jsonl")]
    outputs = _by_system(_rows("summ_summeval/system_outputs.jsonl"), "doc_id")
    return Project(cases, outputs, [{"rouge": {"use_stemmer": True}}])


def _wmt() -> Project:
    segments = _rows("mt_wmt21_ted_zhen/segments.jsonl")
    cases = [_case(row, [row["references"]["ref-A"], row["references"]["ref-B"]]) for row in segments]
    outputs = _by_system(_rows("mt_wmt21_ted_zhen/system_outputs.jsonl"), "segment_id")
    first = "{{ expected[0] }}"
    evaluators = [
        {"bleu": {"expected": first}},
        {"bleu": {"name": "bleu_two_references"}},
        {"chrf": {"expected": first}},
        {"chrf": {"name": "chrf_with_words", "expected": first, "word_order": 2}},
        {"ter": {"expected": first}},
    ]
    return Project(cases, outputs, evaluators)


def _gsm8k() -> Project:
    problems = _rows("llm_gsm8k_a/problems.jsonl")
    outputs: dict[str, dict[str, str]] = {}
    for row in problems:
        for system, given in row["outputs"].items():
            outputs.setdefault(system, {})[row["id"]] = given["text"]
    return Project([_case(row, row["expected"]) for row in problems], outputs, ["number"])


_TAIL = "output.split('the answer is ')[-1].strip()"
_ANSWER = f"{{{{ {_TAIL}[:-1] if {_TAIL}.endswith('.') else {_TAIL} }}}}"


def _bbh() -> Project:
    tasks = sorted((DATA / "llm_bbh_codex_part").glob("*.jsonl"))
    rows = [row for task in tasks for row in _rows(f"llm_bbh_codex_part/{task.name}")]
    cases = [_case(row, row["expected"], task=row["metadata"]["task"]) for row in rows]
    outputs = {
        kind: {row["id"]: row["outputs"][f"code-davinci-002/{kind}"] for row in rows}
        for kind in ("cot", "direct")
    }
    evaluators = [
        {"exact_match": {"name": "cot", "output": _ANSWER}},
        {"exact_match": {"name": "direct", "output": "{{ output.strip() }}"}},
    ]
    return Project(cases, outputs, evaluators, dataset={"slices": {"by": "metadata.task"}})


def _happy() -> Project:
    rows = _rows("drift_llm_versions_a/counthappynumber.questions.jsonl")
    cases = [_case(row, row["expected"].partition("{")[2].rstrip("}")) for row in rows]
    outputs = _by_system(_rows("drift_llm_versions_a/counthappynumber.outputs.jsonl"), "question_id")
    first_boxed = "{{ (output ~ 'boxed{}').split('boxed{')[1].split('}')[0] }}"
    return Project(cases, outputs, [{"exact_match": {"output": first_boxed}}])


# --- how their values are found among ours ---------------------------------------------------------------------


def _figure(sought: Sought) -> Found:
    """The figure of the variant of the system's name."""
    figure = sought.run.summary[sought.reference["system"]][sought.metric]
    return Found(figure.value, figure.n, figure.note)


def _figure_or_sentence(sought: Sought) -> Found:
    """The figure of a system, or the score of one case where a case is named."""
    if not sought.reference["metric"].startswith("sentence_"):
        return _figure(sought)
    system, _, case_id = sought.reference["system"].partition("/")
    for row in sought.journal.rows(sought.run.id, variant=system, with_spans=False):
        if row.case.id == case_id:
            return Found(next(score.value for score in row.scores if score.evaluator == sought.metric), 1)
    return Found(None, 0)


def _by_row(sought: Sought) -> Found:
    """The figure of a system, once every row agrees with the verdict that came with it."""
    verdicts = {row["id"]: row["outputs"] for row in _rows("llm_gsm8k_a/problems.jsonl")}
    for row in sought.journal.rows(sought.run.id, variant=sought.reference["system"], with_spans=False):
        theirs = verdicts[row.case.id][row.variant]["is_correct"]
        assert row.scores[0].value == float(theirs), (
            f"{row.variant} on {row.case.id}: {row.scores[0].rationale}"
        )
    found = _figure(sought)
    return Found(found.value, found.n, "every row agrees with `is_correct`")


def _of_task(sought: Sought) -> Found:
    """The figure of a task, for the kind of prompting in the system's name."""
    _, kind, task = sought.reference["system"].split("/")
    figure = sought.run.slices[kind][task][kind]
    return Found(figure.value, figure.n)


def _of_rows_here(sought: Sought) -> Found:
    """The figure of a system, over the part of the published rows that is here."""
    found, reference = _figure(sought), sought.reference
    note = f"published over all {reference['n_full_set']}: {reference['published']}"
    return Found(found.value, found.n, note)


_PERCENT = 100.0
PARTS: Mapping[str, Part] = {
    "squad": Part(
        "rag_xquad_en",
        _squad,
        {"exact_match": ("squad_exact_match", _PERCENT), "f1": ("token_f1", _PERCENT)},
        _figure,
    ),
    "summeval": Part(
        "summ_summeval",
        _summeval,
        {f"{name}_f_mean": (f"rouge.{name}", 1.0) for name in ("rouge1", "rouge2", "rougeL")},
        _figure,
    ),
    "wmt21": Part(
        "mt_wmt21_ted_zhen",
        _wmt,
        {
            "bleu": ("bleu.corpus", 1.0),
            "chrf": ("chrf.corpus", 1.0),
            "chrf++": ("chrf_with_words.corpus", 1.0),
            "ter": ("ter.corpus", 1.0),
            "bleu_two_references": ("bleu_two_references.corpus", 1.0),
            "sentence_bleu": ("bleu", 1.0),
            "sentence_chrf": ("chrf", 1.0),
        },
        _figure_or_sentence,
    ),
    "gsm8k": Part("llm_gsm8k_a", _gsm8k, {"accuracy": ("number", _PERCENT)}, _by_row),
    "bbh": Part("llm_bbh_codex_part", _bbh, {"accuracy": ("exact_match", _PERCENT)}, _of_task),
    "triviaqa": Part(
        "qa_evouna_triviaqa",
        _trivia,
        {
            "exact_match": ("squad_exact_match", _PERCENT),
            "f1": ("token_f1", _PERCENT),
            "contains_gold": ("contains_gold", _PERCENT),
        },
        _figure,
    ),
    "happy": Part(
        "drift_llm_versions_a/counthappynumber",
        _happy,
        {"accuracy": ("exact_match", _PERCENT)},
        _of_rows_here,
    ),
}


# --- from a set to its lines ------------------------------------------------------------------------------------


def references(part: Part) -> list[dict[str, Any]]:
    """Return the reference values of a set that are of our metrics."""
    known = json.loads((DATA / "reference_values.json").read_text(encoding="utf-8"))
    found = [row for row in known if row["dataset"] == part.dataset and row["metric"] in part.metrics]
    return [_over_rows_here(row) if "recomputed_rows_here" in row else row for row in found]


def _over_rows_here(row: dict[str, Any]) -> dict[str, Any]:
    """The value over the rows that are here, where the published one is over more of them."""
    return {**row, "published": row["value"], "value": row["recomputed_rows_here"], "basis": "recomputed"}


def digits_of(values: Iterable[float]) -> int:
    """Return how many decimals the values of one metric were rounded to, six at most."""
    return max(len(f"{value:.6f}".rstrip("0").partition(".")[2]) for value in values)


def write_project(root: Path, name: str, project: Project, systems: Sequence[str] | None) -> None:
    """Write one set as a project of recorded variants. systems: only these, None for all."""
    chosen = {
        system: given for system, given in project.outputs.items() if systems is None or system in systems
    }
    experiment = {
        "dataset": name,
        "variants": {system: {"recorded": f"recorded/{system}.jsonl"} for system in chosen},
        "evaluators": project.evaluators,
    }
    files = {
        "llmops.yaml": "",
        "chains/ours.py": project.code,
        f"datasets/{name}.jsonl": _jsonl(project.cases),
        f"datasets/{name}.dataset.yaml": json.dumps({"inputs": {"input": "string"}, **project.dataset}),
        f"experiments/{name}.experiment.yaml": json.dumps(experiment),
    }
    for system, given in chosen.items():
        rows = ({"id": case_id, "output": output} for case_id, output in given.items())
        files[f"recorded/{system}.jsonl"] = _jsonl(rows)
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content, encoding="utf-8")


def _jsonl(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def lines_of(name: str, scratch: Path, *, systems: Sequence[str] | None = None) -> list[Line]:
    """Return the lines of one set, run by the command line in an empty folder. systems: only these."""
    part = PARTS[name]
    write_project(scratch, name, part.project(), systems)
    llmops("run", name, "--no-sync", cwd=scratch)
    known = references(part)
    digits = {
        metric: digits_of(row["value"] for row in known if row["metric"] == metric) for metric in part.metrics
    }
    with closing(open_journal("sqlite:///.llmops/store.db", root=scratch)) as journal:
        run = journal.latest_run(name)
        assert run is not None, f"{name} did not run"
        names = {variant.name for variant in run.variants}
        lines = []
        for row in known:
            metric, factor = part.metrics[row["metric"]]
            if names.isdisjoint(row["system"].split("/")):
                continue
            found = part.find(Sought(journal, run, row, metric))
            value = None if found.value is None else factor * found.value
            lines.append(Line(row, Found(value, found.n, found.note), digits[row["metric"]]))
    return lines


# --- the table --------------------------------------------------------------------------------------------------


def table(lines: Iterable[Line]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield f"| {' | '.join(HEADER)} |"
    yield "| --- | --- | --- | ---: | ---: | ---: | ---: | --- | --- |"
    for line in lines:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line.cells())} |"


def main() -> int:
    """Print the table, or write it between its markers; 1 where a value does not agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table between its markers there")
    asked = parser.parse_args()
    if not DATA.is_dir():
        print(f"no data at {DATA}: nothing to compare with", file=sys.stderr)
        return 0
    lines: list[Line] = []
    for name in asked.sets or PARTS:
        with tempfile.TemporaryDirectory() as scratch:
            lines += lines_of(name, Path(scratch))
    text = "\n".join(table(lines))
    if asked.write is None:
        print(text)
    else:
        before, _, rest = asked.write.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        asked.write.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
    n_agree = sum(line.agrees for line in lines)
    print(f"{n_agree} of {len(lines)} values agree to the digits given", file=sys.stderr)
    return 0 if n_agree == len(lines) else 1


if __name__ == "__main__":
    sys.exit(main())
