"""What templates give, what they are refused, and what they say when something is wrong."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from datetime import date

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops.definitions.sandbox import ENVIRONMENT
from llmops.definitions.templates import (
    MAX_NODES,
    MAX_SOURCE,
    Template,
    TemplateError,
    evaluate,
    parse_template,
    render_text,
)

VALUES: dict[str, object] = {
    "ticket": "My parcel is late",
    "n": 3,
    "scores": [0.5, 0.25, 1.0],
    "names": ["ada", "Bob", "cy"],
    "flag": True,
    "nothing": None,
    "case": {"id": "c1", "items": ["a", "b"], "inputs": {"ticket": "late"}},
    "find": {"passages": [{"id": "p1", "text": "First"}, {"id": "p2", "text": "Second", "note": "x"}]},
    "steps": {"find": {"output": {"text": "found"}}},
}


def render(source: str, **values: object) -> str:
    return render_text(parse_template(source), VALUES | values)


def value_of(source: str, **values: object) -> object:
    return evaluate(parse_template(source), VALUES | values)


def failure(source: str, **values: object) -> TemplateError:
    with pytest.raises(TemplateError) as caught:
        value_of(source, **values)
    return caught.value


# What a template is.


@pytest.mark.parametrize(
    ("source", "variables"),
    [
        ("plain text", set()),
        ("{{ ticket }} {{ case.id }}", {"ticket", "case"}),
        ("{% for p in find.passages %}{{ p.text }}{{ loop.index }}{% endfor %}", {"find"}),
        ("{% set x = ticket %}{{ x }}", {"ticket"}),
        ("{% for i in range(n) %}{{ i }}{% endfor %}", {"n"}),
        ("{{ range }}", {"range"}),
        ("{{ a[b] if c is defined else d|default(e) }}", {"a", "b", "c", "d", "e"}),
        ("{% raw %}{{ ticket }}{% endraw %}{# {{ n }} #}", set()),
    ],
)
def test_variables_are_the_names_that_the_values_must_give(source: str, variables: set[str]) -> None:
    assert parse_template(source).variables == variables


@pytest.mark.parametrize(
    ("source", "paths"),
    [
        ("{{ find.passages | map(attribute='id') | list }}", {("find", "passages")}),
        ("{{ steps.find.output }}", {("steps", "find", "output")}),
        ("{{ steps['find'].output['text'] }}", {("steps", "find", "output", "text")}),
        ("{{ find.passages[0].id }}", {("find", "passages")}),
        ("{{ find[key].id }}", {("find",), ("key",)}),
        ("{{ case.items() }}{{ case.id.upper() }}", {("case",), ("case", "id")}),
        ("{{ find.passages[:n.most] }}", {("find", "passages"), ("n", "most")}),
        (
            "{% for p in find.passages if p.id != case.id %}{{ p.text }}{% endfor %}",
            {("find", "passages"), ("case", "id")},
        ),
        ("{{ ticket }}", {("ticket",)}),
    ],
)
def test_paths_go_as_far_as_attributes_are_constant(source: str, paths: set[tuple[str, ...]]) -> None:
    assert parse_template(source).paths == paths


@pytest.mark.parametrize(
    "source", ["{{ n }}", "  {{ n }}\n", "{{- n -}}", "{{ names | map('upper') }}", "{{ 'x' }}"]
)
def test_one_expression_and_white_space_is_an_expression(source: str) -> None:
    assert parse_template(source).is_expression


@pytest.mark.parametrize(
    "source",
    [
        "",
        " ",
        "text",
        "{{ n }}.",
        "{{ n }}{{ n }}",
        "{% if n %}{{ n }}{% endif %}",
        "{% raw %}{{ n }}{% endraw %}",
    ],
)
def test_anything_more_than_one_expression_is_text(source: str) -> None:
    assert not parse_template(source).is_expression
    assert isinstance(value_of(source), str)


def test_templates_are_values() -> None:
    template = parse_template("{{ n }}")
    assert template == parse_template("{{ n }}")
    assert {template: 1}[parse_template("{{ n }}")] == 1
    assert template != parse_template("{{ m }}")
    with pytest.raises(FrozenInstanceError):
        template.source = "{{ m }}"  # type: ignore[misc]
    assert isinstance(template, Template)


# What it gives.


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ n }}", 3),
        ("{{ flag }}", True),
        ("{{ nothing }}", None),
        ("{{ scores }}", [0.5, 0.25, 1.0]),
        ("{{ case }}", VALUES["case"]),
        ("{{ find.passages | map(attribute='id') | list }}", ["p1", "p2"]),
        ("{{ find.passages | map(attribute='id') }}", ["p1", "p2"]),
        ("{{ find.passages | selectattr('note', 'defined') | map(attribute='id') }}", ["p2"]),
        ("{{ n > 2 and 'late' in ticket }}", True),
        ("{{ 0.25 <= scores[0] < 0.5 }}", False),
        ("{{ {'a': n, 'b': [n + 1, n ** 2]} }}", {"a": 3, "b": [4, 9]}),
        ("{{ ('a', n) }}", ["a", 3]),
        ("{{ names | groupby(0) | map(attribute='grouper') | first }}", "a"),
        ("{{ (scores | sum) / (scores | length) }}", 1.75 / 3),
        ("{{ '42' | int }}", 42),
        ("{{ range(n) }}", [0, 1, 2]),
        ("{{ names[1:] }}", ["Bob", "cy"]),
        ("{{ case.get('missing') }}", None),
        ("{{ ticket }}", "My parcel is late"),
    ],
)
def test_an_expression_keeps_the_type_of_its_value(source: str, expected: object) -> None:
    got = value_of(source)
    assert got == expected
    assert type(got) is type(expected)


def test_a_value_that_an_expression_gives_is_not_the_callers_own_object() -> None:
    got = value_of("{{ case }}")
    assert isinstance(got, dict)
    got["items"].append("c")
    assert VALUES["case"] == {"id": "c1", "items": ["a", "b"], "inputs": {"ticket": "late"}}


def test_a_key_wins_over_a_method_of_the_same_name() -> None:
    assert value_of("{{ case.items }}") == ["a", "b"]
    assert value_of("{{ case.values }}", case={"values": 1, "keys": 2}) == 1
    assert value_of("{{ case.items() | map('first') }}") == ["id", "items", "inputs"]
    assert value_of("{{ rows | map(attribute='items') }}", rows=[{"items": 1}, {"items": 2}]) == [1, 2]


def test_text_is_kept_as_written() -> None:
    assert render("a\n  {{ n }} \n\n") == "a\n  3 \n\n"
    assert render("{{ ticket }}", ticket="<b> & 'é' ünï\n") == "<b> & 'é' ünï\n"


def test_an_inline_if_without_else_is_nothing() -> None:
    assert (
        render("{% for name in names %}{{ name }}{{ ', ' if not loop.last }}{% endfor %}") == "ada, Bob, cy"
    )


def test_tojson_writes_plain_json() -> None:
    data = {"z": "é <b> 'q'", "a": [1, None, True], "m": 0.5}
    assert render("{{ data | tojson }}", data=data) == json.dumps(data, ensure_ascii=False)
    assert render("{{ data | tojson(indent=2) }}", data=data) == json.dumps(
        data, ensure_ascii=False, indent=2
    )
    assert "not JSON compliant" in failure("{{ x | tojson }}", x=float("nan")).message


def test_escape_gives_text_that_later_steps_can_use() -> None:
    assert value_of("{{ ('<' | e) ~ '<' }}") == "&lt;<"


SAME_AS_JINJA = [
    "{% for p in find.passages %}[{{ loop.index }}/{{ loop.length }}] {{ p.text }}\n{% else %}-{% endfor %}",
    "{% for i in [] %}{{ i }}{% else %}none{% endfor %}",
    "{% for k, v in case.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k in case %}{{ k }}{% endfor %}",
    "{% for i in range(5) if i is odd %}{{ loop.revindex0 }}{{ loop.cycle('a', 'b') }}{{ i }}{% endfor %}",
    "{% for i in [1, 1, 2] %}{% if loop.changed(i) %}{{ i }}{% endif %}{% endfor %}",
    "{% for i in names %}{{ loop.previtem | default('-') }}{{ loop.nextitem is defined }}{% endfor %}",
    "{% if n > 5 %}a{% elif n == 3 and not nothing %}b{% else %}c{% endif %}",
    "{% set x, y = n, n * 2 %}{{ x }}{{ y }}{% set z %}<{{ x }}>{% endset %}{{ z }}",
    "{% with a = n %}{{ a - 1 }}{% endwith %}{% filter upper %}abc{{ ticket }}{% endfilter %}",
    "{{ names | sort | join(', ') }} {{ names | sort(reverse=true) | first }} {{ names | last }}",
    "{{ names | join(d='+') }} {{ find.passages | join('/', attribute='text') }}",
    "{{ find.passages | sort(attribute='id', reverse=true) | map(attribute='id') | join }}",
    "{{ scores | min }} {{ scores | max }} {{ find.passages | max(attribute='id') | length }}",
    "{{ ticket | upper | lower | title | capitalize | replace('p', 'b', 1) | truncate(8, true) }}",
    "{{ '  a b ' | trim }}|{{ 'xaxx' | trim('x') }}|{{ ticket | wordcount }}|{{ ticket | reverse }}",
    "{{ 7 // 2 }} {{ 7 % 4 }} {{ 7 / 2 }} {{ 2 ** 8 }} {{ -n }} {{ 'a' * 3 }} {{ [1] + [2] }}",
    "{{ 2.567 | round(1) }} {{ 2.567 | round(1, 'floor') }} {{ -2 | abs }} {{ '1'|float }} {{ 'q'|int(9) }}",
    "{{ range(7) | batch(3, '-') | list }} {{ range(7) | slice(3) | list }}",
    "{{ [3, 1, 3] | unique | list }} {{ {'b': 1, 'a': 2} | dictsort }} {{ [1, 2] | sum(start=4) }}",
    "{% for g in find.passages | groupby('id') %}{{ g.grouper }}:{{ g.list | length }} {% endfor %}",
    "{% for who, rows in find.passages | groupby('id') %}{{ who }}{{ rows[0].text }}{% endfor %}",
    "{{ scores | select('ge', 0.5) | list }} {{ scores | reject('in', [1.0]) | list }}",
    "{{ find.passages | rejectattr('note', 'defined') | map(attribute='text') | map('upper') | join }}",
    "{{ find.passages | map(attribute='note', default='none') | join(' ') }}",
    "{{ n is number }} {{ ticket is string }} {{ case is mapping }}{{ 4 is divisibleby 2 }}{{ n is none }}",
    "{{ 'a' ~ n ~ nothing ~ [1, 'x'] ~ {'k': 1.5} }} {{ n in [1, 3] }} {{ 'x' not in 'abc' }}",
    "{{ ticket[0:9:2] }} {{ names[-1] }} {{ case['inputs']['ticket'] }} {{ case.inputs.ticket }}",
    "{{ ticket.split() }}{{ 'a,b'.split(',', 1) }}{{ ticket.endswith('My') }}{{ ticket.replace('a', 'o') }}",
    "{{ ' a'.strip() }}{{ 'xa'.lstrip('x') }}{{ 'a\nb'.splitlines() }}{{ names.count('cy') }}",
    "{{ missing | default('d') }} {{ case.missing | d('e') }} {{ '' | default('f', true) }} {{ n | d(1) }}",
    "{{ missing is defined }} {{ case.missing is undefined }} {{ ticket is defined }}",
    "{# note #}{%- if flag -%} a {%- endif %}\n{% raw %}{{ n }}{% endraw %}",
    "{{ 1 if flag else missing }} {{ flag or missing }} {{ not flag and missing }}",
]


@pytest.mark.parametrize("source", SAME_AS_JINJA)
def test_what_is_allowed_behaves_as_in_jinja(source: str) -> None:
    stock = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)  # noqa: S701
    assert render(source) == stock.from_string(source).render(VALUES)


# What it says when something is wrong.


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ tikcet }}", "line 1: 'tikcet' is not defined; did you mean 'ticket'?"),
        ("a\nb\n{{ tikcet }} c", "line 3: 'tikcet' is not defined; did you mean 'ticket'?"),
        ("a\n{{ case.inptus }}", "line 2: there is no key 'inptus'; did you mean 'inputs'?"),
        ("{{ names[7] }}", "line 1: there is no 7 in a list"),
        ("{{ ticket.uper() }}", "line 1: there is no method uper(); did you mean 'upper'?"),
        ("{{ n.upper() }}", "line 1: there is no upper() of a number"),
        ("x\n{{ n | uper }}", "line 2: there is no filter 'uper'; did you mean 'upper'?"),
        ("{{ names | map('uper') }}", "line 1: there is no filter 'uper'; did you mean 'upper'?"),
        ("{{ names | select('evne') }}", "line 1: there is no test 'evne'; did you mean 'even'?"),
        ("{{ names | selectattr('a', 'evne') }}", "line 1: there is no test 'evne'; did you mean 'even'?"),
        ("{{ n is evne }}", "line 1: there is no test 'evne'; did you mean 'even'?"),
        ("\n{% if n %}", "line 2: "),
        ("{{ n", "line 1: "),
        ("{{ n. }}", "line 1: "),
        ("\n\n{% do n %}", "line 3: Encountered unknown tag 'do'"),
        ("{{ 1 / 0 }}", "line 1: division by zero"),
        ("{{ ticket - 1 }}", "line 1: a number is needed, not text"),
        (
            "{% for x in n %}{% endfor %}",
            "line 1: a loop goes over a list, a mapping or text, not over a number",
        ),
        ("{{ [] | first }}", "line 1: No first item, sequence was empty."),
        ("{{ 'x' | dictsort }}", "line 1: filter 'dictsort': "),
        (
            "{% for x in names %}{{ loop }}{% endfor %}",
            "line 1: a value of type LoopContext cannot be written as text",
        ),
        ("{% set y %}{{ y }}{% endset %}", "line 1: 'y' is not defined"),
        ("{{ \uff4e }}", "line 1: '\uff4e' is a name in an unusual spelling of 'n'"),
        ("{{ x | upper(x=1, x=2) }}", "line 1: 'x' is given twice"),
    ],
)
def test_errors_name_the_line_and_what_would_be_right(source: str, message: str) -> None:
    error = failure(source)
    assert str(error).startswith(message)
    assert str(error) == f"line {error.line}: {error.message}"


@pytest.mark.parametrize(
    ("source", "tag"),
    [
        ("{% include 'a' %}", "include"),
        ("{% import 'a' as a %}", "import"),
        ("{% from 'a' import b %}", "from"),
        ("{% extends 'a' %}", "extends"),
        ("{% block a %}{% endblock %}", "block"),
        ("{% macro a() %}{% endmacro %}", "macro"),
        ("{% call a() %}{% endcall %}", "call"),
        ("{% autoescape true %}{% endautoescape %}", "autoescape"),
    ],
)
def test_tags_outside_the_list_are_refused_by_name(source: str, tag: str) -> None:
    assert failure("\n" + source).line == 2
    assert failure(source).message == f"{{% {tag} %}} is not allowed in a template"


@pytest.mark.parametrize(
    "value",
    [date(2026, 1, 1), b"bytes", {1, 2}, object(), len, Ellipsis, jinja2.Undefined(), {"a": [date.today]}],
)
def test_values_with_methods_are_refused(value: object) -> None:
    template = parse_template("constant")
    with pytest.raises(TemplateError, match="'x': "):
        render_text(template, {"x": value})


def test_data_that_is_too_deep_or_holds_itself_is_refused() -> None:
    ring: list[object] = []
    ring.append(ring)
    deep: object = 1
    for _ in range(100_000):
        deep = [deep]
    for value in (ring, deep):
        assert failure("{{ n }}", x=value).message == "'x': the data is nested too deeply, or holds itself"


def test_a_template_that_is_too_large_is_refused_before_it_is_read() -> None:
    parse_template("x" * MAX_SOURCE)
    assert "give long text as a value" in failure("{{" * MAX_SOURCE).message
    assert "parts" in failure("{{ n }}" * MAX_NODES).message


@pytest.mark.parametrize(
    "nested",
    [
        "(@)",
        "[@][0]",
        "@ + 0",
        "@ | int",
        "(@ or 0)",
        "(0 or @)",
        "[@] | first",
        "0 + (@)",
        "(@ if flag else 0)",
    ],
)
def test_expressions_nested_too_deeply_are_refused_and_the_deepest_left_compiles(nested: str) -> None:
    expression = "n"
    sources = ["{{ " + (expression := nested.replace("@", expression)) + " }}" for _ in range(80)]
    assert failure(sources.pop()).message == "nested too deeply"
    deepest = max(filter(_is_template, sources[20::3]), key=len)
    assert value_of(deepest) == 3


def _is_template(source: str) -> bool:
    try:
        parse_template(source)
    except TemplateError:
        return False
    return True


def test_blocks_nested_too_deeply_are_refused_and_all_others_compile() -> None:
    source = "{{ n }}"
    for _ in range(16):
        source = "{% for i in [1] if i %}" + source + "{% endfor %}"
        assert render(source) == "3"
    assert failure("{% if n %}" + source + "{% endif %}").message == "nested too deeply"


# F77: nothing undefined passes in silence.


@pytest.mark.parametrize(
    "source",
    [
        "{{ missing }}",
        "text {{ missing }}",
        "{{ case.missing }}",
        "{{ case['missing'] }}",
        "{{ missing.deeper }}",
        "{{ case.missing.deeper | default(1) }}",
        "{{ case[missing] }}",
        "{{ names[missing] }}",
        "{{ names[missing:] }}",
        "{{ [missing] | length }}",
        "{{ (missing, 1) | length }}",
        "{{ {'a': missing} | length }}",
        "{{ {missing: 1} }}",
        "{% if missing %}{% endif %}",
        "{% if not missing %}{% endif %}",
        "{{ missing or 1 }}",
        "{{ flag and missing }}",
        "{{ 1 if missing else 2 }}",
        "{{ missing == 1 }}",
        "{{ 1 != missing }}",
        "{{ missing in names }}",
        "{{ 'a' in missing }}",
        "{{ missing is none }}",
        "{{ missing is string }}",
        "{{ n is eq(missing) }}",
        "{{ missing ~ 'a' }}",
        "{{ missing + 1 }}",
        "{{ 'a' * missing }}",
        "{{ -missing }}",
        "{{ range(missing) }}",
        "{% for x in missing %}{% endfor %}",
        "{% for x in find.passages %}{{ x.note }}{% endfor %}",
        "{% for x in names %}{{ loop.nextitem }}{% endfor %}",
        "{% set x = missing %}{{ x }}",
        "{% set x %}{{ missing }}{% endset %}",
        "{{ ticket.replace('a', missing) }}",
        "{{ missing.upper() }}",
        "{{ case.get(missing) }}",
        "{{ missing | upper }}",
        "{{ missing | length }}",
        "{{ missing | list }}",
        "{{ missing | join }}",
        "{{ missing | tojson }}",
        "{{ missing | string }}",
        "{{ missing | int }}",
        "{{ names | join(missing) }}",
        "{{ n | default(1) ~ missing | default(missing) }}",
        "{{ find.passages | map(attribute='missing') | list }}",
        "{{ find.passages | map(attribute='note') | list | length }}",
        "{{ find.passages | map(attribute='note') | list }}",
        "{{ find.passages | sum(attribute='missing') }}",
        "{{ find.passages | join(',', attribute='note') }}",
        "{{ find.passages | sort(attribute='note') | length }}",
        "{{ find.passages[:1] | sort(attribute='note') | length }}",
        "{{ find.passages[:1] | sort(false, false, 'id,note') | length }}",
        "{{ find.passages[:1] | min(attribute='note') | length }}",
        "{{ find.passages[:1] | max(false, 'note') | length }}",
        "{{ find.passages[:1] | unique(attribute='note') | list | length }}",
        "{{ find.passages[:1] | groupby('note') | length }}",
        "{{ find.passages | selectattr('note') | list | length }}",
        "{{ find.passages | selectattr('note', 'none') | list | length }}",
        "{{ find.passages | rejectattr('note', 'eq', 1) | list | length }}",
        "{{ [] | first }}",
        "{{ [] | max }}",
    ],
)
def test_f77_nothing_undefined_passes_in_silence(source: str) -> None:
    error = failure(source)
    assert any(
        word in error.message
        for word in ("not defined", "there is no ", "sequence was empty", "no next item")
    )


# S03: values are never templates.


@pytest.mark.parametrize(
    "cell", ["{{ 7*7 }}", "{{7*7}}", "{% for x in y %}", "{# note #}", "{{ ''.__class__ }}", "{%"]
)
def test_s03_template_syntax_in_values_stays_as_it_is(cell: str) -> None:
    assert render("<{{ x }}>", x=cell) == f"<{cell}>"
    assert value_of("{{ x }}", x=cell) == cell
    assert value_of("{{ x | upper | lower }}", x=[cell]) == str([cell]).lower()
    assert render("{% set y %}{{ x }}{% endset %}{{ y }}{{ x ~ y }}", x=cell) == cell * 3
    assert render("{{ x.replace('@', cell) }}", x="@", cell=cell) == cell


@settings(deadline=None)
@given(st.text())
def test_s03_any_text_comes_out_as_it_went_in(text: str) -> None:
    assert render("{{ x }}", x=text) == text
    assert value_of("{{ x }}", x={"k": [text]}) == {"k": [text]}


# S01: no template reaches Python.

CANARY = "canary-5f1b"
S01_PAYLOADS = [
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ().__class__.__bases__[0].__subclasses__() }}",
    "{{ [].__class__.__base__.__subclasses__() }}",
    "{{ {}.__class__ }}",
    "{{ (1).__class__ }}",
    "{{ true.__class__ }}",
    "{{ ''['__class__'] }}",
    "{{ ''['__cl' ~ 'ass__'] }}",
    "{{ ''['__cl' + 'ass__'] }}",
    "{{ ''[['__cl', 'ass__'] | join] }}",
    "{{ ''['__ssalc__' | reverse] }}",
    "{{ ''['\\x5f\\x5fclass\\x5f\\x5f'] }}",
    "{{ ''['\\u005f\\u005fclass\\u005f\\u005f'] }}",
    "{{ ''[hidden] }}",
    "{{ ''[dunder.name] }}",
    "{{ '' | attr('__class__') }}",
    "{{ '' | attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
    "{{ '' | attr(hidden) }}",
    "{{ [''] | map(attribute='__class__') | list }}",
    "{{ [''] | map('attr', '__class__') | list }}",
    "{{ [''] | map(hidden_filter, hidden) | list }}",
    "{{ [''] | map(attribute=hidden) | list }}",
    "{{ [''] | map(attribute='__class__.__mro__') | first }}",
    "{{ [''] | selectattr('__class__') | list }}",
    "{{ [''] | groupby('__class__') }}",
    "{{ [''] | sort(attribute='__class__') }}",
    "{{ [''] | unique(attribute='__class__') | list }}",
    "{{ [1] | sum(attribute='__class__') }}",
    "{{ [''] | join(attribute='__class__') }}",
    "{{ [''] | max(attribute='__class__') }}",
    "{{ self }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ cycler.__init__.__globals__.os.environ }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'].environ }}",
    "{{ lipsum() }}",
    "{{ dict(a=1) }}",
    "{{ namespace(a=1) }}",
    "{{ cycler('a').next() }}",
    "{{ get_flashed_messages.__globals__ }}",
    "{{ url_for.__globals__ }}",
    "{{ config.items() }}",
    "{{ request.application.__globals__.__builtins__ }}",
    "{{ request['application'] }}",
    "{{ range.__class__ }}",
    "{{ range(1).__class__ }}",
    "{{ range(1).__reduce__() }}",
    "{{ ''.format }}",
    "{{ '{0.__class__}'.format('') }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(n) }}",
    "{{ '{x.__class__}'.format_map({'x': ''}) }}",
    "{{ ('{0.__class__}' | string).format(1) }}",
    "{{ ['{0.__class__}'] | map('format', 1) | list }}",
    "{{ '%s' | format(1) }}",
    "{{ '%(a)s' % {'a': 1} }}",
    "{{ ''.join.__self__ }}",
    "{{ ''.encode }}",
    "{{ ''.upper }}",
    "{{ ''.upper.__self__.__class__ }}",
    "{{ ''.upper['__self__'] }}",
    "{{ case.items.__self__ }}",
    "{{ case['pop']('id') }}",
    "{{ case.pop('id') }}",
    "{{ case.update({'id': 1}) }}",
    "{{ case.setdefault('x', 1) }}",
    "{{ names.append(1) }}",
    "{{ names.sort() }}",
    "{{ names.__setitem__(0, 1) }}",
    "{{ (names | map('upper')).gi_frame }}",
    "{{ (names | map('upper')).gi_frame.f_globals }}",
    "{% for x in names %}{{ loop._iterable }}{% endfor %}",
    "{% for x in names %}{{ loop.__class__ }}{% endfor %}",
    "{% for x in names %}{{ loop['_undefined'] }}{% endfor %}",
    "{% for x in names %}{{ loop[hidden] }}{% endfor %}",
    "{% for x in names %}{{ loop.cycle.__globals__ }}{% endfor %}",
    "{% for x in names recursive %}{{ loop(names) }}{% endfor %}",
    "{{ (find.passages | groupby('id') | first)._fields }}",
    "{{ (find.passages | groupby('id') | first)['_replace'] }}",
    "{{ (find.passages | groupby('id') | first)['__class__'] }}",
    "{{ missing.__class__ }}",
    "{{ missing._undefined_obj }}",
    "{{ missing['_undefined_obj'] }}",
    "{{ missing | default(missing.__init__) }}",
    "{{ ''.__doc__ }}",
    "{% set case.x = 1 %}",
    "{% set ns = namespace() %}",
    "{% set _x = 1 %}",
    "{% set x = ''.__class__ %}",
    "{% if ''.__class__ %}a{% endif %}",
    "{% for x in ''.__class__.__mro__ %}{% endfor %}",
    "{% with a = ''.__class__ %}{{ a }}{% endwith %}",
    "{% filter attr('__class__') %}x{% endfilter %}",
    "{% include '/etc/passwd' %}",
    "{% include ['/proc/self/environ'] ignore missing %}",
    "{% import 'os' as os %}{{ os.environ }}",
    "{% from 'os' import environ %}{{ environ }}",
    "{% extends '/etc/passwd' %}",
    "{% macro m() %}{{ caller }}{% endmacro %}{{ m.__globals__ }}",
    "{% call(x) m() %}{% endcall %}",
    "{% block b %}{{ self.b.__func__ }}{% endblock %}",
    "{% do n %}",
    "{% debug %}",
    "{% print n.__class__ %}",
    "{% autoescape false %}{{ n }}{% endautoescape %}",
    "{{ n | pprint }}",
    "{{ n | xmlattr }}",
    "{{ n | random }}",
    "{{ ''.__class__ | default('x') }}",
    "{{ names.index.__call__ }}",
    "{{ ticket.upper(*names) }}",
    "{{ ticket.upper(**case) }}",
    "{{ ticket.replace(_loop_vars=1) }}",
    "{{ ''.\uff3f_class__ }}",
    "{{ \uff3fvalue }}",
    "{{ super() }}",
    "{{ caller() }}",
    "{{ context }}",
    "{{ environment }}",
    "{{ call_called }}",
    "{{ l_0_n }}",
    "{{ __import__('os') }}",
    "{{ __builtins__ }}",
    "{{ open('/etc/passwd').read() }}",
    "{{ eval('1') }}",
]
HIDDEN = {"hidden": "__class__", "hidden_filter": "attr", "dunder": {"name": "__class__"}}


@pytest.mark.parametrize("payload", S01_PAYLOADS)
def test_s01_no_payload_reaches_python(payload: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_CANARY", CANARY)
    before = json.dumps(VALUES)
    for source in (payload, "text " + payload):
        message = str(failure(source, **HIDDEN))
        assert CANARY not in message
        assert not any(
            word in message for word in ("<class", "<function", "<module", "<bound", "object at", "root:")
        )
    assert json.dumps(VALUES) == before


def test_s01_the_payloads_work_where_there_is_no_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_CANARY", CANARY)
    open_house = jinja2.Environment()  # noqa: S701
    assert "{{ cycler.__init__.__globals__.os.environ }}" in S01_PAYLOADS
    source = "{{ cycler.__init__.__globals__.os.environ['LLMOPS_CANARY'] }}"
    assert open_house.from_string(source).render() == CANARY
    assert "<class 'str'>" in open_house.from_string("{{ ''['__cl' ~ 'ass__'] }}").render()


def test_s01_there_are_at_least_sixty_payloads() -> None:
    assert len(set(S01_PAYLOADS)) >= 60


def test_data_may_have_keys_that_begin_with_an_underscore() -> None:
    assert value_of("{{ doc['_id'] }}", doc={"_id": 7}) == 7
    assert value_of("{{ [doc] | map(attribute='__class__') }}", doc={"__class__": "economy"}) == ["economy"]
    assert (
        failure("{{ doc._id }}").message
        == "'_id' begins with an underscore; a key of that name is read with ['_id']"
    )


ATOMS = st.sampled_from(
    [
        "n",
        "ticket",
        "names",
        "case",
        "scores",
        "find.passages",
        "missing",
        "none",
        "true",
        "'a'",
        "1.5",
        "0",
        "-7",
    ]
)
SHAPES = st.sampled_from(
    [
        *(
            "({0} + {1})",
            "({0} * {1})",
            "({0} ** {1})",
            "({0} % {1})",
            "({0} // {1})",
            "({0} ~ {1})",
            "(-{0})",
        ),
        *(
            "({0} == {1})",
            "({0} < {1})",
            "({0} in {1})",
            "(not {0})",
            "({0} and {1})",
            "({0} if {1} else {0})",
        ),
        *("[{0}, {1}]", "({0}, {1})", "{{'k': {0}, 'l': {1}}}", "{{{0}: {1}}}", "({0})[{1}]", "({0})[{1}:]"),
        *(
            "({0}).k",
            "({0}).upper()",
            "({0}).split({1})",
            "({0}).items()",
            "({0}).get({1})",
            "({0}).index({1})",
        ),
        *(
            "({0} | {2})",
            "({0} | {2}({1}))",
            "({0} | {2}({1}, {0}))",
            "({0} | map('{2}') | list)",
            "range({0})",
        ),
        *("({0} | sort(attribute={1}))", "({0} is {3})", "({0} is {3}({1}))", "({0} | select('{3}', {1}))"),
    ]
)
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.builds(
        str.format,
        SHAPES,
        inner,
        inner,
        st.sampled_from(sorted(ENVIRONMENT.filters)),
        st.sampled_from(sorted(name for name in ENVIRONMENT.tests if name.isalpha())),
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=500)
@given(EXPRESSIONS)
def test_any_expression_gives_plain_data_or_a_template_error(expression: str) -> None:
    try:
        text = json.dumps(value_of("{{ " + expression + " }}"))
    except TemplateError as error:
        assert error.line == 1
    else:
        assert text == json.dumps(value_of("{{ " + expression + " }}"))


@settings(deadline=None, max_examples=200)
@given(st.text("{}%#-| abn.'()[]:=\n"), st.sampled_from(["", "{{", "{%"]), st.sampled_from(["", "}}", "%}"]))
def test_any_text_is_a_template_or_a_template_error(text: str, opening: str, closing: str) -> None:
    source = opening + text + closing
    try:
        template = parse_template(source)
    except TemplateError as error:
        assert error.line is not None
    else:
        assert template.source == source
