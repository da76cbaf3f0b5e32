"""JMESPath expressions: checked when a mapping file is read, and evaluated on records that anybody may have sent."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Annotated, Any

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions
from jmespath.parser import ParsedResult
from jmespath.visitor import TreeInterpreter
from pydantic import AfterValidator, Field

MAX_LENGTH = 2_000
"""Characters of an expression. It cannot loop, so its length also limits its time."""
_INTERPRETER = TreeInterpreter()
_FUNCTIONS: dict[str, Any] = Functions.FUNCTION_TABLE


class EvaluationError(ValueError):
    """An expression cannot be evaluated on this record, such as ``join`` on a number."""


def checked(expression: str) -> str:
    """Return an expression if it is valid, with known functions; raise ValueError otherwise."""
    for node in _nodes(_compiled(expression).parsed):
        if node["type"] == "subexpression" and node["children"][0]["type"] == "not_expression":
            raise ValueError("!a.b means (!a).b in JMESPath: write !(a.b)")
        if node["type"] != "function_expression":
            continue
        name, given = node["value"], len(node["children"])
        if name not in _FUNCTIONS:
            raise ValueError(f"JMESPath has no function {name}()")
        signature = _FUNCTIONS[name]["signature"]
        variadic = bool(signature) and signature[-1].get("variadic", False)
        if given < len(signature) or (given > len(signature) and not variadic):
            raise ValueError(f"{name}() takes {len(signature)} arguments, not {given}")
    return expression


Expression = Annotated[str, Field(min_length=1, max_length=MAX_LENGTH), AfterValidator(checked)]
"""A valid JMESPath expression."""


def evaluate(expression: str, data: Any) -> Any:
    """Return the value of an expression; None if there is none.

    Raises:
        EvaluationError: the values have types that the expression cannot handle.
    """
    try:
        return _INTERPRETER.visit(_compiled(expression).parsed, data)
    except RecursionError:
        raise EvaluationError("the record is nested too deeply") from None
    except (JMESPathError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise EvaluationError(_one_line(str(error))) from error


def holds(expression: str, data: Any) -> bool:
    """Return whether an expression is true, by the rules of JMESPath: empty and missing values are false.

    Raises:
        EvaluationError: as of :func:`evaluate`.
    """
    value = evaluate(expression, data)
    return not (value is None or value is False or value in ("", [], {}))


def names_needed(expression: str) -> frozenset[str] | None:
    """Return members of which an object has at least one wherever the expression does not have its value for ``{}``.

    None if there is no such set, as the expression looks at the whole object.
    """
    nodes = list(_nodes(_compiled(expression).parsed))
    if any(node["type"] in ("current", "value_projection") for node in nodes):
        return None
    return frozenset(node["value"] for node in nodes if node["type"] == "field")


@functools.lru_cache(maxsize=4096)
def _compiled(expression: str) -> ParsedResult:
    try:
        return jmespath.compile(expression)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except JMESPathError as error:
        position = getattr(error, "lex_position", None)
        place = f" at character {position + 1}" if isinstance(position, int) else ""
        raise ValueError(f"is not JMESPath{place}: {_one_line(str(error))}") from None


def _one_line(message: str) -> str:
    """Return the first sentence of an error of the library, which draws the place below it."""
    lines = [line.strip() for line in message.splitlines()]
    return (lines[0] if lines else "").rstrip(": ")[:200]


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting += one.get("children", ())
