"""The chat templates that TRL ships, against transformers' own rendering, ids and masks."""

import json
import sys
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from frontload.data_tools.packing.encode import Counts, PackRules, SequenceEncoder
from frontload.data_tools.raw.parse import RawRow
from frontload.data_tools.text.chat import ChatTemplate
from frontload.data_tools.text.messages import Dialogue, Misfit, read_dialogue
from frontload.data_tools.text.targets import ChatRow, History, TargetRules, cut_rows
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.recipes.errors import RecipeError
from tests.unit.data_tools_preprocess.families import tokenizer_of

DAY = date(2026, 1, 31)
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
ADD_UP = {
    "type": "function",
    "function": {
        "name": "add_up",
        "description": "adds <numbers> & more",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer", "description": "one"}},
            "required": ["a"],
        },
    },
}
CALL = {"type": "function", "function": {"name": "add_up", "arguments": {"a": 4}}}


def user(content: object) -> dict[str, Any]:
    return {"role": "user", "content": content}


def answer(content: object, **more: object) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


SUM, TWICE = user("What is 2+3?"), user("And 4+4?")
ROWS: dict[str, dict[str, Any]] = {
    "one turn": {"messages": [SUM, answer("It is 5.")]},
    "system": {"messages": [{"role": "system", "content": "Be brief."}, SUM, answer("It is 5.")]},
    "developer": {
        "messages": [{"role": "developer", "content": "Be brief."}, SUM, answer("It is 5.")]
    },
    "two turns": {"messages": [SUM, answer("It is 5."), TWICE, answer("Eight.")]},
    "reasoning": {"messages": [SUM, answer("It is 5.", reasoning_content="add them")]},
    "two with reasoning": {
        "messages": [
            SUM,
            answer("It is 5.", reasoning_content="add them"),
            TWICE,
            answer("<think>double four</think>Eight."),
        ]
    },
    "parts": {"messages": [user([{"type": "text", "text": "What is 2+3?"}]), answer("It is 5.")]},
    "tools": {
        "messages": [
            user("Sum?"),
            answer(None, tool_calls=[CALL]),
            {"role": "tool", "content": "8", "name": "add_up"},
            answer("Eight."),
        ],
        "tools": [ADD_UP],
    },
}
"""Conversations that people have."""
ALTERNATE = "the template refuses it: TemplateError: Conversation roles must altern"
LEFT_OUT = "the template leaves out a turn of role {}, or alters it"
REFUSED: dict[str, dict[str, str]] = {
    "system": {"the template refuses it: TemplateError: System role not supported": "gemma"},
    "developer": {
        ALTERNATE: "cohere gemma gemma3",
        LEFT_OUT.format("developer"): "cohere2 deepseek_r1_distill deepseekv3 glm4moe muse_glimmer"
        " phi3 phi3_5 qwen2_5 qwen3 qwen3_instruct_2507 qwen3_vl",
        "the template refuses it: TemplateError: Only user and assistant roles": "llava_next",
        "the template refuses it: TemplateError: Unexpected message role": "qwen3_5_nothink"
        " qwen3_5_think qwen3_6 qwen3_8",
    },
    "reasoning": {
        "the template leaves out the reasoning of a turn of role assistant": "deepseek_r1_distill"
        " deepseekv3"
    },
    "tools": {
        ALTERNATE: "cohere cohere2 gemma gemma3",
        "the template refuses it: UndefinedError": "idefics3 llava_next smolvlm",
        "the template leaves out a call of a tool": "lfm2",
        LEFT_OUT.format("assistant"): "llama3 phi3 phi3_5 qwen2_5_vl",
    },
}
"""Who has no way to write them, by what is told of it."""
REFUSED["two with reasoning"] = REFUSED["reasoning"]


@pytest.fixture(autouse=True)
def stated_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers writes today's date; here it is the stated one."""

    class Stated(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Stated":
            return cls(DAY.year, DAY.month, DAY.day)

    monkeypatch.setattr(chat_template_utils, "datetime", Stated)


TEMPLATES = Path(sys.prefix) / "templates/trl/chat_templates"
"""Of trl, which is out of sight of other processes: veRL imports from a trl what it has no more."""


def files(*, training: bool) -> list[Path]:
    found = sorted(TEMPLATES.glob("*.jinja"))
    assert found, f"run `make environment`: it puts trl's files into {TEMPLATES}"
    return [file for file in found if file.stem.endswith("_training") == training]


STOCK, TRAINING = files(training=False), files(training=True)


@lru_cache(maxsize=80)
def template(file: Path) -> ChatTemplate:
    source = file.read_text(encoding="utf-8")
    return ChatTemplate(source, named_tokens=TOKENS, name=file.name, day=DAY)


def dialogue(row: dict[str, Any]) -> Dialogue:
    found = read_dialogue(row)
    assert isinstance(found, Dialogue), found
    return found


def cut(file: Path, row: dict[str, Any], **rules: Any) -> list[ChatRow] | Misfit:
    return cut_rows(template(file), dialogue(row), rules=TargetRules(**rules))


def targets(row: ChatRow) -> list[str]:
    return [piece.text for piece in row.pieces if piece.is_target]


def by_transformers(
    file: Path, row: dict[str, Any], **options: Any
) -> tuple[str, list[tuple[int, int]]]:
    found = dialogue(row)
    texts, spans = chat_template_utils.render_jinja_template(
        [[template(file).prepared(turn) for turn in found.messages]],
        chat_template=file.read_text(encoding="utf-8"),
        tools=list(found.tools) or None,
        **options,
        **TOKENS,
    )
    return texts[0], spans[0] if spans else []


def test_there_are_as_many_as_were_measured() -> None:
    assert (len(STOCK), len(TRAINING)) == (41, 31)


@pytest.mark.parametrize("name", ROWS)
def test_stock_templates_pack_it_as_transformers_writes_it_or_say_why(name: str) -> None:
    """Each target follows what inference gives the model, a prompt of the same template."""
    row = ROWS[name]
    refused: dict[str, str] = {}
    for file in STOCK:
        found = cut(file, row)
        if isinstance(found, Misfit):
            refused[file.stem] = f"{found.reason}: {found.detail}"
            continue
        assert found[-1].text == by_transformers(file, row)[0], file.stem
        last = dialogue(row).messages[-1]
        said = targets(found[-1])[-1]
        assert last["content"] in said, file.stem
        assert last.get("reasoning_content", "") in said, file.stem
        answers = sum(message["role"] == "assistant" for message in row["messages"])
        assert sum(len(targets(one)) for one in found) == answers, file.stem
    told = {stem: why for why, stems in REFUSED.get(name, {}).items() for stem in stems.split()}
    assert refused.keys() == told.keys()
    assert [stem for stem, why in told.items() if not refused[stem].startswith(why)] == []


@pytest.mark.parametrize("name", ["two turns", "two with reasoning", "tools"])
def test_each_row_ends_with_a_target_behind_the_prompt_of_inference(name: str) -> None:
    """The model is told to think or not; DeepSeek's open a thought that rows may not have."""
    for file in STOCK:
        if isinstance(found := cut(file, ROWS[name]), Misfit):
            continue
        last = max(at for at, piece in enumerate(found[-1].pieces) if piece.is_target)
        before = "".join(piece.text for piece in found[-1].pieces[:last])
        asked = dialogue(ROWS[name])
        turns = [template(file).prepared(turn) for turn in asked.messages[:-1]]
        prompts = [
            template(file).rendered(turns, tools=asked.tools, is_prompt=True, **switches).text
            for switches in ({}, {"enable_thinking": False}, {"enable_thinking": True})
        ]
        if found[-1].unopened:
            assert file.stem.startswith("deepseek")
            prompts = [prompt.removesuffix("<think>\n") for prompt in prompts]
        assert before in prompts or template(file).has_generation, file.stem


@pytest.mark.parametrize("name", ROWS)
def test_targets_are_what_generation_tags_mark(name: str) -> None:
    tagged = 0
    for file in [*TRAINING, *STOCK]:
        found = cut(file, ROWS[name])
        if not template(file).has_generation or isinstance(found, Misfit):
            continue
        text, spans = by_transformers(file, ROWS[name], return_assistant_tokens_mask=True)
        assert [one.text for one in found] == [text], file.stem
        assert targets(found[0]) == [text[slice(*span)] for span in spans if span[0] < span[1]]
        tagged += 1
    assert tagged >= 14


@pytest.fixture(scope="module", params=["qwen", "sentencepiece"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Byte-level, and with a normalizer that puts a blank before each text that it is given."""
    file = tokenizer_of(request.param, tmp_path_factory.mktemp("library"))
    loaded = Tokenizer.from_file(str(file))
    marks = ("<|im_start|>", "<|im_end|>", "<s>", "</s>")
    loaded.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in marks])
    loaded.save(str(file))
    return file


INST = """{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}[INST] \
{{ message.content }} [/INST]{% else %}{% generation %}{{ message.content }}{{ eos_token }}\
{% endgeneration %}{% endif %}{% endfor %}"""
BAR = INST.replace("{% generation %}", "").replace("{% endgeneration %}", "")


def encoded(library: Path, source: str, rows: list[dict[str, Any]]) -> list[tuple[list, list]]:
    loaded = TextTokenizer.load(library)
    chat = ChatTemplate(source, named_tokens=TOKENS, name="a", day=DAY)
    rules = PackRules(sequence_tokens=4096, over_long="drop", source_field="source")
    raw = [RawRow(Path("rows.jsonl"), number, row) for number, row in enumerate(rows, start=1)]
    found = SequenceEncoder(loaded, chat, rules).encode(raw, Counts())
    return [(one.tokens.tolist(), one.mask.tolist()) for parts in found for one in parts]


def by_library(library: Path, source: str, row: dict[str, Any]) -> tuple[list, list]:
    wrapped = PreTrainedTokenizerFast(tokenizer_file=str(library), **TOKENS)
    found = wrapped.apply_chat_template(
        row["messages"],
        chat_template=source,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    mask = list(found["assistant_masks"])
    text = wrapped.apply_chat_template(row["messages"], chat_template=source, tokenize=False)
    offsets = Tokenizer.from_file(str(library)).encode(text, add_special_tokens=False).offsets
    for at in range(1, len(mask)):  # a character of several tokens: it marks the first of the last
        if mask[at - 1] and offsets[at] == offsets[at - 1]:
            mask[at] = 1
    return list(found["input_ids"]), mask


PLAIN_ROWS = [
    ROWS["one turn"],
    ROWS["two turns"],
    {"messages": [user(" a"), answer("\n b \u00e9")]},
]


@pytest.mark.parametrize("stem", ["", "qwen3", "llama3", "cohere2", "gemma"])
def test_ids_and_masks_are_those_of_apply_chat_template(library: Path, stem: str) -> None:
    stems = {file.stem.removesuffix("_training"): file for file in TRAINING}
    source = stems[stem].read_text(encoding="utf-8") if stem else INST
    found = encoded(library, source, PLAIN_ROWS)
    assert found == [by_library(library, source, row) for row in PLAIN_ROWS]


def test_targets_by_place_need_no_tags(library: Path) -> None:
    """The same ids and masks from the generation prompt alone."""
    assert encoded(library, BAR, PLAIN_ROWS) == encoded(library, INST, PLAIN_ROWS)


def test_a_stated_day_is_written_and_a_missing_one_is_asked_for() -> None:
    file = next(file for file in STOCK if file.stem == "gptoss")
    found = cut(file, ROWS["one turn"])
    assert isinstance(found, list)
    assert "Current date: 2026-01-31" in found[0].text
    with pytest.raises(RecipeError, match="it writes the day, and none is stated; .* --date"):
        ChatTemplate(file.read_text(encoding="utf-8"), named_tokens=TOKENS, name="gptoss")


def qwen3() -> Path:
    return next(file for file in STOCK if file.stem == "qwen3")


def test_history_is_a_row_a_turn_or_as_the_template_writes_it() -> None:
    row = ROWS["two with reasoning"]
    by_turn = cut(qwen3(), row)
    assert isinstance(by_turn, list)
    assert [targets(one) for one in by_turn] == [
        ["<think>\nadd them\n</think>\n\nIt is 5.<|im_end|>"],
        ["<think>\ndouble four\n</think>\n\nEight.<|im_end|>"],
    ]
    assert "add them" not in by_turn[1].text
    as_written = cut(qwen3(), row, history=History.TEMPLATE)
    assert as_written == [by_turn[1].__class__(pieces=by_turn[1].pieces, left_out=1)]
    inline = cut(qwen3(), row, history=History.INLINE)
    assert inline == Misfit(
        reason="the template leaves out the reasoning of earlier turns, however written"
    )


@pytest.mark.parametrize("stem", ["nemotron_3_nano", "nemotron_3_super", "qwen3_6", "llama3"])
def test_inline_history_keeps_the_reasoning_in_one_row(stem: str) -> None:
    file = next(file for file in STOCK if file.stem == stem)
    found = cut(file, ROWS["two with reasoning"], history=History.INLINE)
    assert isinstance(found, list)
    (one,) = found
    assert len(targets(one)) == 2
    assert "add them" in targets(one)[0]
    assert "double four" in targets(one)[1]


@pytest.mark.parametrize("stem", ["nemotron_3_nano", "qwen3", "llama3", "gptoss"])
def test_thinking_is_masked_and_the_answer_is_not(stem: str) -> None:
    file = next(file for file in STOCK if file.stem == stem)
    plain = cut(file, ROWS["reasoning"])
    masked = cut(file, ROWS["reasoning"], masks_thinking=True)
    assert isinstance(plain, list)
    assert isinstance(masked, list)
    assert masked[0].text == plain[0].text
    (said,) = targets(masked[0])
    assert "add them" not in said
    assert "</think>" not in said
    assert targets(plain[0])[0].endswith(said)
    assert "It is 5." in said


def test_the_last_turn_alone_is_a_target() -> None:
    for file in [*STOCK, *TRAINING]:
        found = cut(file, ROWS["two turns"], last_turn_only=True)
        if isinstance(found, Misfit):
            assert "does not mark each turn" in found.reason
            continue
        (one,) = found
        assert ["Eight." in said for said in targets(one)] == [True], file.stem
        assert "It is 5." in one.text


@pytest.mark.parametrize("says", [{"weight": 0}, {"train": False}, {"loss": False, "weight": 0.0}])
def test_a_turn_without_weight_is_context(says: dict[str, Any]) -> None:
    turns = [SUM, answer("WRONG", **says), TWICE, answer("Eight.", weight=1)]
    for stem in ("llama3", "qwen3", "phi3"):
        file = next(file for file in STOCK if file.stem == stem)
        found = cut(file, {"messages": turns})
        assert isinstance(found, list)
        assert [said for one in found for said in targets(one) if "WRONG" in said] == []
        assert "WRONG" in found[-1].text


LOSS_REFUSED = [
    ({"messages": [SUM, answer("5", weight=0.5)]}, "a weight that is neither 0 nor 1"),
    ({"messages": [SUM, answer("5", weight=0, train=True)]}, "contradict each other"),
    ({"messages": [SUM, answer("5", train=False)]}, "no turn to train on"),
    ({"messages": [SUM, answer("5")], "weight": 0}, "no turn to train on"),
    ({"messages": [SUM | {"train": True}, answer("5")]}, "on a turn of role user"),
    ({"messages": [SUM, answer("5")], "tools": [{"a": 1}]}, "wrong type"),
    ({"messages": [SUM, answer("5")], "tools": "{"}, "wrong type"),
    ({"messages": [SUM, answer(None)]}, "null value"),
    ({"messages": [SUM, answer("5", tool_calls=[{"id": "1"}])]}, "a call of a tool without a name"),
    ({"messages": [user([{"type": "image"}]), answer("5")]}, "a part of type image"),
    ({"messages": [SUM, {"role": "tool", "content": "5"}, answer("5")]}, "role tool behind one of"),
]


@pytest.mark.parametrize(("row", "told"), LOSS_REFUSED, ids=[told for _, told in LOSS_REFUSED])
def test_what_cannot_be_honoured_is_a_misfit(row: dict[str, Any], told: str) -> None:
    found = read_dialogue(row)
    assert isinstance(found, Misfit)
    assert told in found.reason


def test_tools_and_arguments_as_text_are_read_as_servers_hand_them_on() -> None:
    """Tables hold both as JSON text; templates get objects, or text where they add it to text."""
    row = ROWS["tools"]
    call = {"type": "function", "function": CALL["function"] | {"arguments": '{"a": 4}'}}
    turns = [row["messages"][0], answer(None, tool_calls=[call]), *row["messages"][2:]]
    as_text = {"messages": turns, "tools": json.dumps(row["tools"])}
    for file in STOCK:
        assert cut(file, as_text) == cut(file, row), file.stem


def test_a_noncharacter_is_no_mark() -> None:
    found = cut(qwen3(), {"messages": [user("a \ufdd0 b \ufdd1"), answer("c")]})
    assert isinstance(found, Misfit)
    assert "U+FDD0" in found.reason


def test_masks_never_reach_beyond_their_row(library: Path) -> None:
    tokens, mask = encoded(library, BAR, PLAIN_ROWS[:1])[0]
    assert len(tokens) == len(mask)
    assert np.flatnonzero(mask)[0] > 0
