"""S02: what a template may cost. Every bomb is refused, and all of them together stay within 256 MB."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import StrictUndefined
from jinja2.exceptions import SecurityError

from llmops.definitions.sandbox import ENVIRONMENT, MAX_ITEMS, MAX_STEPS, MAX_TEXT, Rendering
from llmops.definitions.templates import TemplateError, evaluate, parse_template, render_text

LARGE = {
    "text": "x" * MAX_TEXT,
    "smile": "\U0001f600 " * (MAX_TEXT // 2),
    "numbers": list(range(MAX_ITEMS)),
    "rows": [{"key": "k" * 30, "value": i} for i in range(20_000)],
    "strip": "b" * 1_000_000 + "a",
}


def _doubled(start: str, double: str, use: str) -> str:
    return start + double * 40 + use


def _repeated(expression: str) -> str:
    return "{% for i in numbers %}{% set x = " + expression + " %}{% endfor %}"


S02_BOMBS = {
    "nested loops": "{% for i in range(10000) %}{% for j in range(10000) %}{% endfor %}{% endfor %}",
    "nested loops with output": "{% for i in numbers %}{% for j in numbers %}a{% endfor %}{% endfor %}",
    "nested loops in a block": "{% set a %}{% for i in numbers %}"
    "{% for j in numbers %}aaa{% endfor %}{% endfor %}{% endset %}",
    "nested loops with a test": "{% for i in numbers %}{% for j in numbers if j %}{% endfor %}{% endfor %}",
    "long body": "{% for i in numbers %}" + "{% if i > 3 and i < 2 %}{% endif %}" * 500 + "{% endfor %}",
    "long empty body": "{% for i in numbers %}" + "{{ '' }}" * 2000 + "{% endfor %}",
    "long text": "{% for i in numbers %}" + "y" * 100_000 + "{% endfor %}",
    "center": "{{ 'a' | center(10**10) }}",
    "format": "{{ '%0999999999d' | format(1) }}",
    "percent": "{{ '%0999999999d' % 1 }}",
    "percent by even": "{{ '%0999999999d' is even }}",
    "percent by divisibleby": "{{ '%0999999999d' is divisibleby(1) }}",
    "percent by select": "{{ ['%0999999999d'] | select('odd') | list }}",
    "str.format": "{{ '{:0999999999d}'.format(1) }}",
    "str.center": "{{ 'a'.center(10**9) }}",
    "str.zfill": "{{ 'a'.zfill(10**9) }}",
    "power": "{{ 10**(10**8) }}",
    "power of constants": "{{ 9**9**9**9**9 }}",
    "product": "{{ " + " * ".join(["10**1000"] * 20) + " }}",
    "times text": "{{ 'a' * 10**10 }}",
    "text times": "{{ 10**10 * 'a' }}",
    "times list": "{{ [0] * 10**10 }}",
    "times tuple": "{{ (0, 1) * 10**10 }}",
    "plus text": "{{ text + text }}",
    "plus list": "{{ numbers + numbers }}",
    "tilde": "{{ text ~ text }}",
    "huge integer": "{{ 0x" + "f" * 100_000 + " }}",
    "huge decimal": "{{ " + "9" * 100_000 + " }}",
    "huge integer by int": "{{ ('f' * 1000000) | int(0, 16) }}",
    "replace": "{{ ('a' * 1000) | replace('a', 'b' * 1000) | replace('b', 'c' * 1000) }}",
    "replace by method": "{{ ('a' * 1000).replace('a', 'b' * 1000).replace('b', 'c' * 1000) }}",
    "replace nothing": "{{ ('a' * 100000) | replace('', 'b' * 1000) }}",
    "join": "{{ numbers | join(text) }}",
    "join long": "{{ [text, text] | join }}",
    "range": "{{ range(10**9) | list }}",
    "huge range": "{{ range(10**30) }}",
    "round": "{{ 1.5 | round(10**9) }}",
    "round down": "{{ 1.5 | round(10**9, 'floor') }}",
    "round to the left": "{{ 1 | round(precision=-10**9) }}",
    "batch": "{{ [1] | batch(10**10, 'x') | list }}",
    "slice": "{{ [1] | slice(10**10, 'x') | list }}",
    "indent": "{{ text | indent(10**9) }}",
    "wordwrap": "{{ text | wordwrap(1) }}",
    "urlize": "{{ text | urlize }}",
    "list of text": "{{ smile | list }}",
    "split": "{{ smile.split() }}",
    "split lines": "{{ ('\u2028' * 200000).splitlines() }}",
    "title": "{{ smile | title }}",
    "escape": "{{ ('<' * 2000000) | e }}",
    "tojson": "{{ rows | tojson(indent=8) ~ rows | tojson(indent=8) }}",
    "tojson indent": "{{ rows | tojson(indent=10**8) }}",
    "strip": "{{ text.strip(strip) }}",
    "trim": "{{ text | trim(strip) }}",
    "sum of lists": "{{ [[1]] | sum(start=[]) }}",
    "sum of text": "{{ ['a'] | sum(start='') }}",
    "text of lists": "{{ [text, text] | string }}",
    "output": "{{ text }}{{ text }}",
    "output of a loop": "{% for i in range(100) %}{{ text[:100000] }}{% endfor %}",
    "doubled list": _doubled("{% set a = [1] %}", "{% set a = [a, a] %}", "{{ a }}"),
    "doubled list as json": _doubled("{% set a = [1] %}", "{% set a = [a, a] %}", "{{ a | tojson }}"),
    "doubled list joined": _doubled("{% set a = [1] %}", "{% set a = [a, a] %}", "{{ [a] | join }}"),
    "doubled list sorted": _doubled(
        "{% set a = [1] %}", "{% set a = [a, a] %}", "{{ [a, a] | sort | length }}"
    ),
    "doubled lists compared": _doubled(
        "{% set a = [1] %}{% set b = [1] %}", "{% set a = [a, a] %}{% set b = [b, b] %}", "{{ a == b }}"
    ),
    "doubled lists found": _doubled(
        "{% set a = [1] %}{% set b = [1] %}", "{% set a = [a, a] %}{% set b = [b, b] %}", "{{ [a].index(b) }}"
    ),
    "doubled tuple as key": _doubled("{% set a = (1, 1) %}", "{% set a = (a, a) %}", "{{ {a: 1} }}"),
    "doubled tuple looked up": _doubled("{% set a = (1, 1) %}", "{% set a = (a, a) %}", "{{ {'k': 1}[a] }}"),
    "doubled tuple got": _doubled("{% set a = (1, 1) %}", "{% set a = (a, a) %}", "{{ {'k': 1}.get(a) }}"),
    "doubled tuple unique": _doubled(
        "{% set a = (1, 1) %}", "{% set a = (a, a) %}", "{{ [a] | unique | list }}"
    ),
    "doubled text": _doubled("{% set a = 'ab' %}", "{% set a = a ~ a %}", "{{ a }}"),
    "doubled block": _doubled("{% set a = 'ab' %}", "{% set a %}{{ a }}{{ a }}{% endset %}", "{{ a }}"),
    "deep list": "{% set a = [1] %}" + "{% set a = [a] %}" * 200 + "{{ a }}",
    "deep list as json": "{% set a = [1] %}" + "{% set a = [a] %}" * 200 + "{{ a | tojson }}",
    "deep list given": "{% set a = [1] %}" + "{% set a = [a] %}" * 200 + "{{ a == [a] }}",
    "deep brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep blocks": "{% if 1 %}" * 2000 + "{% endif %}" * 2000,
    **{
        f"repeated {expression}": _repeated(expression)
        for expression in [
            *(
                "text | upper",
                "text.title()",
                "text | wordcount",
                "text == strip",
                "text in strip",
                "text[1:]",
            ),
            *(
                "numbers | sort",
                "numbers | select('odd') | list",
                "numbers | batch(1)",
                "numbers | sum",
                "numbers[1:]",
            ),
            *(
                "numbers | map('string') | list",
                "numbers | slice(1000) | list",
                "numbers | unique",
                "5 in numbers",
            ),
            *("rows | sort(attribute='key')", "rows | groupby('value')", "rows | string", "rows | tojson"),
            *("numbers.count(5)", "rows.index(1)", "range(100000)", "text | int", "text.startswith(text)"),
        ]
    },
}


@pytest.mark.parametrize("name", S02_BOMBS)
def test_s02_a_bomb_is_refused(name: str) -> None:
    with pytest.raises(TemplateError) as caught:
        template = parse_template(S02_BOMBS[name])
        evaluate(template, {name: LARGE[name] for name in template.variables})
    assert caught.value.message


SET_OFF = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (256 << 20, 256 << 20))
from llmops.definitions.templates import TemplateError, evaluate, parse_template
bombs, values = json.load(sys.stdin)
refused = 0
for bomb in bombs:
    try:
        template = parse_template(bomb)
        evaluate(template, {name: values[name] for name in template.variables})
    except TemplateError:
        refused += 1
print(refused)
"""


def test_s02_all_bombs_together_stay_within_256_megabytes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SET_OFF],
        input=json.dumps([list(S02_BOMBS.values()), LARGE]),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == (str(len(S02_BOMBS)), "")


def test_s02_checking_a_template_carries_nothing_out() -> None:
    for name in ("power", "times text", "replace", "range", "nested loops", "round"):
        assert parse_template(S02_BOMBS[name]).variables == set()
    assert parse_template("{{ none['a'] and 1 / 0 and [] | first }}").variables == set()


def test_ordinary_long_inputs_fit() -> None:
    passages = [{"id": i, "text": "word " * 200} for i in range(2000)]
    source = (
        "{% for p in passages %}[{{ loop.index }}] {{ p.text | trim }}{{ '\n' if not loop.last }}{% endfor %}"
    )
    text = render_text(parse_template(source), {"passages": passages})
    assert text.count("\n") == 1999
    long = "word " * 200_000
    template = parse_template("{{ document | trim | replace('word', 'term') }} {{ document | wordcount }}")
    assert render_text(template, {"document": long}).endswith("term 200000")


def test_data_of_too_many_values_is_refused() -> None:
    with pytest.raises(TemplateError, match="'x': there are more than"):
        render_text(parse_template("constant"), {"x": [0] * (MAX_STEPS + 1)})


def test_the_environment_holds_a_second_lock_behind_the_check_of_the_template() -> None:
    assert (ENVIRONMENT.globals, ENVIRONMENT.loader, ENVIRONMENT.extensions) == ({}, None, {})
    context = Rendering(ENVIRONMENT, {}, None, {})
    for function in (open, "".format, type):
        with pytest.raises(SecurityError):
            ENVIRONMENT.call(context, function)
    for holder, name in [("", "__class__"), (context, "environment"), (open, "__self__"), ({}, "pop")]:
        assert isinstance(ENVIRONMENT.getattr(holder, name), StrictUndefined)
        assert isinstance(ENVIRONMENT.getitem(holder, name), StrictUndefined)


def test_the_allowance_is_for_each_rendering_anew() -> None:
    template = parse_template("{% for i in range(20000) %}{{ i }}{% endfor %}")
    first = render_text(template, {})
    assert all(render_text(template, {}) == first for _ in range(5))


@settings(deadline=None)
@given(
    st.integers(-(2**64), 2**64),
    st.integers(-(2**64), 2**64),
    st.sampled_from(["+", "-", "*", "/", "//", "%"]),
)
def test_operators_agree_with_python_where_they_are_allowed(left: int, right: int, symbol: str) -> None:
    template = parse_template("{{ left " + symbol + " right }}")
    values = {"left": left, "right": right}
    if right == 0 and symbol in ("/", "//", "%"):
        with pytest.raises(TemplateError, match="zero"):
            evaluate(template, values)
    else:
        assert evaluate(template, values) == eval(f"left {symbol} right", {}, values)  # noqa: S307


@settings(deadline=None)
@given(st.text(max_size=40), st.text(max_size=3), st.text(max_size=5), st.integers(-1, 5))
def test_replace_and_split_agree_with_python(text: str, old: str, new: str, count: int) -> None:
    values = {"text": text, "old": old, "new": new, "count": count}
    replaced = evaluate(parse_template("{{ text.replace(old, new, count) }}"), values)
    assert replaced == text.replace(old, new, count)
    assert evaluate(parse_template("{{ text | replace(old, new) }}"), values) == text.replace(old, new)
    assert evaluate(parse_template("{{ text.splitlines() }}"), values) == text.splitlines()
    assert evaluate(parse_template("{{ text.split(none, count) }}"), values) == text.split(None, count)
