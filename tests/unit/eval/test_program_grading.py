"""Programs graded in the sandbox: what counts as an answer, what passes, and who cannot cheat."""

import base64
import json
import pickle
import zlib
from typing import Any

import numpy as np
import pytest

from frontload.eval.sandbox import inside, programs
from frontload.eval.sandbox.code_answer import extract_program
from frontload.eval.sandbox.evalplus_rows import (
    completion_stops,
    evalplus_items,
    gold_answer,
    read_evalplus,
    seconds_allowed,
)
from frontload.eval.sandbox.evalplus_rule import evalplus_tolerances, is_same_in_evalplus
from frontload.eval.sandbox.grade import ProgramVerdict, grade_program, grade_programs
from frontload.eval.sandbox.isolation import Isolation, find_isolation
from frontload.eval.sandbox.livecode_rows import (
    item_of_ground_truth,
    item_of_tests,
    read_livecode,
)
from frontload.eval.sandbox.reward import program_reward
from frontload.recipes.errors import RecipeError

ROWS = [
    {
        "task_id": "HumanEval/900",
        "prompt": "from typing import List\n\n\ndef third(xs: List[float]) -> float:\n"
        '    """A third of the sum."""\n',
        "entry_point": "third",
        "canonical_solution": "    return sum(xs) / 3\n",
        "base_input": [[[1.0, 2.0]]],
        "plus_input": [[[0.1] * 7], [[]]],
        "atol": 0,
    },
    {
        "task_id": "Mbpp/2",  # its inputs are tuples, its answers compared as sets
        "prompt": '"""\nWrite a function to find the shared elements.\n"""\n',
        "entry_point": "similar_elements",
        "canonical_solution": "\ndef similar_elements(a, b):\n  return tuple(set(a) & set(b))\n",
        "base_input": [[[3, 4, 5], [5, 4, 9]]],
        "plus_input": [[["kx", "x", "y"], ["x", "y"]]],
        "atol": 0,
    },
]


@pytest.fixture(scope="module")
def walls() -> Isolation:
    return find_isolation()


def fenced(code: str) -> str:
    return f"Here it is:\n```python\n{code}\n```\nThat is all."


def graded(code: str, walls: Isolation, **tests: Any) -> ProgramVerdict:
    given = {"entry": "double", "inputs": ["3", "-4"], "outputs": ["6", "-8"], **tests}
    item = item_of_tests("item", **given)
    return grade_program(item, fenced(code), isolation=walls)


def test_a_right_program_passes_and_its_verdict_says_where_it_ran(walls: Isolation) -> None:
    verdict = graded("class Solution:\n    def double(self, x):\n        return 2 * x", walls)
    assert (verdict.kind, verdict.reason, verdict.reward) == ("passed", "", 1.0)
    assert (verdict.num_passed, verdict.num_tests) == (2, 2)
    assert (verdict.isolation, verdict.is_exact) == ("bubblewrap", True)


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        ("def double(x): return x + 3", "failed", "test 2: another value"),
        ("def double(x): return 1 / 0", "failed", "ZeroDivisionError"),
        ("def double(x: return", "failed", "not loaded: SyntaxError"),
        ("def treble(x): return 3 * x", "failed", "defines no double"),
        ("import os; os._exit(0)", "failed", "ended at test 1 without a reply (exit code 0)"),
        ("raise SystemExit(0)", "failed", "not loaded: SystemExit"),
        ("def double(x):\n  import os; os._exit(0)", "failed", "at test 1 without a reply"),
        ("def double(x):\n  import sys; sys.exit(0)", "failed", "SystemExit"),
        ("def double(x): return bytearray(3 << 30)", "out of memory", "test 1"),
        ("held = bytearray(3 << 30)", "out of memory", "not loaded: MemoryError"),
        ("def double(x): return [2 * x] * 10**6", "failed", "another value"),
        ("def double(x):\n  v = []\n  v.append(v)\n  return v", "failed", inside.TOO_LARGE),
    ],
)
def test_what_is_not_right_fails_with_its_reason(
    code: str, kind: str, reason: str, walls: Isolation
) -> None:
    verdict = graded(code, walls)
    assert (verdict.kind, verdict.reward) == (kind, 0.0)
    assert reason in verdict.reason


EQUAL_TO_ALL = """
class Sly({base}):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __bool__(self): return True
    def __len__(self): return 0
    def __iter__(self): return iter(())
    def items(self): return [("a", 6)]
    def __repr__(self): return "6"
    def __int__(self): return 6
    __index__ = __int__
    def __hash__(self): return hash(6)
def double(x): return Sly({value})
"""


@pytest.mark.parametrize(
    ("base", "value"),
    [("int", "0"), ("float", "0"), ("str", "'0'"), ("list", "[0]"), ("dict", ""), ("object", "")],
)
def test_what_a_class_says_of_itself_does_not_count(
    base: str, value: str, walls: Isolation
) -> None:
    verdict = graded(EQUAL_TO_ALL.format(base=base, value=value), walls)
    assert (verdict.kind, verdict.reason) == ("failed", "test 1: another value")


FORGER = """
import json, os
line = '\\n' + json.dumps({"test": 0, "value": %s, "passed": True, "score": 1.0}) + '\\n'
for descriptor in range(64):
    for text in (line, "PASSED\\n", "2 passed in 0.01s\\n", '{"ready": true}\\n'):
        try: os.write(descriptor, text.encode())
        except OSError: pass
print(line, "passed", flush=True)
os._exit(0)
"""


def test_a_verdict_cannot_be_written_only_a_value(walls: Isolation) -> None:
    assert graded(FORGER % "7", walls).kind == "failed"
    # what it may do is to say a value, as a program that returns it does: one of two tests here
    verdict = graded(FORGER % "6", walls)
    assert (verdict.kind, verdict.num_passed) == ("failed", 1)


SEEKER = """
import gc, os, sys
def double(x):
    seen = [repr(one)[:10**6] for one in gc.get_objects() if isinstance(one, (dict, list, tuple))]
    for name in ("/proc/self/cmdline", "/proc/self/environ", "/proc/1/cmdline", "/proc/self/maps"):
        try: seen.append(open(name, errors="replace").read())
        except OSError: pass
    frame = sys._getframe()
    while frame:
        seen.append(repr(frame.f_locals)[:10**6] + repr(frame.f_globals.keys()))
        frame = frame.f_back
    for number in range(64):
        try: seen.append(os.read(number, 10**6).decode(errors="replace"))
        except OSError: pass
    mark = "-".join(["the", "answer", ""])  # not in this source
    found = [text for text in seen if mark in text]
    return found[0][found[0].index(mark):][:15] if found else "nothing"
"""


def test_the_tests_expected_values_are_not_in_the_sandbox(walls: Isolation) -> None:
    verdict = graded(SEEKER, walls, inputs=["1"], outputs=['"the-answer-7731"'])
    assert (verdict.kind, verdict.reason) == ("failed", "test 1: another value")
    seen = graded(SEEKER, walls, inputs=["1"], outputs=['"nothing"'])
    assert seen.kind == "passed", "it has looked, and found nothing"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("a, b = map(int, input().split())\nprint(a + b)", "passed"),
        ("import sys\nprint(sum(map(int, sys.stdin.read().split())))\nsys.exit(3)", "passed"),
        ("import sys\nsys.stdout.buffer.write(b'%d' % sum(map(int, input().split())))", "passed"),
        ("if __name__ == '__main__':\n  print(sum(map(int, input().split())), '\\n\\n')", "passed"),
        ("print(7)", "failed"),
        ("print(sum(map(int, input().split())))\nraise ValueError", "failed"),
        ("print(sum(map(int, input().split())))\nimport os; os._exit(1)", "failed"),
        ("while True: pass", "timed out"),
        ("while True: print('x' * 1000)", "failed"),
        ("x = bytearray(3 << 30)", "out of memory"),
        ("import os; os.kill(os.getppid(), 9)", "failed"),
    ],
)
def test_a_program_that_reads_its_input(
    code: str, kind: str, walls: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frontload.eval.sandbox.livecode_rows.TEST_SECONDS", 2)
    verdict = graded(code, walls, entry=None, inputs=["3 4\n", "10 -2\n"], outputs=["7\n", "8\n"])
    assert verdict.kind == kind, verdict.reason


@pytest.mark.parametrize(
    ("printed", "expected", "passes", "is_exact"),
    [
        ("1.41421356", "1.41421356237", True, False),
        ("1.4142", "1.41421356237", False, True),
        ("1.5", "1.50", True, True),
        ("3", "3.0000001", True, False),
        ("1000000000000000001", "1000000000000000000", False, True),
        ("nan", "1.0", False, True),
        ("1e400", "1.0", False, True),
        ("YES", "YES", True, True),
        ("Yes", "YES", False, True),
        ("a  1.0", "a 1.0", False, True),
        ("  1 2 ", "1 2", True, True),
        ("1\n2", "1 2", False, True),
    ],
)
def test_outputs_agree_by_livecodebench_or_within_a_stated_tolerance(
    printed: str, expected: str, passes: bool, is_exact: bool
) -> None:
    item = item_of_tests("item", entry=None, inputs=[""], outputs=[expected])
    found = item.judge(0, printed)
    assert found.is_right == passes
    assert not passes or found.is_exact == is_exact


@pytest.mark.parametrize(
    ("value", "expected", "passes"),
    [
        ((1, 2), "[1, 2]", True),  # a tuple for a list, as LiveCodeBench has it
        ([(1, 2)], "[[1, 2]]", False),
        ([0.1 + 0.2], "[0.3]", True),
        ([3], "[3.0]", True),
        (3.0000001, "3", False),  # a whole number is exact
        ({"a": [1.0]}, '{"a": [1]}', True),
        ("3", "3", False),
        (None, "null", True),
        (None, "[]", False),
        ("abc", "[]", False),
        (10**400, "1.0", False),
    ],
)
def test_values_agree_by_their_type_and_kind(value: Any, expected: str, passes: bool) -> None:
    item = item_of_tests("item", entry="f", inputs=["1"], outputs=[expected])
    assert item.judge(0, inside.decode(inside.encode(value))).is_right == passes


def test_our_livecodebench_agrees_with_its_own_checker(walls: Isolation) -> None:
    """Real counterpart: nvidia-livecodebench 26.3."""
    from livecodebench.evaluation import codegen_metrics

    addition = {"inputs": ["3 4\n", "10 -2\n"], "outputs": ["7\n", "8\n"], "fn_name": None}
    function = {"inputs": ["3\n4", "1\n1"], "outputs": ["7", "2"], "fn_name": "add"}
    add = "class Solution:\n    def add(self, a, b):\n        return "
    cases = [
        (addition, "a, b = map(int, input().split())\nprint(a + b)", True),
        (addition, "print(7)", False),
        (addition, "print(sum(map(int, stdin.read().split())))", True),  # open modules
        (function, f"{add}a + b", True),
        (function, f"{add}a - b", False),
        (function, "def add(a, b): return float(a + b)", True),
        (function, "import os\ndef add(a, b): return os.getcwd()", False),
    ]
    samples = [{"input_output": json.dumps(tests)} for tests, _, _ in cases]
    answers = [[code] for _, code, _ in cases]
    _, results, _ = codegen_metrics(samples, answers, k_list=[1], num_process_evaluate=1, timeout=5)
    theirs = [all(one > 0 for one in results[number][0]) for number in range(len(cases))]
    ours = []
    for tests, code, _ in cases:
        item = item_of_ground_truth(json.dumps(tests))
        verdict = grade_program(item, fenced(code), isolation=walls)
        ours.append(verdict.kind == "passed" and verdict.is_exact)
    assert theirs == ours == [expected for _, _, expected in cases]


def test_livecodebench_rows_are_read_without_running_their_pickle() -> None:
    test = {"input": "1", "output": "2", "testtype": "functional"}

    def row(private: Any) -> dict[str, str]:
        packed = base64.b64encode(zlib.compress(pickle.dumps(private))).decode()
        return {
            "question_id": "q1",
            "metadata": '{"func_name": "double"}',
            "public_test_cases": json.dumps([test]),
            "private_test_cases": packed,
        }

    (item,) = read_livecode([row(json.dumps([test, test]))])
    assert (item.id, item.entry, len(item.tests)) == ("q1", "double", 3)

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (print, ("run",))

    with pytest.raises(RecipeError, match="row 1 of LiveCodeBench: ValueError: .* instruction"):
        list(read_livecode([row(Bomb())]))
    for field, found in (
        ("metadata", "ValueError: functional tests"),
        ("public_test_cases", "Key"),
    ):
        rows = [{key: one for key, one in row("[]").items() if key != field}]
        with pytest.raises(RecipeError, match=found):
            list(read_livecode(rows))


def test_rl_rewards_a_program_as_it_is_graded() -> None:
    truth = json.dumps({"inputs": ["1", "5"], "outputs": ["2", "10"], "fn_name": "double"})
    verdict = program_reward(fenced("def double(x): return 2 * x"), truth)
    assert (verdict.reward, verdict.isolation) == (1.0, "bubblewrap")
    assert program_reward(fenced("def double(x): return 2"), truth).reward == 0.0
    assert program_reward("2 * x", truth).kind == "no code"


@pytest.mark.parametrize("truth", ["", "[]", '{"inputs": []}', '{"inputs": ["1"], "outputs": []}'])
def test_a_reward_without_readable_tests_is_refused(truth: str) -> None:
    with pytest.raises(RecipeError, match="rewarding a program: its ground truth is not readable"):
        item_of_ground_truth(truth)


def test_evalplus_rows_are_graded_and_their_gold_passes(walls: Isolation) -> None:
    tasks = list(read_evalplus(ROWS))
    items = evalplus_items(tasks, isolation=walls, processes=2)
    answers = [
        *((task.id, gold_answer(task)) for task in tasks),
        ("HumanEval/900", "    return (sum(xs) + 3e-7) / 3\n"),  # a body, within the tolerance
        ("HumanEval/900", "    return sum(xs) / 3 + 1e-5\n"),
        ("HumanEval/900", "    return 1.0"),  # right for the base test alone
        ("Mbpp/2", fenced("def similar_elements(a, b):\n    return [x for x in a if x in b]")),
        (
            "Mbpp/2",
            fenced("def similar_elements(a, b):\n    assert type(a) is tuple\n    return []"),
        ),
        ("Mbpp/2", "I do not know."),
    ]
    verdicts = list(grade_programs(items, answers, isolation=walls, processes=2))
    assert [one.kind for one in verdicts] == [
        *("passed", "passed", "passed", "failed", "failed", "passed", "failed", "no code"),
    ]
    assert [one.item for one in verdicts] == [name for name, _ in answers]
    assert [one.passed_base for one in verdicts[2:5]] == [True, False, True]
    assert verdicts[6].reason == "test 1: another value", "its inputs were tuples"


def test_answers_stream_through_the_grader(walls: Isolation) -> None:
    tasks = list(read_evalplus(ROWS[:1]))
    items = evalplus_items(tasks, isolation=walls, processes=1)
    taken: list[int] = []

    def answers() -> Any:
        for number in range(50):
            taken.append(number)
            yield "HumanEval/900", "no program"

    verdicts = grade_programs(items, answers(), isolation=walls, processes=1)
    next(verdicts)
    assert len(taken) < 10
    assert len(list(verdicts)) == 49
    with pytest.raises(RecipeError, match="no item has this id"):
        list(grade_programs(items, [("HumanEval/901", "")], isolation=walls, processes=1))


def test_a_gold_program_that_fails_stops_its_row(walls: Isolation) -> None:
    broken = {**ROWS[0], "canonical_solution": "    return xs[0] / 3\n"}
    with pytest.raises(RecipeError, match="HumanEval/900: test 3: IndexError"):
        evalplus_items(list(read_evalplus([broken])), isolation=walls, processes=1)
    with pytest.raises(RecipeError, match="row 1 of an EvalPlus benchmark: no base_input"):
        list(read_evalplus([{key: one for key, one in ROWS[0].items() if key != "base_input"}]))


def test_a_test_whose_value_is_too_large_is_left_out_and_counted(walls: Isolation) -> None:
    row = {
        **ROWS[0],
        "prompt": "def many(n):\n",
        "entry_point": "many",
        "canonical_solution": "    return [(n,) * 1000] * n\n",
        "base_input": [[1], [10_000], [2]],
        "plus_input": [[9_000], [3]],
    }
    items = evalplus_items(list(read_evalplus([row])), isolation=walls, processes=1)
    item = items["HumanEval/900"]
    assert (item.num_left_out, item.tests, item.num_base) == (2, ([1], [2], [3]), 2)
    answers = [("HumanEval/900", "    return [(n,) * 1000] * n\n")]
    (verdict,) = grade_programs(items, answers, isolation=walls, processes=1)
    assert (verdict.kind, verdict.num_tests) == ("passed", 3)


def test_the_time_of_an_answer_follows_the_gold_programs() -> None:
    assert [seconds_allowed(seconds) for seconds in (0.0, 2.5, 2.6, 24.0)] == [10, 10, 11, 96]
    assert "\ndef " in completion_stops("HumanEval/1")
    assert "\nassert" in completion_stops("Mbpp/2")


PAIRS = [  # entry, found, expected, arguments, atol
    ("f", 0.3, 0.1 + 0.2, [0], 0),
    ("f", 1, 1.0, [0], 0),
    ("f", 1, 1.0000001, [0], 0),  # another type: not within the tolerance
    ("f", [1.0, 2.0], [1.0, 2.0000001], [0], 0),
    ("f", (1.0, 2.0), [1.0, 2.0], [0], 0),
    ("f", [1.0], [1.0, 2.0], [0], 0),
    ("f", [1, 2], [1, 2.0], [0], 0),
    ("f", "a", "b", [0], 0),
    ("f", True, 1, [0], 0),
    ("f", None, 0, [0], 0),
    ("f", {1: 2.0}, {1: 2.0000001}, [0], 0),
    ("f", 100.0, 101.0, [0], 2),
]


def test_our_evalplus_rule_agrees_with_evalplus() -> None:
    """Real counterpart: EvalPlus 0.3.1's own check of a program that returns the value."""
    from evalplus.eval import untrusted_check

    for entry, found, expected, arguments, atol in PAIRS:
        status, _ = untrusted_check(
            "humaneval",
            f"def {entry}(*_): return {found!r}",
            [arguments],
            entry,
            [expected],
            atol,
            [0.1],
            fast_check=True,
        )
        (tolerance,) = evalplus_tolerances([expected], atol)
        ours = is_same_in_evalplus(
            found, expected, entry=entry, arguments=arguments, atol=tolerance
        )
        assert ours == (status == "pass"), (entry, found, expected)


def test_any_zero_is_right_though_evalplus_never_counts_one() -> None:
    """EvalPlus 0.3.1 leaves its loop before it counts a test of HumanEval/32: nobody passes it."""
    from evalplus.eval import untrusted_check

    polynomial = [[-1, 1]]
    code = "def find_zero(xs): return 1.0"
    status, _ = untrusted_check(
        "humaneval", code, [polynomial], "find_zero", [1.0], 1e-4, [0.1], fast_check=True
    )
    assert status == "fail"
    for found, expected in ((1.0, True), (1.00001, True), (1.1, False), ("1", False)):
        is_right = is_same_in_evalplus(
            found, 7.0, entry="find_zero", arguments=polynomial, atol=1e-4
        )
        assert is_right == expected


def test_evalplus_keeps_the_tolerance_that_a_float_sets() -> None:
    assert evalplus_tolerances(["a", 1.0, 3], 0) == [0, 1e-6, 1e-6]
    assert evalplus_tolerances(["a", 1.0], 0.5) == [0.5, 0.5]


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 0, -(10**5000), 1.5, float("inf"), "a\u2028\ud800", b"\x00\xff", 1 + 2j),
        *([], (), {}, set(), {1, "a"}, frozenset({(1, 2)}), {(1,): [{2: None}]}, [[(1, [2])]]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_crosses_the_wire_unchanged(value: Any) -> None:
    back = inside.decode(json.loads(json.dumps(inside.encode(value))))
    assert back == value
    assert type(back) is type(value)


def test_what_is_no_plain_value_is_named_and_long_texts_are_digested() -> None:
    assert inside.encode(np.float64(0.5)) == 0.5
    assert inside.encode(np.int32(3)) == 3
    assert inside.decode(inside.encode(range(3))) == ("object", "builtins.range", "range(0, 3)")
    long = "x" * 100_000
    first, second = (inside.encode(one, digests=True) for one in (long, long + "y"))
    assert inside.decode(first) != inside.decode(second)
    assert len(json.dumps(first)) < 100
    assert inside.encode(long) == long, "an argument is given whole"
    for wire in ({"tuple": 3}, {"a": 1}, {"set": [[1]]}, {"int": "zz"}, {"int": "1", "b": 2}):
        with pytest.raises((ValueError, TypeError)):
            inside.decode(wire)


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\na = 1\n```\nor\n```\nb = 2\n```", "b = 2\n"),  # the last
        ("```python\ndef f(): pass\n```\nuse:\n```\nf()\n```", "def f(): pass\n"),  # defines it
        ("```py\na\n```\n```python\ndef f(): ret", "a\n"),  # a block that is cut off is none
        ("<think>```python\ndef f(): 1\n```</think>\n```\ndef f(): 2\n```", "def f(): 2\n"),
        ("<think>```python\ndef f(): 1\n```", None),
        ("~~~\ndef f(): pass\n~~~", "def f(): pass\n"),
        ("````\ndef f(): '''\n```\n'''\n````", "def f(): '''\n```\n'''\n"),
        ("def f(x):\n    return x", "def f(x):\n    return x"),
        ("\n\n    return x", "PROMPT\n\n    return x"),
        ("```\n    return x\n```", "PROMPT    return x\n"),
        ("f = lambda x: x", "f = lambda x: x"),
        ("The function f is easy.", None),
        ("", None),
    ],
)
def test_which_part_of_an_answer_is_its_program(text: str, program: str | None) -> None:
    assert extract_program(text, entry="f", prompt="PROMPT") == program


def test_a_program_that_reads_its_input_must_stand_in_a_block() -> None:
    assert extract_program("print(input())", entry=None) is None
    assert extract_program("```\nprint(input())\n```", entry=None) == "print(input())\n"


def test_the_request_holds_no_expected_value() -> None:
    item = item_of_tests("q", entry="f", inputs=["1"], outputs=['"the-answer-7731"'])
    program = programs.Program(code="", entry=item.entry, tests=item.tests)
    assert "7731" not in json.dumps(programs._request(program, item.limits))
