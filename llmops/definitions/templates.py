"""Templates: parse one, know which variables it looks up, render it with plain data.

Prompts, chains and evaluators all write Jinja2, and a pull request may have written any of it. So a template
is parsed, held against the list of what is allowed, and rewritten to call the counting functions of
`sandbox`, and only that is compiled. Values are never read as templates. Which variables it should
name is left to its owner.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.visitor import NodeTransformer

from llmops.definitions import sandbox
from llmops.definitions.sandbox import ENVIRONMENT, MAX_BITS, MAX_DEPTH, TEXT_STEP, fit, plain
from llmops.errors import LlmopsError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

MAX_SOURCE = 200_000  # characters of one template; long documents belong into values
MAX_NODES = 10_000  # parts of one template
MAX_BLOCKS = 16  # of for and if in one another; Python stops at 20 loops

_VALUE = "_value"  # where a sole expression leaves its value; no template can write this name
_BLOCKS = (nodes.For, nodes.If, nodes.With, nodes.AssignBlock, nodes.FilterBlock)
_ALLOWED = (
    *_BLOCKS,
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Assign, nodes.Name, nodes.Const, nodes.Keyword),
    *(nodes.Tuple, nodes.List, nodes.Dict, nodes.Pair, nodes.CondExpr, nodes.Filter, nodes.Test, nodes.Call),
    *(nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Concat, nodes.Compare, nodes.Operand),
    *(nodes.BinExpr, nodes.UnaryExpr),
)
_SPELLINGS = {"FromImport": "from", "CallBlock": "call", "Scope": "autoescape"}
_FAILURES = (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, RecursionError)


class TemplateError(LlmopsError):
    """A template cannot be parsed or rendered. line: from 1 inside it, None where no line is at fault."""

    def __init__(self, message: str, line: int | None = None) -> None:
        self.message = message
        self.line = line
        super().__init__(message if line is None else f"line {line}: {message}")


@dataclass(frozen=True)
class Template:
    """A template that has been checked.

    variables: top-level names it looks up. paths: the same, with their constant attributes as far as they go.
    is_expression: it is one `{{ expression }}` with only white space around, so its value keeps its type.
    """

    source: str
    variables: frozenset[str] = field(compare=False, repr=False)
    paths: frozenset[tuple[str, ...]] = field(compare=False, repr=False)
    is_expression: bool = field(compare=False, repr=False)


@lru_cache(maxsize=1024)
def parse_template(source: str) -> Template:
    """Return the checked template; TemplateError for bad syntax and for what templates may not do."""
    try:
        tree = _parse(source)
        variables = _variables(tree)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError((error.message or "bad syntax").rstrip("."), error.lineno) from error
    except RecursionError as error:
        raise TemplateError("nested too deeply") from error
    except ValueError as error:  # a number of more digits than Python reads
        raise TemplateError(str(error)) from error
    paths = frozenset(path for path in _paths(tree) if path[0] in variables)
    return Template(source, variables, paths, _sole_expression(tree) is not None)


def render_text(template: Template, values: Mapping[str, object]) -> str:
    """Return the template's text. values: plain data by name. Whatever fails raises TemplateError."""
    code = _compiled(template.source, native=False)
    context = code.new_context(_data(values))
    chunks: list[str] = []
    size = 0
    try:
        for chunk in code.root_render_func(context):
            size = fit(size + len(chunk))
            chunks.append(chunk)
    except _FAILURES as error:
        raise _explained(error, code) from error
    return "".join(chunks)


def evaluate(template: Template, values: Mapping[str, object]) -> object:
    """Return the value of a template that is one expression, its type kept; the text of any other."""
    if not template.is_expression:
        return render_text(template, values)
    code = _compiled(template.source, native=True)
    context = code.new_context(_data(values))
    try:
        list(code.root_render_func(context))
        return plain(context.vars[_VALUE])
    except _FAILURES as error:
        raise _explained(error, code) from error


def _variables(tree: nodes.Template) -> frozenset[str]:
    tracker = meta.TrackingCodeGenerator(ENVIRONMENT)
    tracker.optimizer = None  # which would work out constants, and fail where they do
    tracker.visit(tree)
    return frozenset(tracker.undeclared_identifiers)


def _data(values: Mapping[str, object]) -> dict[str, object]:
    data = {}
    for name, value in values.items():
        try:
            data[name] = plain(value)
        except (jinja2.TemplateError, TypeError) as error:
            raise TemplateError(f"{name!r}: {error}") from error
    return data


def _explained(error: BaseException, code: jinja2.Template) -> TemplateError:
    return TemplateError(str(error) or type(error).__name__, _line(error, code))


def _line(error: BaseException, code: jinja2.Template) -> int | None:
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = code.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    return line


@lru_cache(maxsize=1024)
def _compiled(source: str, *, native: bool) -> jinja2.Template:
    tree = _parse(source)
    expression = _sole_expression(tree)
    if native and expression is not None:
        value = _call(sandbox.needed, expression, expression)
        tree.body = [nodes.Assign(nodes.Name(_VALUE, "store"), value, lineno=expression.lineno)]
    return ENVIRONMENT.from_string(tree)


def _parse(source: str) -> nodes.Template:
    if len(source) > MAX_SOURCE:
        raise TemplateError(f"more than {MAX_SOURCE:,} characters; give long text as a value instead")
    tree = ENVIRONMENT.parse(source)
    _Rewriter().visit(tree)
    tree.set_environment(ENVIRONMENT)
    return tree


def _sole_expression(tree: nodes.Template) -> nodes.Expr | None:
    if len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output):
        return None
    parts = [
        part for part in tree.body[0].nodes if not isinstance(part, nodes.TemplateData) or part.data.strip()
    ]
    return parts[0] if len(parts) == 1 and not isinstance(parts[0], nodes.TemplateData) else None


def _paths(node: nodes.Node) -> Iterator[tuple[str, ...]]:
    path = _path(node)
    if path:
        yield path
        return
    for child in node.iter_child_nodes():
        yield from _paths(child)


def _path(node: nodes.Node) -> tuple[str, ...]:
    """Return the path that a node is as a whole, () when it is none."""
    if isinstance(node, nodes.Name) and node.ctx == "load":
        return (node.name,)
    if isinstance(node, nodes.Getattr):
        key = node.attr
    elif (
        isinstance(node, nodes.Getitem)
        and isinstance(node.arg, nodes.Const)
        and isinstance(node.arg.value, str)
    ):
        key = node.arg.value
    else:
        return ()
    base = _path(node.node)
    return (*base, key) if base else ()


class _Rewriter(NodeTransformer):
    """Refuses what templates may not do; turns what can grow into calls of the sandbox, in place."""

    def __init__(self) -> None:
        self.depth = self.blocks = self.count = 0

    def visit(self, node: nodes.Node, *_args: object, **_options: object) -> nodes.Node:
        if not isinstance(node, _ALLOWED):
            kind = type(node).__name__
            _refuse(f"{{% {_SPELLINGS.get(kind, kind.lower())} %}} is not allowed in a template", node)
        is_block = isinstance(node, _BLOCKS)
        self.count += 1
        self.depth += 1
        self.blocks += is_block
        if self.depth > MAX_DEPTH or self.blocks > MAX_BLOCKS:
            _refuse("nested too deeply", node)
        if self.count > MAX_NODES:
            _refuse(f"more than {MAX_NODES:,} parts", node)
        visited: nodes.Node = super().visit(node)
        self.depth -= 1
        self.blocks -= is_block
        return visited

    def visit_Name(self, node: nodes.Name) -> nodes.Node:  # noqa: N802 - Jinja looks for these names
        _check_name(node.name, node)
        if node.name == "self":
            _refuse("the name 'self' is Jinja's own", node)
        return node

    def visit_Const(self, node: nodes.Const) -> nodes.Node:  # noqa: N802
        if isinstance(node.value, int) and node.value.bit_length() > MAX_BITS:
            _refuse(f"an integer of more than {MAX_BITS:,} bits", node)
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        if node.recursive:
            _refuse("a recursive loop is not allowed in a template", node)
        weight = sum(map(_size, node.iter_child_nodes(exclude=("target", "iter"))))
        self.generic_visit(node)
        node.iter = _call(sandbox.counted, node, node.iter, nodes.Const(weight))
        return node

    def visit_Getattr(self, node: nodes.Getattr) -> nodes.Node:  # noqa: N802
        _check_name(node.attr, node)
        return self.generic_visit(node)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            bounds = (node.arg.start, node.arg.stop, node.arg.step)
            return _call(sandbox.cut, node, node.node, *(bound or nodes.Const(None) for bound in bounds))
        if isinstance(node.arg, nodes.Const) and str(node.arg.value).startswith("__"):
            _refuse(f"{node.arg.value!r} is not allowed in a template", node)
        return node

    def visit_Call(self, node: nodes.Call) -> nodes.Node:  # noqa: N802
        _check_arguments(node)
        called = node.node
        if isinstance(called, nodes.Name) and called.name == "range":
            node.node = nodes.Const(None)
            self.generic_visit(node)
            return _call(sandbox.ranged, node, *node.args, options=node.kwargs)
        if not isinstance(called, nodes.Getattr):
            _refuse("only range() and methods of values can be called in a template", node)
        if called.attr not in sandbox.METHOD_NAMES:
            _refuse(_unknown(f"method {called.attr}()", called.attr, sandbox.METHOD_NAMES), node)
        self.generic_visit(node)
        return _call(
            sandbox.called, node, called.node, nodes.Const(called.attr), *node.args, options=node.kwargs
        )

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:  # noqa: N802
        _check_arguments(node)
        _check_known("filter", node.name, ENVIRONMENT.filters, node)
        if node.name == "map":
            _check_inner("filter", node.args[:1], ENVIRONMENT.filters)
        elif node.name in ("select", "reject"):
            _check_inner("test", node.args[:1], ENVIRONMENT.tests)
        elif node.name in ("selectattr", "rejectattr"):
            _check_inner("test", node.args[1:2], ENVIRONMENT.tests)
        return self.generic_visit(node)

    def visit_Test(self, node: nodes.Test) -> nodes.Node:  # noqa: N802
        _check_arguments(node)
        _check_known("test", node.name, ENVIRONMENT.tests, node)
        return self.generic_visit(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _call(sandbox.joined, node, *node.nodes)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        rest = [part for operand in node.ops for part in (nodes.Const(operand.op), operand.expr)]
        return _call(sandbox.compared, node, node.expr, *rest)

    def visit_CondExpr(self, node: nodes.CondExpr) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr2 = node.expr2 or nodes.Const(
            ""
        )  # `{{ ', ' if not loop.last }}` is nothing, never undefined
        return node

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _call(sandbox.filled, node, node) if node.ctx == "load" else node

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        return _call(sandbox.filled, node, self.generic_visit(node))

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        return _call(sandbox.filled, node, self.generic_visit(node))

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.key = _call(sandbox.keyed, node, node.key)
        return node


def _call(
    function: Callable[..., object], at: nodes.Node, *args: nodes.Node, options: Iterable[nodes.Keyword] = ()
) -> nodes.Call:
    target = nodes.EnvironmentAttribute(f"call_{function.__name__}")
    return nodes.Call(target, list(args), list(options), None, None, lineno=at.lineno)


def _size(node: nodes.Node) -> int:
    """Return how many parts a node has, text counted by its length: the price of going through it once."""
    text = len(node.data) // TEXT_STEP if isinstance(node, nodes.TemplateData) else 0
    return 1 + text + sum(map(_size, node.iter_child_nodes()))


def _check_name(name: str, node: nodes.Node) -> None:
    if name.startswith("_"):
        hint = "" if name.startswith("__") else f"; a key of that name is read with [{name!r}]"
        _refuse(f"{name!r} begins with an underscore{hint}", node)
    if unicodedata.normalize("NFKC", name) != name:  # Python would take it for the other spelling
        _refuse(f"{name!r} is a name in an unusual spelling of {unicodedata.normalize('NFKC', name)!r}", node)


def _check_arguments(node: nodes.Call | nodes.Filter | nodes.Test) -> None:
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        _refuse("* and ** are not allowed among arguments", node)
    names = [option.key for option in node.kwargs if isinstance(option, nodes.Keyword)]
    for name in names:
        _check_name(name, node)
        if names.count(name) > 1:
            _refuse(f"{name!r} is given twice", node)


def _check_inner(kind: str, names: list[nodes.Expr], known: Collection[str]) -> None:
    for name in names:
        if isinstance(name, nodes.Const):
            _check_known(kind, name.value, known, name)


def _check_known(kind: str, name: object, known: Collection[str], node: nodes.Node) -> None:
    if name not in known:
        _refuse(_unknown(f"{kind} {name!r}", str(name), known), node)


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    hint = nearest(name, known)
    return f"there is no {what}" + (f"; {hint}" if hint else "")


def _refuse(message: str, node: nodes.Node) -> NoReturn:
    lines = (part.lineno for part in (node, *node.iter_child_nodes()))  # a few kinds of node have no line
    raise TemplateError(message, next(filter(None, lines), None))
