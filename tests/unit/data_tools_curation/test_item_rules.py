"""Which items a row holds where they are short, common or answered; special tokens; real text."""

import json
import pydoc_data.topics
import random
import re
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer

from frontload.data_tools.curation.decontaminate import RemovalReport
from frontload.data_tools.curation.items import Item
from frontload.data_tools.curation.matches import ItemIndex, build_index, find_matches, is_leak
from frontload.data_tools.disk.files import read_json
from frontload.data_tools.text.words import WordHasher
from frontload.recipes.runs.curation import Decontamination
from tests.unit.data_tools_curation.workbench import Workbench, read_jsonl, word_tokenizer

HASHER = WordHasher(0)


def rules(**changed: Any) -> Decontamination:
    asked: dict[str, Any] = {
        "benchmarks": {},
        "ngram_words": 13,
        "overlap_words": 13,
        "item_share": 0.5,
        "shortest_item_words": 8,
    }
    return Decontamination(**(asked | changed))


def index_of(texts: list[str], asked: Decontamination, answers: dict[int, str]) -> ItemIndex:
    items = [
        Item(benchmark="b", name=str(n), text=text, answer=answers.get(n, ""))
        for n, text in enumerate(texts)
    ]
    return build_index(items, asked, hasher=HASHER)


def held(rows: list[str], index: ItemIndex) -> list[list[int]]:
    """The items that each row holds."""
    found = find_matches(HASHER.words(rows), index, hasher=HASHER)
    return [
        [match.item for match in found.get(row, []) if is_leak(match, index)]
        for row in range(len(rows))
    ]


FRAMES = [
    "Which one of the following statements is true of your household?",
    "Which one of the following statements is true of the year?",
    "Which one of the following statements is true of your year?",
    "Which one of the following is true of the household year?",
]
RARE = "What year did Cuthbert Ponsonby ratify the Treaty of Uqair?"


def test_an_item_of_common_words_is_weak_and_needs_its_answer() -> None:
    page = f"Survey. {FRAMES[0]} Tick one box. The kitchen is heated."
    leaked = f"Q: {FRAMES[0]}\nAnswer: It pays no rent.\nQ: {RARE}"
    answers = {0: "It pays no rent."}
    plain = index_of([*FRAMES, RARE], rules(), answers)
    assert held([page, leaked], plain) == [[0], [0, 4]], "without a rule for weak items"
    asked = rules(rare_words=2, rare_word_items=1)
    index = index_of([*FRAMES, RARE], asked, answers)
    assert index.is_weak_I.tolist() == [True, True, True, True, False]
    assert held([page, leaked], index) == [[], [4]]
    asked = rules(rare_words=2, rare_word_items=1, needs_answer="weak")
    assert held([page, leaked], index_of([*FRAMES, RARE], asked, answers)) == [[], [0, 4]]


def test_an_answer_counts_behind_its_item_and_near_it() -> None:
    text, far = RARE, " and so on" * 4
    rows = [
        f"{text} In 1922.",
        f"In 1922. {text}",
        f"{text} {far} In 1922.",
        f"{text} {far} x In 1922.",
        f"{text} {text} In 1922.",
        f"{text} In 1921.",
    ]
    asked = rules(needs_answer="always", answer_within_words=14)
    found = held(rows, index_of([text], asked, {0: "in 1922"}))
    assert found == [[0], [], [0], [], [0], []]
    assert held(rows[-1:], index_of([text], asked, {})) == [[0]], "an item without an answer"


def test_a_short_item_counts_as_a_whole_line() -> None:
    items = ["What is ionization energy?", "Why?", "far too long to be a line of its own item"]
    rows = [
        "Quiz\n  WHAT is ionization energy?\n The energy that",
        "We ask what is ionization energy? It is",
        "What is ionization energy of neon?",
        "Why?",
    ]
    assert held(rows, index_of(items, rules(), {})) == [[], [], [], []]
    index = index_of(items, rules(line_item_words=3), {})
    assert held(rows, index) == [[0], [], [], []]
    assert index.sizes_I.tolist() == [4, 0, 11], "one word is too short even for a line"


def test_the_similarity_of_a_row_and_an_item_is_that_of_their_sets_of_ngrams() -> None:
    """Source of the rule: Shao et al. 2024, MassiveDS: 13-grams' Jaccard, or a long overlap."""
    draw = random.Random(2)
    item = [f"w{draw.randrange(99)}" for _ in range(40)]
    row = [*item[:30], *(f"x{n}" for n in range(9)), *item[:15]]
    grams = [{tuple(one[at : at + 13]) for at in range(len(one) - 12)} for one in (item, row)]
    expected = len(grams[0] & grams[1]) / len(grams[0] | grams[1])
    for least, found in ((expected - 1e-9, [[0]]), (expected + 1e-9, [[]])):
        asked = rules(item_share=0.0, item_jaccard=least, overlap_words=31)
        assert held([" ".join(row)], index_of([" ".join(item)], asked, {})) == found


def test_items_in_a_script_without_spaces_are_found() -> None:
    """A sentence was one long word, so it stood in no text but one that was cut alike."""
    item = (
        "\u5df2\u77e5\u7b49\u5dee\u6570\u5217\u7684\u9996\u9879\u4e3a\u4e8c\u516c\u5dee\u4e3a\u4e09"
    )
    row = f"\u9898\u76ee\uff1a{item}\uff0c\u6c42\u7b2c\u5341\u9879\u3002"
    assert held([row, row[8:]], index_of([item], rules(), {})) == [[0], []]


def real_text() -> tuple[list[str], list[str]]:
    """Pages of Python's reference manual, and sentences of its second half as items."""
    pages = sorted(pydoc_data.topics.topics.values())
    sentences = [
        " ".join(sentence.split())
        for page in pages[1::2]
        for sentence in page.split(". ")
        if 9 <= len(sentence.split()) <= 60
    ]
    known = {run for page in pages[::2] for run in runs_of_eight(page)}
    return pages[::2], [one for one in dict.fromkeys(sentences) if not known & runs_of_eight(one)]


def runs_of_eight(text: str) -> set[tuple[str, ...]]:
    """Every run of eight words, by a plain search."""
    words = re.findall(r"[^\W_]+", text.lower())
    return {tuple(words[at : at + 8]) for at in range(len(words) - 7)}


def test_planted_items_are_found_in_real_text_and_pages_without_one_stay() -> None:
    """Items of real sentences in real pages: alone, in other layout, cut by a tenth, or not."""
    pages, items = real_text()
    draw = random.Random(3)
    chosen = draw.sample(items, 120)
    index = index_of(chosen, rules(rare_words=1, rare_word_items=2), {})
    clean = held(pages, index)
    planted: list[tuple[int, str]] = []
    for number, text in enumerate(chosen):
        words = text.upper().split()
        if number % 3 == 2 and len(words) > 20:
            words = words[len(words) // 10 :]
        page = draw.choice(pages)
        at = page.find(" ", draw.randrange(len(page) - 100))
        between = "\n" if number % 3 else " -- "
        planted.append((number, f"{page[:at]} ({between.join(words)}) {page[at:]}"))
    found = held([text for _, text in planted], index)
    strong = [n for n, _ in planted if not index.is_weak_I[n]]
    hit = [n for (n, _), one in zip(planted, found, strict=True) if n in one]
    assert len(strong) >= 110
    assert set(hit) == set(strong), "recall: every planted item that is not weak"
    assert not any(clean), "precision: no page without one goes"


WEB = """
policy: {{special_text: {policy}}}
sources: {{web: {{files: [web.jsonl], adapter: plain_text, domain: web}}}}
sets: {{base: {{members: [web]}}}}
"""


def with_special(folder: Path) -> None:
    """The workbench's tokenizer, with an end token as Qwen's models have it."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize(("policy", "tokens"), [("drop", 3), ("encode", 6), ("text", 4)])
def test_special_tokens_are_those_of_the_tokenizer(
    bench: Workbench, policy: str, tokens: int
) -> None:
    """A page with another project's token stays; `a<|im_end|>b` is one word as ordinary text."""
    with_special(bench.folder)
    bench.rows("web.jsonl", [{"text": "one <|user|> two"}, {"text": "a<|im_end|>b"}])
    more = ("--rejects", "rejects.jsonl")
    out = bench.curate(WEB.format(policy=policy), more=more)
    assert len(read_jsonl(out / "base.jsonl")) == (1 if policy == "drop" else 2)
    assert read_json(out / "compositions.json")["base"]["tokens"] == tokens
    rejects = read_jsonl(bench.folder / "rejects.jsonl")
    told = [(row["reason"], row["detail"]) for row in rejects]
    assert told == [("spells a special token", "<|im_end|>")] * (policy == "drop")


def test_a_tokenizer_whose_model_holds_the_token_cannot_read_it_as_text(bench: Workbench) -> None:
    stated = json.loads(word_tokenizer().to_str())
    stated["model"]["vocab"]["<|im_end|>"] = 1
    (bench.folder / "tokenizer.json").write_text(json.dumps(stated))
    with_special(bench.folder)
    bench.rows("web.jsonl", [{"text": "a"}])
    message = bench.refusal(bench.recipe(WEB.format(policy="text")), "--out", "out")
    assert "has <|im_end|> as a word of its own" in message


ITEMS = """
sources: {{web: {{files: [web.jsonl], adapter: plain_text, domain: web}}}}
sets: {{base: {{members: [web]}}}}
decontamination:
  ngram_words: 13
  overlap_words: 13
  item_share: 0.5
  shortest_item_words: 8
  {more}
  benchmarks:
    mmlu:
      files: [test.jsonl]
      fields: [question]
      answer_fields: [answer]
      choices_field: choices
"""


def test_a_report_removes_nothing(bench: Workbench) -> None:
    question = {"question": RARE, "choices": ["In 1921", "In 1922"], "answer": 1}
    bench.rows("test.jsonl", [question, question | {"question": "x", "answer": "A"}])
    bench.rows("web.jsonl", [{"text": f"{RARE}\nA. In 1921\nB. In 1922"}, {"text": "a b"}])
    reports = {}
    for remove in ("true", "false"):
        out = bench.curate(ITEMS.format(more=f"remove: {remove}"), out=f"out-{remove}")
        assert len(read_jsonl(out / "base.jsonl")) == (1 if remove == "true" else 2)
        reports[remove] = read_json(out / "decontamination.json")["mmlu"]
    assert (reports["true"].pop("rows_removed"), reports["false"].pop("rows_removed")) == (1, 0)
    assert reports["true"].pop("rows_removed_by_source") == {"web": 1}
    assert reports["false"].pop("rows_removed_by_source") == {"web": 0}
    assert reports["true"] == reports["false"]
    assert (reports["true"]["rows_found"], reports["true"]["rows_with_answer"]) == (1, 1)


@pytest.mark.parametrize(
    ("more", "row", "message"),
    [
        ("rare_words: 2", {}, "says with rare_words which items are weak"),
        ("line_item_words: 8", {}, "below shortest_item_words (8)"),
        ("needs_answer: sometimes", {}, "it is one of never, weak, always"),
        ("item_jaccard: 2", {}, "0 to 1"),
        ("remove: true", {"answer": 2}, "test.jsonl:1: answer is 2, choices is ['In 1921']"),
        ("remove: true", {"answer": None}, "the number or letter of one of its choices"),
    ],
    ids=str,
)
def test_rules_that_cannot_hold_are_refused(
    bench: Workbench, more: str, row: dict[str, Any], message: str
) -> None:
    bench.rows("test.jsonl", [{"question": RARE, "choices": ["In 1921"], "answer": 0} | row])
    bench.rows("web.jsonl", [{"text": "a"}])
    assert message in bench.refusal(bench.recipe(ITEMS.format(more=more)), "--out", "out")


def test_an_answer_that_no_benchmark_states_is_refused(bench: Workbench) -> None:
    recipe = ITEMS.format(more="needs_answer: always")
    without = recipe.replace("      answer_fields: [answer]\n      choices_field: choices\n", "")
    bench.rows("web.jsonl", [{"text": "a"}])
    message = bench.refusal(bench.recipe(without), "--out", "out")
    assert "always, and no benchmark states an answer" in message
    without = recipe.replace("      answer_fields: [answer]\n", "")
    assert "choices, without answer_fields" in bench.refusal(bench.recipe(without), "--out", "out")


def test_the_report_counts_weak_items_and_what_they_kept() -> None:
    items = [Item(benchmark="b", name=str(n), text=text) for n, text in enumerate([*FRAMES, RARE])]
    index = build_index(items, rules(rare_words=2, rare_word_items=1), hasher=HASHER)
    report = RemovalReport(items=items, index=index)
    found = find_matches(HASHER.words([FRAMES[0], RARE]), index, hasher=HASHER)
    for row, own in found.items():
        report.add(own, source="s", file="f", row=row)
    counts = report.to_json()["b"]
    assert (counts["items_weak"], counts["weak_matches_kept"], counts["rows_found"]) == (4, 1, 1)
