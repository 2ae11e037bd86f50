"""What a model is told of a tool: read from source, never executed, and exact or refused."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from llmops.definitions.chain import Tool
from llmops.definitions.tools import ToolSpec, describe_tool
from llmops.definitions.workspace import load_workspace

Describe = Callable[..., ToolSpec]


@pytest.fixture
def describe(project: Callable[..., Path]) -> Describe:
    """Give a function that describes a tool; `source` is that of the module `code`."""

    def describe(source: str = "", *, files: dict[str, str] | None = None, **tool: Any) -> ToolSpec:
        code = "raise SystemExit('executed')\n" + textwrap.dedent(source)
        root = project({"chains/code.py": code, **(files or {})})
        return describe_tool(load_workspace(root), Tool.model_validate(tool or {"python": "code:f"}))

    return describe


def problems(spec: ToolSpec) -> list[str]:
    return [f"{'.'.join(map(str, each.location))}: {each.message}" for each in spec.problems]


def test_a_function_is_told_by_its_name_docstring_and_hints(describe: Describe) -> None:
    spec = describe('''
        def f(place: str, *, days: int = 3, unit: "Literal['C', 'F']" = "C"):
            """Return the weather.

            Ask for one place at a time.

            place: a town,
                in English
            days: how far ahead

            Returns:
                what: the forecast
            """
        ''')
    assert (spec.name, spec.problems) == ("f", ())
    assert spec.description == "Return the weather.\nAsk for one place at a time."
    assert spec.schema == {
        "type": "object",
        "properties": {
            "place": {"type": "string", "description": "a town, in English"},
            "days": {"type": "integer", "description": "how far ahead", "default": 3},
            "unit": {"enum": ["C", "F"], "default": "C"},
        },
        "required": ["place"],
        "additionalProperties": False,
    }
    assert spec.passed == {"place", "days", "unit"}


@pytest.mark.parametrize(
    "line", ["a: the first", "a (int): the first", ":param a: the first", "Args:\n    a: the first"]
)
def test_parameters_are_described_in_any_usual_way(describe: Describe, line: str) -> None:
    spec = describe(f'def f(a: int):\n    """Do it.\n\n    {line}\n    """')
    assert spec.schema["properties"]["a"]["description"] == "the first"
    assert spec.description == "Do it."


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        ("str", {"type": "string"}),
        ("float", {"type": "number"}),
        ("bool", {"type": "boolean"}),
        ("int | None", {"type": ["integer", "null"]}),
        ("Optional[str]", {"type": ["string", "null"]}),
        ("typing.Union[int, str]", {"type": ["integer", "string"]}),
        ("list", {"type": "array"}),
        ("list[str]", {"type": "array", "items": {"type": "string"}}),
        ("Sequence[list[int]]", {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}),
        ("dict[str, float]", {"type": "object", "additionalProperties": {"type": "number"}}),
        ("dict[str, Any]", {"type": "object"}),
        ("Literal['a', 1]", {"enum": ["a", 1]}),
        ("Literal['a'] | None", {"anyOf": [{"enum": ["a"]}, {"type": "null"}]}),
        (
            "list[int] | int",
            {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "integer"}]},
        ),
        ("Annotated[int, Field(ge=0), 'how many']", {"type": "integer", "description": "how many"}),
        ("'int'", {"type": "integer"}),
        ("Any", {}),
        ("str | Any", {}),
    ],
)
def test_a_type_hint_becomes_the_schema_that_says_the_same(
    describe: Describe, hint: str, schema: dict[str, Any]
) -> None:
    spec = describe(f'def f(a: {hint}):\n    """Do it."""')
    assert problems(spec) == []
    assert spec.schema["properties"]["a"] == schema
    Draft202012Validator.check_schema(spec.schema)


@pytest.mark.parametrize(
    "hint",
    [
        "bytes",
        "Path",
        "tuple[int, str]",
        "dict[int, str]",
        "list[Path]",
        "int | Path",
        "Literal[X]",
        "3",
        "'['",
    ],
)
def test_a_hint_that_json_cannot_say_is_refused_with_those_it_can(describe: Describe, hint: str) -> None:
    (problem,) = problems(describe(f'def f(a: {hint}):\n    """Do it."""'))
    assert f"code:f: a: {hint} is no type that JSON has; there are str, int" in problem


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ('def f(a):\n    """Do it."""', "python: code:f gives 'a' no type, so nobody can tell the model"),
        ("def f(a: int): ...", "python: nothing says what the tool f does"),
        ('def f(a: int, /):\n    """Do it."""', "python: code:f takes 'a' by position only"),
        (f'def {"f" * 70}(a: int):\n    """Do it."""', "no service takes"),
    ],
)
def test_what_cannot_be_told_is_a_problem(describe: Describe, source: str, said: str) -> None:
    name = source.partition("(")[0].removeprefix("def ")
    (problem,) = problems(describe(source, python=f"code:{name}"))
    assert said in problem


OWNER = 'def f(order: str, customer, **more):\n    """Say whose."""'


def test_what_with_gives_needs_no_type_and_is_not_told(describe: Describe) -> None:
    spec = describe(OWNER, python="code:f", **{"with": {"customer": "c-1"}})
    assert problems(spec) == []
    assert list(spec.schema["properties"]) == ["order"]
    assert spec.passed == {"order"}


def test_inputs_that_are_declared_stand_for_the_hints(describe: Describe) -> None:
    inputs = {"order": {"type": "string", "pattern": "^A"}, "who": "string"}
    spec = describe(OWNER, python="code:f", inputs=inputs, **{"with": {"customer": "{{ who }}"}})
    assert problems(spec) == []
    assert spec.schema["properties"] == {
        "order": {"type": "string", "pattern": "^A"},
        "who": {"type": "string"},
    }
    assert spec.passed == {"order", "who"}
    plain = describe(
        'def f(order: str):\n    """Say."""',
        python="code:f",
        inputs={"n": "any"},
        **{"with": {"order": "{{ n }}"}},
    )
    assert plain.passed == set()


def test_what_neither_inputs_nor_with_gives_is_a_problem(describe: Describe) -> None:
    found = problems(
        describe('def f(a: int, b: int = 1):\n    """Do."""', python="code:f", inputs={"c": "string"})
    )
    assert found == ["python: code:f needs 'a', and neither `inputs` nor `with` gives it"]
    found = problems(describe('def f(a: int):\n    """Do."""', python="code:f", **{"with": {"aa": 1}}))
    assert found == ["with.aa: code:f takes no 'aa'"]


PROMPT = "description: Asks.\ninputs: {q: string, n: any}\nmessages: [{role: user, content: '{{ q }}'}]\n"


def test_a_prompt_is_told_by_its_description_and_inputs(describe: Describe) -> None:
    files = {"prompts/ask.prompt.yaml": PROMPT}
    spec = describe(files=files, prompt="ask")
    assert (spec.name, spec.description, spec.problems) == ("ask", "Asks.", ())
    assert spec.schema["properties"] == {"q": {"type": "string"}, "n": {}}
    assert spec.schema["required"] == ["q", "n"]
    files = {"prompts/ask.me.prompt.yaml": PROMPT.replace("description: Asks.\n", "")}
    assert problems(describe(files=files, prompt="ask.me")) == [
        "prompt: no service takes 'ask.me' for the name of a tool",
        "prompt: nothing says what the tool ask.me does",
    ]


def test_any_other_verb_says_all_of_itself(describe: Describe) -> None:
    use = {"map": {"over": "{{ numbers }}", "do": {"python": "code:f"}}}
    assert problems(describe(**use)) == [
        "map: a tool that is map has no name of its own",
        "map: nothing says what the tool map does",
        "map: nothing says what the model gives the tool map",
    ]
    told = {"name": "each", "description": "Does each.", "inputs": {"numbers": "array"}}
    spec = describe(**use, **told)
    assert problems(spec) == [] and not spec.passed
    assert spec.schema["properties"] == {"numbers": {"type": "array"}}
