"""The corpus as a whole: the split, the composition, the sizes, the bytes, the vocabulary."""

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from frontload.data_tools.synthetic.corpus import write_corpus
from frontload.data_tools.synthetic.families import FAMILIES, verify
from frontload.data_tools.synthetic.writers import write_reasoning
from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import Synthesis
from frontload.recipes.study.expand import load_study
from tests.unit.data_tools_synthetic.conftest import Corpus, synthesis

LONGEST_DOCUMENT = 128


def words(row: dict) -> int:
    return sum(len(row[name].split()) for name in ("question", "trace", "answer"))


def test_no_evaluation_question_is_in_training(corpus: Corpus) -> None:
    trained = {row["question"] for row in corpus.conversations()}
    trained |= {
        exemplar["question"] for item in corpus.kind("few_shot") for exemplar in item["exemplars"]
    }
    asked = [*corpus.kind("generate"), *corpus.kind("few_shot"), *corpus.heldout]
    questions = {row["question"] for row in asked}
    questions |= {
        item["context"].split("<|user|> ")[1].split(" <|assistant|>")[0]
        for item in corpus.kind("choice")
        if "<|user|>" in item["context"]
    }
    assert len(trained) > 15_000
    assert len(questions) > 1_500
    assert not questions & trained


def test_no_text_that_a_choice_continues_is_in_base_text(corpus: Corpus) -> None:
    """Every window of as many words: a document may hold it in its middle."""
    asked = [item["context"] for item in corpus.kind("choice") if "<|user|>" not in item["context"]]
    assert len(asked) == 2 * 100
    text = " \n ".join(row["text"] for row in corpus.base if "text" in row)
    assert " : " in text
    assert [context for context in asked if f" {context} " in f" {text} "] == []


def test_no_evaluation_question_is_in_training_under_other_names(corpus: Corpus) -> None:
    """Two questions of one matter (variables renamed, another person) are one question."""
    trained = {
        (row["family"], FAMILIES[row["family"]].matter(row["question"]))
        for row in (*corpus.ldq, *corpus.shq)
    }
    asked = {
        (row["family"], FAMILIES[row["family"]].matter(row["question"]))
        for row in (*corpus.kind("generate"), *corpus.kind("few_shot"), *corpus.heldout)
    }
    assert len(asked) > 900
    assert not asked & trained


@pytest.mark.parametrize(
    ("name", "domains"),
    [
        ("ldq", {"math": 56, "code": 17, "science+ins": 27}),
        ("shq", {"math": 71, "code": 21, "science+ins": 8}),
    ],
)
def test_composition_by_tokens(corpus: Corpus, name: str, domains: dict[str, float]) -> None:
    """Within one percentage point, counted as `composition.json` counts."""
    tokens: Counter[str] = Counter()
    for row in getattr(corpus, name):
        domain = row["domain"] if row["domain"] in ("math", "code") else "science+ins"
        tokens[domain] += words(row)
    for domain, share in domains.items():
        assert 100 * tokens[domain] / tokens.total() == pytest.approx(share, abs=1)


def test_sizes_are_exact_to_within_one_document(corpus: Corpus, recipe: Synthesis) -> None:
    for name, size in (("ldq", recipe.ldq.tokens), ("shq", recipe.shq.tokens)):
        rows = getattr(corpus, name)
        total = sum(words(row) for row in rows)
        assert total - words(rows[-1]) < size <= total
        assert corpus.counts["sets"][name]["tokens"] == total
    base = sum(len(row["text"].split()) if "text" in row else words(row) for row in corpus.base)
    assert recipe.base_tokens <= base < recipe.base_tokens + LONGEST_DOCUMENT


def test_writers_keep_their_shares_of_form_and_noise(corpus: Corpus) -> None:
    """LDQ has no, short and long traces and wrong answers as asked; SHQ is long and clean."""
    long = wrong = empty = 0
    for row in corpus.ldq:
        steps = " ".join(FAMILIES[row["family"]].solve(row["question"]).steps)
        long += row["trace"] == steps
        empty += not row["trace"]
        wrong += not verify(row["family"], row["question"], row["answer"])
    count = len(corpus.ldq)
    assert long / count == pytest.approx(0.4, abs=0.015)
    assert empty / count == pytest.approx(0.3, abs=0.015)
    assert wrong / count == pytest.approx(0.05, abs=0.01)
    for row in corpus.shq:
        solution = FAMILIES[row["family"]].solve(row["question"])
        assert (row["trace"], row["answer"]) == (" ".join(solution.steps), solution.answer)


def test_alf_of_the_laptop_is_as_small_a_part_of_ldq_as_in_the_paper() -> None:
    """2.65% of LDQ's rows there."""
    recipe = load_study("laptop").recipe
    assert recipe.synthesis is not None
    rows = list(
        write_reasoning(
            dataclasses.replace(recipe.synthesis.ldq, tokens=400_000), name="ldq", seed=1
        )
    )
    alf = recipe.mixes["alf"]
    long = [r for r in rows if len(f"{r.trace} {r.answer}".split()) > alf.min_answer_tokens]
    assert 0.02 < len(long) / len(rows) * alf.share_of_member["ldq"] < 0.03


def test_ldq_stays_below_the_top_level_that_shq_reaches(corpus: Corpus) -> None:
    def most_operations(rows: list[dict]) -> int:
        chains = [row["question"] for row in rows if row["family"] == "chain"]
        return max(len([word for word in one.split() if word.isupper()]) - 1 for one in chains)

    def fewest_operations(rows: list[dict]) -> int:
        chains = [row["question"] for row in rows if row["family"] == "chain"]
        return min(len([word for word in one.split() if word.isupper()]) - 1 for one in chains)

    assert (fewest_operations(corpus.ldq), most_operations(corpus.ldq)) == (2, 5)
    assert (fewest_operations(corpus.shq), most_operations(corpus.shq)) == (2, 6)


def test_same_recipe_same_bytes(tmp_path: Path) -> None:
    recipe = synthesis(base_tokens=8_000, ldq_tokens=8_000, shq_tokens=4_000)
    other_seed = dataclasses.replace(recipe, seed=2)
    for name, one in (("a", recipe), ("b", recipe), ("c", other_seed)):
        (tmp_path / name).mkdir()
        write_corpus(one, tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 6
    for file in files:
        bytes_of = {name: (tmp_path / name / file).read_bytes() for name in "abc"}
        assert bytes_of["a"] == bytes_of["b"]
        assert bytes_of["a"] != bytes_of["c"] or file == "counts.json"


def test_the_order_in_which_shares_are_written_changes_no_byte(
    tmp_path: Path, recipe: Synthesis
) -> None:
    """A key ignores it: as a job, whose recipe comes from sorted JSON, LDQ was another corpus."""
    small = dataclasses.replace(
        recipe, base_tokens=2_000, ldq=dataclasses.replace(recipe.ldq, tokens=20_000)
    )
    families = dict(sorted(small.ldq.families.items(), key=lambda one: one[0]))
    assert list(families) != list(small.ldq.families)
    other = dataclasses.replace(small, ldq=dataclasses.replace(small.ldq, families=families))
    for name, one in (("one", small), ("other", other)):
        (tmp_path / name).mkdir()
        write_corpus(one, tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes(), path.name


def test_a_larger_set_begins_with_the_smaller_one(tmp_path: Path) -> None:
    """Raising a budget adds documents and changes none: a change of size is only that."""
    small = synthesis(base_tokens=3_000, ldq_tokens=3_000, shq_tokens=2_000)
    large = synthesis(base_tokens=6_000, ldq_tokens=6_000, shq_tokens=4_000)
    for name, recipe in (("small", small), ("large", large)):
        (tmp_path / name).mkdir()
        write_corpus(recipe, tmp_path / name)
    for file in ("base.jsonl", "ldq.jsonl", "shq.jsonl"):
        longer = (tmp_path / "large" / file).read_bytes()
        assert longer.startswith((tmp_path / "small" / file).read_bytes())


def test_vocabulary_is_closed(corpus: Corpus) -> None:
    """Every word of an item is in training text, and there are few enough for the model."""
    trained: set[str] = set()
    for row in (*corpus.base, *corpus.ldq, *corpus.shq):
        for name in ("text", "question", "trace", "answer"):
            trained |= set(row.get(name, "").split())
    asked: set[str] = set()
    for item in (*corpus.items, *corpus.heldout):
        for name in ("question", "trace", "answer", "context"):
            asked |= set(item.get(name, "").split())
        for option in item.get("options", ()):
            asked |= set(option.split())
    asked -= {"<|user|>", "<|assistant|>", "<|answer|>", "<|end|>"}
    assert not asked - trained
    assert len(trained) + 6 <= 256


def test_base_text_has_few_questions_and_no_worked_answer(corpus: Corpus) -> None:
    questions = [row for row in corpus.base if "question" in row]
    assert 0.01 < len(questions) / len(corpus.base) < 0.03
    assert not any(row["trace"] for row in questions)
    heads = {row["question"].split()[0] for row in (*corpus.ldq, *corpus.shq)}
    texts = {row["text"] for row in corpus.base if "text" in row}
    worked = {row["trace"] for row in corpus.shq}
    assert not any(" ".join(text.split()[1:]) in worked for text in texts)
    assert "eval" in heads
    assert not any(text.startswith("eval ") for text in texts)


def test_counts_file_agrees_with_the_rows(corpus: Corpus) -> None:
    for name in ("base", "ldq", "shq"):
        counts = corpus.counts["sets"][name]
        assert counts["rows"] == len(getattr(corpus, name))
        assert sum(counts["tokens_by_domain"].values()) == counts["tokens"]
        assert sum(counts["tokens_by_family"].values()) == counts["tokens"]
    assert corpus.counts["items"] == dict(Counter(item["benchmark"] for item in corpus.items))


def test_shares_that_do_not_sum_to_one_are_refused(tmp_path: Path, recipe: Synthesis) -> None:
    ldq = dataclasses.replace(recipe.ldq, families={"chain": 0.5, "add": 0.4})
    with pytest.raises(RecipeError, match=r"synthesis\.ldq\.families.*sum to 0\.9"):
        write_corpus(dataclasses.replace(recipe, ldq=ldq), tmp_path)


def test_unknown_family_is_refused_with_the_nearest_name(tmp_path: Path, recipe: Synthesis) -> None:
    shq = dataclasses.replace(recipe.shq, families={"chian": 1.0})
    with pytest.raises(RecipeError, match="nearest: 'chain'"):
        write_corpus(dataclasses.replace(recipe, shq=shq, base_tokens=1), tmp_path)


def test_more_items_than_questions_are_refused(tmp_path: Path) -> None:
    recipe = synthesis(base_tokens=1, ldq_tokens=1, shq_tokens=1)
    with pytest.raises(RecipeError, match="different held-out questions"):
        write_corpus(dataclasses.replace(recipe, items_per_family=5_000), tmp_path)
