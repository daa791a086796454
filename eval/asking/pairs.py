"""A context and its continuation as ids: where one ends and the other begins."""

from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.recipes.errors import RecipeError


def encode_pair(
    tokenizer: TextTokenizer, context: str, continuation: str, *, end_token: int
) -> tuple[list[int], list[int]]:
    """Ids of a context and of the continuation after it; neither is empty.

    White space at the end of a context goes to the continuation, as in lm-eval. Without any other
    text the token that ends a text is the context.

    Differs: where a token spans the join, the continuation is encoded alone. lm-eval cuts the ids
    of the whole there at the length of the context's, which leaves out a part of the continuation,
    or all of it: a sum of nothing, 0.0, that no real option can beat.

    Raises: RecipeError for a continuation without a token.
    """
    bare = context.rstrip()
    rest = context[len(bare) :] + continuation
    before = tokenizer.encode(bare)
    after = tokenizer.encode(rest)
    if before:
        whole = tokenizer.encode(bare + rest)
        if whole[: len(before)] == before:
            after = whole[len(before) :]
    elif after[:1] == [end_token]:  # the text itself begins with the prefix
        before, after = after[:1], after[1:]
    else:
        before = [end_token]
    if not after:
        raise RecipeError(
            "log-likelihood of a continuation",
            found=f"{continuation!r} after {context[-40:]!r} has no token",
            rule="a continuation is scored by its tokens; without one it would score 0.0, more "
            "than any other",
            do="leave the row out, or give the option a text",
        )
    return before, after
