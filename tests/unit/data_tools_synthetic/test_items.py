"""Evaluation items: right gold answers, fair choices, no duplicates, prompts that fit."""

from collections import Counter

import pytest

from frontload.data_tools.synthetic.families import FAMILIES, HARD_FAMILIES, verify
from frontload.eval.suites import CATEGORIES, items_of_suite, read_heldout, read_items
from frontload.recipes.artifact import corpus_heldout, corpus_items
from frontload.recipes.schema import Synthesis
from tests.unit.data_tools_synthetic.conftest import SHQ_SHARES, Corpus

CONTEXT_TOKENS = 128
MAX_NEW_TOKENS = 64


def test_evaluation_reads_every_item_and_has_every_category(corpus: Corpus) -> None:
    items = read_items(corpus_items(corpus.folder))
    assert len(items) == len(corpus.items)
    for suite, categories in CATEGORIES.items():
        found = {item.category for item in items_of_suite(items, suite)}
        assert found == set(categories)
    assert len(read_heldout(corpus_heldout(corpus.folder))) == len(corpus.heldout)


def test_gold_answers_are_right(corpus: Corpus) -> None:
    for item in (*corpus.kind("generate"), *corpus.kind("few_shot"), *corpus.heldout):
        assert verify(item["family"], item["question"], item["answer"])
    for item in corpus.kind("few_shot"):
        for exemplar in item["exemplars"]:
            assert verify(item["family"], exemplar["question"], exemplar["answer"])


def test_counts_and_levels_are_as_asked(corpus: Corpus, recipe: Synthesis) -> None:
    counts = Counter(item["benchmark"] for item in corpus.kind("generate"))
    for family, (low, high) in ((name, kind.levels) for name, kind in FAMILIES.items()):
        hard = recipe.hard_items_per_family * (family in HARD_FAMILIES)
        assert counts[family] == recipe.items_per_family + hard
        own = [item for item in corpus.kind("generate") if item["benchmark"] == family]
        levels = Counter(item["level"] for item in own)
        assert set(levels) == set(range(low, high + 1))
        assert levels[high] >= recipe.items_per_family // (high - low + 1)
    for item in corpus.kind("generate"):
        assert item["benchmark"] == item["family"]  # hard questions are no vote of their own
        assert item["hard"] == item["id"].startswith("hard_")
        assert item["inside_shq"] == (item["family"] in SHQ_SHARES)
        if item["hard"]:
            assert item["level"] == FAMILIES[item["family"]].levels[1]
            assert item["category"] == "math"


def test_nothing_is_asked_twice(corpus: Corpus) -> None:
    assert len({item["id"] for item in corpus.items}) == len(corpus.items)
    """Nor in two benchmarks: the question of a step is a question too."""
    asked = Counter(_asked(item) for item in (*corpus.items, *corpus.heldout))
    assert max(asked.values()) == 1


def _asked(item: dict) -> str:
    text = str(item.get("question") or item["context"])
    return text.split("<|user|> ")[-1].split(" <|assistant|>")[0]


def test_gold_option_stands_anywhere_with_equal_chance(corpus: Corpus) -> None:
    """Chi-square over all choice items: 3 degrees of freedom, 16.3 is 1 in 1000."""
    items = corpus.kind("choice")
    places = Counter(item["gold"] for item in items)
    expected = len(items) / 4
    assert sum((places[k] - expected) ** 2 / expected for k in range(4)) < 16.3


def test_options_differ_and_only_gold_is_right(corpus: Corpus) -> None:
    for item in corpus.kind("choice"):
        assert len(item["options"]) == len(set(item["options"])) == 4
        if item["benchmark"].startswith("step_"):
            family = item["benchmark"].removeprefix("step_")
            question, done = item["context"].split("<|user|> ")[1].split(" <|assistant|> ")
            worked = f"{' '.join(FAMILIES[family].solve(question).steps)} "
            right = [worked.startswith(f"{done} {option} ") for option in item["options"]]
            assert right == [place == item["gold"] for place in range(4)]


def test_options_have_one_length(corpus: Corpus) -> None:
    """A shorter option would be likelier for its length alone."""
    for item in corpus.kind("choice"):
        assert len({len(option.split()) for option in item["options"]}) == 1


@pytest.mark.parametrize("kind", ["generate", "few_shot", "heldout", "training"])
def test_documents_fit_the_context(corpus: Corpus, kind: str) -> None:
    rows = {
        "generate": corpus.kind("generate"),
        "few_shot": corpus.kind("few_shot"),
        "heldout": corpus.heldout,
        "training": [*corpus.ldq, *corpus.shq],
    }[kind]
    for row in rows:
        question = len(row["question"].split()) + 2
        response = len(row.get("trace", "").split()) + len(row["answer"].split()) + 2
        assert question + response <= CONTEXT_TOKENS
        assert response <= MAX_NEW_TOKENS
        if kind == "few_shot":
            shots = sum(
                len(" ".join(exemplar.values()).split()) + 4 for exemplar in row["exemplars"]
            )
            assert shots > 0
