"""What a place in the code is: whether a change of it means anything, and when it is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator

GUARDS = {"strict"}
"""Arguments that only say what never happens (`zip(…, strict=True)`)."""

LOGS = {"log", "_log"}
"""Loggers: what they are told is for people, and tests/golden holds the lines that are promised."""

Place = tuple[int, int]
"""Line and column."""

Span = tuple[Place, Place]

Function = ast.FunctionDef | ast.AsyncFunctionDef


def idle_spans(source: str) -> list[Span]:
    """Return from where to where the code decides nothing.

    That are annotations and unions of types, which nothing evaluates, decorators (`slots=True`),
    assertions, guards, what is logged, and the `*` before arguments that are given by name.
    """
    nodes = [*ast.walk(ast.parse(source))]
    parts = [_span(part) for node in nodes for part in _idle_parts(node)]
    return parts + [_stars(node) for node in nodes if isinstance(node, Function)]


def _idle_parts(node: ast.AST) -> Iterator[ast.expr | ast.stmt | ast.keyword]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            yield from node.decorator_list
            yield from [node.returns] if node.returns else []
        case ast.ClassDef():
            yield from node.decorator_list
        case ast.arg(annotation=ast.expr() as annotation):
            yield annotation
        case ast.AnnAssign():
            yield node.annotation
        case ast.Assert():
            yield node
        case ast.Assign(value=ast.BinOp(op=ast.BitOr()) as union) if _is_of_types(union):
            yield union
        case ast.keyword() if node.arg in GUARDS:
            yield node
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name))) if name in LOGS:
            yield node


def _stars(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Span:
    """Return where a function says that its other arguments are given by name."""
    told = function.args
    before: list[ast.arg | ast.expr] = [*told.posonlyargs, *told.args, *told.defaults]
    earlier = [_span(each)[1] for each in before]
    begin = max(earlier, default=(function.lineno, function.col_offset))
    later = told.kwonlyargs[:1]
    return begin, (later[0].lineno, later[0].col_offset) if later else begin


def _span(node: ast.expr | ast.stmt | ast.keyword | ast.arg) -> Span:
    end = node.end_lineno or node.lineno, node.end_col_offset or node.col_offset
    return (node.lineno, node.col_offset), end


def _is_of_types(node: ast.expr) -> bool:
    """Return whether an expression is a union of types, by their capital letters."""
    match node:
        case ast.BinOp(op=ast.BitOr()):
            return _is_of_types(node.left) and _is_of_types(node.right)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name[0].isupper()
    return False


def lines_run_with(source: str, line: int) -> range | None:
    """Return the lines of the statement at a line, of a compound one its head.

    None if it is run when the module is imported, and not when a function is called.
    """
    around = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    if not around:
        return None
    *outer, inner = sorted(around, key=lambda node: node.lineno)
    if isinstance(inner, Function | ast.ClassDef) or not any(
        isinstance(node, Function) for node in outer
    ):
        return None
    body: list[ast.stmt] = getattr(inner, "body", [])
    end = body[0].lineno if body else (inner.end_lineno or line) + 1
    return range(inner.lineno, max(end, line + 1))
