"""`data pack` and `data verify --input` as typed: what inference has, and every loss told."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from frontload.data_tools.disk.files import read_json
from frontload.data_tools.disk.indexed import IndexedReader
from frontload.data_tools.packing.rows import describe_file
from frontload.recipes.artifact import write_json
from frontload.recipes.errors import RecipeError
from tests.unit.data_command import run_data_command
from tests.unit.data_tools.chats import FORGETFUL, chatml_tokenizer, dialogue
from tests.unit.data_tools.room import write_jsonl
from tests.unit.data_tools_preprocess.families import tokenizer_of

BAR = """{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}[INST] \
{{ message.content }} [/INST]{% else %} {{ message.content }}{{ eos_token }}\
{% endif %}{% endfor %}"""
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer whose normalizer puts a blank before each text that it is given."""
    folder = tmp_path_factory.mktemp("mistral")
    file = tokenizer_of("sentencepiece", folder)
    library = Tokenizer.from_file(str(file))
    marks = [AddedToken(one, special=True, normalized=False) for one in TOKENS.values()]
    library.add_special_tokens(marks)
    library.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**TOKENS, "chat_template": BAR}))
    return folder


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chatml_tokenizer(tmp_path_factory.mktemp("forgetful"), template=FORGETFUL)


def pack(tokenizer: Path, rows: list[dict[str, Any]], output: Path, *more: object) -> Path:
    file = write_jsonl(output.parent / "rows.jsonl", rows)
    words = [file, "--tokenizer", tokenizer, "--sequence-tokens", 512, "--over-long", "drop"]
    assert run_data_command("pack", *words, "--output", output, *more) == 0
    return output


def sequences(folder: Path) -> list[tuple[int, list[int], list[int]]]:
    """(row, ids, mask) of each."""
    tokens, mask = IndexedReader(folder / "tokens"), IndexedReader(folder / "loss_mask")
    origin = np.load(folder / "origin.npy")
    return [
        (int(row), tokens.sequence(n).tolist(), mask.sequence(n).tolist())
        for n, (_, row, _) in enumerate(origin)
    ]


def test_ids_before_and_in_a_target_are_those_of_inference(mistral: Path, tmp_path: Path) -> None:
    """Pieces encoded apart give another first token to every answer, and a stray blank."""
    rows = [dialogue(f"{n} apples?", f"It is {n}.", "Sure?", f"Yes {n}") for n in range(30)]
    made = pack(mistral, rows, tmp_path / "P", "--workers", 2)
    wrapped = PreTrainedTokenizerFast(tokenizer_file=str(mistral / "tokenizer.json"), **TOKENS)

    def applied(messages: list[dict[str, str]]) -> list[int]:
        found = wrapped.apply_chat_template(messages, chat_template=BAR, return_dict=True)
        return list(found["input_ids"])

    for row, ids, mask in sequences(made):
        messages = rows[row - 1]["messages"]
        assert ids == applied(messages)
        begins = np.flatnonzero(np.diff([0, *mask]) == 1).tolist()
        prompts = [applied(messages[:1]), applied(messages[:3])]
        assert [ids[:at] for at in begins] == prompts
    assert (
        run_data_command("verify", made, "--tokenizer", mistral, "--input", tmp_path / "rows.jsonl")
        == 0
    )


def test_verify_proves_a_pack_from_its_source(
    forgetful: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One id changed for another that may stand there, in all its digests: only the rows know."""
    rows = [dialogue("a", "<think>x1</think>b", "c", f"<think>x2</think>d{n}") for n in range(20)]
    made = pack(forgetful, rows, tmp_path / "P")
    source = ("--tokenizer", forgetful, "--input", tmp_path / "rows.jsonl")
    assert read_json(made / "pack.json")["sequences"] == 40
    assert run_data_command("verify", made, *source) == 0
    data = np.memmap(made / "tokens.bin", np.uint16, mode="r+")
    at = int(np.flatnonzero(np.memmap(made / "loss_mask.bin", np.uint8, mode="r"))[1])
    data[at] += 1
    data.flush()
    stated = read_json(made / "pack.json")
    stated["files"]["tokens.bin"] = describe_file(made / "tokens.bin")
    write_json(made / "pack.json", stated)
    assert run_data_command("verify", made, "--tokenizer", forgetful) == 0
    capsys.readouterr()
    assert run_data_command("verify", made, *source) == 1
    told = capsys.readouterr().out
    assert (
        "WRONG sequences have the ids and masks of their rows' whole texts: 40 sequences, 1" in told
    )
    assert "rows.jsonl:" in told
    (tmp_path / "rows.jsonl").write_text(json.dumps(rows[0]) + "\n")
    assert run_data_command("verify", made, *source) == 1
    assert "WRONG sources" in capsys.readouterr().out
    with pytest.raises(RecipeError, match="--input: no --tokenizer"):
        run_data_command("verify", made, *source[2:])
    with pytest.raises(RecipeError, match="--template other: no --input"):
        run_data_command("verify", made, *source[:2], "--template", "other")


@pytest.mark.parametrize(
    ("more", "sizes", "told"),
    [
        ((), (2, 2), "1 in 2 rows that each end with a turn"),
        (("--history", "template"), (1, 1), "1 turns without loss: the template writes them"),
        (("--last-turn-only",), (1, 1), "1 of 1 packed"),
    ],
)
def test_what_becomes_of_earlier_turns_is_told(
    forgetful: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    sizes: tuple[int, int],
    told: str,
) -> None:
    row = dialogue("a", "<think>x1</think>b", "c", "<think>x2</think>d")
    made = pack(forgetful, [row], tmp_path / "P", *more)
    assert told in capsys.readouterr().out
    found = sequences(made)
    targets = sum(int((np.diff([0, *mask]) == 1).sum()) for _, _, mask in found)
    assert (len(found), targets) == sizes
    assert sorted(np.load(made / "origin.npy")[:, 2].tolist()) == list(range(len(found)))
    source = ("--tokenizer", forgetful, "--input", tmp_path / "rows.jsonl")
    assert run_data_command("verify", made, *source) == 0


def test_a_drop_names_file_row_and_key(
    forgetful: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    share = {"conversations": [{"from": "human", "value": "a"}]}
    null = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": None}]}
    rows = [dialogue("a", "b"), null, dialogue("a", "b"), share]
    with pytest.raises(RecipeError) as caught:
        pack(forgetful, rows, tmp_path / "P")
    assert "null value (first rows.jsonl:2 messages[1].content)" in str(caught.value)
    told = "missing key (first rows.jsonl:4 messages, or question; fields: conversations)"
    assert told in str(caught.value)
    made = pack(forgetful, rows, tmp_path / "P", "--max-bad-rate", 0.5)
    assert (
        "1 dropped: null value (first rows.jsonl:2 messages[1].content)" in capsys.readouterr().out
    )
    examples = read_json(made / "pack.json")["sources"]["rows.jsonl"]["examples"]
    assert examples["null value"] == "rows.jsonl:2 messages[1].content"


def test_a_pack_that_lost_most_rows_is_refused_until_it_is_asked_for(
    forgetful: Path, tmp_path: Path
) -> None:
    rows = [dialogue("a", "b" * 2000), dialogue("a", "b"), dialogue("a", "c" * 2000)]
    with pytest.raises(RecipeError, match="--max-lost-rate 0.5: 2 of 3 rows are lost; 2 of rows"):
        pack(forgetful, rows, tmp_path / "P")
    assert not (tmp_path / "P").exists()
    with pytest.raises(
        RecipeError, match="no conversation.*mend rows that are dropped for another"
    ):
        pack(forgetful, [{"text": "no turns"}], tmp_path / "Q")
    pack(forgetful, rows, tmp_path / "P", "--max-lost-rate", 0.7)
    assert read_json(tmp_path / "P" / "pack.json")["conversations_packed"] == 1
    with pytest.raises(RecipeError, match="--max-lost-rate 1.5: no share"):
        pack(forgetful, rows, tmp_path / "Q", "--max-lost-rate", 1.5)
    with pytest.raises(RecipeError, match="--date 31.1.2026: no day"):
        pack(forgetful, rows, tmp_path / "Q", "--date", "31.1.2026")


def test_a_budget_in_real_tokens_is_asked_for_by_four_numbers(
    mistral: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [dialogue("why?", f"because {number} " * (3 + number % 5)) for number in range(40)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    words = ["pack", tmp_path / "rows.jsonl", "--tokenizer", mistral, "--sequence-tokens", 128]
    words += ["--over-long", "drop", "--output", tmp_path / "B"]
    budget = ["--budget-unit", "loss", "--budget-tokens", 2_001, "--step-tokens", 200]
    with pytest.raises(RecipeError, match="--batch-sequences 0: with --budget-unit loss"):
        run_data_command(*words, *budget)
    with pytest.raises(RecipeError, match="--step-tokens 40: with --budget-unit rows"):
        run_data_command(*words, "--budget-tokens", 1_280, "--step-tokens", 40)
    assert run_data_command(*words, *budget, "--batch-sequences", 4) == 0
    assert "2001 tokens with loss in 11 steps: " in capsys.readouterr().out
    made = read_json(tmp_path / "B" / "pack.json")
    assert (made["step_budget"]["steps"], made["num_samples"]) == (11, 44)
    assert run_data_command("verify", tmp_path / "B", "--tokenizer", mistral) == 0
    assert "budget in tokens loss: 2001" in capsys.readouterr().out
