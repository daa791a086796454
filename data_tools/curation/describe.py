"""What a set is made of, as JSON and as tables to print. Counts are exact; shares are of tokens."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from frontload.data_tools.curation.columns import RowTable
from frontload.data_tools.curation.sets import ChosenSet
from frontload.recipes.runs.curation import Curation

BAR = 32  # characters of the longest bar of a histogram


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

    def count(self, kind: RowKind, *, rows: int, tokens: int) -> None:
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
            "domains": _counted(self.rows_by_domain, self.tokens_by_domain),
            "families": _counted(self.rows_by_family, self.tokens_by_family),
            "members": _counted(self.rows_by_member, self.tokens_by_member),
            "answer_tokens_histogram": [
                {"at_most": bound, "rows": self.answer_tokens[bound]}
                for bound in sorted(self.answer_tokens)
            ],
            "dropped": dict(self.dropped),
        }


def _counted(rows: Counter[str], tokens: Counter[str]) -> dict[str, dict[str, int]]:
    return {name: {"rows": rows[name], "tokens": tokens[name]} for name in rows}


def histogram_bound(tokens: int) -> int:
    """The power of two that an answer of this length has at most."""
    return 1 << max(tokens - 1, 0).bit_length()


def compose(recipe: Curation, chosen: ChosenSet, table: RowTable) -> dict[str, Any]:
    """The composition of one set, in the form of the study's `composition.json` and more."""
    rows = np.flatnonzero(chosen.is_member)
    sources, source_names = table.source_of_row()
    domains, domain_names = table.names("domain")
    families, family_names = table.names("family")
    tokens = table.column("tokens").astype(np.int64)[rows]
    kinds = (sources[rows].astype(np.int64) * len(domain_names) + domains[rows]) * len(
        family_names
    ) + families[rows]
    composition = Composition(dropped=chosen.dropped(sources, source_names))
    unique, kind_of_row = np.unique(kinds, return_inverse=True)
    num_rows = np.bincount(kind_of_row, minlength=len(unique))
    num_tokens = np.zeros(len(unique), dtype=np.int64)
    np.add.at(num_tokens, kind_of_row, tokens)
    for code, count, total in zip(
        unique.tolist(), num_rows.tolist(), num_tokens.tolist(), strict=True
    ):
        rest, family = divmod(code, len(family_names))
        source, domain = divmod(rest, len(domain_names))
        kind = RowKind(
            domain=domain_names[domain], family=family_names[family], member=source_names[source]
        )
        composition.count(kind, rows=count, tokens=total)
    answers = table.column(f"answer_{recipe.multi_turn_answer}")[rows]
    lengths, counts = np.unique(answers[answers >= 0], return_counts=True)
    for length, count in zip(lengths.tolist(), counts.tolist(), strict=True):
        composition.answer_tokens[histogram_bound(length)] += count
    questions = table.column("question")[rows]
    return composition.to_json(chosen.name) | {
        "answers": _spread(answers[answers >= 0]),
        "rows_without_answer": int((answers < 0).sum()),
        "distinct_questions": len(np.unique(questions)),
        "unclosed_think": int(table.column("truncated")[rows].sum()),
        "heldout_rows": int(chosen.is_heldout.sum()),
        "near_search": chosen.near,
    }


def _spread(lengths: np.ndarray) -> dict[str, float]:
    """Mean and quantiles of answer lengths, in tokens."""
    if not len(lengths):
        return {}
    ordered = np.sort(lengths)
    at = {"p10": 0.1, "median": 0.5, "p90": 0.9, "p99": 0.99}
    found = {name: int(ordered[int(share * (len(ordered) - 1))]) for name, share in at.items()}
    return {"mean": round(float(lengths.mean()), 1), **found, "longest": int(ordered[-1])}


def shown_composition(composition: dict[str, Any]) -> str:
    """The composition as lines of text: domains, sources, answer lengths, what was left out."""
    name, rows, tokens = (composition[part] for part in ("name", "rows", "tokens"))
    texts = composition["rows_without_answer"]  # a text has no question: it counts as its own
    what = "questions" if not texts else "texts" if texts == rows else "questions and texts"
    distinct = composition["distinct_questions"]
    lines = [f"{name}: {rows:,} rows, {tokens:,} tokens, {distinct:,} distinct {what}"]
    if composition["heldout_rows"]:
        lines.append(f"  held out: {composition['heldout_rows']:,} rows")
    for title, part in (("domain", "domains"), ("source", "members"), ("family", "families")):
        if part == "domains" or len(composition[part]) > 1:
            lines.extend(_table(title, composition[part], rows=rows, tokens=tokens))
    lines.extend(_histogram(composition))
    for reason, count in sorted(composition["dropped"].items()):
        lines.append(f"  left out  {count:>12,}  {reason}")
    if composition["unclosed_think"]:
        lines.append(f"  flagged   {composition['unclosed_think']:>12,}  <think> is never closed")
    return "\n".join(lines)


def _table(title: str, counts: dict[str, dict[str, int]], *, rows: int, tokens: int) -> list[str]:
    lines = [f"  {title:<28} {'rows':>12} {'share':>7} {'tokens':>15} {'share':>7}"]
    by_tokens = sorted(counts.items(), key=lambda each: (-each[1]["tokens"], each[0]))
    for name, count in by_tokens[:12]:
        lines.append(
            f"  {name[:28]:<28} {count['rows']:>12,} {_percent(count['rows'], rows)}"
            f" {count['tokens']:>15,} {_percent(count['tokens'], tokens)}"
        )
    if len(by_tokens) > 12:
        lines.append(f"  and {len(by_tokens) - 12} more, in compositions.json")
    return lines


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:6.1f}%" if whole else f"{'-':>7}"


def _histogram(composition: dict[str, Any]) -> list[str]:
    """Answer lengths by powers of two."""
    bars = composition["answer_tokens_histogram"]
    if not bars:
        return ["  no row has an answer that is told apart from its question"]
    highest = max(bar["rows"] for bar in bars)
    answers = composition["answers"]
    lines = [
        f"  answer tokens: mean {answers['mean']:,}, median {answers['median']:,},"
        f" p99 {answers['p99']:,}, longest {answers['longest']:,}"
    ]
    for bar in bars:
        marks = "#" * max(1, round(BAR * bar["rows"] / highest))
        lines.append(f"  {'<= ' + format(bar['at_most'], ','):>11} {bar['rows']:>12,}  {marks}")
    return lines


def shown_removals(report: dict[str, Any]) -> str:
    """The removal report as lines of text, one a benchmark and its examples' longest overlap."""
    head = ("items", "too short", "weak", "hit", "rows found", "with answer", "removed")
    lines = [f"  {'benchmark':<20}" + "".join(f"{name:>12}" for name in head)]
    for name, found in report.items():
        counts = ("items", "items_too_short", "items_weak", "items_hit", "rows_found")
        numbers = [found[key] for key in (*counts, "rows_with_answer", "rows_removed")]
        lines.append(f"  {name[:20]:<20}" + "".join(f"{number:>12,}" for number in numbers))
        for example in found["examples"][:1]:
            lines.append(
                f"    e.g. {example['source']} {example['file']}:{example['row']} shares"
                f" {example['overlap_words']} words with {example['item']}"
            )
    return "\n".join(lines)


def shown_overlap(overlap: dict[str, Any]) -> str:
    """One measured overlap as lines of text."""
    lines = [f"overlap of {overlap['first']} and {overlap['second']}"]
    for how in ("same_row", "exact", "near", "question", "near_question"):
        lines.append(f"  {how.replace('_', ' '):<14} " + "; ".join(_shared(overlap, how)))
    return "\n".join(lines)


def _shared(overlap: dict[str, Any], how: str) -> list[str]:
    return [
        f"{part['rows']:,} rows ({part['share_of_tokens']:.2%} of tokens) of {overlap[side]}"
        for side in ("first", "second")
        for part in [overlap[how][f"of_{side}"]]
    ]


def drops_by_source(receipts: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Source -> reason -> rows that are in no set."""
    found: dict[str, Counter[str]] = {}
    for receipt in receipts:
        found.setdefault(receipt["source"], Counter()).update(receipt["dropped"])
    return {source: dict(sorted(counts.items())) for source, counts in found.items()}
