"""Where a source file may be changed, and into what: one operator, constant or flag at a time.

What nobody would miss is left out: texts, docstrings, annotations, decorators, assertions,
`strict=` of zip, the arguments of an error and of a log line.
"""

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS = {
    "<": ("<=", ">="),
    "<=": ("<", ">"),
    ">": (">=", "<="),
    ">=": (">", "<"),
    "==": ("!=",),
    "!=": ("==",),
    "in": ("not in",),
    "not in": ("in",),
    "is": ("is not",),
    "is not": ("is",),
}
ARITHMETIC = {
    "+": "-",
    "-": "+",
    "*": "/",
    "/": "*",
    "//": "/",
    "%": "*",
    "**": "*",
    "&": "|",
    "|": "&",
    "<<": ">>",
    ">>": "<<",
}
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}
WORDED = {"asked", "found", "rule", "do", "help", "description", "note", "strict"}  # keywords
LOGGED = {"debug", "info", "warning", "error", "exception", "print"}
TYPES = {"int", "str", "float", "bool", "bytes", "list", "dict", "tuple", "set"}


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One changed place of one file."""

    path: str  # from the repository's root
    line: int
    first_line: int  # of the statement that it stands in; of one that holds others, of its head
    last_line: int
    at_import: bool  # not in the body of a function
    old: str  # the whole line, without blanks at its ends
    new: str
    text: str  # the whole file after the change

    @property
    def identity(self) -> tuple[str, str, str]:
        """What stays the same when lines move."""
        return (self.path, self.old, self.new)


def mutants_of(path: str, text: str) -> list[Mutant]:
    """Every mutant of one file, in the order of the file."""
    finder = _Finder(text)
    finder.visit(ast.parse(text))
    found, lines = [], text.splitlines()
    for begin, end, new, (first, last), at_import in sorted(finder.edits):
        changed = text[:begin] + new + text[end:]
        line = text.count("\n", 0, begin)
        after = changed.splitlines()[line].strip()
        found.append(
            Mutant(
                path=path,
                line=line + 1,
                first_line=first,
                last_line=last,
                at_import=at_import,
                old=lines[line].strip(),
                new=after,
                text=changed,
            )
        )
    return [one for one in found if _compiles(one.text)]


class _Finder(ast.NodeVisitor):
    """Collects edits: begin, end, new text, lines of the statement, whether an import runs them.

    Its offsets need ASCII sources, which the house asks for.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.edits: list[tuple[int, int, str, tuple[int, int], bool]] = []
        self.lines = (1, 1)
        self.is_in_function = False
        self.starts = [0]
        for line in text.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        read = io.StringIO(text).readline
        self.tokens = [
            (self._offset(*token.start), self._offset(*token.end), token.string)
            for token in tokenize.generate_tokens(read)
            if token.type in (tokenize.OP, tokenize.NAME)
        ]

    def _offset(self, line: int, column: int) -> int:
        return self.starts[line - 1] + column if line <= len(self.starts) else len(self.text)

    def _begin(self, node: ast.expr) -> int:
        return self._offset(node.lineno, node.col_offset)

    def _end(self, node: ast.expr) -> int:
        return self._offset(node.end_lineno or 0, node.end_col_offset or 0)

    def _edit(self, begin: int, end: int, new: str) -> None:
        self.edits.append((begin, end, new, self.lines, not self.is_in_function))

    def _between(self, left: ast.expr, right: ast.expr) -> Iterator[tuple[int, int, str]]:
        """The operator between two operands, `not in` and `is not` in one piece."""
        inside = [
            token
            for token in self.tokens
            if self._end(left) <= token[0]
            and token[1] <= self._begin(right)
            and token[2] not in "()"
        ]
        if inside:
            yield inside[0][0], inside[-1][1], " ".join(token[2] for token in inside)

    def visit(self, node: ast.AST) -> None:
        """Keeps the lines of the statement; of one that holds others, of its head."""
        kept = self.lines, self.is_in_function
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or 0
            self.lines = (node.lineno, last)
        super().visit(node)
        self.lines, self.is_in_function = kept

    def _condition(self, test: ast.expr) -> None:
        if isinstance(test, (ast.Name, ast.Attribute, ast.Call, ast.Subscript)):
            self._edit(self._begin(test), self._begin(test), "not ")
        self.visit(test)

    def visit_If(self, node: ast.If | ast.While) -> None:
        if {"TYPE_CHECKING", "__name__"} & {getattr(n, "id", "") for n in ast.walk(node.test)}:
            return
        self._condition(node.test)
        for statement in (*node.body, *node.orelse):
            self.visit(statement)

    visit_While = visit_If

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._condition(node.test)
        self.visit(node.body)
        self.visit(node.orelse)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self.visit(node.iter)
        for test in node.ifs:
            self._condition(test)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for default in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(default)
        self.is_in_function = True
        for statement in node.body:
            self.visit(statement)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for statement in node.body:
            self.visit(statement)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        """A message is read by people, not by tests."""

    visit_Assert = visit_TypeAlias = visit_Raise

    def visit_FormattedValue(self, node: ast.FormattedValue) -> None:
        self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in LOGGED:
            return
        if isinstance(node.func, ast.Name) and name in CALLS:
            self._edit(self._begin(node.func), self._end(node.func), CALLS[name])
        self.visit(node.func)
        for argument in node.args:
            self.visit(argument)
        for keyword in node.keywords:
            if keyword.arg not in WORDED:
                self.visit(keyword.value)

    def visit_Compare(self, node: ast.Compare) -> None:
        for left, right in zip([node.left, *node.comparators], node.comparators, strict=False):
            for begin, end, operator in self._between(left, right):
                for new in COMPARISONS[operator]:
                    self._edit(begin, end, new)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for left, right in zip(node.values, node.values[1:], strict=False):
            for begin, end, operator in self._between(left, right):
                self._edit(begin, end, "or" if operator == "and" else "and")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if not any(_is_text_or_type(side) for side in (node.left, node.right)):
            for begin, end, operator in self._between(node.left, node.right):
                if operator in ARITHMETIC:
                    self._edit(begin, end, ARITHMETIC[operator])
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if not _is_text_or_type(node.value):
            for begin, end, operator in self._between(node.target, node.value):
                if operator[:-1] in ARITHMETIC:
                    self._edit(begin, end, ARITHMETIC[operator[:-1]] + "=")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not) or (
            isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant)
        ):
            begin = self._begin(node)
            self._edit(begin, begin + len("not " if isinstance(node.op, ast.Not) else "-"), "")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            new = str(not value)
        elif isinstance(value, int):
            new = str({0: 1, 1: 0}.get(value, value + 1))
        elif isinstance(value, float):
            new = repr(2 * value if value else 1.0)
        else:
            return
        self._edit(self._begin(node), self._end(node), new)


def _is_text_or_type(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (str, bytes)) or node.value is None
    name = node.id if isinstance(node, ast.Name) else ""
    is_type = name in TYPES or (name[:1].isupper() and not name.isupper())
    return isinstance(node, ast.JoinedStr) or is_type


def _compiles(text: str) -> bool:
    try:
        compile(text, "mutant", "exec")
    except SyntaxError:
        return False
    return True
