"""`frontload data questions`: four verdicts of a model, the rules beside them, and gaps offline."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fastapi.responses import JSONResponse, Response
from hypothesis import given
from hypothesis import strategies as st

from frontload.data_tools.generation.extraction import GAP, extracted_pairs
from frontload.data_tools.generation.question_pairs import (
    DroppedPair,
    Pair,
    broken_rule,
    read_check,
    read_filter,
    read_pair,
    read_readers,
    stands_in,
)
from frontload.data_tools.text.train_tokenizer import train_byte_pairs
from frontload.recipes.errors import RecipeError
from frontload.rl.rewards import compute_score
from tests.unit.generation.backend import backend, chat
from tests.unit.generation.generation_commands import run_data

RIVER = "The river Aa is 128 km long and it flows through the town of Lunen every day of the year."
HILL = "The hill of Bree is 300 m high and nobody has ever climbed it without a rope or a guide."


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    trained = train_byte_pairs([RIVER, HILL], vocab_size=300).tokenizer
    (folder / "tokenizer.json").write_text(trained.to_json())
    return folder


def write_rows(path: Path, texts: Sequence[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def writer(prompt: str) -> Response:
    """A backend that answers by what it is asked about and by the round."""
    kind = prompt.split()[0]
    if "one word: yes or no" in prompt:
        return chat({"dull": "No.", "odd": "perhaps"}.get(kind, "Yes, it is."))
    if "`domain: `" in prompt:
        if kind == "nobody":
            return chat("domain: history")
        return chat("domain: History\npersona: a boatman\npersona: a teacher")
    if "`question: `" in prompt:
        if kind == "garble":
            return JSONResponse({"choices": 3})
        if "a teacher" in prompt and kind == "The":
            return chat("question: Is the river Aa 128 km long?\nanswer: 128")
        if kind == "wrong":
            return chat("question: How long is it?\nanswer: 9")
        return chat("- **question:** How many km is the river Aa long?\n- **answer:** 128.")
    if kind == "leaky":
        return chat("correct: yes\nleaks: yes")
    return chat("<think>it says so</think>\ncorrect: yes\nleaks: no")


def test_every_document_gives_a_prompt_or_a_reason(tmp_path: Path, tokenizer: Path) -> None:
    kinds = ("dull", "odd", "nobody", "garble", "wrong")
    texts = [RIVER, *(f"{kind} 128 km of the Aa" for kind in kinds)]
    source = write_rows(tmp_path / "in.jsonl", texts)
    with backend(writer) as server:
        flags = ("--backend", server.url, "--tokenizer", tokenizer, "--prompt-tokens", 300)
        out = tmp_path / "out"
        run_data("questions", "--input", source, "--out", out, *flags)
        seen = len(server.bodies)
        run_data("questions", "--input", source, "--out", out, *flags)
        again = [body for body in server.bodies[seen:] if "garble" not in str(body["messages"])]
        assert not again, "replies that are there are not asked for again"
        generated = [body for body in server.bodies if "`question: `" in str(body["messages"])]
        others = [body for body in server.bodies if body not in generated]
        assert {body["temperature"] for body in generated} == {0.6}
        assert {body["temperature"] for body in others} == {0.0}, "a verdict is the likeliest reply"
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["dropped"] == {
        str(DroppedPair.NOT_INFORMATIVE): 1,
        str(DroppedPair.FILTER_UNREAD): 1,
        str(DroppedPair.IDENTIFIER_UNREAD): 1,
        str(DroppedPair.LEAK): 1,
        str(DroppedPair.NOT_IN_TEXT): 2,
        "the backend garbled it": 2,
    }
    (pair,) = rows_of(out / "pairs.jsonl")
    assert pair == {
        "pretrain_text": RIVER,
        "domain": "history",
        "persona": "a boatman",
        "question": "How many km is the river Aa long?",
        "answer": "128",
        "source": "in.jsonl:1",
    }
    (row,) = pq.read_table(out / "prompts.parquet").to_pylist()
    assert row["prompt"] == [{"role": "user", "content": pair["question"]}]
    assert row["reward_model"]["ground_truth"] == "128"


def test_the_reward_manager_s_function_grades_the_prompts(tmp_path: Path, tokenizer: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [RIVER, HILL])
    flags = ("--backend", "extract", "--tokenizer", tokenizer, "--prompt-tokens", 300)
    run_data("questions", "--input", source, "--out", tmp_path / "out", *flags)
    rows = pq.read_table(tmp_path / "out" / "prompts.parquet").to_pylist()
    assert [row["reward_model"]["ground_truth"] for row in rows] == ["Aa", "Bree"]
    for row in rows:
        for answer, reward in ((row["reward_model"]["ground_truth"], 1.0), ("Rome", 0.0)):
            found = compute_score(
                row["data_source"],
                f"so it is \\boxed{{{answer}}}",
                row["reward_model"]["ground_truth"],
                row["extra_info"],
                layout="boxed",
            )
            assert found["score"] == reward


def test_a_prompt_over_its_tokens_is_left_out_of_both_files(
    tmp_path: Path, tokenizer: Path
) -> None:
    long = RIVER.replace("every day", "every single day " * 6)
    source = write_rows(tmp_path / "in.jsonl", [long, HILL, HILL])
    flags = ("--backend", "extract", "--tokenizer", tokenizer, "--prompt-tokens", 140)
    run_data("questions", "--input", source, "--out", tmp_path / "out", *flags)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["dropped"] == {"prompt: over 140 tokens": 1, str(DroppedPair.TWICE): 1}
    (pair,) = rows_of(tmp_path / "out" / "pairs.jsonl")
    assert pair["pretrain_text"] == HILL
    assert manifest["prompts"] == 1


def test_documents_without_a_pair_are_an_error_with_reasons(
    tmp_path: Path, tokenizer: Path
) -> None:
    source = write_rows(tmp_path / "in.jsonl", ["nothing here"])
    flags = ("--backend", "extract", "--tokenizer", tokenizer, "--prompt-tokens", 140)
    with pytest.raises(RecipeError, match="no sentence with a number or a name"):
        run_data("questions", "--input", source, "--out", tmp_path / "out", *flags)
    assert not (tmp_path / "out" / "prompts.parquet").exists()


@pytest.mark.parametrize(
    ("pair", "why"),
    [
        (("How long is the Aa?", "128"), None),
        (("How long is the Aa?", "12"), DroppedPair.NOT_IN_TEXT),
        (("How long is the 128 km Aa?", "128"), DroppedPair.LEAK),
        (("How long is the 1280 m Aa?", "128"), None),
        (("How long is the river in the text?", "128"), DroppedPair.NEEDS_TEXT),
        (("How long is the Aa?", "..."), DroppedPair.PAIR_UNREAD),
        (("How long is <|end|>?", "128"), DroppedPair.SPECIAL_TOKEN),
        (("word " * 201, "128"), DroppedPair.LONG_QUESTION),
        (("word " * 200, "128"), None),
        (("What flows?", "The river Aa is 128 km long and it flows through the"), None),
        (("What flows?", RIVER), DroppedPair.LONG_ANSWER),
    ],
)
def test_rules_need_no_model(pair: tuple[str, str], why: DroppedPair | None) -> None:
    assert broken_rule(Pair(question=pair[0], answer=pair[1]), document=RIVER) is why


def test_an_answer_stands_in_a_text_as_whole_words() -> None:
    assert stands_in("4", "it has 4, not 5")
    assert stands_in("new york", "in New  York today")
    for text in ("40", "4.5", "1.4", "x4", "4x"):
        assert not stands_in("4", text)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("correct: yes\nleaks: no", None),
        ("**Correct:** Yes.\n**Leaks:** No.", None),
        ("correct: no\nleaks: no", DroppedPair.WRONG),
        ("correct: no\nleaks: yes", DroppedPair.WRONG),
        ("correct: yes\nleaks: yes", DroppedPair.CHECKER_LEAK),
        ("correct: yes", DroppedPair.CHECKER_UNREAD),
        ("correct: maybe\nleaks: no", DroppedPair.CHECKER_UNREAD),
        ("correct: yes\ncorrect: no\nleaks: no", DroppedPair.CHECKER_UNREAD),
        ("<think>correct: no\nleaks: yes</think>correct: yes\nleaks: no", None),
    ],
)
def test_a_checker_says_yes_and_no(reply: str, why: DroppedPair | None) -> None:
    assert read_check(reply) is why


def test_replies_of_other_rounds_are_read_or_refused() -> None:
    assert read_filter("YES") is None
    assert read_filter("no, it is not") is DroppedPair.NOT_INFORMATIVE
    assert read_filter("") is DroppedPair.FILTER_UNREAD
    readers = read_readers(
        "domain: Health\n" + "\n".join(f"persona: p{n}" for n in (1, 2, 2, 3, 4))
    )
    assert not isinstance(readers, DroppedPair)
    assert (readers.domain, readers.personas) == ("health", ("p1", "p2", "p3"))
    assert read_readers("domain: astrology\npersona: x") is DroppedPair.IDENTIFIER_UNREAD
    assert read_pair("question: a\nquestion: b\nanswer: 1", document="1") is DroppedPair.PAIR_UNREAD


@given(
    st.lists(st.sampled_from(["Rome", "12", "3.5", "the", "of", "sea", "a", "Oslo"]), max_size=40)
)
def test_an_extracted_answer_fills_its_gap_and_no_other(words: list[str]) -> None:
    document = "In " + " ".join(words) + "."
    for pair in extracted_pairs(document, most=3):
        assert broken_rule(pair, document=document) is None
        sentence = pair.question.partition(" Which word")[0]
        assert sentence.replace(GAP, pair.answer) == " ".join(document.split())
        assert sentence.count(GAP) == 1
