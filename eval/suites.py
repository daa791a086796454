"""Evaluation items as typed rows, and which of them a suite asks. No model, no scores."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.data_tools.text.document import Conversation, read_objects, require_text
from frontload.recipes.errors import ArtifactError, RecipeError

CATEGORIES: dict[str, tuple[str, ...]] = {
    "base": ("math", "science", "code", "gpr"),  # Front-Loading Reasoning, Table 1
    "sft": ("math", "science", "code", "ins"),  # Front-Loading Reasoning, Table 2
}
"""Suite -> the categories whose mean is the paper's Average."""

CELL_PREFIX = {"base": "pt", "sft": "sft"}
"""Suite -> the prefix of its metrics in claims.json."""

INSTRUCTION_CATEGORY = "ins"  # not among the 8 benchmarks of the paper's Table 3


@dataclass(frozen=True, kw_only=True)
class GenerateItem:
    """One question answered by sampling from a chat model; graded by its final answer."""

    id: str
    benchmark: str
    category: str
    family: str
    question: str
    answer: str
    trace: str
    inside_shq: bool
    hard: bool


@dataclass(frozen=True, kw_only=True)
class ChoiceItem:
    """One context with options; the model's answer is the option of highest log-likelihood."""

    id: str
    benchmark: str
    category: str
    context: str
    options: tuple[str, ...]
    gold: int


@dataclass(frozen=True, kw_only=True)
class FewShotItem:
    """One question after worked examples, answered by greedy generation of a base model."""

    id: str
    benchmark: str
    category: str
    family: str
    question: str
    answer: str
    exemplars: tuple[Conversation, ...]
    inside_shq: bool


Item = GenerateItem | ChoiceItem | FewShotItem


@dataclass(frozen=True, kw_only=True)
class HeldoutDocument:
    """One gold worked answer whose question was never trained on."""

    id: str
    question: str
    trace: str
    answer: str
    family: str
    domain: str
    inside_shq: bool

    def conversation(self) -> Conversation:
        """The document as a training row, for rendering."""
        return Conversation(
            id=self.id,
            question=self.question,
            trace=self.trace,
            answer=self.answer,
            family=self.family,
            domain=self.domain,
        )


def read_items(path: Path) -> list[Item]:
    """Reads the evaluation items of a corpus.

    Raises: ArtifactError naming file, line and field.
    """
    items = [_item(row, where=f"{path}:{number}") for number, row in read_objects(path)]
    seen: dict[str, int] = {}
    for place, item in enumerate(items):
        if item.id in seen:
            raise ArtifactError(
                f"{path}: item {item.id!r}",
                found=f"rows {seen[item.id] + 1} and {place + 1} share the id",
                rule="an item id names one item",
                do="build the corpus again",
            )
        seen[item.id] = place
    return items


def read_heldout(path: Path) -> list[HeldoutDocument]:
    """Reads the held-out gold traces of a corpus.

    Raises: ArtifactError naming file, line and field.
    """
    return [_heldout(row, where=f"{path}:{number}") for number, row in read_objects(path)]


def items_of_suite(items: list[Item], suite: str) -> list[Item]:
    """The items a suite asks, in file order.

    Raises: RecipeError for a suite that does not exist.
    """
    if suite not in CATEGORIES:
        raise RecipeError(
            f"evaluate.suite = {suite!r}",
            found="no suite of this name",
            rule=f"a suite is one of {', '.join(CATEGORIES)}",
            do="write base for a pretrained model, sft for a fine-tuned one",
        )
    if suite == "base":
        return [item for item in items if not isinstance(item, GenerateItem)]
    return [item for item in items if isinstance(item, GenerateItem)]


def first_of_benchmarks(items: list[Item], count: int) -> list[Item]:
    """The first `count` items of each benchmark, in file order; all of them for 0."""
    seen: Counter[str] = Counter()
    kept = []
    for item in items:
        seen[item.benchmark] += 1
        if not count or seen[item.benchmark] <= count:
            kept.append(item)
    return kept


def _item(row: dict[str, Any], *, where: str) -> Item:
    kind = _text(row, "kind", where)
    readers = {"generate": _generate, "choice": _choice, "few_shot": _few_shot}
    if kind not in readers:
        raise ArtifactError(
            f"{where}: kind",
            found=repr(kind),
            rule=f"an item's kind is one of {', '.join(readers)}",
            do="build the corpus again with this version",
        )
    return readers[kind](row, where)


def _generate(row: dict[str, Any], where: str) -> GenerateItem:
    names = ("id", "benchmark", "category", "family", "question", "answer", "trace")
    return GenerateItem(
        **{name: _text(row, name, where) for name in names},
        inside_shq=_flag(row, "inside_shq", where),
        hard=_flag(row, "hard", where),
    )


def _choice(row: dict[str, Any], where: str) -> ChoiceItem:
    options, gold = row.get("options"), row.get("gold")
    if not isinstance(options, list) or not all(isinstance(text, str) for text in options):
        raise _wrong(where, "options", options, "options is a list of texts")
    if not isinstance(gold, int) or isinstance(gold, bool) or not 0 <= gold < len(options):
        raise _wrong(
            where, "gold", gold, f"gold is the number of an option, 0 to {len(options) - 1}"
        )
    names = ("id", "benchmark", "category", "context")
    texts = {name: _text(row, name, where) for name in names}
    return ChoiceItem(**texts, options=tuple(options), gold=gold)


def _few_shot(row: dict[str, Any], where: str) -> FewShotItem:
    exemplars = row.get("exemplars")
    if not isinstance(exemplars, list) or not all(isinstance(one, dict) for one in exemplars):
        raise _wrong(where, "exemplars", exemplars, "exemplars is a list of worked questions")
    names = ("id", "benchmark", "category", "family", "question", "answer")
    texts = {name: _text(row, name, where) for name in names}
    return FewShotItem(
        **texts,
        exemplars=tuple(_exemplars(exemplars, item_id=texts["id"], where=where)),
        inside_shq=_flag(row, "inside_shq", where),
    )


def _exemplars(rows: list[dict[str, Any]], *, item_id: str, where: str) -> Iterator[Conversation]:
    for place, row in enumerate(rows):
        here = f"{where}: exemplars[{place}]"
        yield Conversation(
            id=f"{item_id}/exemplar-{place}",
            question=_text(row, "question", here),
            trace=_text(row, "trace", here),
            answer=_text(row, "answer", here),
            family="",
            domain="",
        )


def _heldout(row: dict[str, Any], *, where: str) -> HeldoutDocument:
    names = ("id", "question", "trace", "answer", "family", "domain")
    texts = {name: _text(row, name, where) for name in names}
    return HeldoutDocument(**texts, inside_shq=_flag(row, "inside_shq", where))


def _text(row: dict[str, Any], name: str, where: str) -> str:
    return require_text(row, name, where=where)


def _flag(row: dict[str, Any], name: str, where: str) -> bool:
    value = row.get(name)
    if not isinstance(value, bool):
        raise _wrong(where, name, value, f"{name} is true or false")
    return value


def _wrong(where: str, name: str, value: object, rule: str) -> ArtifactError:
    return ArtifactError(
        f"{where}: {name}",
        found="no such field" if value is None else repr(value)[:80],
        rule=rule,
        do="build the corpus again with this version",
    )
