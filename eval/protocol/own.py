"""Benchmarks whose prompt a suite states: text to go on with, or a conversation; graded here."""

import ast
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.seeds import permutation
from frontload.data_tools.prompts.choices import LETTERS
from frontload.data_tools.text.messages import USER
from frontload.eval.grading.grade import ANSWER_MARK, END_MARK, Grader, Kind, Reference
from frontload.eval.grading.layout import AnswerLayout, last_boxed
from frontload.eval.protocol.answers import Generated
from frontload.eval.protocol.data_root import DataRoot, SplitName
from frontload.eval.protocol.items import (
    BenchmarkItem,
    BenchmarkTask,
    GradedAnswer,
    MissingBenchmark,
)
from frontload.eval.statistics.floors import AskedItem, Floors, measure_floors
from frontload.recipes.errors import ArtifactError
from frontload.recipes.grammar.load import nearest
from frontload.recipes.runs.suite import ANSWER, CHAT, CHOICE, SuiteBenchmark, SuiteRecipe

MINERVA = "minerva"
MINERVA_BEFORE, MINERVA_AFTER = "The final answer is", "I hope it is correct"
GPQA_STREAM = "options"
QUESTION, OPTIONS, GOLD = "question", "options", "answer"


class OwnTask(BenchmarkTask):
    """Rows that our own grader judges: a final answer, or the letter of an option."""

    def __init__(
        self,
        items: Sequence[tuple[BenchmarkItem, Reference]],
        *,
        grader: Grader,
        benchmark: SuiteBenchmark,
    ) -> None:
        super().__init__([item for item, _ in items], stop=benchmark.stop)
        self.references = {item.id: reference for item, reference in items}
        self.grader, self.benchmark = grader, benchmark

    def grade(self, answers: Sequence[tuple[BenchmarkItem, Generated]]) -> list[GradedAnswer]:
        return [self._graded(self.references[item.id], one) for item, one in answers]

    def _graded(self, reference: Reference, answer: Generated) -> GradedAnswer:
        text = answer.text
        if reference.layout == AnswerLayout.MARKS and answer.finish == "stop":
            text += f" {END_MARK}"  # the token that ended it, which an answerer leaves out
        if self.benchmark.examples == MINERVA:
            text = minerva_answer(text)
        grade = self.grader.grade(text, reference)
        failure = "" if grade.formatted else str(grade.reason)
        right = grade.correct and grade.formatted
        return GradedAnswer(correct=right, answer=grade.extracted, failure=failure)

    def gold_answers(self) -> list[tuple[BenchmarkItem, Generated]]:
        """The gold answer of each item, as the layout wants it."""
        found: list[tuple[BenchmarkItem, Generated]] = []
        for item in self.items:
            text = _laid_out(self.references[item.id].gold, self.references[item.id].layout)
            found.append((item, Generated(text=text, num_tokens=0, finish="stop")))
        return found

    def examples(self) -> Sequence[str]:
        if self.benchmark.examples != MINERVA:
            return ()
        return [one["problem"] for one in minerva_examples()[: self.benchmark.num_shots]]

    def floors(self) -> Floors:
        """An empty, an echoed and the best constant answer, laid out as the suite asks."""
        asked = [
            AskedItem(id=item.id, question=item.question, gold=item.gold) for item in self.items
        ]
        layout = self.references[self.items[0].id].layout

        def is_right(item: AskedItem, text: str) -> bool:
            answer = Generated(text=text, num_tokens=0, finish="stop")
            return self._graded(self.references[item.id], answer).correct

        return measure_floors(
            asked, is_right=is_right, respond=lambda answer: _laid_out(answer, layout)
        )


def load_own(
    name: str, suite: SuiteRecipe, *, root: DataRoot, grader: Grader, is_tiny: bool
) -> OwnTask | MissingBenchmark:
    """A benchmark of a suite on the rows of a data root.

    Raises: ArtifactError for a damaged root or a row without a field.
    """
    benchmark = suite.benchmarks[name]
    rows = asked_rows(benchmark, root, is_tiny=is_tiny)
    if isinstance(rows, MissingBenchmark):
        return rows
    layout = AnswerLayout.BOXED if benchmark.examples else AnswerLayout(suite.layout)
    items: list[tuple[BenchmarkItem, Reference]] = []
    for place, row in rows.items():
        where = f"{name}/{place}"
        question = _text(row, benchmark.fields[QUESTION], where=where)
        options, right = _options(row, benchmark, where=where)
        gold = LETTERS[right] if options else _gold(row, benchmark, where=where)
        item = asked_item(benchmark, where=where, row=row, options=options, gold=gold)
        reference = Reference(
            gold=gold,
            kind=Kind.CHOICE if benchmark.grader == CHOICE else Kind.ANSWER,
            layout=layout,
            question=question,
            options=options,
        )
        items.append((item, reference))
    return OwnTask(items, grader=grader, benchmark=benchmark)


def asked_rows(
    benchmark: SuiteBenchmark, root: DataRoot, *, is_tiny: bool
) -> dict[str, dict[str, Any]] | MissingBenchmark:
    """`part/row` -> the row, the part left out where the data set has one.

    Raises: ArtifactError for a damaged root, or one without a tiny row.
    """
    parts = root.parts(benchmark.dataset, split=benchmark.split)
    if is_tiny and benchmark.tiny_parts:
        parts = [part for part in parts if part in benchmark.tiny_parts]
    if not parts:
        return MissingBenchmark(reason=f"no rows of {benchmark.dataset} in {root.folder}")
    found: dict[str, dict[str, Any]] = {}
    for part in parts:
        name = SplitName(dataset=benchmark.dataset, part=part, split=benchmark.split)
        rows = root.read(name)
        numbers = benchmark.tiny_rows if is_tiny else range(len(rows))
        for number in numbers:
            if number >= len(rows):
                raise ArtifactError(
                    str(root.folder / name.file),
                    found=f"{len(rows)} rows, none of number {number}",
                    rule=f"size tiny asks the rows {', '.join(map(str, numbers))}",
                    do="make the data root again with `frontload eval data`",
                )
            is_only = len(parts) == 1 and not benchmark.tiny_parts
            found[str(number) if is_only else f"{part}/{number}"] = rows[number]
    return found


def asked_item(
    benchmark: SuiteBenchmark,
    *,
    where: str,
    row: Mapping[str, Any],
    options: tuple[str, ...],
    gold: str,
) -> BenchmarkItem:
    """A row as a suite asks it: the prompt with its fields, as a text or as a conversation."""
    values = {
        use: _text(row, name, where=where)
        for use, name in benchmark.fields.items()
        if use not in (OPTIONS, GOLD)
    }
    values[OPTIONS] = "\n".join(
        f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=False)
    )
    text = filled(benchmark.prompt, values).rstrip(" ")
    if benchmark.examples == MINERVA:
        shots = minerva_examples()[: benchmark.num_shots]
        shown = [
            filled(benchmark.prompt, {QUESTION: one["problem"]}) + f" {one['solution']}\n\n"
            for one in shots
        ]
        text = "".join([*shown, text])
    question = values[QUESTION]
    if benchmark.form == CHAT:
        turn = {"role": USER, "content": text}
        return BenchmarkItem(id=where, question=question, gold=gold, messages=(turn,))
    return BenchmarkItem(id=where, question=question, gold=gold, prompt=text)


def filled(prompt: str, values: Mapping[str, str]) -> str:
    """A prompt with `{name}` replaced by each value; other braces stay, as LaTeX has them."""
    parts = [prompt]
    for name, value in values.items():  # a value is never searched for the names of others
        mark = "{" + name + "}"
        parts = [
            piece
            for number, part in enumerate(parts)
            for piece in (_split(part, mark, value=value) if number % 2 == 0 else [part])
        ]
    return "".join(parts)


def _split(text: str, mark: str, *, value: str) -> list[str]:
    """Text at even places, values at odd ones."""
    pieces = text.split(mark)
    found = [pieces[0]]
    for piece in pieces[1:]:
        found += [value, piece]
    return found


@lru_cache(maxsize=1)
def minerva_examples() -> tuple[dict[str, str], ...]:
    """The four worked examples of Minerva's prompt for MATH, as lm-eval states them.

    Its module is read, not imported: it asserts antlr 4.11, and hydra needs 4.9.
    """
    package = find_spec("lm_eval")
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent / "tasks" / "minerva_math" / "utils.py"
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == "list_fewshot_samples":
            (statement,) = node.body
            assert isinstance(statement, ast.Return)
            assert statement.value is not None
            return tuple(ast.literal_eval(statement.value))
    raise AssertionError(f"{file} has no list_fewshot_samples")


def minerva_answer(text: str) -> str:
    """The answer that Minerva's prompt asks for, in a box; the text itself where it has none.

    A base model writes `Final Answer: The final answer is $X$. I hope it is correct.`
    """
    _, mark, rest = text.partition(MINERVA_BEFORE)
    if not mark:
        return text
    answer = rest.partition(MINERVA_AFTER)[0].split("\n")[0].strip().removesuffix(".").strip()
    return f"\\boxed{{{answer}}}" if answer and not last_boxed(answer) else answer


def _laid_out(gold: str, layout: AnswerLayout) -> str:
    if layout == AnswerLayout.MARKS:
        return f"{ANSWER_MARK} {gold}"
    think = "<think> </think> " if layout == AnswerLayout.THINK_BOXED else ""
    return f"{think}\\boxed{{{gold}}}"


def _options(
    row: Mapping[str, Any], benchmark: SuiteBenchmark, *, where: str
) -> tuple[tuple[str, ...], int]:
    """The options of a row in the order in which they are shown, and the place of the right one."""
    names = benchmark.fields.get(OPTIONS, "")
    if not names:
        return (), 0
    if "," in names:
        texts = [_text(row, name, where=where) for name in names.split(", ")]
        order = permutation(len(texts), 0, GPQA_STREAM, where).tolist()
        return tuple(texts[at].strip() for at in order), order.index(0)
    listed, right = row.get(names), row.get(benchmark.fields[GOLD])
    if not isinstance(listed, list) or not isinstance(right, int) or right >= len(listed):
        raise ArtifactError(
            f"row {where}",
            found=f"{names} {str(listed)[:60]!r}, {benchmark.fields[GOLD]} {right!r}",
            rule="a row has its options as a list, and the number of the right one",
            do="make the data root again with `frontload eval data`",
        )
    return tuple(map(str, listed)), right


def _gold(row: Mapping[str, Any], benchmark: SuiteBenchmark, *, where: str) -> str:
    """The gold answer of a row; "" where the grader knows it without."""
    if benchmark.grader != ANSWER:
        return ""
    text = _text(row, benchmark.fields[GOLD], where=where)
    if not benchmark.answer_separator:
        return text.strip()
    _, mark, answer = text.rpartition(benchmark.answer_separator)
    if not mark:
        raise ArtifactError(
            f"row {where}: {benchmark.fields[GOLD]}",
            found=f"no {benchmark.answer_separator!r} in {text[-60:]!r}",
            rule="the gold answer stands behind the separator",
            do="make the data root again with `frontload eval data`",
        )
    return answer.strip()


def _text(row: Mapping[str, Any], name: str, *, where: str) -> str:
    value = row.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ArtifactError(
            f"row {where}",
            found=f"no text in field '{name}', but {', '.join(row)}",
            rule="the fields that a suite names are those of its rows",
            do=nearest(name, list(row)),
        )
    return value
