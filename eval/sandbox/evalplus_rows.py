"""HumanEval+ and MBPP+: from EvalPlus' rows to items, with what the gold program returns.

The gold program runs in the sandbox as an answer does. Its time sets the limit of the answers.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from evalplus.data.mbpp import mbpp_deserialize_inputs
from evalplus.eval._special_oracle import MBPP_OUTPUT_NOT_NONE_TASKS
from evalplus.provider.utility import EOS, extra_eos_for_direct_completion

from frontload.eval.sandbox import inside
from frontload.eval.sandbox.evalplus_rule import evalplus_tolerances, is_same_in_evalplus
from frontload.eval.sandbox.grade import Agreement, ProgramItem
from frontload.eval.sandbox.isolation import Isolation
from frontload.eval.sandbox.process import Limits
from frontload.eval.sandbox.programs import Program, Ran, run_in_sandbox
from frontload.recipes.errors import RecipeError

LEAST_SECONDS = 10  # of CPU time for all tests of an answer; ours
TIME_FACTOR = 4.0  # EvalPlus 0.3.1, config.py, DEFAULT_GT_TIME_LIMIT_FACTOR
MEMORY_BYTES = 4 << 30  # EvalPlus 0.3.1, eval/__init__.py, query_maximum_memory_bytes
GOLD_LIMITS = Limits(cpu_seconds=120, memory_bytes=MEMORY_BYTES)
FIELDS = ("task_id", "prompt", "entry_point", "canonical_solution", "base_input", "plus_input")
MBPP = "Mbpp/"


@dataclass(frozen=True, kw_only=True)
class EvalPlusTask:
    """One row, its inputs as the gold program takes them."""

    id: str
    prompt: str
    entry: str
    gold: str
    atol: float
    tests: tuple[Any, ...]  # base, then plus: the arguments of each call
    num_base: int


def completion_stops(task_id: str) -> tuple[str, ...]:
    """The texts at which EvalPlus ends the completion of a base model."""
    benchmark = "mbpp" if task_id.startswith(MBPP) else "humaneval"
    return (*EOS, *extra_eos_for_direct_completion(benchmark))


def read_evalplus(rows: Iterable[dict[str, Any]]) -> Iterator[EvalPlusTask]:
    """The tasks of rows as EvalPlus publishes them (HumanEvalPlus.jsonl, MbppPlus.jsonl).

    Raises: RecipeError for a row without a field.
    """
    for number, row in enumerate(rows, start=1):
        missing = [name for name in FIELDS if name not in row]
        if missing:
            raise RecipeError(
                f"reading row {number} of an EvalPlus benchmark",
                found=f"no {', '.join(missing)}",
                rule=f"a row has {', '.join(FIELDS)}",
                do="take the rows of EvalPlus' release, whole",
            )
        name, base, plus = row["task_id"], row["base_input"], row["plus_input"] or []
        inputs = [*base, *plus]
        if name.startswith(MBPP):
            inputs = mbpp_deserialize_inputs(name, inputs)
        yield EvalPlusTask(
            id=name,
            prompt=row["prompt"],
            entry=row["entry_point"],
            gold=row["canonical_solution"],
            atol=float(row.get("atol", 0)),
            tests=tuple(inputs),
            num_base=len(base),
        )


def evalplus_items(
    tasks: Sequence[EvalPlusTask], *, isolation: Isolation, processes: int
) -> dict[str, ProgramItem]:
    """The items of tasks, after one run of each gold program.

    Raises: RecipeError when a gold program does not answer its own tests.
    """
    with ThreadPoolExecutor(processes, thread_name_prefix="gold") as pool:
        items = list(pool.map(lambda task: evalplus_item(task, isolation), tasks))
    return {item.id: item for item in items}


def evalplus_item(task: EvalPlusTask, isolation: Isolation) -> ProgramItem:
    """The item of one task: its expected values are what the gold program returns.

    A test whose gold value is too large to leave the sandbox is left out and counted.
    """
    kept, ran = task, run_gold(task, isolation)
    while ran.replies and ran.replies[-1].raised == inside.TOO_LARGE:
        kept = without_test(kept, len(ran.replies) - 1)
        ran = run_gold(kept, isolation)
    expected = [inside.decode(reply.wire) for reply in ran.replies if reply.raised is None]
    if len(expected) < len(kept.tests):
        raise RecipeError(
            f"running the gold program of {task.id}",
            found=_what_happened(ran, len(expected)),
            rule=f"it answers each of its {len(kept.tests)} tests; an answer is compared with that",
            do="take the rows of EvalPlus' release, whole, or leave this row out",
        )
    if task.entry in MBPP_OUTPUT_NOT_NONE_TASKS:
        expected = [value is not None for value in expected]
    return ProgramItem(
        id=task.id,
        entry=task.entry,
        prompt=task.prompt,
        preamble="",
        tests=kept.tests,
        sizes=tuple(reply.size for reply in ran.replies),
        num_base=kept.num_base,
        num_left_out=len(task.tests) - len(kept.tests),
        limits=replace(GOLD_LIMITS, cpu_seconds=seconds_allowed(ran.cpu_seconds)),
        judge=evalplus_judge(kept, expected),
    )


def run_gold(task: EvalPlusTask, isolation: Isolation) -> Ran:
    """Runs the gold program of a task on its tests."""
    program = Program(code=task.prompt + task.gold, entry=task.entry, tests=task.tests)
    return run_in_sandbox(program, isolation, limits=GOLD_LIMITS)


def without_test(task: EvalPlusTask, index: int) -> EvalPlusTask:
    """The task without one of its tests."""
    return replace(
        task,
        tests=(*task.tests[:index], *task.tests[index + 1 :]),
        num_base=task.num_base - (index < task.num_base),
    )


def evalplus_judge(task: EvalPlusTask, expected: Sequence[Any]) -> Callable[[int, Any], Agreement]:
    """EvalPlus' comparison for the tests of a task."""
    # EvalPlus checks the plus tests in a run of their own
    base, plus = expected[: task.num_base], expected[task.num_base :]
    tolerances = [*evalplus_tolerances(base, task.atol), *evalplus_tolerances(plus, task.atol)]

    def judge(index: int, value: Any) -> Agreement:
        rule = {"arguments": task.tests[index], "atol": tolerances[index]}
        return Agreement(
            is_right=is_same_in_evalplus(value, expected[index], entry=task.entry, **rule)
        )

    return judge


def seconds_allowed(gold_seconds: float) -> int:
    """CPU seconds of an answer: 4 times the gold program's, and 10 at least.

    CPU time, not wall time: the same answer passes on a busy machine.
    """
    return max(LEAST_SECONDS, math.ceil(TIME_FACTOR * gold_seconds))


def gold_answer(task: EvalPlusTask) -> str:
    """The gold program as an answer, for the ceiling that stands beside a score."""
    return f"```python\n{task.prompt}{task.gold}\n```"


def _what_happened(ran: Ran, answered: int) -> str:
    if ran.loading is not None:
        return f"it is not loaded: {ran.loading}"
    raised = next((reply.raised for reply in ran.replies if reply.raised), None)
    return f"test {answered + 1}: {raised or f'no reply ({ran.ending})'}"
