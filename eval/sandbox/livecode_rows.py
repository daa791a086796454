"""LiveCodeBench: from its rows to items; and programs judged by tests that a row of RL carries."""

import base64
import json
import pickletools
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from frontload.eval.sandbox.comparison import LIVECODE_TOLERANCE, is_same_text, is_same_value
from frontload.eval.sandbox.grade import Agreement, ProgramItem
from frontload.eval.sandbox.process import Limits
from frontload.recipes.errors import RecipeError

TEST_SECONDS = 12  # of CPU time for one test: twice LiveCodeBench's 6 s, whose machines are faster
MOST_SECONDS = 120  # of CPU time for all tests of a program; ours
MEMORY_BYTES = 2 << 30  # its largest problems ask for 1 GiB in C++
OPEN_MODULES = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random"),
    *("statistics", "itertools", "functools", "operator", "io", "sys", "json", "builtins"),
    "typing",
)
"""Modules of which LiveCodeBench's checker gives every name to a program, in its order."""
FUNCTIONAL = "functional"  # testtype of tests that call a function
PLAIN_OPCODES = {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP"}
TEXT_OPCODES = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"}


def livecode_preamble() -> str:
    """What LiveCodeBench puts before every program."""
    stars = "".join(f"from {name} import *\n" for name in OPEN_MODULES)
    names = "".join(f"import {name}\n" for name in OPEN_MODULES if name not in _ONLY_STARS)
    return f"{stars}{names}sys.setrecursionlimit(50000)\n\n"


_ONLY_STARS = {"builtins", "typing"}


def read_livecode(rows: Iterable[dict[str, Any]]) -> Iterator[ProgramItem]:
    """The items of rows as LiveCodeBench publishes them (code_generation_lite).

    Raises: RecipeError for a row without a field, or with tests that cannot be read.
    """
    for number, row in enumerate(rows, start=1):
        asked = f"reading row {number} of LiveCodeBench"
        try:
            tests = [*_tests(row["public_test_cases"]), *_tests(row["private_test_cases"])]
            entry = json.loads(row.get("metadata") or "{}").get("func_name")
            if entry is None and any(one["testtype"] == FUNCTIONAL for one in tests):
                raise ValueError("functional tests, and no func_name in metadata")
            inputs, outputs = zip(*((one["input"], one["output"]) for one in tests), strict=True)
            name = str(row.get("question_id", number))
            yield item_of_tests(name, entry=entry, inputs=inputs, outputs=outputs)
        except (KeyError, ValueError, TypeError, zlib.error) as error:
            raise RecipeError(
                asked,
                found=f"{type(error).__name__}: {error}",
                rule="a row has public_test_cases and private_test_cases, each test an input, an "
                "output and a testtype, and metadata with func_name where tests are functional",
                do="take the rows of code_generation_lite, whole",
            ) from error


def _tests(field: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tests as a list, as JSON, or as a JSON text that is pickled, compressed and in base64.

    The pickle is taken apart and never run: it may hold one text and nothing else.
    """
    if isinstance(field, list):
        return field
    if field.lstrip().startswith("["):
        return json.loads(field)
    texts: list[str] = []
    for opcode, argument, _ in pickletools.genops(zlib.decompress(base64.b64decode(field))):
        if opcode.name in TEXT_OPCODES:
            texts.append(str(argument))
        elif opcode.name not in PLAIN_OPCODES:
            raise ValueError(f"the private tests hold the pickle instruction {opcode.name}")
    if len(texts) != 1:
        raise ValueError(f"the private tests hold {len(texts)} texts, not 1")
    return json.loads(texts[0])


def item_of_tests(
    name: str, *, entry: str | None, inputs: Iterable[str], outputs: Iterable[str]
) -> ProgramItem:
    """The item of tests in LiveCodeBench's form, which RL's rows of programs have too.

    With `entry` an input holds an argument in JSON a line, and the output is the value in JSON.
    Without it they are the standard input and the standard output.

    Raises: ValueError for a test that is not in this form.
    """
    given, wanted = list(inputs), list(outputs)
    if not given or len(given) != len(wanted):
        raise ValueError(f"{len(given)} inputs and {len(wanted)} outputs")
    tests: list[Any] = list(given)
    expected: list[Any] = list(wanted)
    if entry is not None:
        tests = [[json.loads(line) for line in text.split("\n")] for text in given]
        expected = [json.loads(text) for text in wanted]

    def is_right(index: int, value: Any, *, tolerance: float) -> bool:
        if entry is None:
            return is_same_text(value, expected[index], tolerance=tolerance)
        plain = list(value) if isinstance(value, tuple) else value  # as LiveCodeBench takes it
        return is_same_value(plain, expected[index], tolerance=tolerance)

    def judge(index: int, value: Any) -> Agreement:
        is_exact = is_right(index, value, tolerance=0.0)
        return Agreement(
            is_right=is_exact or is_right(index, value, tolerance=LIVECODE_TOLERANCE),
            is_exact=is_exact,
        )

    return ProgramItem(
        id=name,
        entry=entry,
        prompt="",
        preamble=livecode_preamble(),
        tests=tuple(tests),
        sizes=tuple(map(len, wanted)),
        num_base=len(tests),
        num_left_out=0,
        limits=Limits(
            cpu_seconds=min(MOST_SECONDS, TEST_SECONDS * len(tests)),
            process_cpu_seconds=TEST_SECONDS if entry is None else 0,
            memory_bytes=MEMORY_BYTES,
        ),
        judge=judge,
    )


def item_of_ground_truth(ground_truth: str) -> ProgramItem:
    """The item of an RL row: JSON with `inputs`, `outputs` and, for a function, `fn_name`.

    Raises: RecipeError for a ground truth that is not in this form.
    """
    try:
        tests = json.loads(ground_truth)
        return item_of_tests(
            "reward", entry=tests.get("fn_name"), inputs=tests["inputs"], outputs=tests["outputs"]
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise RecipeError(
            "rewarding a program",
            found=f"its ground truth is not readable: {type(error).__name__}: {error}",
            rule='the ground truth is JSON: {"inputs": [...], "outputs": [...], "fn_name": NAME}; '
            "fn_name is absent for a program that reads its input",
            do="write the tests of the row in this form",
        ) from error
