"""The expressions of claims.json as contrasts of cells: parsed as a syntax tree, never executed.

An expression is a sum of cells with weights, or the least of several such sums. `max` and `abs` are
allowed where they make it so: `a - max(b, c)` is `min(a - b, a - c)`.
"""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass

from frontload.eval.statistics.cells import Leaf
from frontload.eval.statistics.contrasts import Contrast
from frontload.recipes.errors import RecipeError

METRIC = re.compile(
    r"(pt|sft)\.(avg|math|science|code|gpr|ins|inside|outside|format_failure|pass_at_k)"
    r"|(rl|flat8|flat9)\.avg|bench\.[\w-]+|heldout\.(loss|step_accuracy)(\.\w+)?"
)
"""The metrics that a cell can have; which ones it has depends on its study."""


@dataclass(frozen=True)
class Extreme:
    """The least or the greatest of several contrasts."""

    contrasts: tuple[Contrast, ...]
    is_least: bool  # of one contrast it says nothing

    def times(self, factor: float) -> "Extreme":
        """Every contrast times a number; a negative one turns the least into the greatest."""
        scaled = tuple(contrast.times(factor) for contrast in self.contrasts)
        return Extreme(scaled, self.is_least != (factor < 0))

    @property
    def is_single(self) -> bool:
        return len(self.contrasts) == 1


@dataclass(frozen=True, kw_only=True)
class ComparisonExpression:
    """One `gap > 0` of a predicate: `eps` is the smallest effect, a number belongs to the claim."""

    gap: Contrast
    is_strict: bool


@dataclass
class Expression:
    """One expression of the grammar.

    Raises: RecipeError for anything outside the grammar.
    """

    text: str

    def __post_init__(self) -> None:
        try:
            self._tree = ast.parse(self.text, mode="eval").body
        except SyntaxError as error:
            raise self._refused(f"no expression ({error.msg})") from error

    def contrasts(self) -> tuple[Contrast, ...]:
        """The sums of which the expression is the least; one, unless it has min, max or abs."""
        value = self._value(self._tree)
        if not value.is_single and not value.is_least:
            raise self._refused("the greatest of several sums")
        return value.contrasts

    def number(self) -> float:
        """The value of an expression that names no cell."""
        (contrast,) = self.contrasts()
        if contrast.weights or contrast.eps:
            raise self._refused("a cell or eps where a number is needed")
        return contrast.constant

    def comparisons(self) -> tuple[ComparisonExpression, ...]:
        """A predicate as comparisons that must all hold.

        `min(a, b) > x` is `a > x and b > x`; `abs(a) < x` is `a < x and a > -x`.
        """
        parts = [self._tree]
        if isinstance(self._tree, ast.BoolOp) and isinstance(self._tree.op, ast.And):
            parts = self._tree.values
        return tuple(comparison for part in parts for comparison in self._comparisons(part))

    def _comparisons(self, node: ast.expr) -> list[ComparisonExpression]:
        if not isinstance(node, ast.Compare) or len(node.ops) != 1:
            raise self._refused(f"`{ast.unparse(node)}` as a statement")
        left, right = self._value(node.left), self._value(node.comparators[0])
        kind = type(node.ops[0])
        if kind in (ast.Lt, ast.LtE):
            left, right = right, left
        elif kind not in (ast.Gt, ast.GtE):
            raise self._refused(f"`{ast.unparse(node)}`")
        gap = self._sum(left, right.times(-1.0))
        if not gap.is_single and not gap.is_least:
            raise self._refused(f"`{ast.unparse(node)}`: one of several would do")
        return [
            ComparisonExpression(gap=contrast, is_strict=kind in (ast.Gt, ast.Lt))
            for contrast in gap.contrasts
        ]

    def _value(self, node: ast.expr) -> Extreme:
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return _single(Contrast(constant=float(node.value)))  # pyright: ignore[reportArgumentType]
        if isinstance(node, ast.Name) and node.id == "eps":
            return _single(Contrast(eps=1.0))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return self._value(node.operand).times(-1.0)
        if isinstance(node, ast.BinOp):
            return self._arithmetic(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            return self._call(node, node.func.id)
        raise self._refused(f"`{ast.unparse(node)}`")

    def _arithmetic(self, node: ast.BinOp) -> Extreme:
        left, right = self._value(node.left), self._value(node.right)
        if isinstance(node.op, ast.Add):
            return self._sum(left, right)
        if isinstance(node.op, ast.Sub):
            return self._sum(left, right.times(-1.0))
        if isinstance(node.op, ast.Mult) and _is_number(left):
            return right.times(left.contrasts[0].constant)
        if isinstance(node.op, ast.Mult) and _is_number(right):
            return left.times(right.contrasts[0].constant)
        if isinstance(node.op, ast.Div) and _is_number(right) and right.contrasts[0].constant:
            return left.times(1.0 / right.contrasts[0].constant)
        raise self._refused(f"`{ast.unparse(node)}`")

    def _call(self, node: ast.Call, name: str) -> Extreme:
        if name == "c":
            return _single(Contrast(weights={self._leaf(node): 1.0}))
        values = [self._value(argument) for argument in node.args]
        if name == "mean" and values:
            total = values[0]
            for value in values[1:]:
                total = self._sum(total, value)
            return total.times(1.0 / len(values))
        if name == "abs" and len(values) == 1 and values[0].is_single:
            return Extreme((values[0].contrasts[0], values[0].times(-1.0).contrasts[0]), False)
        if name in ("min", "max") and values:
            is_least = name == "min"
            if all(value.is_single or value.is_least == is_least for value in values):
                return Extreme(tuple(c for value in values for c in value.contrasts), is_least)
        raise self._refused(f"`{ast.unparse(node)}`")

    def _sum(self, left: Extreme, right: Extreme) -> Extreme:
        """Extremes of one kind add up: the least of all pairs' sums."""
        if not left.is_single and not right.is_single and left.is_least != right.is_least:
            raise self._refused("a least and a greatest in one sum")
        pairs = [a.plus(b) for a in left.contrasts for b in right.contrasts]
        return Extreme(tuple(pairs), right.is_least if left.is_single else left.is_least)

    def _leaf(self, node: ast.Call) -> Leaf:
        values = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        if len(node.args) != 2 or len(values) != 2 or not all(isinstance(v, str) for v in values):
            raise self._refused(f"`{ast.unparse(node)}`")
        cell, metric = map(str, values)
        if not METRIC.fullmatch(metric):
            raise RecipeError(
                f"expression {self.text!r}",
                found=f"the metric {metric!r}, which no cell can have",
                rule="metrics are pt. or sft. with avg, a category, inside, outside, "
                "format_failure or pass_at_k; rl.avg, flat8.avg, flat9.avg; bench.NAME; "
                "heldout.loss and heldout.step_accuracy",
                do="name one of these; cells.json lists what each cell has",
            )
        return cell, metric

    def _refused(self, found: str) -> RecipeError:
        return RecipeError(
            f"expression {self.text!r}",
            found=found,
            rule="allowed are c('cell', 'metric'), mean, min, max, abs, eps, numbers, + - * /, "
            "< > <= >= and `and`; all parts of a statement must hold, and an effect is one sum of "
            "cells or the least of several",
            do="rewrite the expression in claims.json",
        )


def _single(contrast: Contrast) -> Extreme:
    return Extreme((contrast,), True)


def _is_number(value: Extreme) -> bool:
    contrast = value.contrasts[0]
    return value.is_single and not contrast.weights and not contrast.eps


def named_leaves(contrasts: Sequence[Contrast]) -> list[Leaf]:
    """The cells and metrics that contrasts name, groups unexpanded, each once."""
    return list(dict.fromkeys(leaf for contrast in contrasts for leaf in contrast.weights))
