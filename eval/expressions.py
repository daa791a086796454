"""The expressions of claims.json over cells: parsed as a syntax tree, never executed as Python."""

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from frontload.eval.cells import Cells, Draws
from frontload.eval.stats import SeededEstimate
from frontload.recipes.errors import RecipeError

_ARITHMETIC: dict[type, Callable[..., np.ndarray]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
}
_FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": lambda stacked: stacked.mean(axis=0),
    "min": lambda stacked: stacked.min(axis=0),
    "max": lambda stacked: stacked.max(axis=0),
}
_COMPARISONS: dict[type, tuple[int, Callable[[float, float], bool]]] = {
    ast.Gt: (1, operator.gt),
    ast.GtE: (1, operator.ge),
    ast.Lt: (-1, operator.lt),
    ast.LtE: (-1, operator.le),
}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One `left > right` of a predicate. `margin` is how far it holds, with eps taken as 0.

    It holds when the measured numbers satisfy it, eps included; it is shown when it holds and its
    margin is above its error; it is contradicted when the margin is below zero beyond its error.
    """

    text: str
    holds: bool
    margin: SeededEstimate

    @property
    def shown(self) -> bool:
        """Whether it holds beyond its error. Never without one: cells at the floor have none."""
        return self.holds and self.margin.se > 0 and self.margin.t > self.margin.critical

    @property
    def contradicted(self) -> bool:
        """Whether the opposite holds beyond its error."""
        return self.margin.se > 0 and self.margin.t < -self.margin.critical


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A predicate on our cells. `degree`: 1 shown, -1 contradicted, 0 neither."""

    holds: bool
    degree: int
    comparisons: tuple[Comparison, ...]


@dataclass
class Expression:
    """One expression of the grammar, evaluated on the cells of a study.

    Raises: RecipeError for anything outside the grammar. MissingCell, when evaluated, for a cell
        that the study does not have.
    """

    text: str

    def __post_init__(self) -> None:
        try:
            self._tree = ast.parse(self.text, mode="eval").body
        except SyntaxError as error:
            raise self._refused(f"no expression ({error.msg})") from error

    def cells(self) -> list[tuple[str, str]]:
        """The (cell, metric) pairs that the expression names, in order."""
        return [
            self._pair(node)
            for node in ast.walk(self._tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "c"
        ]

    def draws(self, cells: Cells, *, eps: float = 0.0) -> Draws:
        """The value for each seed and each draw of the questions."""
        return self._draws(self._tree, cells, eps)

    def number(self) -> float:
        """The value of an expression that names no cell."""
        return float(self._draws(self._tree, Cells(files={}), 0.0).draws_AB[0, 0])

    def find(self, cells: Cells, *, eps: float) -> Finding:
        """Evaluates a predicate: comparisons joined by and, or, not."""
        comparisons: list[Comparison] = []
        holds, degree = self._truth(self._tree, cells, eps=eps, out=comparisons)
        return Finding(holds=holds, degree=degree, comparisons=tuple(comparisons))

    def _draws(self, node: ast.expr, cells: Cells, eps: float) -> Draws:
        pairs = [cells.draws(*pair) for pair in self.cells()]
        num_seeds = min((pair.num_seeds for pair in pairs), default=1)
        value = self._value(node, cells, eps=eps, num_seeds=num_seeds)
        columns = pairs[0].draws_AB.shape[1] if pairs else 1
        return Draws(
            draws_AB=np.broadcast_to(value, (num_seeds, columns)),
            num_items=min((pair.num_items for pair in pairs), default=1),
        )

    def _value(self, node: ast.expr, cells: Cells, *, eps: float, num_seeds: int) -> np.ndarray:
        def go(inner: ast.expr) -> np.ndarray:
            return self._value(inner, cells, eps=eps, num_seeds=num_seeds)

        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return np.asarray(float(node.value))
        if isinstance(node, ast.Name) and node.id == "eps":
            return np.asarray(eps)
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            return _ARITHMETIC[type(node.op)](go(node.left), go(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -go(node.operand)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            name = node.func.id
            if name == "c":
                return cells.draws(*self._pair(node)).draws_AB[:num_seeds]
            if name == "abs" and len(node.args) == 1:
                return np.abs(go(node.args[0]))
            if name in _FUNCTIONS and node.args:
                values = np.broadcast_arrays(*[go(argument) for argument in node.args])
                return _FUNCTIONS[name](np.stack(values))
        raise self._refused(f"`{ast.unparse(node)}`")

    def _truth(
        self, node: ast.expr, cells: Cells, *, eps: float, out: list[Comparison]
    ) -> tuple[bool, int]:
        if isinstance(node, ast.BoolOp):
            parts = [self._truth(value, cells, eps=eps, out=out) for value in node.values]
            join = min if isinstance(node.op, ast.And) else max
            return bool(join(p[0] for p in parts)), join(p[1] for p in parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            holds, degree = self._truth(node.operand, cells, eps=eps, out=out)
            return not holds, -degree
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            comparison = self._comparison(node, cells, eps)
            out.append(comparison)
            return comparison.holds, int(comparison.shown) - int(comparison.contradicted)
        raise self._refused(f"`{ast.unparse(node)}` as a statement")

    def _comparison(self, node: ast.Compare, cells: Cells, eps: float) -> Comparison:
        if type(node.ops[0]) not in _COMPARISONS:
            raise self._refused(f"`{ast.unparse(node)}`")
        sign, compare = _COMPARISONS[type(node.ops[0])]
        left, right = node.left, node.comparators[0]
        gap = ast.BinOp(left=left, op=ast.Sub(), right=right)
        exact = self._draws(gap, cells, eps)
        at_zero = self._draws(gap, cells, 0.0)
        margin = Draws(draws_AB=sign * at_zero.draws_AB, num_items=at_zero.num_items)
        return Comparison(
            text=ast.unparse(node),
            holds=compare(float(exact.draws_AB[:, 0].mean()), 0.0),
            margin=margin.estimate(),
        )

    def _pair(self, node: ast.Call) -> tuple[str, str]:
        values = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        if len(node.args) != 2 or len(values) != 2 or not all(isinstance(v, str) for v in values):
            raise self._refused(f"`{ast.unparse(node)}`")
        return str(values[0]), str(values[1])

    def _refused(self, found: str) -> RecipeError:
        return RecipeError(
            f"expression {self.text!r}",
            found=found,
            rule="allowed are c('cell', 'metric'), mean, min, max, abs, eps, numbers, + - * /, "
            "< > <= >=, and, or, not",
            do="rewrite the expression in claims.json",
        )
