"""Grades programs on many items at once: each in a sandbox of its own, judged from outside."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from frontload.eval.sandbox import inside
from frontload.eval.sandbox.code_answer import extract_program
from frontload.eval.sandbox.isolation import Isolation
from frontload.eval.sandbox.process import Limits
from frontload.eval.sandbox.programs import Program, Ran, Reply, run_in_sandbox
from frontload.recipes.errors import RecipeError

Kind = Literal["passed", "failed", "timed out", "out of memory", "no code"]

SIZE_FACTOR, SIZE_SLACK = 16, 4096
"""A reply this much longer than the expected one is wrong, and is not read; ours."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Whether a reply is right, and right by the benchmark's own rule to the letter."""

    is_right: bool
    is_exact: bool = True


@dataclass(frozen=True, kw_only=True)
class ProgramItem:
    """One question that a program answers, and how its replies are judged."""

    id: str
    entry: str | None  # the function that the tests call; None: the program reads its input
    prompt: str  # the code that an answer may go on with; "" = none
    preamble: str  # put before every program
    tests: tuple[Any, ...]
    sizes: tuple[int, ...]  # characters of each expected reply
    num_base: int  # the first tests: those of the benchmark without its plus
    num_left_out: int  # tests of the row whose expected value is too large to be compared
    limits: Limits
    judge: Callable[[int, Any], Agreement]  # (test, decoded value or text)


@dataclass(frozen=True, kw_only=True)
class ProgramVerdict:
    """What became of one answer."""

    item: str
    kind: Kind
    reason: str  # in words; "" when it passed
    passed_base: bool
    is_exact: bool  # False: it passed by a tolerance that the benchmark's own checker lacks
    num_passed: int
    num_tests: int
    isolation: str
    cpu_seconds: float
    wall_seconds: float

    @property
    def reward(self) -> float:
        """1 for a program that passes, else 0."""
        return float(self.kind == "passed")


def grade_programs(
    items: Mapping[str, ProgramItem],
    answers: Iterable[tuple[str, str]],
    *,
    isolation: Isolation,
    processes: int,
) -> Iterator[ProgramVerdict]:
    """The verdict of each (item, answer), in order; `processes` programs run at once.

    Answers are taken as the verdicts are: a file of any length streams through.

    Raises: RecipeError for an answer to an item that is not there; StageError when the sandbox
            does not start.
    """
    pool = ThreadPoolExecutor(processes, thread_name_prefix="sandbox")
    waiting: deque[Future[ProgramVerdict]] = deque()
    try:
        for name, text in answers:
            item = _item_of(items, name)
            waiting.append(pool.submit(grade_program, item, text, isolation=isolation))
            if len(waiting) > 4 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _item_of(items: Mapping[str, ProgramItem], name: str) -> ProgramItem:
    if name in items:
        return items[name]
    raise RecipeError(
        f"grading an answer to {name!r}",
        found="no item has this id",
        rule=f"the {len(items)} items are those of the benchmark's rows",
        do="ask and grade with the same rows",
    )


def grade_program(item: ProgramItem, text: str, *, isolation: Isolation) -> ProgramVerdict:
    """The verdict of one answer."""
    code = extract_program(text, entry=item.entry, prompt=item.prompt)
    if code is None:
        return _without_program(item, isolation)
    program = Program(code=item.preamble + code, entry=item.entry, tests=item.tests)
    ran = run_in_sandbox(program, isolation, limits=item.limits)
    return judge_run(item, ran, isolation=isolation)


def _without_program(item: ProgramItem, isolation: Isolation) -> ProgramVerdict:
    return ProgramVerdict(
        item=item.id,
        kind="no code",
        reason="the answer has no program",
        passed_base=False,
        is_exact=True,
        num_passed=0,
        num_tests=len(item.tests),
        isolation=isolation.name,
        cpu_seconds=0.0,
        wall_seconds=0.0,
    )


def judge_run(item: ProgramItem, ran: Ran, *, isolation: Isolation) -> ProgramVerdict:
    """The verdict of a run: right for every test, or what came of the first that is not."""
    is_exact = True
    for index in range(len(item.tests)):
        if index == len(ran.replies):
            kind, reason = _missing(ran, index)
            break
        agreement = _agreement(item, ran.replies[index], index=index)
        if not agreement.is_right:
            kind, reason = _wrong(ran.replies[index], index)
            break
        is_exact = is_exact and agreement.is_exact
    else:
        index, kind, reason = len(item.tests), "passed", ""
    return ProgramVerdict(
        item=item.id,
        kind=kind,
        reason=reason,
        passed_base=index >= item.num_base,
        is_exact=is_exact,
        num_passed=index,
        num_tests=len(item.tests),
        isolation=isolation.name,
        cpu_seconds=ran.cpu_seconds,
        wall_seconds=ran.wall_seconds,
    )


def _agreement(item: ProgramItem, reply: Reply, *, index: int) -> Agreement:
    wrong = Agreement(is_right=False)
    if reply.raised is not None or reply.size > SIZE_FACTOR * item.sizes[index] + SIZE_SLACK:
        return wrong
    try:
        value = reply.wire if item.entry is None else inside.decode(reply.wire)
        return item.judge(index, value)
    except (ValueError, TypeError, RecursionError):
        return wrong  # the program wrote this reply itself


def _missing(ran: Ran, index: int) -> tuple[Kind, str]:
    """The kind of a run that gave no reply to a test."""
    where = f"at test {index + 1}"
    if ran.loading is not None:
        is_memory = ran.loading.startswith(inside.MEMORY_ERROR)
        return ("out of memory" if is_memory else "failed"), f"not loaded: {ran.loading}"
    if ran.ending in ("cpu", "wall"):
        used = f"{ran.cpu_seconds:.1f} s of CPU time, {ran.wall_seconds:.1f} s in all"
        return "timed out", f"{where}, after {used}"
    if ran.ending == "memory":
        return "out of memory", where
    if ran.ending == "exited":
        return "failed", f"ended {where} without a reply (exit code {ran.exit_code})"
    return "failed", f"{where}: beyond its limit of {ran.ending}"


def _wrong(reply: Reply, index: int) -> tuple[Kind, str]:
    where = f"test {index + 1}"
    if reply.raised is None:
        return "failed", f"{where}: another value"
    if reply.raised.startswith(inside.TIME_LIMIT):
        return "timed out", where
    if reply.raised.startswith(inside.MEMORY_ERROR):
        return "out of memory", where
    return "failed", f"{where}: {reply.raised}"
