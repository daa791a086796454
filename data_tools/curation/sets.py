"""Which rows are in which set: unions, lengths, duplicates, answers a question, held-out questions.

A set is a mask over the rows of the table; nothing is read or written here.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from frontload.data_tools.curation.clusters import NearClusters, equal_heads
from frontload.data_tools.curation.columns import (
    DOCUMENT,
    QUESTION,
    RowTable,
    band_column,
    signature,
)
from frontload.data_tools.disk.seeds import permutation, stream_bits
from frontload.data_tools.text.words import mixed
from frontload.recipes.runs.curation import CuratedSet, Curation


@dataclass(frozen=True, kw_only=True)
class Removal:
    """Rows that a set lost for one reason; each duplicate with the row that was kept for it."""

    reason: str
    rows: np.ndarray
    kept_instead: np.ndarray | None = None


@dataclass(kw_only=True)
class ChosenSet:
    """The rows of one set."""

    name: str
    is_member: np.ndarray  # bool [rows of the table], held-out rows not among them
    is_heldout: np.ndarray
    removals: list[Removal] = field(default_factory=list)
    near: dict[str, dict[str, int]] = field(default_factory=dict)  # text -> counts of the search

    def dropped(self, sources: np.ndarray, names: list[str]) -> Counter[str]:
        """'source: reason' -> rows."""
        counts: Counter[str] = Counter()
        for removal in self.removals:
            for code, number in enumerate(np.bincount(sources[removal.rows])):
                if number:
                    counts[f"{names[code]}: {removal.reason}"] += int(number)
        return counts


def is_longer(tokens: np.ndarray, threshold: int) -> np.ndarray:
    """Whether answers are longer than the threshold: strictly."""
    return tokens > threshold


def drawn_rows(num_rows: int, part: tuple[float, ...], *, seed: int, member: str) -> np.ndarray:
    """bool [num_rows]: the part [from, to) of a member's seeded order, to the nearest row.

    Parts that tile [0, 1) hold every row once; a share is the part that begins at 0.
    """
    if part == (0.0, 1.0):
        return np.ones(num_rows, dtype=bool)
    is_drawn = np.zeros(num_rows, dtype=bool)
    first, last = (round(edge * num_rows) for edge in part)
    is_drawn[permutation(num_rows, seed, "share", member)[first:last]] = True
    return is_drawn


def near_heads(table: RowTable, rows: np.ndarray, text: str) -> tuple[np.ndarray, NearClusters]:
    """int64 [n]: for each of `rows` (ascending), the place of the first one that is near to it."""
    rules = table.layout.rules
    clusters = NearClusters(
        len(rows),
        threshold=rules.threshold,
        gather=lambda places: table.column(signature(text), rows[places]),
    )
    is_all = len(rows) == table.num_rows
    for band in range(rules.bands):
        keys = table.column(band_column(text, band))
        clusters.add_band(keys if is_all else keys[rows])
    return clusters.heads(), clusters


def choose_sets(recipe: Curation, table: RowTable) -> dict[str, ChosenSet]:
    """Every set of the recipe, in its order."""
    sources, names = table.source_of_row()
    heldout = _heldout_rows(recipe, table)
    chosen: dict[str, ChosenSet] = {}
    for name, each in recipe.sets.items():
        is_member = np.zeros(table.num_rows, dtype=bool)
        left: list[np.ndarray] = []
        for member in each.members:
            if member in chosen:
                own = chosen[member].is_member | chosen[member].is_heldout
            else:
                own = sources == (names.index(member) if member in names else -1)
            share = (0.0, each.share_of_member.get(member, 1.0))
            part = each.part_of_member.get(member, share)
            rows = np.flatnonzero(own)
            drawn = drawn_rows(len(rows), part, seed=recipe.seed, member=member)
            is_member[rows[drawn]] = True
            left.append(rows[~drawn])
        found = ChosenSet(name=name, is_member=is_member, is_heldout=heldout)
        for rows in left:
            _drop(found, rows, reason="not in the drawn share")
        _narrow(found, each, recipe=recipe, table=table)
        found.is_heldout = found.is_member & heldout
        found.is_member &= ~heldout
        chosen[name] = found
    return chosen


def _narrow(found: ChosenSet, rules: CuratedSet, *, recipe: Curation, table: RowTable) -> None:
    if rules.answer_tokens_above:
        _drop_short_answers(found, rules, recipe=recipe, table=table)
    if "exact" in rules.duplicates:
        rows = np.flatnonzero(found.is_member)
        heads = equal_heads(table.column("exact")[rows])
        _drop_others(found, rows, heads=heads, reason="exact duplicate")
    if "near" in rules.duplicates:
        rows = np.flatnonzero(found.is_member)
        heads, clusters = near_heads(table, rows, DOCUMENT)
        found.near[DOCUMENT] = _counts(clusters)
        _drop_others(found, rows, heads=heads, reason="near duplicate")
    if "near_question" in rules.duplicates:
        _drop_near_questions(found, table)
    if rules.answers_per_question:
        rows = np.flatnonzero(found.is_member)
        place = places_in_groups(table.column("question")[rows])
        _drop(found, rows[place >= rules.answers_per_question], reason="question answered before")


def _drop_short_answers(
    found: ChosenSet, rules: CuratedSet, *, recipe: Curation, table: RowTable
) -> None:
    """Keeps answers strictly longer than the threshold; what has no answer is told apart."""
    rows = np.flatnonzero(found.is_member)
    lengths = table.column(f"answer_{recipe.multi_turn_answer}")[rows]
    _drop(found, rows[lengths < 0], reason="answer not told apart from its question")
    short = (lengths >= 0) & ~is_longer(lengths, rules.answer_tokens_above)
    _drop(found, rows[short], reason=f"answer of {rules.answer_tokens_above} tokens or fewer")


def _drop_near_questions(found: ChosenSet, table: RowTable) -> None:
    """Of near questions the first is kept, with all of its answers."""
    rows = np.flatnonzero(found.is_member)
    first_of_question = equal_heads(table.column("question")[rows])
    questions = np.unique(first_of_question)
    heads, clusters = near_heads(table, rows[questions], QUESTION)
    found.near[QUESTION] = _counts(clusters)
    head_of_row = questions[heads][np.searchsorted(questions, first_of_question)]
    is_other = head_of_row != first_of_question
    _drop(
        found,
        rows[is_other],
        reason="near duplicate of a question",
        kept_instead=rows[head_of_row[is_other]],
    )


def _drop_others(found: ChosenSet, rows: np.ndarray, *, heads: np.ndarray, reason: str) -> None:
    is_other = heads != np.arange(len(rows))
    _drop(found, rows[is_other], reason=reason, kept_instead=rows[heads[is_other]])


def _drop(
    found: ChosenSet, rows: np.ndarray, *, reason: str, kept_instead: np.ndarray | None = None
) -> None:
    if len(rows):
        found.is_member[rows] = False
        found.removals.append(Removal(reason=reason, rows=rows, kept_instead=kept_instead))


def _counts(clusters: NearClusters) -> dict[str, int]:
    return {
        "pairs_compared": clusters.pairs_compared,
        "pairs_joined": clusters.pairs_joined,
        "rows_not_compared": clusters.rows_not_compared,
    }


def places_in_groups(keys: np.ndarray) -> np.ndarray:
    """int64 [n]: how many rows with an equal key stand before each row."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))[: len(keys)]
    sizes = np.diff(np.append(starts, len(keys)))
    places = np.empty(len(keys), dtype=np.int64)
    places[order] = np.arange(len(keys)) - np.repeat(starts, sizes)
    return places


def _heldout_rows(recipe: Curation, table: RowTable) -> np.ndarray:
    """The rows of held-out questions: by question and seed, so all answers to one go together."""
    if not recipe.heldout_share:
        return np.zeros(table.num_rows, dtype=bool)
    salt = stream_bits(recipe.seed, "heldout").random_raw(1)
    values = mixed(table.column("question") ^ salt)
    return (values >> np.uint64(11)).astype(np.float64) / 2**53 < recipe.heldout_share
