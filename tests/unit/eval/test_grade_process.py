"""What a response may cost: hostile ones end at the limit, and leave no process behind."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from frontload.data_tools.prompts.crossthink import CrossThinkRequest, convert_crossthink
from frontload.eval.grading import algebra
from frontload.eval.grading import pool as grade_process
from frontload.eval.grading.grade import Grade, Grader, Kind, Reason, Reference, row_reference
from frontload.eval.grading.layout import AnswerLayout
from frontload.eval.grading.pool import MathLimits, MathPool
from frontload.recipes.errors import StageError
from tests.unit.data_tools.prompt_model import wide_limit

ROOT = Path(__file__).resolve().parents[3]
# a second of processor time, and as much on the wall as a busy machine may take for it
LIMITS = MathLimits(cpu_seconds=1.0, seconds=20.0)
SLACK_SECONDS = 5.0  # a killed fork is reaped in milliseconds, but two busy cores switch late


def graded(grader: Grader, answer: str, *, gold: str = "5", question: str = "") -> Grade:
    reference = Reference(
        gold=gold, kind=Kind.ANSWER, layout=AnswerLayout.THINK_BOXED, question=question
    )
    return grader.grade(f"<think>steps</think> \\boxed{{{answer}}}", reference)


@pytest.fixture(scope="module")
def grader() -> Grader:
    grader = Grader(limits=LIMITS)
    grader.pool.start()
    return grader


HOSTILE = {
    "tower": "9^{9^{9^{9}}}",
    "factorial": "1000000!",
    "brackets": "(" * 200 + "1" + ")" * 200,
    "braces": "{" * 400 + "1" + "}" * 400,
    "fractions": "\\frac{1}{" * 60 + "2" + "}" * 60,
    "roots": "\\sqrt{" * 80 + "2" + "}" * 80,
    "sum": "+".join(f"x^{{{n}}}" for n in range(120)),
    "digits": "9" * 999,
    "exponent": "1e" + "9" * 50,
    "controls": "\x00\x01\x1b[2J\ud800",
    "right to left": "\u202e5\u202c",
    "escapes": "\\" * 999,
    "code": "__import__('os').system('true')",
    "lists": ",".join("1" for _ in range(400)),
    "integral": "\\int_0^\\infty e^{-x^2} \\sin(x^x) dx",
    "matrix": "\\begin{pmatrix}" + "&".join("1" * 60) + "\\end{pmatrix}",
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_answer_costs_at_most_the_limit_and_scores_nothing(
    grader: Grader, answer: str
) -> None:
    started = time.monotonic()
    grade = graded(grader, answer)
    assert time.monotonic() - started < LIMITS.seconds + SLACK_SECONDS
    assert grade.reward == 0
    assert not grade.correct
    assert graded(grader, "\\sqrt{25}").reward == 1, "the next answer is graded as ever"


MEGABYTE = 1 << 20
HUGE = {
    "text": "a" * MEGABYTE,
    "open boxes": "\\boxed{" * (MEGABYTE // 8),
    "boxes": "\\boxed{5}" * (MEGABYTE // 9),
    "open thinking": "<think>" * (MEGABYTE // 8),
    "braces": "<think></think>\\boxed{" + "{" * MEGABYTE + "}" * MEGABYTE + "}",
}


@pytest.mark.parametrize("text", HUGE.values(), ids=HUGE)
@pytest.mark.parametrize("share", [1.0, 0.12])
def test_a_huge_response_is_refused_or_read_in_one_pass(
    grader: Grader, text: str, share: float
) -> None:
    reference = Reference(gold="5", kind=Kind.ANSWER, layout=AnswerLayout.THINK_BOXED)
    response = text[: int(share * len(text))]
    started = time.process_time()  # no other process is asked: a busy machine does not count
    grade = grader.grade(response, reference)
    assert time.process_time() - started < 1.0
    assert grade.reward == 0
    assert (grade.reason == Reason.TOO_LONG) == (len(response) > 1 << 18)


def test_an_answer_beyond_its_length_is_too_long(grader: Grader) -> None:
    grade = graded(grader, "5" + " " * 10 + "0" * 1001)
    assert (grade.reason, grade.correct, grade.formatted) == (Reason.TOO_LONG, False, True)


def test_copying_the_question_earns_nothing(grader: Grader) -> None:
    question = "What is $\\frac{6}{2} + 2$?"
    assert graded(grader, "5", question=question).reward == 1
    assert graded(grader, "\\sqrt{25}", question=question).reward == 1
    copied = graded(grader, "\\frac{6}{2}+2", question=question)
    assert (copied.reward, copied.reason) == (0, Reason.RESTATED)
    chosen = graded(grader, "2^{10}", gold="2^{10}", question="Which is larger, $2^{10}$ or $3^6$?")
    assert chosen.reward == 1, "a gold answer that stands in the question may be copied"


def test_the_gold_answers_of_a_converted_file_are_right(grader: Grader, tmp_path: Path) -> None:
    """The whole way of a CrossThink row: JSONL, filters, parquet, reward."""
    data = ROOT / "tests" / "unit" / "data_tools"
    out = tmp_path / "rl.parquet"
    request = CrossThinkRequest(
        qa=data / "crossthink_qa.jsonl",
        math=data / "crossthink_math.jsonl",
        out=out,
        limit=wide_limit(tmp_path / "model"),
    )
    convert_crossthink(request)
    for row in pq.read_table(out).to_pylist():
        gold = row["reward_model"]["ground_truth"]
        reference = row_reference(gold, row["extra_info"], layout=AnswerLayout.THINK_BOXED)
        grade = grader.grade(f"<think>steps</think> \\boxed{{{gold}}}", reference)
        assert grade.reward == 1, row
        assert grader.grade("<think>steps</think> \\boxed{no}", reference).reward == 0
        letters = [chr(ord("A") + n) for n, _ in enumerate(reference.options)]
        right = [
            letter
            for letter in letters
            if grader.grade(f"<think></think>\\boxed{{{letter}}}", reference).reward
        ]
        assert len(right) == (1 if letters else 0)


def test_the_example_of_the_page_runs_and_leaves_no_process() -> None:
    before = psutil.Process().children()
    page = (ROOT / "eval" / "grading" / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    found: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), found)
    assert found["grade"].extracted == r"1\frac{1}{2}"
    with Grader(limits=LIMITS) as grader:
        assert graded(grader, "\\sqrt{25}").reward == 1
        assert psutil.Process().children() != before
    assert psutil.Process().children() == before


def test_reasons_and_comparisons_are_counted() -> None:
    with closing(Grader(limits=LIMITS)) as grader:
        for answer in ("5", "\\sqrt{25}", "6", "1000000!", "+-*/", ""):
            graded(grader, answer)
    assert grader.reasons == {
        "right": 2, "wrong": 1, "timeout": 1, "unreadable": 1, "no answer": 1,
    }  # fmt: skip
    assert grader.comparisons == {"same": 1, "timeout": 1, "unreadable": 1}


def test_a_process_that_dies_is_a_crash_and_is_replaced() -> None:
    limits = MathLimits(seconds=3.0)
    with closing(MathPool(limits=limits)) as pool:
        assert pool.compare("x+1", "1+x") == algebra.SAME
        comparer = pool._slots.get()
        assert comparer is not None
        first = comparer._process.pid
        os.kill(first, signal.SIGSTOP)  # it hangs: neither the answer nor the end comes
        pool._slots.put(comparer)
        started = time.monotonic()
        assert pool.compare("x+1", "1+x") == algebra.CRASH
        waited = time.monotonic() - started
        assert waited < limits.seconds + grade_process.GRACE_SECONDS + SLACK_SECONDS
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)
        assert pool.compare("x+1", "1+x") == algebra.SAME


def test_memory_beyond_the_limit_is_refused() -> None:
    """1 MiB of address space is less than the process has: no allocation can succeed."""
    with closing(MathPool(limits=MathLimits(seconds=5.0, size_bytes=1 << 20))) as pool:
        verdict = pool.compare("(x+1)^2", "x^2+2x+1")
    assert verdict in {algebra.MEMORY, algebra.UNREADABLE, algebra.DIFFERENT}


@pytest.mark.parametrize(
    ("compare", "seconds", "verdict"),
    [
        (lambda gold, prediction: bytearray(1 << 29) and "", 60.0, algebra.MEMORY),
        (lambda gold, prediction: os.kill(os.getpid(), signal.SIGKILL), 60.0, algebra.CRASH),
        (lambda gold, prediction: 1 // 0, 60.0, algebra.CRASH),
        (lambda gold, prediction: time.sleep(60), 0.5, algebra.TIMEOUT),
        (lambda gold, prediction: spin(), 60.0, algebra.TIMEOUT),
        (lambda gold, prediction: compare_without_end(), 60.0, algebra.UNREADABLE),
        (lambda gold, prediction: gold + prediction, 60.0, "ab"),
    ],
    ids=["memory", "killed", "exception", "sleep", "spin", "recursion", "answer"],
)
def test_whatever_a_comparison_does_ends_with_its_fork(
    compare: Callable[[str, str], Any], seconds: float, verdict: str
) -> None:
    this = psutil.Process()
    before = this.children()
    # a quarter of a GiB beyond what this test process has
    size_bytes = this.memory_info().vms + (1 << 28)
    limits = {"cpu_seconds": 0.5, "seconds": seconds, "bytes": size_bytes}
    request = {"gold": "a", "prediction": "b", **limits}
    assert algebra.compare_in_fork(compare, request) == verdict
    assert this.children() == before, "every fork was awaited"


def spin() -> str:
    while True:
        pass


def compare_without_end() -> str:
    return compare_without_end()


def test_the_processor_clock_ends_a_comparison_before_the_wall_clock() -> None:
    with closing(MathPool(limits=MathLimits(cpu_seconds=0.5, seconds=600.0))) as pool:
        pool.start()
        started = time.monotonic()
        assert pool.compare("5", "9^{9^{9^{9}}}") == algebra.TIMEOUT
        assert time.monotonic() - started < 60.0  # 120 times the processor time, for any load


def test_threads_share_the_pool() -> None:
    pairs = [("x+1", f"{n}+x") for n in range(6)] * 2
    with closing(MathPool(size=2)) as pool, ThreadPoolExecutor(6) as threads:
        verdicts = list(threads.map(lambda pair: pool.compare(*pair), pairs))
    assert verdicts == [
        algebra.SAME if prediction == "1+x" else algebra.DIFFERENT for _, prediction in pairs
    ]


def test_a_missing_package_is_said_and_not_graded_as_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "math_verify.py").write_text("raise ImportError('no math_verify here')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with (
        closing(Grader()) as grader,
        pytest.raises(StageError, match="no math_verify here.*environment"),
    ):
        graded(grader, "\\sqrt{25}")


def test_the_processes_end_with_the_one_that_started_them() -> None:
    """Also when it is killed in the middle of a comparison that would run for hours."""
    program = textwrap.dedent(
        """
        import sys, threading, time
        from frontload.eval.grading.pool import MathLimits, MathPool
        pool = MathPool(limits=MathLimits(seconds=1.0))
        pool.start()
        slot = pool._slots.get(); pool._slots.put(slot)
        print(slot._process.pid, flush=True)
        threading.Thread(target=pool.compare, args=("5", "9^{9^{9^9}}"), daemon=True).start()
        time.sleep(60)
        """
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{program}"],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert parent.stdout is not None
    session = int(parent.stdout.readline())
    time.sleep(0.3)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 1.0 + 1.0 + SLACK_SECONDS  # the limit and the fork's own clock
    while processes_of_session(session) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of_session(session) == []


def processes_of_session(session: int) -> list[int]:
    """Processes that are not dead yet, of the session that a comparer leads."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(folder.name))
    return found
