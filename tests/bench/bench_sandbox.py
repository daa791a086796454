"""Programs graded a second: ours behind walls, EvalPlus' fork without any; each with 100 calls.

One in a hundred answers loops for ever (its limit is 2 CPU seconds here). The programs are taken in
turns of 50, so that a busy machine hits both alike. EvalPlus is asked from two processes, as by its
command.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

from evalplus.eval import untrusted_check

from frontload.eval.sandbox.evalplus_rows import evalplus_items, read_evalplus
from frontload.eval.sandbox.grade import grade_programs
from frontload.eval.sandbox.isolation import find_isolation
from frontload.eval.sandbox.process import Limits

TURN, LOOPS, PROCESSES = 50, 100, 2
INPUTS = [[number] for number in range(100)]
ROW = {
    "task_id": "HumanEval/0",
    "prompt": "def double(number):\n",
    "entry_point": "double",
    "canonical_solution": "    return 2 * number\n",
    "base_input": INPUTS[:10],
    "plus_input": INPUTS[10:],
    "atol": 0,
}


def answer(number: int) -> str:
    """Half of the answers are wrong, and one in `LOOPS` never ends."""
    if number % LOOPS == LOOPS - 1:
        return "    while True: pass\n"
    return f"    return 2 * number + {number % 2}\n"


def ours() -> Callable[[list[str]], list[str]]:
    walls = find_isolation()
    items = evalplus_items(list(read_evalplus([ROW])), isolation=walls, processes=1)
    items = {name: replace(one, limits=Limits(cpu_seconds=2)) for name, one in items.items()}

    def grade(texts: list[str]) -> list[str]:
        answers = (("HumanEval/0", text) for text in texts)
        graded = grade_programs(items, answers, isolation=walls, processes=PROCESSES)
        return [one.kind for one in graded]

    return grade


def check(text: str) -> str:
    """EvalPlus' own check of one program, in a fork of the process that calls it."""
    expected, times = [2 * one for (one,) in INPUTS], [0.001] * len(INPUTS)
    task = ("humaneval", ROW["prompt"] + text, INPUTS, "double", expected, 0, times)
    return untrusted_check(*task, fast_check=True)[0]


def evalplus() -> Callable[[list[str]], list[str]]:
    pool = ProcessPoolExecutor(PROCESSES)  # as evalplus.evaluate has it
    return lambda texts: list(pool.map(check, texts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=200, help="programs of each")
    number = parser.parse_args().number
    graders = {"frontload": ours(), "evalplus": evalplus()}
    seconds = dict.fromkeys(graders, 0.0)
    found: dict[str, Counter[str]] = {name: Counter() for name in graders}
    for first in range(0, number, TURN):
        texts = [answer(one) for one in range(first, min(number, first + TURN))]
        for name, grade in graders.items():
            began = time.monotonic()
            found[name].update(grade(texts))
            seconds[name] += time.monotonic() - began
    for name in graders:
        rate = number / seconds[name]
        print(f"{name:10s} {number} programs in {seconds[name]:.1f} s, {rate:.1f} a second", end="")
        print(f"; 10,000 in {10_000 / rate / 60:.1f} min; {dict(found[name])}", flush=True)


if __name__ == "__main__":
    main()
