"""Benchmarks whose answers are programs, or follow instructions: run in the sandbox, or checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from frontload.eval.grading.instructions import (
    CONSTANT,
    InstructedPrompt,
    check_following,
    read_instructed,
)
from frontload.eval.protocol.answers import Generated
from frontload.eval.protocol.data_root import DataRoot
from frontload.eval.protocol.items import (
    BenchmarkItem,
    BenchmarkTask,
    GradedAnswer,
    MissingBenchmark,
)
from frontload.eval.protocol.own import asked_item, asked_rows
from frontload.eval.sandbox.grade import ProgramItem, grade_programs
from frontload.eval.sandbox.isolation import (
    BUBBLEWRAP,
    Isolation,
    find_isolation,
    isolation_note,
)
from frontload.eval.statistics.floors import Floors
from frontload.eval.statistics.gates import ScoreGate
from frontload.eval.statistics.stats import clustered_mean
from frontload.recipes.errors import StageError
from frontload.recipes.runs.suite import PROGRAM, SuiteBenchmark

GOLD_FIELD = "canonical_solution"  # EvalPlus' rows have it, LiveCodeBench's have no gold program
NO_ANSWER = ("no code", "timed out", "out of memory")  # verdicts that are counted beside a score


@dataclass(frozen=True, kw_only=True)
class Running:
    """How programs are run on this machine."""

    processes: int  # at once
    accept_limits_only: bool = False  # where there are no walls; every score is marked


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What the programs of a task are judged by."""

    programs: Mapping[str, ProgramItem]  # id of the item -> its tests
    golds: Mapping[str, str]  # id of the item -> a program that must pass; {} where none is known
    isolation: Isolation
    processes: int


class ProgramTask(BenchmarkTask):
    """Rows whose answers are programs."""

    def __init__(
        self, items: Sequence[BenchmarkItem], judged: Judged, *, stop: Sequence[str]
    ) -> None:
        super().__init__(items, stop=stop)
        self.judged = judged
        self.near: set[tuple[str, str]] = set()  # answers that pass by our tolerance alone

    def grade(self, answers: Sequence[tuple[BenchmarkItem, Generated]]) -> list[GradedAnswer]:
        texts = [(item.id, answer.text) for item, answer in answers]
        verdicts = list(
            grade_programs(
                self.judged.programs,
                texts,
                isolation=self.judged.isolation,
                processes=self.judged.processes,
            )
        )
        self.near |= {
            text
            for text, one in zip(texts, verdicts, strict=True)
            if one.kind == "passed" and not one.is_exact
        }
        return [
            GradedAnswer(
                correct=one.kind == "passed",
                answer=one.reason or one.kind,
                failure=one.kind if one.kind in NO_ANSWER else "",
            )
            for one in verdicts
        ]

    def gold_answers(self) -> list[tuple[BenchmarkItem, Generated]]:
        """The gold program of each row: their share of passes is the ceiling of a score."""
        return [
            (item, Generated(text=self.judged.golds[item.id], num_tokens=0, finish="stop"))
            for item in self.items
            if item.id in self.judged.golds
        ]

    def gates(self) -> list[ScoreGate]:
        """Walls, passes that LiveCodeBench's own checker fails, tests that were left out."""
        left_out = sum(one.num_left_out for one in self.judged.programs.values())
        return [
            ScoreGate(
                name="isolation",
                is_passed=self.judged.isolation.name == BUBBLEWRAP,
                said=isolation_note(self.judged.isolation),
            ),
            ScoreGate(
                name="tolerance",
                is_passed=not self.near,
                said=f"{len(self.near)} answers have floats within 1e-6, which LiveCodeBench's own "
                "checker fails",
            ),
            ScoreGate(
                name="tests",
                is_passed=not left_out,
                said=f"{left_out} tests whose values are too large to compare were left out",
            ),
        ]


class InstructionTask(BenchmarkTask):
    """IFEval's rows: right is an answer that follows every instruction of its prompt, strictly."""

    def __init__(
        self,
        items: Sequence[BenchmarkItem],
        prompts: Mapping[str, InstructedPrompt],
        *,
        stop: Sequence[str],
    ) -> None:
        super().__init__(items, stop=stop)
        self.prompts = prompts

    def grade(self, answers: Sequence[tuple[BenchmarkItem, Generated]]) -> list[GradedAnswer]:
        return [self._graded(item, one.text) for item, one in answers]

    def _graded(self, item: BenchmarkItem, text: str) -> GradedAnswer:
        found = check_following(self.prompts[item.id], text)
        followed = f"{sum(found.strict)} of {len(found.strict)} instructions"
        return GradedAnswer(correct=all(found.strict), answer=followed)

    def floors(self) -> Floors:
        """An empty answer, the prompt again, and one word."""

        def share(texts: Sequence[str]) -> Any:
            return clustered_mean(
                [
                    self._graded(item, text).correct
                    for item, text in zip(self.items, texts, strict=True)
                ]
            )

        return Floors(
            empty=share([""] * len(self.items)),
            echoed=share([item.question for item in self.items]),
            constant=share([CONSTANT] * len(self.items)),
            constant_answer=CONSTANT,
        )


def load_programs(
    name: str, benchmark: SuiteBenchmark, *, root: DataRoot, is_tiny: bool, how: Running
) -> BenchmarkTask | MissingBenchmark:
    """A benchmark of programs or of instructions on the rows of a data root.

    Without a sandbox programs are not run: the benchmark is missing, with the reason.

    Raises: ArtifactError for a damaged root; RecipeError for a row that its grader cannot read.
    """
    rows = asked_rows(benchmark, root, is_tiny=is_tiny)
    if isinstance(rows, MissingBenchmark):
        return rows
    wheres = [f"{name}/{place}" for place in rows]
    items = [
        asked_item(benchmark, where=where, row=row, options=(), gold="")
        for where, row in zip(wheres, rows.values(), strict=True)
    ]
    if benchmark.grader != PROGRAM:
        prompts = dict(zip(wheres, read_instructed(rows.values()), strict=True))
        return InstructionTask(items, prompts, stop=benchmark.stop)
    try:
        isolation = find_isolation(accept_limits_only=how.accept_limits_only)
    except StageError as error:
        return MissingBenchmark(reason=f"no sandbox: {error.found}; {error.do}")
    judged = _judged(
        dict(zip(wheres, rows.values(), strict=True)), isolation, processes=how.processes
    )
    return ProgramTask(items, judged, stop=benchmark.stop)


def _judged(rows: Mapping[str, dict[str, Any]], isolation: Isolation, *, processes: int) -> Judged:
    golds: dict[str, str] = {}
    if all(GOLD_FIELD in row for row in rows.values()):
        from frontload.eval.sandbox.evalplus_rows import (  # evalplus: half a CPU second
            evalplus_items,
            gold_answer,
            read_evalplus,
        )

        tasks = list(read_evalplus(rows.values()))
        golds = {where: gold_answer(task) for where, task in zip(rows, tasks, strict=True)}
        read = evalplus_items(tasks, isolation=isolation, processes=processes)
        found = [read[task.id] for task in tasks]
    else:
        from frontload.eval.sandbox.livecode_rows import read_livecode

        found = list(read_livecode(rows.values()))
    programs = {where: replace(item, id=where) for where, item in zip(rows, found, strict=True)}
    return Judged(programs=programs, golds=golds, isolation=isolation, processes=processes)
