"""What a template may do while it is rendered: its operators, methods, filters and tests, each with a price.

Values are plain data; an attribute is a key of that data and never an attribute of a Python object. What can
grow is bounded before it grows, and work is paid from one allowance a rendering. Which templates are let in
is decided in `templates`, which rewrites them to call the functions here.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NoReturn

import jinja2
from jinja2 import filters
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.runtime import Context, LoopContext, StrictUndefined, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS
from jinja2.utils import _PassArg, missing, pass_context
from markupsafe import escape

from llmops.errors import nearest

MAX_DEPTH = 64  # of expressions and of data
MAX_STEPS = 500_000  # of work in one rendering: well under a second
MAX_ITEMS = 100_000  # in one list
MAX_TEXT = 4_000_000  # characters of one text, and of the output
MAX_BITS = 4_096  # of one integer; Python writes out no more than 4,300 digits
TEXT_STEP = 32  # characters that cost one step

_SCALARS = (str, bool, int, float, type(None))
_KINDS = {str: "text", bool: "true or false", int: "a number", float: "a number", type(None): "null"} | {
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
}


class Missing(StrictUndefined):
    """A name, key or position that is not there; anything but `default` and `is defined` raises."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        if self._undefined_hint:
            return self._undefined_hint
        name, holder = repr(self._undefined_name), self._undefined_obj
        choices: Iterable[object] = ()
        if holder is missing:
            words = f"{name} is not defined"
        elif isinstance(holder, Context):
            words, choices = f"{name} is not defined", holder.get_all()
        elif isinstance(holder, dict):
            words, choices = f"there is no key {name}", holder
        else:
            words = f"there is no {name} in {_kind(holder)}"
        hint = nearest(str(self._undefined_name), [choice for choice in choices if isinstance(choice, str)])
        return f"{words}; {hint}" if hint else words


class Rendering(Context):
    """The values of one rendering, and what is left of its allowance of steps."""

    steps_left = MAX_STEPS

    def resolve_or_missing(self, key: str) -> object:
        found = super().resolve_or_missing(key)
        return Missing(name=key, obj=self) if found is missing else found

    def spend(self, steps: int) -> None:
        """Take steps from the allowance; raise when it is used up."""
        self.steps_left -= steps
        if self.steps_left < 0:
            _refuse(f"this template does more work than one rendering may ({MAX_STEPS:,} steps)")

    def weigh(self, *values: object) -> None:
        """Pay for a look at all of each value."""
        for value in values:
            self.spend(_weight(value))

    def settle(self, value: object) -> object:
        """Return what was computed, paid for, within bounds, and with nothing missing inside."""
        if isinstance(value, Iterator):
            value = list(self._paid(value))
        if isinstance(value, (list, tuple)):
            self.spend(len(value))
            for item in value:
                _require(*item) if isinstance(item, tuple) else _require(item)
        elif isinstance(value, str):
            self.spend(fit(len(value)) // TEXT_STEP)
        elif isinstance(value, (int, float, complex)):
            _check_numbers(value)
        return value

    def _paid(self, items: Iterator[object]) -> Iterator[object]:
        for item in items:
            self.spend(1)
            yield item

    def text(self, value: object) -> str:
        """Return a value as Jinja writes it."""
        _require(value)
        weight = _weight(value)
        self.spend(weight)
        if isinstance(value, str):
            return value
        if not isinstance(value, (*_SCALARS, list, tuple, dict)):
            _refuse(f"{_kind(value)} cannot be written as text")
        fit(weight * TEXT_STEP // 2)
        return str(value)


def fit(size: int) -> int:
    """Return a number of characters that one text may have; raise for one that it may not."""
    if size > MAX_TEXT:
        _refuse(f"a text would have more than {MAX_TEXT:,} characters")
    return size


def plain(value: object, depth: int = 0, room: Iterator[int] | None = None) -> object:
    """Return a deep copy of dict, list, str, int, float, bool and None; raise for anything else inside."""
    room = room or iter(range(MAX_STEPS))
    if depth > MAX_DEPTH:
        _refuse("the data is nested too deeply, or holds itself")
    if next(room, None) is None:
        _refuse(f"there are more than {MAX_STEPS:,} values in the data")
    if type(value) in _SCALARS:
        if type(value) is int:
            _check_numbers(value)
        return value
    if isinstance(value, Mapping):
        return {_key(key): plain(item, depth + 1, room) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, depth + 1, room) for item in value]
    _require(value)
    raise TypeError(
        f"templates take text, numbers, true, false, null, lists and mappings, not {_kind(value)}"
    )


def _refuse(message: str) -> NoReturn:
    raise SecurityError(message)


def _require(*values: object) -> None:
    for value in values:
        if isinstance(value, Undefined):
            value._fail_with_undefined_error()


def _fit_items(count: int) -> None:
    if count > MAX_ITEMS:
        _refuse(f"a list would have more than {MAX_ITEMS:,} items")


def _fit_bits(bits: int) -> None:
    if bits > MAX_BITS:
        _refuse(f"an integer would have more than {MAX_BITS:,} bits")


def _check_numbers(*values: object) -> None:
    for value in values:
        if not isinstance(value, (int, float)):
            raise TypeError(f"a number is needed, not {_kind(value)}")
        if isinstance(value, int):
            _fit_bits(value.bit_length())


def _kind(value: object) -> str:
    return _KINDS.get(type(value), f"a value of type {type(value).__name__}")


def _absent(holder: object, key: object) -> Missing:
    return Missing(obj=holder, name=key)  # type: ignore[arg-type]


def _key(key: object) -> object:
    _require(key)
    if type(key) not in _SCALARS:
        raise TypeError(f"a key is text or a number, not {_kind(key)}")
    return key


def _weight(value: object) -> int:
    """Return the deep size in steps, shared parts counted each time; counting stops past the allowance."""
    total = depth = 0
    level = [value]
    while level and total <= MAX_STEPS:
        deeper: list[object] = []
        for item in level:
            total += _steps(item)
            if isinstance(item, (list, tuple, dict)) and total <= MAX_STEPS:
                deeper.extend(item)
                deeper.extend(item.values() if isinstance(item, dict) else ())
        level = deeper
        depth += 1
        if depth > MAX_DEPTH + 1:
            _refuse("a value is nested too deeply")
    return total


def _steps(item: object) -> int:
    if isinstance(item, str):
        return 1 + len(item) // TEXT_STEP
    if isinstance(item, int):
        return 1 + item.bit_length() // TEXT_STEP
    return 1 + len(item) if isinstance(item, (list, tuple, dict)) else 1


# What operators, loops and calls in a template are rewritten to.


def compared(context: Rendering, left: object, /, *rest: object) -> object:
    """Return `left OP right OP right ...`; rest: the operators and right sides in turn."""
    result: object = True
    for name, right in zip(rest[::2], rest[1::2], strict=True):
        _require(left, right)
        context.weigh(left, right)
        result = _COMPARISONS[str(name)](left, right)
        if not result:
            return result
        left = right
    return result


def joined(context: Rendering, /, *parts: object) -> object:
    """Return `a ~ b ~ ...`."""
    texts = [context.text(part) for part in parts]
    fit(sum(map(len, texts)))
    return "".join(texts)


def counted(context: Rendering, items: object, weight: int, /) -> object:
    """Return what a loop goes over, paid for in advance: no loop can be left early. weight: of its body."""
    _require(items)
    if not isinstance(items, (list, tuple, dict, str)):
        raise TypeError(f"a loop goes over a list, a mapping or text, not over {_kind(items)}")
    context.spend(len(items) * weight)
    return items


def ranged(context: Rendering, /, *bounds: int) -> object:
    """Return `range(...)` as a list."""
    _require(*bounds)
    numbers = range(*bounds)
    _fit_items(len(numbers))
    return context.settle(list(numbers))


def cut(
    context: Rendering, value: object, start: int | None, stop: int | None, step: int | None, /
) -> object:
    """Return `value[start:stop:step]`."""
    _require(value, start, stop, step)
    if not isinstance(value, (list, tuple, str)):
        raise TypeError(f"a slice is taken of a list or text, not of {_kind(value)}")
    return context.settle(value[start:stop:step])


def filled(_context: Rendering, literal: list[object] | dict[object, object], /) -> object:
    """Return a list or mapping written in the template, none of whose parts may be missing."""
    _require(*(literal.values() if isinstance(literal, dict) else literal))
    return literal


def needed(_context: Rendering, value: object, /) -> object:
    """Return a value that may not be missing."""
    _require(value)
    return value


def keyed(_context: Rendering, key: object, /) -> object:
    """Return a key of a mapping written in the template; the hash of a nested tuple could take for ever."""
    return _key(key)


def called(context: Rendering, value: object, name: str, /, *args: object, **options: object) -> object:
    """Return `value.name(...)` for one of the pure methods."""
    _require(value, *args, *options.values())
    method = _METHODS.get(type(value), {}).get(name)
    if method is None:
        raise TypeError(f"there is no {name}() of {_kind(value)}")
    context.weigh(*args, *options.values(), None if isinstance(value, (LoopContext, dict)) else value)
    return context.settle(method(value, *args, **options))


REWRITTEN: frozenset[Callable[..., object]] = frozenset(
    [compared, joined, counted, ranged, cut, filled, needed, keyed, called]
)
_COMPARISONS: dict[str, Callable[..., object]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
    "in": lambda left, right: left in right,
    "notin": lambda left, right: left not in right,
}


def _add(left: object, right: object) -> object:
    for kind in (str, list, tuple):
        if isinstance(left, kind) and isinstance(right, kind):
            _fit_sequence(left, len(left) + len(right))
            return operator.add(left, right)
    _check_numbers(left, right)
    return operator.add(left, right)


def _multiply(left: object, right: object) -> object:
    if isinstance(left, int) and isinstance(right, (str, list, tuple)):
        left, right = right, left
    if isinstance(left, (str, list, tuple)) and isinstance(right, int):
        _fit_sequence(left, len(left) * max(right, 0))
        return left * right
    if isinstance(left, int) and isinstance(right, int):
        _fit_bits(left.bit_length() + right.bit_length())
    _check_numbers(left, right)
    return operator.mul(left, right)


def _power(left: object, right: object) -> object:
    if isinstance(left, int) and isinstance(right, int):
        _fit_bits(left.bit_length() * abs(right))
    _check_numbers(left, right)
    return operator.pow(left, right)


def _fit_sequence(value: object, size: int) -> None:
    if isinstance(value, str):
        fit(size)
    else:
        _fit_items(size)


def _numeric(operation: Callable[..., object]) -> Callable[..., object]:
    def apply(*numbers: object) -> object:
        _check_numbers(*numbers)  # `%` would also format text
        return operation(*numbers)

    return apply


_OPERATORS: dict[str, Callable[..., object]] = {
    "+": _add,
    "*": _multiply,
    "**": _power,
    "-": _numeric(operator.sub),
    "/": _numeric(operator.truediv),
    "//": _numeric(operator.floordiv),
    "%": _numeric(operator.mod),
}


# Methods, filters and tests.


def _replaced(text: str, old: str, new: str, count: int = -1) -> str:
    found = text.count(old)
    fit(len(text) + (min(found, count) if count >= 0 else found) * (len(new) - len(old)))
    return text.replace(old, new, count)


def _split(text: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    parts = text.split(sep, maxsplit if 0 <= maxsplit <= MAX_ITEMS else MAX_ITEMS)
    _fit_items(len(parts))
    return parts


def _split_lines(text: str, keepends: bool = False) -> list[str]:
    _fit_items(sum(text.count(end) for end in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"))
    return text.splitlines(keepends)


def _stripping(strip: Callable[[str, str | None], str]) -> Callable[..., str]:
    def apply(text: str, chars: str | None = None) -> str:
        if chars is not None and len(chars) > 100:  # Python looks for each character in all of them
            _refuse("at most 100 different characters can be stripped")
        return strip(text, chars)

    return apply


_METHODS: dict[type, dict[str, Callable[..., object]]] = {
    str: {
        **{name: getattr(str, name) for name in ("upper", "lower", "title", "capitalize")},
        **{name: getattr(str, name) for name in ("startswith", "endswith")},
        **{name: _stripping(getattr(str, name)) for name in ("strip", "lstrip", "rstrip")},
        **{"split": _split, "splitlines": _split_lines, "replace": _replaced},
    },
    dict: {
        "items": lambda mapping: list(mapping.items()),
        "keys": list,
        "values": lambda mapping: list(mapping.values()),
        "get": lambda mapping, key, default=None: mapping.get(_key(key), default),
    },
    list: {"index": list.index, "count": list.count},
    tuple: {"index": tuple.index, "count": tuple.count},
    LoopContext: {"cycle": LoopContext.cycle, "changed": LoopContext.changed},
}
METHOD_NAMES = frozenset(name for methods in _METHODS.values() for name in methods)
_LOOP_FIELDS = frozenset(
    ["index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem"]
)


@pass_context
def _replace(context: Rendering, value: object, old: str, new: str, count: int | None = None) -> str:
    return _replaced(context.text(value), old, new, -1 if count is None else count)


@pass_context
def _join(context: Rendering, value: object, d: object = "", attribute: str | int | None = None) -> str:
    texts = [context.text(item) for item in _attributes(context, value, attribute)]
    between = context.text(d)
    fit(sum(map(len, texts)) + len(between) * len(texts))
    return between.join(texts)


@pass_context
def _sum(context: Rendering, value: object, attribute: str | int | None = None, start: float = 0) -> float:
    numbers = _attributes(context, value, attribute)
    _check_numbers(start, *numbers)
    return sum(numbers, start)


def _attributes(context: Rendering, value: object, attribute: str | int | None) -> list[float]:
    items: list[float] = list(value)  # type: ignore[call-overload]
    if attribute is not None:
        items = list(map(filters.make_attrgetter(context.environment, attribute), items))
    _require(*items)
    return items


def _tojson(value: object, indent: int | None = None) -> str:
    """Return plain JSON: a prompt is no web page, so nothing is escaped; keys keep their order."""
    if indent is not None and not 0 <= indent <= 8:
        raise ValueError("indent is 0 to 8")
    size, chunks = 0, []
    for chunk in json.JSONEncoder(ensure_ascii=False, allow_nan=False, indent=indent).iterencode(value):
        size = fit(size + len(chunk))
        chunks.append(chunk)
    return "".join(chunks)


@pass_context
def _trim(context: Rendering, value: object, chars: str | None = None) -> object:
    return _METHODS[str]["strip"](context.text(value), chars)


@pass_context
def _escape(context: Rendering, value: object) -> str:
    return str(escape(context.text(value)))


@pass_context
def _wordcount(context: Rendering, value: object) -> int:
    return sum(1 for _ in re.finditer(r"\w+", context.text(value)))


_OWN_FILTERS: dict[str, Callable[..., object]] = {
    "e": _escape,
    "escape": _escape,
    "join": _join,
    "replace": _replace,
    "string": pass_context(Rendering.text),
    "sum": _sum,
    "tojson": _tojson,
    "trim": _trim,
    "wordcount": _wordcount,
}
# What a filter costs before it starts: nothing, its items, or its deep size. The middle two make lists.
_FREE = frozenset(["abs", "count", "d", "default", "first", "last", "length"])
_BY_ITEM = frozenset(
    [
        *("batch", "items", "list", "map", "reject", "rejectattr"),
        *("reverse", "select", "selectattr", "slice"),
    ]
)
_BY_ITEM_AND_SIZE = frozenset(["dictsort", "groupby", "join", "max", "min", "sort", "sum", "title", "unique"])
_BY_SIZE = frozenset(["capitalize", "float", "int", "lower", "round", "truncate", "upper"])
# Filters whose arguments say how much work to do.
_NUMBER_LIMITS = {"batch": MAX_ITEMS, "slice": MAX_ITEMS, "round": 20}
# Where `attribute` stands among the arguments of filters that never look at it when there is but one item.
_KEY_ARGUMENT = {"sort": 2, "min": 1, "max": 1}
_LENIENT = frozenset(["default", "d", "defined", "undefined"])
_NUMERIC_TESTS = frozenset(["even", "odd", "divisibleby"])
_REFUSED_TESTS = frozenset(["callable", "escaped", "filter", "test"])
_FILTER_FAILURES = (TypeError, ValueError, LookupError, ArithmeticError, AssertionError, AttributeError)
_LEADING: dict[object, Callable[[Rendering], tuple[object, ...]]] = {
    None: lambda _: (),
    _PassArg.context: lambda context: (context,),
    _PassArg.eval_context: lambda context: (context.eval_ctx,),
    _PassArg.environment: lambda context: (context.environment,),
}


def _bounded_filter(name: str, function: Callable[..., object]) -> Callable[..., object]:
    leading = _LEADING[_PassArg.from_obj(function)]

    @pass_context
    def apply(context: Rendering, value: object, /, *args: object, **options: object) -> object:
        context.spend(1)
        if name not in _LENIENT:
            _require(value, *args, *options.values())
        try:
            _charge_filter(context, name, value, *args, **options)
            return context.settle(function(*leading(context), value, *args, **options))
        except _FILTER_FAILURES as error:
            raise jinja2.TemplateRuntimeError(
                f"filter {name!r}: {error or 'unsuitable arguments'}"
            ) from error

    return apply


def _charge_filter(context: Rendering, name: str, value: object, /, *args: object, **options: object) -> None:
    """Take the price of a filter, and refuse arguments that make it endless or hide what is missing."""
    arguments = (*args, *options.values())
    size = len(value) if isinstance(value, (str, list, tuple, dict)) else 0
    if name in _BY_ITEM or name in _BY_ITEM_AND_SIZE:
        _fit_items(size)
    if name in _BY_ITEM:
        context.spend(size)
    elif name not in _FREE:
        context.weigh(value, *arguments)
    limit = _NUMBER_LIMITS.get(name)
    if limit is not None and any(isinstance(number, int) and abs(number) > limit for number in arguments):
        _refuse(f"filter {name!r}: more than {limit:,}")
    if name in _KEY_ARGUMENT:
        keys = options.get("attribute", next(iter(args[_KEY_ARGUMENT[name] :]), None))
        for key in [] if keys is None else str(keys).split(","):
            _attributes(context, value, key)


def _bounded_test(name: str, function: Callable[..., object]) -> Callable[..., object]:
    checked = _numeric(function) if name in _NUMERIC_TESTS else function

    @pass_context
    def apply(context: Rendering, value: object, /, *args: object, **options: object) -> object:
        if name not in _LENIENT:
            _require(value, *args, *options.values())
            context.weigh(value, *args, *options.values())
        if name in ("upper", "lower") and not isinstance(value, str):
            return False
        return checked(value, *args, **options)

    return apply


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with nothing left in it but what is named above."""

    context_class = Rendering
    intercepted_binops = frozenset(_OPERATORS)

    def __init__(self) -> None:
        super().__init__(
            undefined=Missing,
            keep_trailing_newline=True,
            finalize=pass_context(Rendering.text),
            cache_size=0,
            optimized=False,
        )
        self.globals.clear()
        kept = {name: FILTERS[name] for name in _FREE | _BY_ITEM | _BY_ITEM_AND_SIZE | _BY_SIZE}
        self.filters = {
            name: _bounded_filter(name, function) for name, function in (kept | _OWN_FILTERS).items()
        }
        self.tests = {
            name: _bounded_test(name, function)  # type: ignore[arg-type]
            for name, function in TESTS.items()
            if name not in _REFUSED_TESTS
        }
        for function in REWRITTEN:
            setattr(self, f"call_{function.__name__}", function)

    def getitem(self, obj: object, argument: object) -> object:
        _require(obj, argument)
        if isinstance(obj, dict):
            return obj[argument] if _key(argument) in obj else _absent(obj, argument)
        if isinstance(obj, (list, tuple, str)) and type(argument) is int and -len(obj) <= argument < len(obj):
            return obj[argument]
        # What groupby gives is a tuple with the fields grouper and list.
        fields = _LOOP_FIELDS if isinstance(obj, LoopContext) else getattr(type(obj), "_fields", ())
        if isinstance(argument, str) and argument in fields:
            return getattr(obj, argument)
        return _absent(obj, argument)

    def getattr(self, obj: object, attribute: str) -> object:
        return self.getitem(obj, attribute)

    def call(  # type: ignore[override]
        self,
        context: Rendering,
        function: Callable[..., object],
        /,
        *args: object,
        _loop_vars: object = None,  # Jinja passes it along for functions that render
        **options: object,
    ) -> object:
        if function not in REWRITTEN:
            _refuse("templates call no functions")
        return function(context, *args, **options)

    def call_binop(  # type: ignore[override]
        self, context: Rendering, operator: str, left: object, right: object
    ) -> object:
        _require(left, right)
        context.spend(1)
        return context.settle(_OPERATORS[operator](left, right))


ENVIRONMENT = _Environment()
