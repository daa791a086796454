"""One named data set from members of the corpus: union, length filter, seeded share, counts."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np

from frontload.data_tools.disk.files import replacing
from frontload.data_tools.disk.seeds import permutation
from frontload.data_tools.document import (
    BaseText,
    Conversation,
    Row,
    nearest_name,
    read_rows,
    row_line,
    training_texts,
)
from frontload.data_tools.render import has_special_token
from frontload.data_tools.tokenizer import TextTokenizer
from frontload.recipes.artifact import CORPUS_SETS, corpus_set
from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import Mix

FILTERED_MEMBER = "ldq"  # Front-Loading Reasoning, section 4: ALF is the long answers of LDQ
BATCH_ROWS = 2048


@dataclass(frozen=True, kw_only=True)
class RowKind:
    """What a composition tells rows apart by."""

    domain: str
    family: str
    member: str


@dataclass(kw_only=True)
class Composition:
    """What a curated set is made of. Counts of rows and tokens, and of drops by reason."""

    rows: int = 0
    tokens: int = 0
    rows_by_domain: Counter[str] = field(default_factory=Counter)
    tokens_by_domain: Counter[str] = field(default_factory=Counter)
    rows_by_family: Counter[str] = field(default_factory=Counter)
    tokens_by_family: Counter[str] = field(default_factory=Counter)
    rows_by_member: Counter[str] = field(default_factory=Counter)
    tokens_by_member: Counter[str] = field(default_factory=Counter)
    answer_tokens: Counter[int] = field(default_factory=Counter)  # power of two above -> rows
    dropped: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row, *, member: str, lengths: tuple[int, ...]) -> None:
        """Counts one kept row; `lengths` are the tokens of its texts."""
        kind = RowKind(domain="base", family="base", member=member)
        if isinstance(row, Conversation):
            kind = RowKind(domain=row.domain, family=row.family, member=member)
            self.answer_tokens[histogram_bound(answer_tokens(lengths))] += 1
        self.count(kind, rows=1, tokens=sum(lengths))

    def count(self, kind: "RowKind", *, rows: int, tokens: int) -> None:
        """Counts rows of one kind, with the tokens that they have together."""
        self.rows += rows
        self.tokens += tokens
        for counts, name in (
            (self.rows_by_domain, kind.domain),
            (self.rows_by_family, kind.family),
            (self.rows_by_member, kind.member),
        ):
            counts[name] += rows
        for counts, name in (
            (self.tokens_by_domain, kind.domain),
            (self.tokens_by_family, kind.family),
            (self.tokens_by_member, kind.member),
        ):
            counts[name] += tokens

    def to_json(self, name: str) -> dict[str, Any]:
        return {
            "format": 1,
            "name": name,
            "rows": self.rows,
            "tokens": self.tokens,
            "domains": _table(self.rows_by_domain, self.tokens_by_domain),
            "families": _table(self.rows_by_family, self.tokens_by_family),
            "members": _table(self.rows_by_member, self.tokens_by_member),
            "answer_tokens_histogram": [
                {"at_most": bound, "rows": self.answer_tokens[bound]}
                for bound in sorted(self.answer_tokens)
            ],
            "dropped": dict(self.dropped),
        }


def _table(rows: Counter[str], tokens: Counter[str]) -> dict[str, dict[str, int]]:
    return {name: {"rows": rows[name], "tokens": tokens[name]} for name in rows}


def answer_tokens(lengths: tuple[int, ...]) -> int:
    """Tokens of trace and answer together; the markers around them are not counted."""
    _, trace, answer = lengths
    return trace + answer


def histogram_bound(tokens: int) -> int:
    """The power of two that an answer of this length has at most."""
    return 1 << max(tokens - 1, 0).bit_length()


def is_longer(tokens: Any, threshold: int) -> Any:
    """Whether answers (one length, or an array) are longer than the threshold: strictly."""
    return tokens > threshold


def drawn_rows(num_rows: int, share: float, *, seed: int, member: str) -> np.ndarray:
    """bool [num_rows]: the seeded share of a member's rows, the nearest whole number of them."""
    if share == 1.0:
        return np.ones(num_rows, dtype=bool)
    is_drawn = np.zeros(num_rows, dtype=bool)
    shuffled = permutation(num_rows, seed, "share", member)
    is_drawn[shuffled[: round(share * num_rows)]] = True
    return is_drawn


def check_mix(recipe: Mix, corpus: Path) -> None:
    """Refuses a mix that its corpus cannot make.

    Raises: RecipeError naming the field and the nearest valid name.
    """
    present = [name for name in CORPUS_SETS if corpus_set(corpus, name).is_file()]
    if not recipe.members:
        raise RecipeError(
            f"mix {recipe.name}: members",
            found="no member",
            rule="a mix is the union of one or more corpus sets",
            do=f"name some of {', '.join(present)}",
        )
    for where, names in (("members", recipe.members), ("share_of_member", recipe.share_of_member)):
        allowed = present if where == "members" else recipe.members
        for name in names:
            if name not in allowed:
                raise RecipeError(
                    f"mix {recipe.name}: {where}",
                    found=f"{name!r}{nearest_name(name, allowed)}",
                    rule=f"it names sets of this {'corpus' if where == 'members' else 'mix'}:"
                    f" {', '.join(allowed)}",
                    do="correct the name",
                )
    if len(set(recipe.members)) != len(recipe.members):
        raise RecipeError(
            f"mix {recipe.name}: members",
            found=", ".join(recipe.members),
            rule="a union names each set once",
            do="remove the repeated name; a Window repeats data by its tokens",
        )
    for name, share in recipe.share_of_member.items():
        if not 0.0 < share <= 1.0:
            raise RecipeError(
                f"mix {recipe.name}: share_of_member.{name}",
                found=str(share),
                rule="a share is above 0 and at most 1",
                do="write the share of rows to keep",
            )
    if recipe.min_answer_tokens and FILTERED_MEMBER not in recipe.members:
        raise RecipeError(
            f"mix {recipe.name}: min_answer_tokens",
            found=f"{recipe.min_answer_tokens} with members {', '.join(recipe.members)}",
            rule=f"the length filter keeps long answers of {FILTERED_MEMBER} (set ALF)",
            do=f"write 0, or add {FILTERED_MEMBER} to the members",
        )


def write_documents(
    recipe: Mix, corpus: Path, *, tokenizer: TextTokenizer, file: Path
) -> Composition:
    """Writes the mix's rows, member by member in the corpus's order, and counts them.

    The share of a member is drawn from all of its rows, before the length filter.

    Raises: RecipeError when nothing is left.
    """
    check_mix(recipe, corpus)
    composition = Composition()
    with replacing(file, "w") as stream:
        for member in recipe.members:
            rows = _drawn(recipe, corpus_set(corpus, member), member=member)
            for kept, row in _kept(recipe, rows, member=member, tokenizer=tokenizer):
                if isinstance(kept, str):
                    composition.dropped[f"{member}: {kept}"] += 1
                    continue
                composition.add(row, member=member, lengths=kept)
                stream.write(row_line(row))
        if composition.rows == 0:
            raise RecipeError(
                f"mix {recipe.name}",
                found=f"no row left; dropped {dict(composition.dropped)}",
                rule="a mix holds at least one row",
                do="lower min_answer_tokens, raise the share, or name a larger set",
            )
    return composition


def _drawn(recipe: Mix, file: Path, *, member: str) -> Iterator[tuple[bool, Row]]:
    share = recipe.share_of_member.get(member, 1.0)
    if share == 1.0:
        yield from ((True, row) for row in read_rows(file))
        return
    num_rows = sum(1 for _ in read_rows(file))
    is_drawn = drawn_rows(num_rows, share, seed=recipe.seed, member=member)
    yield from ((bool(drawn), row) for drawn, row in zip(is_drawn, read_rows(file), strict=True))


def _kept(
    recipe: Mix, rows: Iterator[tuple[bool, Row]], *, member: str, tokenizer: TextTokenizer
) -> Iterator[tuple[str | tuple[int, ...], Row]]:
    """Yields (reason of the drop, row) or (tokens of each text, row)."""
    for chunk in batched(rows, BATCH_ROWS):
        texts = [text for _, row in chunk for text in training_texts(row)]
        lengths = iter([len(ids) for ids in tokenizer.encode_batch(texts)])
        for drawn, row in chunk:
            own = tuple(next(lengths) for _ in training_texts(row))
            reason = None if drawn else "not in the drawn share"
            yield reason or _drop_reason(recipe, row, member=member, lengths=own) or own, row


def _drop_reason(recipe: Mix, row: Row, *, member: str, lengths: tuple[int, ...]) -> str | None:
    if any(has_special_token(text) for text in training_texts(row)):
        return "spells a special token"
    if isinstance(row, BaseText):
        return None if lengths[0] else "empty text"
    if not lengths[0]:
        return "empty question"
    if not lengths[2]:
        return "empty answer"
    is_filtered = member == FILTERED_MEMBER and recipe.min_answer_tokens > 0
    if is_filtered and not is_longer(answer_tokens(lengths), recipe.min_answer_tokens):
        return f"answer of {recipe.min_answer_tokens} tokens or fewer"
    return None
