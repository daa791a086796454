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

DIGITS = 60  # ours: 2^-80 beside 1 has 24, and sympy goes to 100 before it gives up
SAME_SHARE = 1e-40  # of the larger value; equal expressions agree to about DIGITS

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
    """`compare(gold, prediction)` of math-verify, with its own timeouts off and decimals exact."""
    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)
    # math-verify's own removal of units takes letters of algebra for units: to it 7m and 5ab are 7
    # and 5. grading/number.py has taken units off before.
    normalization = replace(LatexExtractionConfig().normalization_config, units=False)
    config = [LatexExtractionConfig(boxed_match_priority=-1, normalization_config=normalization)]

    def parsed(form: str) -> list[Any]:
        found = parse(f"${form}$", config, fallback_mode="no_fallback", parsing_timeout=None)  # pyright: ignore[reportArgumentType]
        return [with_exact_decimals(one) for one in found]

    def compare(gold: str, prediction: str) -> str:
        gold_parsed, prediction_parsed = parsed(gold), parsed(prediction)
        if not gold_parsed or not prediction_parsed:
            return UNREADABLE
        if differs_at_a_point(gold_parsed[0], prediction_parsed[0]):
            return DIFFERENT
        is_same = verify(
            gold_parsed,
            prediction_parsed,
            numeric_precision=DIGITS,  # what is below it is 0 to math-verify
            allow_set_relation_comp=True,  # x<3 for (-oo,3) as well as the other way round
            timeout_seconds=None,
        )
        return SAME if is_same else DIFFERENT

    return compare


def with_exact_decimals(expression: Any) -> Any:
    """`expression` with each decimal as the fraction that its digits say.

    math-verify compares decimals after six places, so that 1.414214 would be the root of 2. The
    arguments keep their order: those of a tuple would else be sorted like a set's.
    """
    from sympy import Basic, Float, MatrixBase, Rational
    from sympy.core.relational import Relational

    if isinstance(expression, Float):
        return Rational(str(expression))
    if isinstance(expression, MatrixBase):
        return expression.applyfunc(with_exact_decimals)
    if not isinstance(expression, Basic) or not expression.has(Float):
        return expression
    arguments = getattr(expression, "_unsorted_args", expression.args)
    made = [with_exact_decimals(one) for one in arguments]
    if isinstance(expression, Relational):
        return expression.func(*made, evaluate=False)  # 2.5+2=4.5 would become "true"
    return expression.func(*made)


def differs_at_a_point(gold: Any, prediction: Any) -> bool:
    """Whether two expressions have different values at one fixed point.

    Most answers of a model that learns are wrong, and to simplify the difference of two expressions
    that are not equal costs sympy ten times their parsing. A value is compared relative to its
    size, since to math-verify whatever is below 1e-15 is 0. Relations, sets, matrices and single
    symbols, which math-verify compares by other rules than values, are never decided here.
    """
    from sympy import Expr, Rational, Symbol

    if not all(isinstance(one, Expr) and not isinstance(one, Symbol) for one in (gold, prediction)):
        return False
    names = sorted({symbol.name for one in (gold, prediction) for symbol in one.free_symbols})
    # positive, and no special value of any function in use; ours
    point = {name: Rational(7312 + 3171 * number, 10_000) for number, name in enumerate(names)}
    places = [{s: point[s.name] for s in one.free_symbols} for one in (gold, prediction)]
    try:
        first, second = (
            complex(one.evalf(15, subs=place))
            for one, place in zip((gold, prediction), places, strict=True)
        )
        if not (cmath.isfinite(first) and cmath.isfinite(second)):
            return False
        # 15 digits may hold none after a cancellation: only what is far outside of that decides
        if abs(first - second) > 1e-4 * max(1.0, abs(first), abs(second)):
            return True
        values = [
            _parts(one.evalf(DIGITS, subs=place))
            for one, place in zip((gold, prediction), places, strict=True)
        ]
    except (TypeError, ValueError, AttributeError, ArithmeticError):
        return False  # an unknown function, or no value at this point
    size = max(abs(part) for parts in values for part in parts)
    distance = max(abs(one - other) for one, other in zip(*values, strict=True))
    return bool(distance > SAME_SHARE * size)


def _parts(value: Any) -> list[Any]:
    """Real and imaginary part of a number; one without a significant digit is 0.

    sympy returns such a part, of precision 1, where terms cancel to all its digits.
    """
    from sympy import Float

    if not value.is_number:
        raise ValueError
    return [
        Float(0, DIGITS) if isinstance(part, Float) and part._prec == 1 else Float(part, DIGITS)
        for part in value.as_real_imag()
    ]


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
