"""The process that compares expressions with math-verify: each in a fork of its own, under limits.

`grade_process.MathPool` starts it and nothing else imports it. The process imports math-verify once
and warms the parser; an item then costs one fork, and whatever the item does dies with that fork.
"""

import cmath
import gc
import json
import logging
import math
import os
import resource
import select
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import IO, Any, NoReturn

SAME, DIFFERENT, UNREADABLE = "same", "different", "unreadable"
TIMEOUT, MEMORY, CRASH = "timeout", "out of memory", "crash"

WARM_UP = (
    r"\frac{1}{2}+\sqrt{3}",
    r"(x+1)^2-2x",
    r"(-\infty,1]\cup(2,3)",
    r"\{1,2\}",
    r"x=2,y=3",
    r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
    r"2\sin\left(\frac{\pi}{3}\right)",
    r"x>2",
    r"\log_2 8",
    r"5\text{ cm}",
    r"10!",
    r"3+2i",
)
"""Forms of answers: ANTLR learns its tables from input, and what it learns here every fork has."""


def serve(requests: IO[str], replies: IO[str]) -> None:
    """Answers a JSON request a line until the input ends: gold, prediction and the limits."""
    try:
        compare = load_comparison()
    except ImportError as error:
        _reply(replies, {"failed": str(error)})
        return
    for form in WARM_UP:
        compare(form, form + "+1")
    gc.freeze()  # what every fork shares is not copied by its collections
    _reply(replies, {"ready": True})
    for line in requests:
        _reply(replies, {"verdict": compare_in_fork(compare, json.loads(line))})


def _reply(replies: IO[str], message: dict[str, Any]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


def load_comparison() -> Callable[[str, str], str]:
    """`compare(gold, prediction)` of math-verify, with its own timeouts off."""
    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)
    # math-verify's own removal of units takes letters of algebra for units: to it 7m and 5ab are 7
    # and 5. grading/number.py has taken units off before.
    normalization = replace(LatexExtractionConfig().normalization_config, units=False)
    config = [LatexExtractionConfig(boxed_match_priority=-1, normalization_config=normalization)]

    def parsed(form: str) -> list[Any]:
        return parse(f"${form}$", config, fallback_mode="no_fallback", parsing_timeout=None)  # pyright: ignore[reportArgumentType]

    def compare(gold: str, prediction: str) -> str:
        gold_parsed, prediction_parsed = parsed(gold), parsed(prediction)
        if not gold_parsed or not prediction_parsed:
            return UNREADABLE
        if differs_at_a_point(gold_parsed[0], prediction_parsed[0]):
            return DIFFERENT
        # the order matters: a gold relation accepts a predicted interval, not the other way round
        return SAME if verify(gold_parsed, prediction_parsed, timeout_seconds=None) else DIFFERENT

    return compare


def differs_at_a_point(gold: Any, prediction: Any) -> bool:
    """Whether two expressions have clearly different values at one fixed point.

    Most answers of a model that learns are wrong, and to simplify the difference of two expressions
    that are not equal costs sympy ten times their parsing. Relations, sets, matrices and single
    symbols, which math-verify compares by other rules than values, are never decided here.
    """
    from sympy import Expr, Symbol

    if not all(isinstance(one, Expr) and not isinstance(one, Symbol) for one in (gold, prediction)):
        return False
    names = sorted({symbol.name for one in (gold, prediction) for symbol in one.free_symbols})
    # positive, and no special value of any function in use; ours
    point = {name: 0.7312 + 0.3171 * number for number, name in enumerate(names)}
    try:
        values = [
            complex(one.evalf(15, subs={s: point[s.name] for s in one.free_symbols}))
            for one in (gold, prediction)
        ]
    except (TypeError, ValueError, AttributeError, ArithmeticError):
        return False  # an unknown function, or no value at this point
    first, second = values
    # math-verify rounds to 6 decimals: 1e-4 of the value is far outside of that and of evalf's
    return (
        cmath.isfinite(first)
        and cmath.isfinite(second)
        and abs(first - second) > 1e-4 * max(1.0, abs(first), abs(second))
    )


def compare_in_fork(compare: Callable[[str, str], str], request: dict[str, Any]) -> str:
    """The verdict of one comparison, which is killed when it passes its limits."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        _compare_and_exit(compare, request, write_end)
    os.close(write_end)
    readable, _, _ = select.select([read_end], [], [], request["seconds"])
    verdict = os.read(read_end, 64).decode() if readable else TIMEOUT
    os.close(read_end)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return verdict or _verdict_of_death(status)


def _verdict_of_death(status: int) -> str:
    """What a child died of that wrote no verdict: its own clock, or anything else."""
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (
        signal.SIGALRM,
        signal.SIGPROF,
        signal.SIGXCPU,
    ):
        return TIMEOUT
    return CRASH


def _compare_and_exit(
    compare: Callable[[str, str], str], request: dict[str, Any], write_end: int
) -> NoReturn:
    verdict = CRASH
    try:
        _set_limits(request)
        verdict = compare(request["gold"], request["prediction"])
    except MemoryError:
        verdict = MEMORY
    except RecursionError:
        verdict = UNREADABLE
    finally:
        os.write(write_end, verdict.encode())
        os._exit(0)


def _set_limits(request: dict[str, Any]) -> None:
    """Silence, no files, no core, and own clocks that also run when the parent is gone."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    for clock, alarm, seconds in (
        (signal.ITIMER_PROF, signal.SIGPROF, request["cpu_seconds"]),
        (signal.ITIMER_REAL, signal.SIGALRM, request["seconds"] + 1),
    ):
        signal.signal(alarm, signal.SIG_DFL)  # which ends the process, in C code too
        signal.setitimer(clock, seconds)
    for kind, amount in (
        (resource.RLIMIT_AS, request["bytes"]),
        (resource.RLIMIT_CPU, math.ceil(request["cpu_seconds"]) + 1),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        most = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
        resource.setrlimit(kind, (most, most))
