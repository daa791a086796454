"""What every process of the suite does once, whatever tests it runs."""

import gc
from collections.abc import Generator

import pytest


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
