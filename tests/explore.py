"""`make explore`: new examples for the tests that draw theirs, for as long as it is told.

`make test` draws the same examples every time (conftest.py). Here each round has a seed of its own,
and the constants of our modules are among what is drawn. A test that fails is printed with what to
write above it as a case, and is not drawn again.
"""

import argparse
import re
import secrets
import time
from collections.abc import Generator, Iterator

import hypothesis
import pytest

CASE = re.compile(r"Failing test case: \w+\(\n(.*)\)", re.DOTALL)  # as hypothesis words it


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.explore", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, help="of the first round; the next ones count on")
    parser.add_argument("suite", nargs="*", help="what to restrict it to, as pytest takes it")
    asked = parser.parse_args()
    seed = secrets.randbelow(10**9) if asked.seed is None else asked.seed
    explorer = Explorer(seconds=asked.seconds, seed=seed)
    plugins: list[object] = [explorer]
    # hypothesis is imported above, before pytest can rewrite its assertions: no matter
    drawn = [
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
        "-m",
        "hypothesis",
        "--hypothesis-profile=explore",
        "-n",
        "0",
    ]
    return int(pytest.main([*drawn, *asked.suite], plugins=plugins))


class Explorer:
    """Runs what was collected round after round, each with the next seed."""

    def __init__(self, *, seconds: float, seed: int) -> None:
        self._seconds, self._seed = seconds, seed
        self._found: set[str] = set()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        end = time.monotonic() + self._seconds
        rounds = 0
        while (left := self._left(session)) and time.monotonic() < end:
            for item, behind in zip(left, [*left[1:], left[0]], strict=True):
                if time.monotonic() >= end:
                    break
                hypothesis.seed(self._seed + rounds)(getattr(item, "obj"))  # noqa: B009
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=behind)
            rounds += 1
        print(f"\n{rounds} rounds from SEED={self._seed}, {len(self._found)} tests failed")
        return True

    def _left(self, session: pytest.Session) -> list[pytest.Item]:
        return [item for item in session.items if item.nodeid not in self._found]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.failed:
            self._found.add(item.nodeid)
            seed = getattr(getattr(item, "obj"), "_hypothesis_internal_use_seed")  # noqa: B009
            print(f"\n{item.nodeid}: fails; again: make explore SEED={seed} SUITE={item.nodeid}")
            error = None if call.excinfo is None else call.excinfo.value
            for case in [] if error is None else cases_of(error):
                print(f"to add above @given:\n@example(\n{case})")
        return report


def cases_of(error: BaseException) -> Iterator[str]:
    """The arguments of each example that fails, as they are typed."""
    for note in getattr(error, "__notes__", []):
        if found := CASE.search(note):
            yield found[1]
    for one in error.exceptions if isinstance(error, BaseExceptionGroup) else []:
        yield from cases_of(one)


if __name__ == "__main__":
    raise SystemExit(main())
