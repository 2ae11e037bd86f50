"""Prompt flow DAGs: nodes to steps of a chain, templates to prompts, and Python files to modules of the project."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmops.convert.account import Page
from llmops.convert.job import Job, same
from llmops.convert.messages import Inputs, prompt_inputs, template_of
from llmops.convert.names import file_name, identifier
from llmops.convert.promptflow_code import Modules, function_of
from llmops.convert.settings import is_format, parameter_name, read_format, read_parameters, say_model
from llmops.convert.translate import literal, turns
from llmops.definitions.documents import Location
from llmops.definitions.schemas import problem_with, schema_of
from llmops.definitions.yaml_reader import plain_value
from llmops.errors import DefinitionError, UsageError

CONFIGURED = ("connection", "environment_variables")
_REFERENCE = re.compile(r"\$\{\s*([\w-]+)(?:\.([\w.\[\]'\"-]+))?\s*\}")
_TYPES = {
    "string": "string",
    "int": "integer",
    "double": "number",
    "bool": "boolean",
    "list": "array",
    "object": "object",
}
_MODEL_KEYS = ("deployment_name", "model")
_ALL_CASES = (
    "a node over all cases: figures of all cases are an evaluator's, `python: MODULE:function` judges one"
)


def convert(job: Job) -> None:
    """Write the chain with its prompts and modules, and with defaults of its inputs a dataset of one case."""
    job.configured = CONFIGURED
    page = job.read_yaml(job.source)
    if not isinstance(page.value, dict) or not isinstance(page.value.get("nodes"), list):
        raise DefinitionError(page.document.finding((), "a flow has nodes"))
    _Flow(job, page).write()


@dataclass
class _Node:
    """One node: what it says, where, and what its step is called."""

    told: dict[str, Any]
    place: Location
    step: str


@dataclass
class _Flow:
    """One flow on its way into a chain."""

    job: Job
    page: Page
    inputs: Inputs = field(default_factory=Inputs)
    steps: dict[str, str] = field(default_factory=dict)
    """Node names to ids of steps; nodes over all cases have none."""
    modules: Modules = field(init=False)

    def __post_init__(self) -> None:
        self.modules = Modules(self.job, self.page)

    def write(self) -> None:
        """Write everything that the flow comes to."""
        kinds, defaults = self._inputs()
        nodes = self._nodes()
        steps = {node.step: self._step(node) for node in nodes}
        variants = self._variants(nodes)
        if not steps:
            raise DefinitionError(self.page.document.finding(("nodes",), "no node that a chain could have"))
        outputs = self._outputs()
        chain: dict[str, Any] = {}
        if isinstance(self.page.value.get("description"), str):
            chain["description"] = self.page.value["description"]
            self.page.keep(("description",), "description of the chain")
        chain |= {"inputs": kinds, "steps": list(steps.values())} | ({"outputs": outputs} if outputs else {})
        names = [self.job.write("chain", self.job.name, chain)]
        for label, step in variants:
            changed = [step if step["id"] == each["id"] else each for each in chain["steps"]]
            names.append(
                self.job.write("chain", file_name(f"{self.job.name}_{label}"), {**chain, "steps": changed})
            )
        self.modules.write()
        self._cases(kinds, defaults, names)
        self._rest()

    # --- inputs and outputs -------------------------------------------------------------------------------------

    def _inputs(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the inputs with their types, and their defaults."""
        told = self.page.value.get("inputs")
        kinds: dict[str, Any] = {}
        defaults: dict[str, Any] = {}
        for name, said in told.items() if isinstance(told, dict) else ():
            place: Location = ("inputs", name)
            ours = self.inputs.add(name)
            about = said if isinstance(said, dict) else {}
            kinds[ours] = _TYPES.get(str(about.get("type")), "any")
            if kinds[ours] != "any":
                self.page.keep((*place, "type"), f"inputs.{ours}")
            else:
                self.page.approximate((*place, "type"), f"inputs.{ours}, of any type")
            if "default" in about:
                defaults[ours] = _number(about["default"], kinds[ours])
            for key in ("is_chat_input", "is_chat_history"):
                self.page.drop((*place, key), "an input is an input: a conversation is given as one")
            self.page.drop((*place, "description"), "an input has no description here")
            if not isinstance(said, dict):
                self.page.approximate(place, f"inputs.{ours}, of any type")
        return kinds, defaults

    def _cases(self, kinds: dict[str, Any], defaults: dict[str, Any], chains: list[str]) -> None:
        """Write a case of the defaults, and an experiment over it where there are variants to compare."""
        names = {name: ours for name, ours in self.inputs.names.items() if ours in kinds}
        misfits = [name for name, ours in names.items() if not _fits(kinds[ours], defaults.get(ours))]
        why = None
        if {*defaults} != {*kinds}:
            why = "an input has no default here, and other inputs have none at all to make a case with"
        elif misfits:
            why = f"no case of the defaults: that of {misfits[0]} is not of its type"
        for name in names:
            if why is not None:
                self.page.drop(("inputs", name, "default"), why)
            else:
                self.page.keep(("inputs", name, "default"), f"the case `default` of dataset {self.job.name}")
        if kinds and why is None:
            self.job.write_cases(self.job.name, {"inputs": kinds}, [{"id": "default", "inputs": defaults}])
            variants = {name: {"chain": name} for name in chains}
            self.job.write("experiment", self.job.name, {"dataset": self.job.name, "variants": variants})

    def _outputs(self) -> dict[str, Any]:
        told = self.page.value.get("outputs")
        outputs: dict[str, Any] = {}
        for name, about in told.items() if isinstance(told, dict) else ():
            place: Location = ("outputs", name)
            reference = about.get("reference") if isinstance(about, dict) else None
            try:
                outputs[name] = self.value(reference)
                self.page.keep((*place, "reference"), f"outputs.{name}")
            except UsageError as error:
                self.page.drop((*place, "reference"), str(error))
                outputs.pop(name, None)
            self.page.drop((*place, "type"), "an output has the type that its step gives")
            self.page.drop((*place, "is_chat_output"), "an output is an output")
            self.page.drop((*place, "description"), "an output has no description here")
        return outputs

    # --- nodes --------------------------------------------------------------------------------------------------

    def _nodes(self) -> list[_Node]:
        found = []
        for index, told in enumerate(self.page.value["nodes"]):
            place: Location = ("nodes", index)
            if not isinstance(told, dict) or not isinstance(told.get("name"), str):
                self.page.drop(place, "a node has a name")
            elif told.get("aggregation") is True:
                self.page.drop(place, _ALL_CASES)
            else:
                node = self._node(told, place)
                if node.step == told["name"]:
                    self.page.keep((*place, "name"), f"step {node.step}")
                else:
                    self.page.approximate(
                        (*place, "name"), f"step {node.step}: its name is taken or no identifier"
                    )
                if node.place != place:
                    self.page.keep((*place, "use_variants"), "its variants are chains of their own")
                    self.page.drop(place, "its default variant counts")
                found.append(node)
        return found

    def _node(self, told: dict[str, Any], place: Location) -> _Node:
        """Return a node, as its default variant has it where it leaves that to variants."""
        step = self._id(told["name"])
        about = self._about(told["name"]) if told.get("use_variants") else {}
        label = str(about.get("default_variant_id"))
        chosen = about.get("variants", {}).get(label)
        inner = chosen.get("node") if isinstance(chosen, dict) else None
        if not isinstance(inner, dict):
            return _Node(told, place, step)
        at: Location = ("node_variants", told["name"], "variants", label, "node")
        return _Node({**inner, "name": told["name"]}, at, step)

    def _about(self, name: str) -> dict[str, Any]:
        told = self.page.value.get("node_variants")
        about = told.get(name) if isinstance(told, dict) else None
        return about if isinstance(about, dict) and isinstance(about.get("variants"), dict) else {}

    def _id(self, name: str) -> str:
        taken = {*self.inputs.names.values(), *self.steps.values()}
        words = name if name not in taken else f"{name}_step"
        self.steps[name] = identifier(words, taken=taken)
        return self.steps[name]

    def _variants(self, nodes: list[_Node]) -> list[tuple[str, dict[str, Any]]]:
        """Return label and step of each variant that is not the one a node has anyway."""
        found = []
        for node in nodes:
            name = str(node.told["name"])
            about = self._about(name)
            if node.place[0] != "node_variants":
                continue
            self.page.keep(("node_variants", name, "default_variant_id"), f"chain {self.job.name}")
            for label, variant in about["variants"].items():
                inner = variant.get("node") if isinstance(variant, dict) else None
                if isinstance(inner, dict) and not same(label, about["default_variant_id"]):
                    at: Location = ("node_variants", name, "variants", label, "node")
                    other = _Node({**inner, "name": name}, at, node.step)
                    found.append((f"{node.step}_{label}", self._step(other, label)))
        return found

    def _step(self, node: _Node, label: str = "") -> dict[str, Any]:
        """Return a node as a step, and settle what it says."""
        kind = str(node.told.get("type"))
        makers = {"llm": self._llm, "prompt": self._text, "python": self._python}
        step = makers.get(kind, self._stub)(node, label)
        if kind in makers:
            self.page.keep((*node.place, "type"), f"verb of step {node.step}")
        self.page.drop((*node.place, "comment"), "a step has no description")
        return {"id": node.step, **self._activated(node, step)}

    def _activated(self, node: _Node, step: dict[str, Any]) -> dict[str, Any]:
        """Return a step as the arm of a branch, where its node says when it is carried out."""
        told, place = node.told.get("activate"), (*node.place, "activate")
        if not isinstance(told, dict):
            return step
        found = _REFERENCE.fullmatch(str(told.get("when")))
        wanted = told.get("is")
        if found is None or isinstance(wanted, dict | list):
            self.page.drop(place, "no condition that a branch could ask; the step is always carried out")
            return step
        try:
            condition = f"{{{{ {self._path(found[1], found[2] or '')} == {_jinja(wanted)} }}}}"
        except UsageError as error:
            self.page.drop(place, f"{error}; the step is always carried out")
            return step
        self.page.approximate(place, "a branch; where it is not taken, steps that read it get null")
        return {"branch": {"when": [{"if": condition, "do": step}], "else": None}}

    # --- one node -----------------------------------------------------------------------------------------------

    def _source(self, node: _Node) -> str | None:
        source = node.told.get("source")
        path = source.get("path") if isinstance(source, dict) else None
        return path if isinstance(path, str) else None

    def _read(self, node: _Node) -> tuple[Page, str] | None:
        """Return the page and text of a node's template; None, and why, where there is none."""
        path = self._source(node)
        try:
            if path is None:
                raise UsageError("no source.path")
            read = self.job.read_text(path)
        except UsageError as error:
            self.page.drop((*node.place, "source"), str(error))
            return None
        self._say_source(node, f"read for step {node.step}")
        return read

    def _say_source(self, node: _Node, how: str) -> None:
        self.page.keep((*node.place, "source", "path"), how)
        if node.told["source"].get("type") == "code":
            self.page.keep((*node.place, "source", "type"), how)
        self.page.approximate((*node.place, "source", "type"), "read as a file")

    def _llm(self, node: _Node, label: str) -> dict[str, Any]:
        read = self._read(node)
        if read is None:
            return self._stub(node, label)
        other, text = read
        is_chat = str(node.told.get("api", "chat")) == "chat"
        found, said = turns(text) if is_chat else ([("user", text.strip())], [])
        names = Inputs()
        messages = [
            {"role": role, "content": template_of(content, str, names, other.document, ())}
            for role, content in found
        ] or [{"role": "user", "content": ""}]
        if said or not is_chat:
            other.approximate(
                (), "messages; " + "; ".join(said or ["a completion is one message of the user"])
            )
        else:
            other.keep((), "messages")
        prompt: dict[str, Any] = {"inputs": prompt_inputs(messages, {})}
        prompt |= self._settings(node, names)
        schema = prompt.pop("response_format", None)
        prompt |= {"messages": messages} | ({"response_format": schema} if schema else {})
        words = f"{self.job.name}_{node.step}" + (f"_{label}" if label else "")
        written = self.job.write("prompt", file_name(words), prompt)
        given = self._given(node, {*names.names})
        return {"prompt": written} | {"with": {names.names[name]: value for name, value in given.items()}}

    def _settings(self, node: _Node, names: Inputs) -> dict[str, Any]:
        """Return model, parameters and format of a prompt; what its template looks up is no parameter."""
        told = node.told.get("inputs")
        told = {k: v for k, v in told.items() if k not in names.names} if isinstance(told, dict) else {}
        place = (*node.place, "inputs")
        plain = {key: value for key, value in told.items() if not _is_reference(value)}
        found: dict[str, Any] = {}
        named = [key for key in _MODEL_KEYS if isinstance(plain.get(key), str) and plain[key]]
        if named:
            is_azure = str(node.told.get("provider", "AzureOpenAI")).lower().startswith("azure")
            block: dict[str, Any] = {
                "provider": "azure_openai" if is_azure else "openai",
                "model": plain[named[0]],
            }
            block |= {"endpoint_env": "AZURE_OPENAI_ENDPOINT"} if is_azure else {}
            block["api_key_env"] = "AZURE_OPENAI_API_KEY" if is_azure else "OPENAI_API_KEY"
            name, known = self.job.model(block)
            say_model(self.page, [(*place, key) for key in named], name, known=known)
            found |= {"model": name} if name != "default" else {}
        parameters = read_parameters(self.page, place, plain)
        found |= {"parameters": parameters} if parameters else {}
        for key, value in plain.items():
            if is_format(key) and (schema := read_format(self.page, (*place, key), value)):
                found["response_format"] = schema
        self.page.keep((*node.place, "api"), "messages") if node.told.get("api") == "chat" else None
        self.page.approximate((*node.place, "api"), "asked as a chat")
        self.page.approximate((*node.place, "provider"), "provider of the model to add to llmops.yaml")
        self.page.approximate(
            (*node.place, "connection"),
            "address and key come from the environment, by the model's block in llmops.yaml",
        )
        self.page.drop((*node.place, "module"), "the model's provider decides how it is asked")
        return found

    def _given(self, node: _Node, wanted: set[str] | None) -> dict[str, Any]:
        """Return what a step is given, by the names there. wanted: what a template looks up; None for everything."""
        told = node.told.get("inputs")
        told = told if isinstance(told, dict) else {}
        given: dict[str, Any] = {}
        for name, value in told.items():
            place = (*node.place, "inputs", name)
            if wanted is not None and name not in wanted:
                if parameter_name(name) is None and name not in _MODEL_KEYS:
                    self.page.drop(place, "neither a parameter of llmops nor looked up by the template")
                continue
            try:
                given[name] = self.value(value)
                self.page.keep(place, f"with.{name} of step {node.step}")
            except UsageError as error:
                given[name] = None
                self.page.drop(place, str(error))
        for name in sorted((wanted or set()) - {*given}):
            given[name] = f"{{{{ {self.inputs.names[name]} }}}}" if name in self.inputs.names else ""
        return given

    def value(self, told: Any) -> Any:
        """Return a node's input as a template or plain value (UsageError for what it refers to and is not there)."""
        if isinstance(told, dict):
            return {key: self.value(item) for key, item in told.items()}
        if isinstance(told, list):
            return [self.value(item) for item in told]
        if not isinstance(told, str):
            return told
        parts = []
        end = 0
        for found in _REFERENCE.finditer(told):
            parts += [literal(told[end : found.start()]), f"{{{{ {self._path(found[1], found[2] or '')} }}}}"]
            end = found.end()
        return "".join([*parts, literal(told[end:])])

    def _path(self, name: str, rest: str) -> str:
        if name == "inputs":
            head, dot, more = rest.partition(".")
            if head not in self.inputs.names:
                raise UsageError(f"the flow has no input {head!r}")
            return self.inputs.names[head] + dot + more
        if name == "flow" or name not in self.steps:
            raise UsageError(f"no step gives {name!r}")
        return f"{self.steps[name]}.{rest or 'output'}"

    def _text(self, node: _Node, label: str) -> dict[str, Any]:
        """Return a prompt node as a function that fills its template: its text goes to other nodes, not to a model."""
        read = self._read(node)
        if read is None:
            return self._stub(node, label)
        other, text = read
        names = Inputs()
        template = template_of(text, str, names, other.document, ())
        other.keep((), f"the text that step {node.step} fills in")
        function = self.modules.text(f"{node.step}_{label}" if label else node.step, template)
        given = self._given(node, {*names.names})
        return {"python": function} | _with({names.names[name]: value for name, value in given.items()})

    def _python(self, node: _Node, label: str) -> dict[str, Any]:
        path = self._source(node)
        copied = self.modules.copy(path) if path else None
        if copied is None:
            return self._stub(node, label)
        module, text = copied
        found = function_of(text)
        if found is None:
            self.page.drop((*node.place, "source"), "no function in it that a step could call")
            return self._stub(node, label)
        self._say_source(node, f"chains/{module.replace('.', '/')}.py")
        told = node.told.get("inputs")
        for name in told if isinstance(told, dict) else ():
            place = (*node.place, "inputs", name)
            if not found.takes(name):
                self.page.drop(place, "the function takes nothing of that name")
            elif name in found.connections:
                self.page.approximate(place, "the name of a connection: llmops has none to give")
        given = {
            name: found.value(name, value)
            for name, value in self._given(node, None).items()
            if found.takes(name)
        }
        return {"python": f"{module}:{found.name}"} | _with(given)

    def _stub(self, node: _Node, label: str) -> dict[str, Any]:
        """Return a step that says, when it is carried out, what has to be written in its place."""
        kind = str(node.told.get("type"))
        self.page.drop(
            (*node.place, "type"), "a tool that llmops does not have: its step raises until it is written"
        )
        self.page.drop((*node.place, "source"), "a tool that llmops does not have")
        function = self.modules.stub(f"{node.step}_{label}" if label else node.step, kind)
        return {"python": function} | _with(self._given(node, None))

    def _rest(self) -> None:
        page = self.page
        page.drop(("environment",), "the project's own packages, in its pyproject.toml or requirements")
        page.drop(("additional_includes",), "files of other folders are not copied")
        page.drop(("$schema",), "llmops has schemas of its own: `llmops check --schema chain`")
        page.keep(("language",), "Python") if page.value.get("language") == "python" else None


def _with(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"with": dict(given)} if given else {}


def _is_reference(value: Any) -> bool:
    return isinstance(value, str) and _REFERENCE.search(value) is not None


def _number(value: Any, kind: str) -> Any:
    """Return a default as the number that it spells, where a number is asked for."""
    return plain_value(value) if kind in {"integer", "number"} and isinstance(value, str) and value else value


def _fits(kind: Any, value: Any) -> bool:
    return problem_with(value, schema_of(kind)) is None


def _jinja(value: str | float | bool | None) -> str:
    """Return a plain value as an expression."""
    return "none" if value is None else json.dumps(value)
