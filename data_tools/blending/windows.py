"""Windows of a phase: what they may not be, and which windows earlier phases have read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from frontload.data_tools.raw.parse import nearest_name
from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import Blend, Window


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A window that some phase reads of one source's stream: what later phases must not touch."""

    phase: str
    source: str
    start_tokens: int
    tokens: int
    document_tokens: int  # of one epoch
    num_documents: int
    seed: int
    index_sha256: str  # of the .idx, so that a stream is never continued with other documents

    @property
    def end_tokens(self) -> int:
        return self.start_tokens + self.tokens


def check_blend(recipe: Blend, document_tokens: Mapping[str, int]) -> None:
    """Refuses windows that the sources cannot give.

    `document_tokens` has the tokens of one epoch of every source that is an input.

    Raises: RecipeError, with the number of tokens that would fit.
    """
    names = [window.source for window in recipe.windows]
    if not names or len(set(names)) != len(names):
        raise RecipeError(
            f"blend {recipe.phase}: windows",
            found=", ".join(names) or "no window",
            rule="a phase has one window for each of its sources",
            do="write one window a source",
        )
    for window in recipe.windows:
        where = f"blend {recipe.phase}: window of {window.source}"
        for known, what in ((document_tokens, "input"), (recipe.max_epochs, "max_epochs")):
            if window.source not in known:
                raise RecipeError(
                    where,
                    found=f"no {what} of that name{nearest_name(window.source, known)}",
                    rule="a window's source is an index input and has a max_epochs",
                    do=f"name one of {', '.join(sorted(known)) or 'none'}, or add {window.source}",
                )
        if window.tokens <= 0 or window.tokens % recipe.sequence_tokens or window.start_tokens < 0:
            down = window.tokens // recipe.sequence_tokens * recipe.sequence_tokens
            raise RecipeError(
                where,
                found=f"{window.tokens} tokens from {window.start_tokens}",
                rule=f"tokens are a positive multiple of sequence_tokens {recipe.sequence_tokens}",
                do=f"write {max(down, recipe.sequence_tokens)}",
            )
        _check_window_fits(recipe, window, where=where, one_epoch=document_tokens[window.source])


def _check_window_fits(recipe: Blend, window: Window, *, where: str, one_epoch: int) -> None:
    if one_epoch == 0:
        raise RecipeError(
            where,
            found="an index without tokens",
            rule="a source holds at least one token",
            do="name another source",
        )
    max_epochs = recipe.max_epochs[window.source]
    limit = int(Fraction(max_epochs) * one_epoch)
    if window.start_tokens + window.tokens <= limit:
        return
    free = max(limit - window.start_tokens, 0)
    fits = free // recipe.sequence_tokens * recipe.sequence_tokens
    needed = Fraction(window.start_tokens + window.tokens, one_epoch)
    raise RecipeError(
        where,
        found=f"{window.tokens} tokens from {window.start_tokens} end at epoch {float(needed):.3f}"
        f" of {one_epoch} tokens",
        rule=f"max_epochs.{window.source} is {max_epochs:g}: {limit} tokens, {fits} of them left",
        do=f"write at most {fits} tokens, raise max_epochs to {float(needed):.3f}, or make the"
        " source larger",
    )


def check_disjoint(readings: Sequence[Reading], earlier: Sequence[Reading]) -> None:
    """Refuses windows that an earlier phase already read, or that continue another stream.

    Raises: RecipeError with the first free start_tokens.
    """
    by_source: dict[str, list[Reading]] = {}
    for past in earlier:
        by_source.setdefault(past.source, []).append(past)
    for reading in readings:
        same_source = by_source.get(reading.source, [])
        free_from = max((past.end_tokens for past in same_source), default=0)
        for past in same_source:
            is_overlapping = (
                reading.start_tokens < past.end_tokens and past.start_tokens < reading.end_tokens
            )
            if is_overlapping:
                raise RecipeError(
                    f"blend {reading.phase}: window of {reading.source}",
                    found=f"it starts at {reading.start_tokens}; phase {past.phase} read"
                    f" {past.start_tokens} to {past.end_tokens}",
                    rule="phases read disjoint windows of a stream",
                    do=f"write start_tokens: {free_from}",
                )
            for what in ("seed", "num_documents", "document_tokens", "index_sha256"):
                was, now = getattr(past, what), getattr(reading, what)
                if was != now:
                    raise RecipeError(
                        f"blend {reading.phase}: stream of {reading.source}",
                        found=f"{what} {now}; phase {past.phase} had {was}",
                        rule="all phases read one stream of a source: same documents, same seed",
                        do="use the same index and seed in every phase",
                    )
