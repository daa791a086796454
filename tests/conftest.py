"""Order of the suite: the longest tests begin first, so that no worker ends with one alone."""

import pytest

FIRST = "test_rl_run"  # minutes, and cannot be divided


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts `slow` tests to the front; the order within a module stays."""
    items.sort(
        key=lambda item: (
            FIRST not in item.nodeid,
            item.get_closest_marker("slow") is None,
        )
    )
