"""The experiment that a conversion writes: its evaluators, prompts of its judges, and the module of its own checks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmops.convert.job import Job
from llmops.convert.messages import prompt_inputs
from llmops.convert.names import file_name, identifier
from llmops.definitions.experiment import MEASURED

_HEAD = '"""What was asserted of outputs elsewhere; what each assertion means stands in llmops.convert.asserted."""\n\n'
_ONE = '''

def {name}(output, expected):
    """Say whether the output is as {kind} asserts."""
    return holds({{"type": {kind_text}, "value": expected, "threshold": {threshold}}}, output)
'''
_CASE = '''

def passes(output, metadata):
    """Return whether the output passes all that its case asserts, and the weighted share that it does."""
    return judge_case(output, metadata)
'''


@dataclass
class Checks:
    """Evaluators as they are gathered; each has a name of its own."""

    job: Job
    evaluators: list[dict[str, Any]] = field(default_factory=list)
    gates: list[dict[str, Any]] = field(default_factory=list)
    idle_gates: list[dict[str, Any]] = field(default_factory=list)
    """Gates that stand on a judge, while no model of llmops.yaml is one."""
    _names: set[str] = field(default_factory=lambda: {*MEASURED})
    _functions: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, options: Mapping[str, Any] | None = None, *, name: str | None = None) -> str:
        """Take in an evaluator and return its name."""
        name = file_name(name or kind, taken=self._names)
        self._names.add(name)
        own = {**({} if name == kind else {"name": name}), **(options or {})}
        self.evaluators.append({kind: own})
        return name

    def add_test(self, kind: str, *, name: str | None = None, threshold: Any = None, **options: Any) -> str:
        """Take in one assertion of `asserted.TESTS` about output and `expected`, as a function of the project."""
        function = identifier(file_name(kind.replace("-", "_")), taken=self._functions)
        self._functions[function] = _ONE.format(
            name=function,
            kind=kind,
            kind_text=json.dumps(kind),
            threshold=None if threshold is None else json.dumps(threshold),
        )
        return self.add("python", {"function": f"{self.module}:{function}", **options}, name=name or function)

    def add_cases(self) -> str:
        """Take in what each case asserts by itself, under `metadata.asserts`."""
        self._functions["passes"] = _CASE
        return self.add("python", {"function": f"{self.module}:passes"}, name="passes")

    def add_judge(
        self,
        name: str,
        messages: Sequence[Mapping[str, Any]],
        options: Mapping[str, Any],
        *,
        model: str | None = None,
    ) -> str:
        """Take in a judge with a prompt of its own, and return its name."""
        prompt = {
            "inputs": prompt_inputs(messages, {}),
            "model": model or self.job.judge_model,
            "parameters": {"temperature": 0},
            "messages": list(messages),
        }
        written = self.job.write("prompt", file_name(f"{self.job.name}_{name}"), prompt)
        return self.add("judge", {"prompt": written, **options}, name=name)

    def add_gate(self, gate: Mapping[str, Any], *, is_judged: bool = False) -> str:
        """Take in a gate, and return the key of the experiment under which it will stand."""
        judge = self.job.project.models[self.job.judge_model]
        if is_judged and judge.provider == "embedded":
            self.idle_gates.append(dict(gate))
            return "x-gates: no gate can stand on embedded as a judge; rename it once a model judges"
        self.gates.append(dict(gate))
        return "gates"

    @property
    def module(self) -> str:
        """The Python module of the project in which its own checks stand."""
        return identifier(f"{self.job.name}_checks")

    def write(self, dataset: str, variants: Mapping[str, Any], **more: Any) -> None:
        """Write the experiment, and the module of its own checks where it has any."""
        first = {"description": more.pop("description")} if "description" in more else {}
        experiment = {**first, "dataset": dataset, "variants": dict(variants), **more}
        evaluators = [next(iter(use)) if use == {next(iter(use)): {}} else use for use in self.evaluators]
        experiment |= {"evaluators": evaluators} if evaluators else {}
        experiment |= {"gates": self.gates} if self.gates else {}
        experiment |= {"x-gates": self.idle_gates} if self.idle_gates else {}
        self.job.write("experiment", self.job.name, experiment)
        if self._functions:
            used = [name for name, is_used in self._uses() if is_used]
            head = f"# {self.job.heading}\n{_HEAD}from llmops.convert.asserted import {', '.join(used)}\n"
            self.job.files[f"chains/{self.module}.py"] = head + "".join(self._functions.values())

    def _uses(self) -> list[tuple[str, bool]]:
        texts = "".join(self._functions.values())
        return [("holds", "holds(" in texts), ("judge_case", "judge_case(" in texts)]
