"""Rows in the real schemas (their facts, not their texts) through the adapters."""

from typing import Any

import pytest

from frontload.data_tools.curation.adapters import ADAPTERS, Rules
from frontload.data_tools.text.example import Drop, Example, Origin, row_object, split_think
from frontload.data_tools.text.turns import split_turns

RULES = Rules(domain="math", text_field="text", unsplit="drop", truncated="keep")
ORIGIN = Origin(source="s", file="f.jsonl", row=7)


def convert(adapter: str, row: dict[str, Any], **rules: str) -> Example | Drop:
    return ADAPTERS[adapter].convert(row, Rules(**(vars(RULES) | rules)))


def kept(adapter: str, row: dict[str, Any], **rules: str) -> dict[str, Any]:
    found = convert(adapter, row, **rules)
    assert isinstance(found, Example), found
    return row_object(found, ORIGIN)


def reason(adapter: str, row: dict[str, Any], **rules: str) -> str:
    found = convert(adapter, row, **rules)
    assert isinstance(found, Drop), found
    return found.reason


MARKED = (
    "<extra_id_0>System\n\n<extra_id_1>User\nWhat is 2+2?\n<extra_id_1>Assistant\n4\n"
    "<extra_id_1>User\nand 3+3?\n<extra_id_1>Assistant\n6"
)


def test_sft_turns_come_from_extra_id_markers_and_an_empty_system_turn_says_nothing() -> None:
    row = kept("nemotron_pretraining_sft", {"id": "g0", "text": MARKED}, domain="general")
    assert row["messages"] == [
        {"role": "user", "content": "What is 2+2?"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "and 3+3?"},
        {"role": "assistant", "content": "6"},
    ]
    assert (row["id"], row["family"], row["domain"]) == ("g0", "extra_id", "general")
    assert (row["source"], row["file"], row["row"]) == ("s", "f.jsonl", 7)


@pytest.mark.parametrize(
    ("text", "marker", "question", "answer"),
    [
        (
            "Compute 7*8.\n\n<think>7*8=56</think>\nThe answer is \\boxed{56}.",
            "think",
            "Compute 7*8.",
            "<think>7*8=56</think>\nThe answer is \\boxed{56}.",
        ),
        (
            "Problem: find x if x+1=2.\nSolution: x=1. Answer: x=1",
            "question_answer",
            "find x if x+1=2.",
            "x=1. Answer: x=1",
        ),
        ("Input: 3 4\nOutput: 7", "input_output", "3 4", "7"),
    ],
)
def test_sft_texts_with_a_reliable_marker(
    text: str, marker: str, question: str, answer: str
) -> None:
    split = split_turns(text)
    assert split is not None
    assert split[0] == marker
    assert tuple(turn.text for turn in split[1]) == (question, answer)


@pytest.mark.parametrize(
    "text",
    [
        "Which is a mammal?\nA. bat\nB. trout\nThe answer is A.",
        "Write add(a,b).\n```python\ndef add(a,b): return a+b\n```",
        "Some prose.\nAnswer: somewhere in the middle",
        "Problem: a question that ends\nSolution:",
        "<think>no question before it</think> 4",
        "What is it?\n\n<think>cut off before it ends",
        "<extra_id_1>User\nno answer",
        "<extra_id_1>Assistant\nno question",
        "text\n<extra_id_1>User\nmarkers do not begin the text\n<extra_id_1>Assistant\nok",
    ],
)
def test_a_text_without_a_reliable_marker_is_told_not_guessed(text: str) -> None:
    assert split_turns(text) is None
    row = {"text": text}
    assert reason("nemotron_pretraining_sft", row) == "no marker shows where the answer begins"
    whole = kept("nemotron_pretraining_sft", row, unsplit="whole_text")
    assert whole["text"] == text
    assert whole["flags"] == ["unsplit"]


def test_sft_rows_without_a_text() -> None:
    assert reason("nemotron_pretraining_sft", {"text": " \n"}) == "empty text"
    assert reason("nemotron_pretraining_sft", {"id": "x"}) == "no field text"
    assert reason("nemotron_pretraining_sft", {"text": None}) == "field text is null"
    assert reason("nemotron_pretraining_sft", {"text": 3}) == "field text is no text"


def openthoughts(answer: str, **more: Any) -> dict[str, Any]:
    said = [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": answer}]
    return {
        "difficulty": None,
        "source": "olympiad",
        "domain": "math",
        "conversations": said,
    } | more


def test_openthoughts_splits_think_from_answer_and_says_where_it_came_from() -> None:
    row = kept("openthoughts3", openthoughts("<think>\nso 2\n</think>\n\n**2**"), domain="")
    assert (row["question"], row["trace"], row["answer"]) == ("1+1?", "so 2", "**2**")
    assert (row["domain"], row["family"]) == ("math", "olympiad")
    assert row["id"] == "s:f.jsonl:7"


def test_openthoughts_reads_the_spelling_of_re_uploads() -> None:
    messages = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]
    row = kept("openthoughts3", {"domain": "science", "messages": messages}, domain="")
    assert (row["question"], row["answer"], row["domain"]) == ("1+1?", "2", "science")


def test_an_unclosed_think_is_flagged_or_dropped_as_the_recipe_says() -> None:
    row = openthoughts("<think> cut off")
    flagged = kept("openthoughts3", row)
    assert (flagged["trace"], flagged["answer"]) == ("cut off", "")
    assert flagged["flags"] == ["unclosed_think"]
    assert reason("openthoughts3", row, truncated="drop") == "<think> is never closed"


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (openthoughts(" "), "empty answer"),
        (openthoughts("2", conversations=[]), "user and assistant do not take turns"),
        (openthoughts("2", conversations=None), "no list of messages"),
        (openthoughts("2", domain=None), "no domain"),
        (
            openthoughts("2", conversations=[{"from": "tool", "value": "x"}]),
            "a message without a known role and a text",
        ),
        (
            openthoughts("2", conversations=[{"from": ["human"], "value": "x"}]),
            "a message without a known role and a text",
        ),
    ],
)
def test_openthoughts_rows_that_are_no_conversation(row: dict[str, Any], why: str) -> None:
    assert reason("openthoughts3", row, domain="") == why


def test_gsm8k_steps_become_the_trace() -> None:
    row = kept("gsm8k", {"question": "How many?", "answer": "1+1=<<1+1=2>>2\nso\n#### 2"})
    assert (row["question"], row["trace"], row["answer"]) == (
        "How many?",
        "1+1=<<1+1=2>>2\nso",
        "2",
    )
    assert reason("gsm8k", {"question": "q", "answer": "no mark"}) == "no final answer after ####"
    assert reason("gsm8k", {"question": "q", "answer": None}) == (
        "question and answer are not both text"
    )


def test_crossthink_uses_the_rules_of_the_rl_converter() -> None:
    row = {
        "data_source": "nemotron-crossthink-math",
        "prompt": [{"role": "user", "content": "Put the answer in \\boxed{}: 3*3"}],
        "reward_model": {"ground_truth": 9, "style": "rule"},
        "meta_data": {"index": 5, "question": "3*3"},
    }
    found = kept("crossthink", row)
    assert (found["question"], found["answer"]) == ("Put the answer in \\boxed{}: 3*3", "9")
    assert found["family"] == "nemotron-crossthink-math"
    assert reason("crossthink", row | {"reward_model": {"ground_truth": ""}}) == "no answer"
    assert reason("crossthink", row | {"meta_data": None}) == "not a row of Nemotron-CrossThink"


@pytest.mark.parametrize("adapter", ["nemotron_cc_v2", "nemotron_cc_math", "plain_text"])
def test_text_rows_are_base_text(adapter: str) -> None:
    row = kept(adapter, {"id": 12, "text": "A web page."}, domain="web")
    assert row == {
        "id": "12",
        "text": "A web page.",
        "family": "text",
        "domain": "web",
        "source": "s",
        "file": "f.jsonl",
        "row": 7,
    }
    assert reason(adapter, {"repo": "a/b", "rel_path": "c.py"}) == "no field text"


def test_plain_text_reads_the_field_that_the_recipe_names() -> None:
    assert kept("plain_text", {"body": "words"}, text_field="body")["text"] == "words"


@pytest.mark.parametrize(
    "row",
    [
        {"id": "a", "text": "some text"},
        {"id": "b", "question": "q", "trace": "t", "answer": "a", "family": "f", "domain": "d"},
        {"id": "c", "question": "q", "answer": "a", "source": "s0", "file": "f0", "row": 3},
        {
            "id": "d",
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "a", "reasoning_content": "t"},
            ],
        },
    ],
)
def test_rows_of_this_project_stay_as_they_are_with_their_first_origin(row: dict) -> None:
    assert kept("rows", row) == row
    example = convert("rows", row, domain="")
    assert isinstance(example, Example)
    assert (example.domain, example.family) == (
        row.get("domain", "base"),
        row.get("family", "base"),
    )
    if "text" not in row:
        trace = "t" if row["id"] in "bd" else ""
        assert split_think(example.turns[1].text) == (trace, "a")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"text": " "}, "empty text"),
        ({"question": " ", "answer": "a"}, "empty question"),
        ({"question": "q", "trace": "t", "answer": " "}, "empty answer"),
        ({"question": "q", "trace": None, "answer": "a"}, "question, trace and answer are not all"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "it does not begin with the user"),
        ({"body": "x"}, "no field text"),
    ],
)
def test_rows_of_this_project_that_say_nothing_are_dropped(row: dict, told: str) -> None:
    assert reason("rows", row).startswith(told)
