"""Row filters: an example in, None to keep it or the drop with its reason."""

from collections.abc import Callable, Sequence

from frontload.data_tools.text.example import Drop, Example
from frontload.data_tools.text.render import has_special_token

Filter = Callable[[Example], Drop | None]


def special_token_filter(example: Example) -> Drop | None:
    """Content never spells a special token of the chat template: it would pose as structure."""
    if has_special_token(example.document):
        return Drop(reason="spells a special token")
    return None


ROW_FILTERS: tuple[Filter, ...] = (special_token_filter,)


def first_drop(example: Example, filters: Sequence[Filter] = ROW_FILTERS) -> Drop | None:
    """The first filter's drop, or None when all keep the example."""
    return next((drop for each in filters if (drop := each(example)) is not None), None)
