"""How plain values become models, and what people are told where they do not."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from llmops.definitions.build import build
from llmops.definitions.documents import Document
from llmops.definitions.yaml_reader import read_yaml
from llmops.errors import DefinitionError, Finding
from tests.definitions.values import TEXT, json_values

PATH = "prompts/a.prompt.yaml"


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Message(Strict):
    role: Literal["system", "user"]
    content: str


class Examples(Strict):
    source: str = Field(alias="from")
    k: int = Field(default=3, ge=0, le=9)


class Block(Strict):
    examples: Examples
    user: str = ""


class Square(Strict):
    kind: Literal["square"]
    side: float = Field(gt=0)


class Circle(Strict):
    kind: Literal["circle"]
    radius: float

    @model_validator(mode="after")
    def _not_huge(self) -> Circle:
        if self.radius > 100:
            raise ValueError(f"a circle of radius {self.radius} does not fit {{here}}")
        return self


class PromptStep(Strict):
    prompt: str
    inputs: dict[str, Any] = Field(default={}, alias="with")


class PythonStep(Strict):
    python: str


class Use(Strict):
    kind: str
    label: str = ""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: dict[str, Any]) -> dict[str, Any]:
        ((kind, rest),) = value.items()
        return {"kind": kind, **rest}


def block_or_message(value: Any) -> str:
    return "examples" if isinstance(value, dict) and "examples" in value else "message"


class Sample(Strict):
    description: str = ""
    count: int = 0
    share: float = Field(default=0.5, lt=1)
    flag: bool = False
    retires: dt.date | None = None
    color: Literal["red", "green"] = "red"
    name: str = Field(default="a", pattern="^[a-z]+$", min_length=1, max_length=5)
    stop: str | tuple[str, ...] | None = None
    names: dict[str, Message] = {}
    free: dict[str, Any] = {}
    pair: tuple[int, int] | None = None
    messages: tuple[
        Annotated[
            Annotated[Block, Tag("examples")] | Annotated[Message, Tag("message")],
            Discriminator(block_or_message),
        ],
        ...,
    ] = Field(default=(), min_length=1, max_length=3)
    shape: Annotated[Square | Circle, Field(discriminator="kind")] | None = None
    step: PromptStep | PythonStep | None = None
    shapes: list[Annotated[Square | Circle, Field(discriminator="kind")] | str] = []
    uses: list[Use] = []


def build_findings(text: str) -> tuple[Finding, ...]:
    with pytest.raises(DefinitionError) as caught:
        build(Sample, read_yaml(text.encode(), PATH))
    return caught.value.findings


def test_a_right_file_becomes_the_model_strict_types_and_all() -> None:
    sample = build(
        Sample,
        read_yaml(
            b"count: 3\nshare: 0\nstop: [a, b]\nretires: 2027-06-30\nfree: {x-kept: [1, no]}\n"
            b"messages: [{examples: {from: d}}, {role: user, content: '1'}]\n"
            b"shape: {kind: square, side: 2}\nuses: [{judge: {label: tone}}]\npair: [1, 2]\n",
            PATH,
        ),
    )
    assert (sample.count, sample.share, sample.stop, sample.pair) == (3, 0.0, ("a", "b"), (1, 2))
    assert sample.retires == dt.date(2027, 6, 30)
    assert sample.free == {"x-kept": [1, "no"]}
    assert sample.messages == (
        Block(examples=Examples.model_validate({"from": "d"})),
        Message(role="user", content="1"),
    )
    assert sample.shape == Square(kind="square", side=2)
    assert sample.uses[0].label == "tone"


@pytest.mark.parametrize(
    ("text", "place", "key", "hint"),
    [
        pytest.param("descripton: x", (1, 1), "descripton", "'description'", id="F73-top"),
        pytest.param("count: 1\nzzz: 1", (2, 1), "zzz", "known keys: description, count, ", id="F73-far"),
        pytest.param(
            "names:\n  a: {role: user, content: b, rôle: c}", (2, 31), "rôle", "'role'", id="F73-in-mapping"
        ),
        pytest.param(
            "names:\n  role: {role: user, content: b, cont: 1}", (2, 34), "cont", "'content'", id="F73-key"
        ),
        pytest.param(
            "messages:\n  - examples: {from: d}\n    usr: x",
            (3, 5),
            "usr",
            "'user'",
            id="F73-branch-named-as-key",
        ),
        pytest.param(
            "messages:\n  - examples:\n      from: d\n      form: d", (4, 7), "form", "'from'", id="F73-alias"
        ),
        pytest.param("step: {prompt: a, wiht: {}}", (1, 19), "wiht", "'with'", id="F73-union"),
        pytest.param("shape: {kind: square, side: 1, sid: 2}", (1, 32), "sid", "'side'", id="F73-tagged"),
        pytest.param(
            "shapes: [{kind: circle, radius: 1, radus: 2}]", (1, 36), "radus", "'radius'", id="F73-nested"
        ),
        pytest.param("uses:\n  - judge: {labl: x}", (2, 13), "labl", "'label'", id="F73-rearranged"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_spelling(
    text: str, place: tuple[int, int], key: str, hint: str
) -> None:
    (finding,) = build_findings(text)
    assert (finding.line, finding.column) == place
    assert finding.message == f"unknown key {key!r}"
    assert finding.hint is not None
    assert hint in finding.hint


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("names:\n  a: {role: user}", (2, 3), "the key 'content' is missing"),
        ("messages:\n  - content: x", (2, 5), "the key 'role' is missing"),
        ("messages:\n  - examples: {k: 1}", (2, 5), "the key 'from' is missing"),
        ("shape: {side: 1}", (1, 1), "shape: 'kind' is missing"),
        ("pair: [1]", (1, 1), "item 2 is missing"),
    ],
)
def test_a_missing_key_is_reported_at_the_mapping_that_lacks_it(
    text: str, place: tuple[int, int], message: str
) -> None:
    (finding,) = build_findings(text)
    assert (finding.line, finding.column, finding.message) == (*place, message)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("description: 12", "description: should be text, not 12", 'for text, use quotes: "12"'),
        ("description: true", "description: should be text, not true", 'for text, use quotes: "true"'),
        ("description: [a]", "description: should be text, not a list", None),
        ("count: '3'", "count: should be a whole number, not the text '3'", "write it without quotes"),
        ("count: three", "count: should be a whole number, not the text 'three'", None),
        ("count: 1.5", "count: should be a whole number, not 1.5", None),
        ("count: true", "count: should be a whole number, not true", None),
        ("share: ~", "share: should be a number, not null", None),
        ("share: 1", "share: should be less than 1, not 1", None),
        ("flag: no", "flag: should be true or false, not the text 'no'", None),
        ("flag: 'true'", "flag: should be true or false, not the text 'true'", "write it without quotes"),
        ("retires: soon", "retires: should be a date like 2027-06-30, not the text 'soon'", None),
        ("color: gren", "color: should be 'red' or 'green', not the text 'gren'", "did you mean 'green'?"),
        ("color: 1", "color: should be 'red' or 'green', not 1", None),
        ("name: A1", "name: does not have the form ^[a-z]+$", None),
        ("name: ''", "name: needs at least 1 characters", None),
        ("name: abcdef", "name: has room for 5 characters", None),
        ("names: []", "names: should be a mapping, not a list", None),
        ("names: {a: b}", "a: should be a mapping, not the text 'b'", None),
        ("messages: {}", "messages: should be a list, not a mapping", None),
        ("messages: []", "messages: needs at least 1 of them", None),
        ("messages: [x]", "messages, item 1: should be a mapping, not the text 'x'", None),
        ("messages: [{examples: {from: d, k: -1}}]", "k: should be at least 0, not -1", None),
        ("messages: [{examples: {from: d, k: 10}}]", "k: should be at most 9, not 10", None),
        ("shape: {kind: square, side: 0}", "side: should be more than 0, not 0", None),
        ("shape: {kind: sqare}", "kind: should be one of 'square', 'circle', not 'sqare'", None),
        ("shape: 3", "shape: should be a mapping, not 3", None),
        (
            "shape: {kind: circle, radius: 101}",
            "shape: a circle of radius 101.0 does not fit {here}",
            None,
        ),
        (f"count: {'x' * 100}", f"count: should be a whole number, not the text '{'x' * 39}…'", None),
        ("[]", "should be a mapping, not a list", None),
    ],
)
def test_what_does_not_fit_is_said_in_plain_words(text: str, message: str, hint: str | None) -> None:
    (finding,) = build_findings(text)
    assert (finding.message, finding.hint) == (message, hint)


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("stop: 3", ["stop: should be text or a list, not 3"]),
        ("stop: [a, 3]", ["stop, item 2: should be text, not 3"]),
        ("step: 3", ["step: should be a mapping, not 3"]),
        ("step: {python: 3}", ["python: should be text, not 3"]),
        ("step: {promt: a}", ["the key 'prompt' is missing", "unknown key 'promt'"]),
        ("step: {pyton: a}", ["the key 'python' is missing", "unknown key 'pyton'"]),
        ("shapes: [{kind: square, side: x}]", ["side: should be a number, not the text 'x'"]),
        ("shapes: [a, 3]", ["shapes, item 2: should be a mapping or text, not 3"]),
    ],
)
def test_of_a_union_the_branch_that_fits_best_is_reported(text: str, messages: list[str]) -> None:
    assert [finding.message for finding in build_findings(text)] == messages


def test_keys_that_start_with_x_are_dropped_where_a_model_stands_and_kept_where_anything_may() -> None:
    text = """
x-note: {any: thing}
free: {x-kept: 1}
names: {x-name: {role: user, content: a, x-why: b}}
messages: [{examples: {from: d, x-a: 1}, x-b: 2}]
step: {python: p, x-c: 3}
shapes: [{kind: square, side: 1, x-d: 4}]
"""
    sample = build(Sample, read_yaml(text.encode(), PATH))
    assert sample.free == {"x-kept": 1}
    assert sample.names == {"x-name": Message(role="user", content="a")}
    assert sample.step == PythonStep(python="p")
    assert sample.shapes == [Square(kind="square", side=1)]


def test_other_faults_are_reported_without_the_x_keys_beside_them() -> None:
    (finding,) = build_findings("x-note: 1\nstep: {python: 3, x-c: 3}\n")
    assert (finding.line, finding.message) == (2, "python: should be text, not 3")


def test_all_faults_of_a_file_come_in_its_order() -> None:
    findings = build_findings("zount: 1\nshare: x\nnames:\n  b: {role: user, contnt: a}\ncount: x\n")
    assert [(finding.line, finding.column) for finding in findings] == [
        (1, 1),
        (2, 1),
        (4, 3),
        (4, 19),
        (5, 1),
    ]


def test_twenty_faults_of_a_model_are_listed_and_the_others_counted() -> None:
    findings = build_findings("shapes: [" + ", ".join(map(str, range(30))) + "]")
    assert len(findings) == 21
    assert findings[-1].message == "and 10 more like these"


def test_a_part_of_a_document_is_built_with_positions_of_the_whole() -> None:
    document = read_yaml(b"models:\n  - {}\n  - content: x\n    role: usr\n", PATH)
    with pytest.raises(DefinitionError) as caught:
        build(Message, document, ("models", 1))
    assert str(caught.value).startswith(f"{PATH}:4:5: role: should be 'system' or 'user', not the text 'usr'")


def test_a_value_the_caller_gives_is_built_in_place_of_the_one_that_stands_there() -> None:
    document = read_yaml(b"role: user\n", PATH)
    assert build(Message, document, (), {"role": "user", "content": "c"}).content == "c"
    with pytest.raises(DefinitionError, match=re.escape(f"{PATH}:1:1: the key 'content' is missing")):
        build(Message, document, value={"role": "user"})


def test_a_document_without_positions_still_names_its_path() -> None:
    with pytest.raises(DefinitionError, match=r"^d\.csv: the key 'content' is missing$"):
        build(Message, Document("d.csv", {"role": "user"}))


@settings(deadline=None)
@given(json_values(TEXT))
def test_whatever_the_value_a_model_is_built_or_findings_are_raised(value: Any) -> None:
    for shaped in (value, {"messages": value}, {"step": value, "shapes": [value]}, {"names": {"a": value}}):
        document = (
            read_yaml(json.dumps(shaped).encode(), PATH) if is_plain(shaped) else Document(PATH, shaped)
        )
        try:
            build(Sample, document)
        except DefinitionError as error:
            assert error.findings


def is_plain(value: Any) -> bool:
    return json.dumps(value).isascii() and "\\ud" not in json.dumps(value)
