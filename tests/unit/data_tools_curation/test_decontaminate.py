"""Shared runs of words against a plain search, short items, the rule of what goes, the report."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontload.data_tools.curation.decontaminate import RemovalReport
from frontload.data_tools.curation.items import Item
from frontload.data_tools.curation.matches import Match, build_index, find_matches, is_leak
from frontload.data_tools.disk.files import read_json
from frontload.data_tools.text.words import WordHasher
from frontload.recipes.runs.curation import Decontamination
from tests.unit.data_tools_curation.workbench import Workbench, read_jsonl

HASHER = WordHasher(0)


def rules(
    *, ngram: int = 3, overlap: int = 3, share: float = 1.0, shortest: int = 2
) -> Decontamination:
    return Decontamination(
        benchmarks={},
        ngram_words=ngram,
        overlap_words=overlap,
        item_share=share,
        shortest_item_words=shortest,
    )


def items(texts: list[str]) -> list[Item]:
    return [Item(benchmark="b", name=f"b:{place}", text=text) for place, text in enumerate(texts)]


def matches(rows: list[str], texts: list[str], asked: Decontamination) -> dict[int, list[Match]]:
    index = build_index(items(texts), asked, hasher=HASHER)
    return find_matches(HASHER.words(rows), index, hasher=HASHER)


def longest_common(row: list[str], item: list[str]) -> int:
    return max(
        (
            length
            for length in range(1, len(item) + 1)
            for at in range(len(item) - length + 1)
            for place in range(len(row) - length + 1)
            if item[at : at + length] == row[place : place + length]
        ),
        default=0,
    )


WORD_LISTS = st.lists(st.lists(st.sampled_from("abcd"), max_size=9), min_size=1, max_size=4)


@given(rows=WORD_LISTS, asked=WORD_LISTS)
@settings(max_examples=80)
def test_overlap_and_share_are_those_of_a_plain_search(
    rows: list[list[str]], asked: list[list[str]]
) -> None:
    found = matches(list(map(" ".join, rows)), list(map(" ".join, asked)), rules())
    for number, row in enumerate(rows):
        by_item = {match.item: match for match in found.get(number, [])}
        for place, item in enumerate(asked):
            size = min(len(item), 3)
            longest = longest_common(row, item)
            if len(item) < 2 or longest < size:
                assert place not in by_item
                continue
            grams = {tuple(row[at : at + size]) for at in range(len(row) - size + 1)}
            own = [tuple(item[at : at + size]) for at in range(len(item) - size + 1)]
            assert by_item[place].overlap_words == longest
            assert by_item[place].share == sum(gram in grams for gram in own) / len(own)


def test_a_row_goes_by_overlap_or_by_share_and_a_short_item_as_a_whole() -> None:
    asked = rules(ngram=13, overlap=20, share=0.5, shortest=4)
    index = build_index(items(["w " * 60, "a b c d"]), asked, hasher=HASHER)
    assert not is_leak(Match(item=0, overlap_words=19, share=0.4), index)
    assert is_leak(Match(item=0, overlap_words=20, share=0.1), index)
    assert is_leak(Match(item=0, overlap_words=15, share=0.5), index)
    assert is_leak(Match(item=1, overlap_words=4, share=1.0), index)


def test_text_in_other_case_layout_and_punctuation_is_found() -> None:
    item = "Janet\u2019s ducks lay 16 eggs per day. She eats three for breakfast every morning."
    row = "Q: JANET'S ducks -- lay 16 eggs\nper day; she eats three for breakfast (every morning)!"
    found = matches([row, "ducks lay eggs"], [item], rules(ngram=13, overlap=13))
    assert [match.overlap_words for match in found[0]] == [15]
    assert 1 not in found


def test_report_counts_items_rows_and_sources_once() -> None:
    texts = [f"{name} b c d e" for name in "xyz"] + ["one"]
    asked = rules()
    index = build_index(items(texts), asked, hasher=HASHER)
    report = RemovalReport(items=items(texts), index=index)
    found = find_matches(HASHER.words(["x b c d e", "b c d", "nothing"]), index, hasher=HASHER)
    for row, own in found.items():
        report.add(own, source="s", file="f", row=row)
    counts = report.to_json()["b"]
    assert counts["items"] == 4
    assert counts["items_too_short"] == 1
    assert counts["items_hit"] == 3
    assert counts["rows_removed"] == 2
    assert counts["rows_removed_by_source"] == {"s": 2}
    assert [example["item"] for example in counts["examples"]] == ["b:0", "b:0"]


BENCHMARKS = """
sources:
  own: {{files: [rows.jsonl], adapter: gsm8k, domain: math}}
sets:
  shq: {{members: [own]}}
decontamination:
  ngram_words: 13
  overlap_words: 13
  item_share: 0.5
  shortest_item_words: 5
  benchmarks:
    test: {{files: [{files}], fields: [question, context]{more}}}
"""


def planted_rows() -> tuple[list[dict[str, str]], list[str]]:
    """40 worked questions of 20 words each, and the questions alone."""
    draw = random.Random(1)
    questions = [" ".join(f"w{draw.randrange(900)}" for _ in range(20)) for _ in range(40)]
    return [{"question": text, "answer": "steps\n#### 1"} for text in questions], questions


def test_leaked_rows_are_removed_counted_and_kept_in_the_rejects(bench: Workbench) -> None:
    rows, questions = planted_rows()
    bench.rows("rows.jsonl", rows)
    leaks = [{"question": questions[3].upper()}, {"question": "a b c d e f g"}]
    leaks.append({"question": "far " * 30 + " ".join(questions[7].split()[2:15])})
    bench.rows("test.jsonl", leaks)
    out = bench.curate(
        BENCHMARKS.format(files="test.jsonl", more=""), more=("--rejects", "rejects.jsonl")
    )
    left = [row["question"] for row in read_jsonl(out / "shq.jsonl")]
    assert left == [text for place, text in enumerate(questions) if place not in (3, 7)]
    report = read_json(out / "decontamination.json")["test"]
    assert (report["items"], report["items_hit"], report["rows_removed"]) == (3, 2, 2)
    rejects = read_jsonl(bench.folder / "rejects.jsonl")
    assert [(row["row"], row["reason"], row["detail"]) for row in rejects] == [
        (4, "holds an item of test", "test.jsonl:1, 20 words, share 1.00"),
        (8, "holds an item of test", "test.jsonl:3, 13 words, share 0.03"),
    ]
    assert rejects[0]["content"] == rows[3]


def test_items_of_the_study_are_read_and_reported_by_their_own_benchmark(bench: Workbench) -> None:
    rows, questions = planted_rows()
    bench.rows("rows.jsonl", rows)
    item = {"id": "i", "kind": "choice", "benchmark": "story_choice", "context": questions[0]}
    asked = {"id": "j", "kind": "generate", "benchmark": "story", "question": questions[1]}
    bench.rows("items.jsonl", [item | {"options": ["1", "2"], "gold": 0}, asked])
    out = bench.curate(BENCHMARKS.format(files="items.jsonl", more=", name_field: benchmark"))
    report = read_json(out / "decontamination.json")
    assert {name: found["rows_removed"] for name, found in report.items()} == {
        "story_choice": 1,
        "story": 1,
    }


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"question": 5}, "question is 5, of type int; an item's question, context are text"),
        ({"question": "a b c d e f g", "context": ["x"]}, "context is ['x'], of type list"),
        ({"question": " ", "context": None}, "question without text; an item has text in one of"),
        ({"questoin": "x"}, "fields questoin (nearest: 'questoin')"),
        ({}, "fields none; an item has text in one of"),
    ],
    ids=str,
)
def test_an_item_of_which_a_field_is_lost_is_refused(
    bench: Workbench, row: dict[str, object], told: str
) -> None:
    """A list beside a text was passed over; a number was told as a name that is not there."""
    bench.rows("rows.jsonl", planted_rows()[0])
    bench.rows("test.jsonl", [{"question": "a b c d e f g", "context": None}, row])
    message = bench.refusal(
        bench.recipe(BENCHMARKS.format(files="test.jsonl", more="")), "--out", "out"
    )
    assert "test.jsonl:2" in message
    assert told in message


def test_a_benchmark_that_cannot_be_read_whole_is_refused(bench: Workbench) -> None:
    bench.rows("rows.jsonl", planted_rows()[0])
    bench.rows("test.jsonl", [{"question": "a b c d e f g"}, {"problem": "x"}])
    recipe = bench.recipe(BENCHMARKS.format(files="test.jsonl", more=""))
    message = bench.refusal(recipe, "--out", "out")
    assert "test.jsonl:2" in message
    assert "question, context" in message
    bench.rows("test.jsonl", ["{broken"])
    assert "a lost item is a leak" in bench.refusal(recipe, "--out", "out")
    bench.rows("test.jsonl", [])
    assert "a benchmark has items" in bench.refusal(recipe, "--out", "out")
