"""The calculator of assistant.chain.yaml: arithmetic and nothing else, whatever a model writes.

A tool is a function with type hints and a docstring: from these the model learns what it does and what it takes. What
it raises is told to the model, which may do better then.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable

OPERATORS: dict[type[ast.AST], Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
LONGEST = 200  # characters; what is longer is no question of a person


def calculate(expression: str) -> float:
    """Work out an arithmetic expression and return the number.

    expression: numbers with + - * / // % ** and brackets, such as (3 + 4) * 2.5; no names, no units, no commas
    """
    if len(expression) > LONGEST:
        raise ValueError(f"an expression has at most {LONGEST} characters")
    try:
        value = value_of(ast.parse(expression.strip(), mode="eval").body)
    except SyntaxError:
        raise ValueError(f"{expression!r} is no arithmetic expression") from None
    if not math.isfinite(value):
        raise ValueError("the result is too large")
    rounded = round(value, 10)
    return int(rounded) if rounded == int(rounded) else rounded


def value_of(node: ast.expr) -> float:
    """Return the number that a piece of an expression stands for; ValueError where it is no arithmetic."""
    if (
        isinstance(node, ast.Constant)
        and isinstance(node.value, int | float)
        and not isinstance(node.value, bool)
    ):
        return float(node.value)
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](value_of(node.operand))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return math.pow(value_of(node.left), value_of(node.right))  # of floats, so never of a million digits
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](value_of(node.left), value_of(node.right))
    raise ValueError("only numbers, + - * / // % ** and brackets can be worked out")
