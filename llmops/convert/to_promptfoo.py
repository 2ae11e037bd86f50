"""An experiment as a promptfoo configuration: its prompts, a provider for each variant, and a test for each case."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmops.convert.account import Page
from llmops.convert.yaml_writer import write_yaml
from llmops.definitions.base import meaning_of
from llmops.definitions.case_file import Case
from llmops.definitions.documents import Location
from llmops.definitions.experiment import EvaluatorUse, Experiment, Gate, Trial, expand
from llmops.definitions.project import ModelDefinition
from llmops.definitions.prompt import ConversationBlock, ExamplesBlock, Prompt, as_written
from llmops.definitions.reference import Kind
from llmops.definitions.templates import TemplateError, evaluate, parse_template, render_text
from llmops.definitions.workspace import Workspace
from llmops.errors import UsageError

_SIGNS = re.compile(r"\{\{|\{%|\{#")
_PLAIN = re.compile(r"\{\{\s*[A-Za-z_]\w*\s*\}\}|\{\{ '(?:\{\{|\{%|\{#)' \}\}")
_SCOPE = frozenset({"expected", "inputs", "metadata"})
_ALIKE = frozenset({"exact_match", "contains", "regex", "json_valid", "json_schema"})
_NO_RUN = {
    "seed": "promptfoo draws nothing",
    "baseline": "promptfoo compares no variants",
    "missing_baseline": "promptfoo compares no variants",
    "on_inconclusive": "promptfoo has no third outcome",
    "budget": "promptfoo has no budget",
}


def export(workspace: Workspace, kind: Kind, name: str) -> tuple[dict[str, str], list[Page]]:
    """Return promptfooconfig.yaml of an experiment.

    Raises UsageError where not one of its variants is a prompt.
    """
    experiment = workspace.experiment(name)
    page = Page(workspace.document(kind, name))
    writing = _Writing(workspace, experiment, page)
    return {
        "promptfooconfig.yaml": write_yaml(writing.configuration(), f"written from {name} by llmops convert")
    }, [
        page,
        *writing.pages.values(),
    ]


@dataclass
class _Writing:
    """One experiment on its way out."""

    workspace: Workspace
    experiment: Experiment
    page: Page
    pages: dict[str, Page] = field(default_factory=dict)
    _labels: dict[str, str] = field(default_factory=dict)
    _prompts: list[dict[str, Any]] = field(default_factory=list)

    def configuration(self) -> dict[str, Any]:
        """Return the configuration, every key of the experiment settled."""
        providers = [each for each in map(self._provider, expand(self.experiment)) if each]
        if not providers:
            raise UsageError("no variant of the experiment is a prompt, and promptfoo asks prompts")
        dataset, split = self.workspace.cases(self.experiment.dataset)
        cases = dataset.of(split)
        self.page.keep(("dataset",), "tests")
        found: dict[str, Any] = {}
        if self.experiment.description:
            found["description"] = self.experiment.description
            self.page.keep(("description",), "description")
        found |= {"prompts": self._prompts, "providers": providers}
        if self.experiment.repeats > 1:
            found["evaluateOptions"] = {"repeat": self.experiment.repeats}
        self.page.keep(("repeats",), "evaluateOptions.repeat")
        if any(isinstance(value, list) for case in cases for value in case.inputs.values()):
            found["defaultTest"] = {"options": {"disableVarExpansion": True}}
        found["tests"] = self._tests(cases)
        for key, why in _NO_RUN.items():
            self.page.drop((key,), why)
        for axis in self.experiment.matrix:
            self.page.keep(("matrix", axis), "a provider for each value")
        return found

    # --- variants -----------------------------------------------------------------------------------------------

    def _provider(self, trial: Trial) -> dict[str, Any] | None:
        """Return the provider of a variant, with the one prompt that it asks."""
        place: Location = ("variants", trial.name.partition("/")[0])
        definition = trial.definition
        if definition.prompt is None:
            what = "a chain" if definition.chain is not None else "recorded outputs"
            self.page.drop(place, f"promptfoo asks models by prompts, and this is {what}")
            return None
        resolved = self.workspace.resolve("prompt", definition.prompt)
        prompt = resolved.workspace.prompt(resolved.name)
        changed = {key: value for key, value in definition.set.items() if key.startswith("examples.")}
        label = self._prompt(definition.prompt, prompt, changed)
        model = str(definition.set.get("model") or definition.model or prompt.model)
        parameters = {**prompt.parameters.given(), **definition.parameters.given()}
        for key, value in definition.set.items():
            if key.startswith("parameters."):
                parameters[key.removeprefix("parameters.")] = value
        id_, config = _provider(self.workspace.model(model), parameters)
        self.page.keep((*place, "prompt"), "a prompt, and a provider that asks it alone")
        self.page.keep(place, "a provider")
        return {"id": id_, "label": trial.name, "prompts": [label]} | ({"config": config} if config else {})

    def _prompt(self, reference: str, prompt: Prompt, changed: Mapping[str, Any]) -> str:
        """Take a prompt in once for each way its examples are shown, and return its label."""
        key = json.dumps([reference, dict(changed)], sort_keys=True, default=str)
        if key in self._labels:
            return self._labels[key]
        label = (
            reference if reference not in self._labels.values() else f"{reference}_{len(self._labels) + 1}"
        )
        self._labels[key] = label
        page = self._page(reference)
        messages: list[dict[str, str]] = []
        for index, message in enumerate(prompt.messages):
            place = ("messages", index)
            if isinstance(message, ExamplesBlock):
                messages += self._examples(message, changed, page, place)
            elif isinstance(message, ConversationBlock):
                page.drop(place, "promptfoo's prompts have no place for earlier turns")
            elif not isinstance(message.content, str):
                page.drop(place, "a message with images, which llmops reads from files by itself")
            else:
                messages.append({"role": message.role, "content": _nunjucks(message.content)})
                is_plain = not _SIGNS.search(_PLAIN.sub("", message.content))
                settle = page.keep if is_plain else page.approximate
                settle(place, "messages" if is_plain else "messages; Nunjucks is not quite Jinja2")
        self._prompts.append(
            {"id": label, "label": label, "raw": json.dumps(messages, ensure_ascii=False, indent=2)}
        )
        return label

    def _page(self, reference: str) -> Page:
        """Return the page of a prompt, with what is said of it as a whole."""
        if reference not in self.pages:
            resolved = self.workspace.resolve("prompt", reference)
            page = Page(resolved.workspace.document("prompt", resolved.name))
            page.keep(("parameters",), "config of its providers")
            page.keep(("model",), "the id of its providers")
            page.drop(("description",), "promptfoo's prompts have no description")
            page.drop(("inputs",), "promptfoo's prompts declare no variables")
            page.drop(("response_format",), "providers ask for a format in ways of their own")
            self.pages[reference] = page
        return self.pages[reference]

    def _examples(
        self, block: ExamplesBlock, changed: Mapping[str, Any], page: Page, place: Location
    ) -> list[dict[str, str]]:
        about = {
            **meaning_of(block.examples),
            **{key.removeprefix("examples."): v for key, v in changed.items()},
        }
        dataset, split = self.workspace.cases(str(about["from"]))
        found = []
        for case in dataset.of(split)[: int(about["k"])]:
            values = {**case.inputs, "expected": case.expected}
            for role, source in (("user", block.user), ("assistant", block.assistant)):
                found.append({"role": role, "content": _raw(render_text(parse_template(source), values))})
        if about.get("select", "first") == "first":
            page.keep(place, "its examples as turns")
        else:
            page.approximate(place, "the first examples as turns, the same for every case")
        return found

    # --- tests --------------------------------------------------------------------------------------------------

    def _tests(self, cases: Sequence[Case]) -> list[dict[str, Any]]:
        common = self._gates()
        evaluators = list(enumerate(self.experiment.evaluators))
        asserts: list[list[dict[str, Any]]] = [[] for _ in cases]
        for index, use in evaluators:
            self._assert(index, use, cases, asserts)
        tests = []
        for case, own in zip(cases, asserts, strict=True):
            test: dict[str, Any] = {"description": case.id}
            test["vars"] = {
                key: _raw(value) if isinstance(value, str) else value for key, value in case.inputs.items()
            }
            test |= {"metadata": dict(case.metadata)} if case.metadata else {}
            tests.append(test | ({"assert": [*own, *common]} if own or common else {}))
        return tests

    def _assert(
        self, index: int, use: EvaluatorUse, cases: Sequence[Case], asserts: list[list[dict[str, Any]]]
    ) -> None:
        """Add what an evaluator asserts of each case, and settle it."""
        place: Location = ("evaluators", index)
        if use.output is not None:
            self.page.drop(place, "promptfoo judges whole outputs")
            return
        try:
            found = [_assertion(use, self._expected(use, case), self.workspace) for case in cases]
        except (TemplateError, UsageError) as error:
            self.page.drop(place, f"what it expects is not known before it runs: {error}")
            return
        if any(each is None for each in found):
            self.page.drop(place, f"promptfoo has nothing like {use.kind} with these options")
            return
        for each, own in zip(found, asserts, strict=True):
            own.append({**(each or {}), "metric": use.name})
        kind = (found[0] or {}).get("type") if found else use.kind
        if use.kind in {
            "exact_match",
            "contains",
            "regex",
            "json_valid",
            "json_schema",
        } and not use.options.get("normalise"):
            self.page.keep(place, f"assertion {kind}")
        else:
            self.page.approximate(place, f"assertion {kind}, which scores in a way of its own")

    def _expected(self, use: EvaluatorUse, case: Case) -> Any:
        if use.expected is None:
            return case.expected
        template = parse_template(use.expected)
        if not template.variables <= _SCOPE:
            raise UsageError(f"{use.name} looks at more than the case")
        values = {"expected": case.expected, "inputs": dict(case.inputs), "metadata": dict(case.metadata)}
        return evaluate(template, values)

    def _gates(self) -> list[dict[str, Any]]:
        """Return the assertions that gates come to for every case."""
        found = []
        for index, gate in enumerate(self.experiment.gates):
            assertion = _limit(gate)
            if assertion is None:
                self.page.drop(
                    ("gates", index), "promptfoo asks each case, and no share or difference of all"
                )
            else:
                found.append(assertion)
                self.page.approximate(("gates", index), f"{assertion['type']} of each case")
        return found


def _limit(gate: Gate) -> dict[str, Any] | None:
    if gate.metric.startswith("latency_s") and gate.at_most is not None and gate.slice is None:
        return {"type": "latency", "threshold": gate.at_most * 1000}
    return None


def _provider(model: ModelDefinition, parameters: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the id of promptfoo's provider for a model of ours, and its configuration."""
    config = dict(parameters)
    if model.provider == "embedded":
        return "echo", {}
    address = model.endpoint or (f"{{{{env.{model.endpoint_env}}}}}" if model.endpoint_env else None)
    is_azure = model.provider == "azure_openai"
    if address:
        config["apiHost" if is_azure else "apiBaseUrl"] = address
    if model.api_key_env:
        config["apiKeyEnvar"] = model.api_key_env
    if model.api_version and is_azure:
        config["apiVersion"] = model.api_version
    return f"{'azure' if is_azure else 'openai'}:chat:{model.model}", config


def _assertion(use: EvaluatorUse, expected: Any, workspace: Workspace) -> dict[str, Any] | None:
    """Return what an evaluator asserts of a case that expects something; None where promptfoo has nothing like it."""
    makers: dict[str, Callable[[Mapping[str, Any], Any], dict[str, Any] | None]] = {
        "exact_match": _equals,
        "classification": _equals,
        "contains": _contains,
        "regex": _regex,
        "json_valid": lambda *_: {"type": "is-json"},
        "json_schema": lambda options, _: {"type": "is-json", "value": dict(options["schema"])},
        "cosine": lambda _, expected: {"type": "similar", "value": str(expected)},
    }
    if use.kind == "judge":
        return _rubric(use, workspace)
    maker = makers.get(use.kind)
    return maker(use.options, expected) if maker else None


def _equals(options: Mapping[str, Any], expected: Any) -> dict[str, Any] | None:
    if options.get("any_of") or expected is None:
        return None
    return {"type": "equals", "value": _raw(expected) if isinstance(expected, str) else expected}


def _contains(options: Mapping[str, Any], expected: Any) -> dict[str, Any] | None:
    head = "i" if options.get("ignore_case") else ""
    for key in ("all", "any"):
        if options.get(key):
            return {"type": f"{head}contains-{key}", "value": [_raw(text) for text in options[key]]}
    text = options.get("text", expected)
    return {"type": f"{head}contains", "value": _raw(text)} if isinstance(text, str) and text else None


def _regex(options: Mapping[str, Any], expected: Any) -> dict[str, Any] | None:
    pattern = options.get("pattern", expected)
    if not isinstance(pattern, str):
        return None
    whole = f"^(?:{pattern})$" if options.get("mode") == "fullmatch" else pattern
    return {"type": "regex", "value": _raw(f"(?i){whole}" if options.get("ignore_case") else whole)}


def _rubric(use: EvaluatorUse, workspace: Workspace) -> dict[str, Any] | None:
    """Return the rubric of a judge as promptfoo asks it: the texts of its prompt that look nothing up."""
    resolved = workspace.resolve("prompt", str(use.options["prompt"]))
    prompt = resolved.workspace.prompt(resolved.name)
    texts = [
        text
        for role, text in map(as_written, prompt.messages)
        if role not in ("examples", "conversation") and not parse_template(text).variables
    ]
    return {"type": "llm-rubric", "value": _raw("\n\n".join(texts))} if texts else None


def _nunjucks(template: str) -> str:
    """Return a template of ours as Nunjucks, whose few differences are spelled out."""
    return re.sub(r"\|\s*tojson\b", "| dump", re.sub(r"\|\s*items\b", "", template))


def _raw(text: str) -> str:
    """Return a text that Nunjucks leaves as it is."""
    if not _SIGNS.search(text):
        return text
    safe = text.replace("{% endraw %}", "{% endraw %}{{ '{% endraw %}' }}{% raw %}")
    return f"{{% raw %}}{safe}{{% endraw %}}"
