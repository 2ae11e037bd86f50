"""Gates as tests: `pytest --llmops-gates` shows each gate of each experiment as a test of its own.

Asked for by the option or by `llmops_gates = true` in pytest's settings; until then nothing but this page is imported.
The judging is `llmops gate`, once an experiment, in a process of its own; here its verdict is only told.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from llmops.definitions.experiment import Gate
    from llmops.records import GateResult, Verdict

SUFFIX = ".experiment.yaml"
WHOLE = "verdict"
"""The test that stands for all gates together, as in the JUnit file."""


class GateError(Exception):
    """A gate does not pass; the text is all there is to show."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the setting that ask for gates."""
    says = "Run the gates of llmops: a test for each gate of each experiments/NAME.experiment.yaml that is collected."
    parser.getgroup("llmops").addoption("--llmops-gates", action="store_true", help=says)
    parser.addini("llmops_gates", says, type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Collect the project's experiments too where the option is given and no path is."""
    folder = config.invocation_params.dir / "experiments"
    has_paths = config.args_source is pytest.Config.ArgsSource.ARGS
    if config.getoption("--llmops-gates") and not has_paths and folder.is_dir():
        config.args.append(str(folder))


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Return the gates of an experiment's file, where they are asked for."""
    is_asked = parent.config.getoption("--llmops-gates") or parent.config.getini("llmops_gates")
    if not is_asked or not file_path.name.endswith(SUFFIX):
        return None
    collected: ExperimentFile = ExperimentFile.from_parent(parent, path=file_path)
    return collected


class ExperimentFile(pytest.File):
    """The gates of one experiment."""

    @property
    def experiment(self) -> str:
        """The experiment's name."""
        return self.path.name.removesuffix(SUFFIX)

    def collect(self) -> Iterator[pytest.Item]:
        """Yield a test for the whole verdict and one for each gate; none where there are no gates."""
        from llmops.definitions.workspace import find_root, load_workspace
        from llmops.errors import LlmopsError

        try:
            gates = load_workspace(find_root(self.path.parent)).experiment(self.experiment).gates
        except LlmopsError as error:
            raise self.CollectError(str(error)) from error
        if gates:
            yield GateItem.from_parent(self, name=WHOLE, place=None)
        for place, name in enumerate(_names(gates)):
            yield GateItem.from_parent(self, name=name, place=place, gates=gates)

    @cached_property
    def verdict(self) -> Verdict:
        """The verdict, asked for once; GateError with the command's own words when there is none."""
        from llmops.records import Verdict

        command = [sys.executable, "-P", "-m", "llmops", "gate", self.experiment, "--json"]
        done = subprocess.run(
            command, cwd=self.path.parent, capture_output=True, encoding="utf-8", check=False
        )
        try:
            return next(
                Verdict.model_validate(record)
                for record in _records(json.loads(done.stdout))
                if record["experiment"] == self.experiment
            )
        except (ValueError, KeyError, TypeError, StopIteration) as error:
            raise GateError(f"llmops gate exits {done.returncode}: {done.stderr.strip()}") from error


class GateItem(pytest.Item):
    """One gate, over all candidates; or all gates together."""

    parent: ExperimentFile

    def __init__(self, *, place: int | None, gates: tuple[Gate, ...] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.place, self.gates = place, gates

    def runtest(self) -> None:
        """Fail where the gate stops a merge; skip, with the reason, where it cannot say or only informs."""
        from llmops.records import Outcome

        verdict = self.parent.verdict
        if self.place is None:
            self._tell(
                verdict.outcome, verdict.reason, stops=verdict.outcome is Outcome.FAIL or verdict.blocks
            )
            return
        results = list(_results(verdict, self.gates, self.place))
        if not results:
            raise GateError(f"the verdict says nothing of this gate: {verdict.reason}")
        for candidate, result in sorted(results, key=lambda pair: _GRAVITY.index(pair[1].outcome)):
            is_open = result.outcome is Outcome.INCONCLUSIVE
            stops = result.blocks and (verdict.blocks or not is_open)
            self._tell(result.outcome, f"{candidate}: {result.reason}", stops=stops)

    def _tell(self, outcome: str, reason: str, *, stops: bool) -> None:
        if outcome == "pass":
            return
        if stops:
            raise GateError(f"{outcome}: {reason}")
        pytest.skip(f"{outcome}: {reason}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return the reason alone: where in this file it was raised helps nobody."""
        if isinstance(excinfo.value, GateError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return what a report calls the test."""
        return self.path, None, f"{self.parent.experiment}: {self.name}"


_GRAVITY = ("fail", "inconclusive", "pass")


def _records(record: Any) -> list[Any]:
    """Return the verdicts of what `llmops gate --json` printed: one, or a list."""
    return record if isinstance(record, list) else [record]


def _names(gates: Iterable[Gate]) -> Iterator[str]:
    """Yield each gate as people write it, numbered where two read the same."""
    seen: dict[str, int] = {}
    for gate in gates:
        asked = gate.model_dump(exclude_defaults=True)
        name = f"{asked.pop('metric')} {', '.join(f'{key} {value}' for key, value in asked.items())}"
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name} ({seen[name]})"


def _results(verdict: Verdict, gates: tuple[Gate, ...], place: int) -> Iterator[tuple[str, GateResult]]:
    """Yield the candidates that a gate judges, and how: the n-th of its metric and slice in the file is theirs too."""
    wanted = gates[place]
    for candidate in verdict.candidates:
        name = candidate.candidate.variant
        alike = [n for n, gate in enumerate(gates) if _same(gate, wanted) and _judges(gate, name)]
        judged = [result for result in candidate.gates if _same(result, wanted)]
        if place in alike and len(judged) == len(alike):
            yield name, judged[alike.index(place)]


def _same(gate: Gate | GateResult, wanted: Gate) -> bool:
    return (gate.metric, gate.slice) == (wanted.metric, wanted.slice)


def _judges(gate: Gate, variant: str) -> bool:
    return gate.variant in {None, variant} or variant.startswith(f"{gate.variant}/")
