"""What the strict YAML reader takes, what it refuses, where it points and what it tells people to do."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops.definitions.documents import Document
from llmops.definitions.yaml_reader import read_yaml
from llmops.errors import DefinitionError, Finding
from tests.definitions.values import json_values

PATH = "prompts/a.prompt.yaml"
LINE_SEPARATOR, NEXT_LINE = "\u2028", "\x85"


def value_of(text: str) -> object:
    return read_yaml(text.encode(), PATH).value


def yaml_findings(data: str | bytes) -> tuple[Finding, ...]:
    with pytest.raises(DefinitionError) as caught:
        read_yaml(data if isinstance(data, bytes) else data.encode(), PATH)
    return caught.value.findings


def yaml_finding(data: str | bytes) -> Finding:
    (finding,) = yaml_findings(data)
    assert finding.path == PATH
    return finding


# ---- YAML: values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, word) for word in ("NO", "no", "on", "off", "y", "Yes", "nULL", "tRUE")),  # F74
        *(("0o17", 15), ("0x1F", 31), ("012", 12), ("+1", 1), ("-07", -7), ("0", 0)),  # F74
        *((text, text) for text in ("1:30", "2027-06-30", "1_000", "0b11", "0o8", "0xg", "1e", "+", ".")),
        *((text, text) for text in ("=", "١", "1 2", "..1", "-x", "-0x1F")),
        *((text, True) for text in ("true", "True", "TRUE")),
        *((text, False) for text in ("false", "False", "FALSE")),
        *((text, None) for text in ("null", "Null", "NULL", "~", "")),
        *(("1.5", 1.5), (".5", 0.5), ("1.", 1.0), ("1e3", 1000.0), ("-1.5E-2", -0.015), ("+.5e1", 5.0)),
        *((f"'{text}'", text) for text in ("true", "null", "12", "1.5", "~", "", ".inf", "<<", "{{ x }}")),
        *((f'"{text}"', text) for text in ("False", "0x1F", ".nan")),
    ],
)
def test_yaml_scalars_follow_the_core_schema_of_1_2(text: str, value: object) -> None:
    read = value_of(f"key: {text}\n")
    assert read == {"key": value}
    assert isinstance(read, dict)
    assert type(read["key"]) is type(value)


def test_block_text_is_text_and_keeps_its_lines() -> None:
    assert value_of("a: |\n  12\n  true\nb: >-\n  12\n") == {"a": "12\ntrue\n", "b": "12"}


def test_words_of_yaml_1_1_are_text_as_keys_too() -> None:  # F74
    assert value_of("no: 1\non: 2\n1:30: 3\n'1': 4\n") == {"no": 1, "on": 2, "1:30": 3, "1": 4}


def test_a_document_may_be_a_list_or_one_value() -> None:
    assert value_of("--- \n- a\n- {b: [1, []]}\n...\n") == ["a", {"b": [1, []]}]
    assert value_of("text") == "text"
    assert value_of("~") is None


def test_aliases_repeat_what_they_name() -> None:
    assert value_of("a: &x {k: [1]}\nb: *x\nc: [*x, &x 2, *x]\n") == {
        "a": {"k": [1]},
        "b": {"k": [1]},
        "c": [{"k": [1]}, 2, 2],
    }


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text, id="F57-as-it-is"),
        pytest.param(lambda text: "\ufeff" + text, id="F57-bom"),
        pytest.param(lambda text: text.replace("\n", "\r\n"), id="F57-crlf"),
        pytest.param(lambda text: text.replace("\n", "\r"), id="F57-lone-cr"),
        pytest.param(lambda text: text.rstrip("\n"), id="F57-no-final-newline"),
    ],
)
def test_yaml_line_ends_and_bom_change_neither_values_nor_positions(change: Any) -> None:
    document = read_yaml(change("# ü\na: 1\nlist:\n  - b: |\n      x\n      y\n  - 2\n").encode(), PATH)
    assert document.value == {"a": 1, "list": [{"b": document_text(document)}, 2]}
    assert document.position(["list", 1]) == (7, 5)
    assert document.position(["list", 0, "b"]) == (4, 5)


def document_text(document: Document) -> str:
    text: str = document.value["list"][0]["b"]  # type: ignore[index]
    assert text.rstrip("\n") == "x\ny"
    return text


@pytest.mark.parametrize("character", [LINE_SEPARATOR, "\u2029", NEXT_LINE, "\ufeff", "\U000f0000", "😀"])
def test_characters_that_look_like_line_breaks_stay_in_the_text(character: str) -> None:  # F57
    text = f'a: "x {character} y {character}"\nb: plain {character} text\nc: |\n  block {character} text\n'
    assert value_of(text) == {
        "a": f"x {character} y {character}",
        "b": f"plain {character} text",
        "c": f"block {character} text\n",
    }


def test_stand_ins_for_line_separators_leave_the_private_characters_of_a_text_alone() -> None:
    private = "".join(chr(0xF0000 + n) for n in range(5))
    assert value_of(f"'{private}{LINE_SEPARATOR}{NEXT_LINE}'") == private + LINE_SEPARATOR + NEXT_LINE


def test_without_libyaml_a_document_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"a: [1, 'no', no, {b: ~}]\nc: |\n  text\nd: &x {e: .5}\nf: *x\n"
    fast = read_yaml(text, PATH)
    monkeypatch.delattr(yaml, "CSafeLoader")
    slow = read_yaml(text, PATH)
    assert slow == fast
    assert slow.marks == fast.marks
    assert "tab" in yaml_finding("a:\n\tb: 1\n").message


# ---- YAML: refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place", "message", "hint"),
    [
        pytest.param(
            "a: 1\nb: 2\na: 3\n", (3, 1), "'a' stands twice", "line 1, column 1", id="F74-duplicate"
        ),
        pytest.param(
            "x:\n  {b: 1, 'b': 2}", (2, 10), "'b' stands twice", "line 2, column 4", id="F74-nested"
        ),
        pytest.param("a:\n\tb: 1\n", (2, 1), "a tab", "spaces", id="F74-tab"),
        pytest.param("a:\n  b: 1\n\tc: 2\n", (3, 1), "a tab", "spaces", id="F74-tab-after-spaces"),
        pytest.param("- |\n\tx\n", (2, 1), "a tab", "spaces", id="F74-tab-in-block"),
        pytest.param(
            "a: 1\n---\nb: 2\n", (2, 1), "second document", "one file holds one", id="F74-documents"
        ),
        pytest.param("a: 1\n...\nb: 2\n", (3, 1), "after the end", "one file holds one", id="F74-after-end"),
        pytest.param("a: 1\n1: b\n", (2, 1), "'1' is not text", 'quotes: "1"', id="number-key"),
        pytest.param("{true: b}", (1, 2), "'true' is not text", 'quotes: "true"', id="boolean-key"),
        pytest.param("a: 1\n~: b\n", (2, 1), "'~' is not text", "quotes", id="null-key"),
        pytest.param("[a]: b\n", (1, 1), "not a list", "text", id="list-key"),
        pytest.param("a: &x [1]\n? *x\n: 2\n", (2, 3), "not a list", "text", id="alias-key"),
        pytest.param("user: {{ ticket }}\n", (1, 8), "not a mapping", '"{{ ticket }}"', id="bare-template"),
        pytest.param("a: &x {b: 1}\nc:\n  <<: *x\n", (3, 3), "merge keys", "write the keys", id="S04-merge"),
        pytest.param(
            "a: !!python/object/apply:os.system [ls]", (1, 4), "!!python/obj", "remove", id="S04-python"
        ),
        pytest.param("a: !mine {b: 1}", (1, 4), "'!mine'", "remove", id="S04-custom-tag"),
        pytest.param("a: !!str 1", (1, 4), "'!!str'", "use quotes", id="standard-tag"),
        pytest.param("a: &x [1, *x]\n", (1, 11), "itself a part of", "write the value", id="S04-self-cycle"),
        pytest.param(
            "&x {a: {b: *x}}\n", (1, 12), "itself a part of", "write the value", id="S04-deep-cycle"
        ),
        pytest.param("a: *y\n", (1, 4), "*y refers to nothing", 'quotes: "*y"', id="unknown-alias"),
        pytest.param("a: .inf\n", (1, 4), "infinity", "quotes", id="F62-infinity"),
        pytest.param("a: -.INF\n", (1, 4), "infinity", "quotes", id="F62-minus-infinity"),
        pytest.param("a: [.NaN]\n", (1, 5), "NaN", "quotes", id="F62-nan"),
        pytest.param("a: 1e999\n", (1, 4), "too large", "quotes", id="F62-1e999"),
        pytest.param(f"a: {'9' * 5000}\n", (1, 4), "5,000 digits", "quotes", id="F62-5000-digits"),
        pytest.param(f"a: 0x{'f' * 3998}\n", (1, 4), "4,000 digits", "quotes", id="F62-hexadecimal"),
        pytest.param("- " * 51 + "x", (1, 101), "50 levels", "flatten", id="F67-51-deep"),
        pytest.param("[" * 100_000, (1, 51), "50 levels", "flatten", id="F67-100000-deep"),
        pytest.param("a: b: c\n", (1, 5), "a ':' where no key", "quotes", id="colon"),
        pytest.param("a: @x\n", (1, 4), "cannot start with '@'", "quotes", id="at-sign"),
        pytest.param('a:\n  - "open\n  - b\n', (2, 5), "never closed", "close it", id="open-quote"),
        pytest.param("a: [1,\nb: 2\n", (1, 4), "bracket is not closed", "inside", id="open-bracket"),
        pytest.param("a:\n  - b\n c: 1\n", (3, 2), "a key was expected", "indentation", id="indentation"),
        pytest.param('a: "\\q"\n', (1, 5), "unknown escape", "single quotes", id="escape"),
        pytest.param('a: "\\ud800"\n', (1, 7), "no character", "itself", id="half-a-surrogate"),
        pytest.param('a: "x\\0"\n', (1, 4), "NUL", "remove", id="NUL-escape"),
        pytest.param("", (1, 1), "the file is empty", "write", id="empty"),
        pytest.param("# only this\n", (1, 1), "the file is empty", "write", id="comment-alone"),
        pytest.param("---\n", (1, 1), "the file is empty", "write", id="marker-alone"),
    ],
)
def test_yaml_that_is_refused_says_where_and_what_would_be_right(
    text: str, place: tuple[int, int], message: str, hint: str
) -> None:
    finding = yaml_finding(text)
    assert (finding.line, finding.column) == place
    assert message in finding.message
    assert finding.hint is not None
    assert hint in finding.hint


@pytest.mark.parametrize(
    ("data", "place", "message"),
    [
        pytest.param("a: 1\nb: café".encode("latin-1"), (2, 7), "byte 11 (0xE9)", id="F66-latin-1"),
        pytest.param("é: é\r\né: ".encode() + b"\x80", (2, 4), "byte 12 (0x80)", id="F66-mixed"),
        pytest.param(b"\xef\xbb\xbfa: \xff", (1, 4), "byte 6 (0xFF)", id="F66-after-bom"),
        pytest.param(
            "a: b".encode("utf-16"), (1, 1), "UTF-16 or UTF-32, not UTF-8 (byte 0)", id="F66-utf-16"
        ),
        pytest.param("a: b".encode("utf-16-be"), (1, 1), "UTF-16 or UTF-32, not UTF-8 (byte 0)", id="F66-be"),
        pytest.param("a: b".encode("utf-16-le"), (1, 1), "UTF-16 or UTF-32, not UTF-8 (byte 1)", id="F66-le"),
        pytest.param(
            "a: b".encode("utf-32"), (1, 1), "UTF-16 or UTF-32, not UTF-8 (byte 0)", id="F66-utf-32"
        ),
        pytest.param("é: long enough\nb: x\0y".encode(), (2, 5), "U+0000 (byte 20)", id="F66-NUL"),
        pytest.param(b"a: \x07", (1, 4), "U+0007 (byte 3)", id="F66-control"),
    ],
)
def test_yaml_that_is_not_utf_8_text_names_the_byte(
    data: bytes, place: tuple[int, int], message: str
) -> None:
    finding = yaml_finding(data)
    assert (finding.line, finding.column) == place
    assert message in finding.message


def test_a_latin_1_byte_is_shown_as_the_letter_it_was() -> None:  # F66
    assert "'é'" in str(yaml_finding(b"caf\xe9: 1"))


def bomb(levels: int, width: int = 9) -> str:
    lines = ["a0: &a0 [" + ", ".join("x" * width) + "]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)


def test_an_alias_bomb_of_nine_levels_is_refused_at_the_alias_that_passes_the_cap() -> None:  # S04
    finding = yaml_finding(bomb(9))
    assert "500,000 values" in finding.message
    assert finding.line == 6


def test_a_small_web_of_aliases_is_taken() -> None:
    value = value_of(bomb(3))
    assert isinstance(value, dict)
    assert value["a2"][8][8] == list("x" * 9)


def test_the_hundredth_alias_passes_and_the_next_does_not() -> None:  # S04
    text = "- &x 1\n" + "- *x\n" * 100
    assert value_of(text) == [1] * 101
    assert "100 aliases" in yaml_finding(text + "- *x\n").message


def test_depth_counts_what_aliases_bring_along() -> None:  # S04
    deep = "a: &x " + "[" * 30 + "]" * 30 + "\n"
    assert value_of(deep + "b: " + "[" * 19 + "*x" + "]" * 19)
    assert "50 levels" in yaml_finding(deep + "b: " + "[" * 20 + "*x" + "]" * 20).message


def test_more_than_eight_megabytes_are_refused_unread() -> None:  # F68
    finding = yaml_finding(b"a: 1\n" + b"#" * 8_000_000)
    assert "8,000,005 bytes" in finding.message


def test_twenty_thousand_items_are_read_with_their_positions() -> None:  # S04
    lines = [f"- {{id: case-{n}, expected: [{n}]}}" for n in range(20_000)]
    document = read_yaml("\n".join(lines).encode(), PATH)
    assert document.value == [{"id": f"case-{n}", "expected": [n]} for n in range(20_000)]
    assert document.position([19_999, "expected"]) == (20_000, 20)


def test_all_that_is_wrong_is_said_at_once_in_the_order_of_the_file() -> None:
    findings = yaml_findings("a: 1\na: 2\nb: .inf\n3: !x c\nd: [\n")
    assert [finding.line for finding in findings] == [2, 3, 4, 4, 6]


def test_twenty_findings_are_listed_and_the_others_counted() -> None:
    findings = yaml_findings("".join(f"{n}: x\n" for n in range(1, 46)))
    assert [finding.line for finding in findings] == [*range(1, 21), None]
    assert findings[-1].message == "and 25 more like these"


# ---- laws ----------------------------------------------------------------------------------------------

NOT_PRINTABLE = [chr(code) for code in (*range(0x7F, 0xA0), 0xFFFE, 0xFFFF) if chr(code) != NEXT_LINE]
PRINTABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=["\0", *NOT_PRINTABLE]))


@settings(deadline=None)
@given(json_values(PRINTABLE), st.sampled_from([None, 1, 3]))
def test_json_read_as_yaml_is_what_it_says(value: Any, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    assert json.dumps(value_of(text)) == json.dumps(value)


YAML_SCRAPS = [
    "a: ",
    "- ",
    "\n",
    "  ",
    "\t",
    "&x ",
    "*x",
    "!!str ",
    "{",
    "}",
    "[",
    "]",
    "'",
    '"',
    "|\n",
    "? ",
    "<<: ",
]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from(YAML_SCRAPS) | st.text(max_size=3), max_size=20).map("".join) | st.binary())
def test_whatever_the_bytes_yaml_gives_a_document_or_findings_with_places(data: str | bytes) -> None:
    raw = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
    try:
        document = read_yaml(raw, PATH)
    except DefinitionError as error:
        assert all(finding.line and finding.column for finding in error.findings)
    else:
        json.dumps(document.value, allow_nan=False)
