"""What every process of the suite does once, whatever tests it runs."""

import gc
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

# The same examples every time: of a fixed seed, with no folder of earlier failures and no clock.
settings.register_profile(
    "test",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("explore", settings.get_profile("test"), derandomize=False)
settings.load_profile("test")


def pytest_configure(config: pytest.Config) -> None:
    """Draws no constants of our modules but in `make explore`.

    What is drawn would else depend on which modules were imported so far, so on the files that a
    worker got. hypothesis has no setting for it: hypothesis 6.170 providers.py:325.
    """
    if config.getoption("hypothesis_profile") != "explore":
        providers._get_local_constants = Constants


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """No look for garbage while torch, Megatron and veRL are imported: a tenth of that work."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Lets collections pass over what is imported by now, which stays to the end.

    Else each of them, and each child of a test that forks, walks and copies the objects of torch
    and of everything else that some test of the suite imports.
    """
    gc.freeze()
