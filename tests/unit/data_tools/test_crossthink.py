"""Nemotron-CrossThink to veRL parquet: filters, blend, dedup, columns, on files of its schema."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from frontload.data_tools.prompts.choices import find_options
from frontload.data_tools.prompts.crossthink import (
    CrossThinkRequest,
    Kept,
    UngradableRow,
    blend_counts,
    convert_crossthink,
    parse_ratio,
    read_file,
    read_row,
)
from frontload.data_tools.prompts.length import PromptLimit, load_limit
from frontload.recipes.errors import RecipeError
from tests.unit.data_tools.prompt_model import wide_limit, write_model_tokenizer
from tests.unit.data_tools.room import write_jsonl
from tests.unit.data_tools.test_cli import run

HERE = Path(__file__).parent
QA, MATH = HERE / "crossthink_qa.jsonl", HERE / "crossthink_math.jsonl"

# by meta_data.index: the gold answer's kind for a kept row, else the rule that drops it
EXPECTED_QA = [
    "choice",
    "gold answer not among the options",
    "choice",
    "choice",
    "gold answer not among the options",
    "choice",
    "choice",
    "gold answer not among the options",
    "answer",
    "open answer over 10 words",
    "answer",
    "open answer over 10 words",
    "asks for options that it does not list",
    "answer",
    "no answer",
    "no answer",
    "question seen before",
    "question seen before, with another answer",
    "no question",
    "the reward is not by rule",
    "spells a special token",
    "the answer is no text or number",
    "answer",
    "answer",
    "answer",
    "the prompt does not end with the user",
    "choice",
    "holds half a character",
]
EXPECTED_MATH = ["answer", "answer", "answer", "no answer", "no answer", "choice", "choice"]
EXPECTED_MATH += ["answer", "answer", "answer", "question seen before"] + 3 * ["answer"]


def outcomes(file: Path, *, domain: str) -> list[str]:
    found = read_file(file, domain=domain)
    return [one.reason if isinstance(one, UngradableRow) else one.prompt.kind for one in found]


@pytest.fixture(scope="module")
def limit(tmp_path_factory: pytest.TempPathFactory) -> PromptLimit:
    return wide_limit(tmp_path_factory.mktemp("model"))


@pytest.fixture
def converted(tmp_path: Path, limit: PromptLimit) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The manifest and the rows of the parquet file."""
    out = tmp_path / "rl.parquet"
    manifest = convert_crossthink(CrossThinkRequest(limit=limit, qa=QA, math=MATH, out=out))
    return manifest, pq.read_table(out).to_pylist()


@pytest.mark.parametrize(
    ("file", "domain", "expected"), [(QA, "general", EXPECTED_QA), (MATH, "math", EXPECTED_MATH)]
)
def test_each_row_is_kept_or_dropped_by_its_rule(
    file: Path, domain: str, expected: list[str]
) -> None:
    before_duplicates = outcomes(file, domain=domain)
    duplicates = {n for n, reason in enumerate(expected) if reason.startswith("question seen")}
    assert [
        reason for number, reason in enumerate(before_duplicates) if number not in duplicates
    ] == [reason for number, reason in enumerate(expected) if number not in duplicates]


def test_every_row_is_written_left_out_or_dropped_by_a_counted_rule(
    converted: tuple[dict[str, Any], list[dict[str, Any]]],
) -> None:
    manifest, rows = converted
    for domain, expected in (("general", EXPECTED_QA), ("math", EXPECTED_MATH)):
        dropped = manifest["dropped"][domain]
        reasons = [reason for reason in expected if reason not in ("choice", "answer")]
        assert dropped == {reason: reasons.count(reason) for reason in reasons}
        written = manifest["rows"]["written"][domain]
        assert sum(row["ability"] == domain for row in rows) == written
        assert (
            manifest["rows"]["read"][domain]
            == len(expected)
            == written + sum(dropped.values()) + manifest["left_out_by_the_blend"][domain]
        )


def test_the_blend_is_exact(converted: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    manifest, rows = converted
    kept = {"general": 12, "math": 11}
    assert manifest["rows"]["written"] == blend_counts(kept, (2, 1)) == {"general": 12, "math": 6}
    assert manifest["left_out_by_the_blend"] == {"general": 0, "math": 5}
    abilities = [row["ability"] for row in rows]
    assert abilities != sorted(abilities), "the file is shuffled"
    assert len({row["extra_info"]["question"] for row in rows}) == 18


@pytest.mark.parametrize("seed", [2, 3])
def test_the_seed_draws_and_the_bytes_repeat(tmp_path: Path, limit: PromptLimit, seed: int) -> None:
    def written(name: str, seed: int) -> bytes:
        out = tmp_path / name
        convert_crossthink(CrossThinkRequest(limit=limit, qa=QA, math=MATH, out=out, seed=seed))
        return out.read_bytes()

    assert written("a.parquet", 1) == written("b.parquet", 1)
    assert written("a.parquet", 1) != written("c.parquet", seed)
    names = [f"{name}.parquet{end}" for name in "abc" for end in ("", ".manifest.json")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_the_columns_are_those_that_verl_reads(
    converted: tuple[dict[str, Any], list[dict[str, Any]]],
) -> None:
    manifest, rows = converted
    assert [row["extra_info"]["index"] for row in rows] == list(range(len(rows)))
    by_question = {row["extra_info"]["question"]: row for row in rows}
    planet = by_question["Which planet is the largest?"]
    assert planet == {
        "data_source": "nemotron-crossthink-qa",
        "prompt": planet["prompt"],
        "ability": "general",
        "reward_model": {"style": "rule", "ground_truth": "Jupiter"},
        "extra_info": {
            "split": "train",
            "index": planet["extra_info"]["index"],
            "kind": "choice",
            "question": "Which planet is the largest?",
            "options": ["Mars", "Jupiter", "Venus"],
            "source_index": "3",
        },
    }
    assert [message["role"] for message in planet["prompt"]] == ["user"]
    assert "\\boxed" in planet["prompt"][0]["content"]
    assert by_question["In which year did the war end?"]["reward_model"]["ground_truth"] == "1945"
    light = by_question["What is the speed of light?"]
    assert light["prompt"] == [{"role": "user", "content": "What is the speed of light?"}]
    louvre = by_question["Where is the Louvre?"]
    assert [message["role"] for message in louvre["prompt"]] == ["system", "user"]
    gas = by_question["Which gas do plants take in?"]["extra_info"]
    assert gas["options"] == ["Oxygen", "Nitrogen", "Carbon dioxide"]
    assert manifest["prompts_without_boxed"] == 2
    assert sum(manifest["kinds"].values()) == len(rows)


def test_verl_loads_the_file_as_it_loads_its_own(tmp_path: Path, limit: PromptLimit) -> None:
    """RLHFDataset of veRL 0.9.1 reads with this call and renders `prompt` by the chat template."""
    import datasets

    out = tmp_path / "rl.parquet"
    convert_crossthink(CrossThinkRequest(limit=limit, qa=QA, math=MATH, out=out))
    loaded = datasets.load_dataset(
        "parquet", data_files=str(out), cache_dir=str(tmp_path / "cache")
    )["train"]
    assert len(loaded) == 18
    for row in loaded:
        assert row["prompt"][-1]["role"] == "user"
        assert isinstance(row["reward_model"]["ground_truth"], str)
        assert row["extra_info"].get("tools_kwargs", {}) == {}


def test_the_instruction_goes_to_the_prompts_that_lack_it(
    tmp_path: Path, limit: PromptLimit
) -> None:
    out = tmp_path / "rl.parquet"
    asked = "Think first. Put the answer in \\boxed{}."
    manifest = convert_crossthink(
        CrossThinkRequest(limit=limit, qa=QA, math=MATH, out=out, instruction=asked)
    )
    last = [row["prompt"][-1]["content"] for row in pq.read_table(out).to_pylist()]
    assert sum(text.endswith(f"\n\n{asked}") for text in last) == 2
    assert manifest["prompts_without_boxed"] == 0


def test_the_command_prints_every_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rl.parquet"
    words = ("--qa", QA, "--math", MATH, "--general-to-math", "1:1", "--out", out)
    model = write_model_tokenizer(tmp_path / "model")
    assert run("crossthink", *words, "--tokenizer", model, "--prompt-tokens", "4096") == 0
    printed = capsys.readouterr().out
    assert "general: 11 of 28 rows, 1 left out by the blend, dropped {" in printed
    assert "math: 11 of 14 rows, 0 left out by the blend" in printed
    assert "'gold answer not among the options': 3" in printed
    manifest = json.loads((tmp_path / "rl.parquet.manifest.json").read_text())
    assert manifest["general_to_math"] == "1:1"
    assert str(tmp_path) not in json.dumps(manifest)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a web page"}, "field 'prompt': 'None'|field 'reward_model': fields text"),
        ({"prompt": "q", "reward_model": "5", "meta_data": {}}, "'reward_model': a JSON str"),
        ({"prompt": "q", "reward_model": {}}, "'meta_data': fields prompt, reward_model"),
        ({"prompt": 5, "reward_model": {}, "meta_data": {}}, "field 'prompt': '5'"),
        ({"prompt": [], "reward_model": {}, "meta_data": {}}, "field 'prompt'"),
        (
            {"prompt": [{"role": "tool", "content": "x"}], "reward_model": {}, "meta_data": {}},
            "a role of system, user, assistant",
        ),
        (
            {"prompt": [{"role": "user", "content": None}], "reward_model": {}, "meta_data": {}},
            "field 'prompt'",
        ),
    ],
)
def test_a_row_of_another_schema_is_named_and_nothing_is_written(
    tmp_path: Path, limit: PromptLimit, row: dict[str, Any], message: str
) -> None:
    lines = [json.loads(line) for line in QA.read_text().splitlines()][:3]
    qa = write_jsonl(tmp_path / "in" / "qa.jsonl", [*lines, row])
    out = tmp_path / "rl.parquet"
    with pytest.raises(RecipeError, match=message) as caught:
        convert_crossthink(CrossThinkRequest(limit=limit, qa=qa, math=MATH, out=out))
    assert "qa.jsonl:4" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_what_cannot_be_done_is_said_in_four_parts(tmp_path: Path, limit: PromptLimit) -> None:
    out = tmp_path / "rl.parquet"
    for ratio in ("2", "2:1:1", "0:1", "2:x", "-2:1", "2.0:1", "1001:1", ""):
        with pytest.raises(RecipeError, match="write for example 2:1"):
            parse_ratio(ratio)
    with pytest.raises(RecipeError, match="--math .*nowhere.jsonl: there is no such file"):
        convert_crossthink(
            CrossThinkRequest(limit=limit, qa=QA, math=tmp_path / "nowhere.jsonl", out=out)
        )
    with pytest.raises(RecipeError, match="ends in .parquet"):
        convert_crossthink(
            CrossThinkRequest(limit=limit, qa=QA, math=MATH, out=tmp_path / "rl.jsonl")
        )
    with pytest.raises(RecipeError, match="in a folder that exists"):
        convert_crossthink(
            CrossThinkRequest(limit=limit, qa=QA, math=MATH, out=tmp_path / "no" / "a.parquet")
        )
    with pytest.raises(RecipeError, match="'general': 12, 'math': 11.*every part of the ratio"):
        convert_crossthink(
            CrossThinkRequest(limit=limit, qa=QA, math=MATH, out=out, general_to_math="100:1")
        )
    assert list(tmp_path.iterdir()) == []


def test_a_question_in_both_files_is_asked_once(tmp_path: Path, limit: PromptLimit) -> None:
    rows = [json.loads(line) for line in MATH.read_text().splitlines()]
    qa = write_jsonl(tmp_path / "qa.jsonl", [rows[0], rows[2], rows[13]])
    manifest = convert_crossthink(
        CrossThinkRequest(
            limit=limit, qa=qa, math=MATH, out=tmp_path / "a.parquet", general_to_math="1:1"
        )
    )
    assert manifest["dropped"]["math"]["question seen before"] == 4


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("Which?\nA. one\nB. two", ("one", "two")),
        ("Which?\n(A) one\n(B) two\n\nThink first.", ("one", "two")),
        ("Which?\n A) one two\n B) three, four", ("one two", "three, four")),
        ("Which? A. one, B. two, C. three", ("one", "two", "three")),
        ("A. Smith asks: which?\nA. one\nB. two", ("one", "two")),
        ("Which?\nA. one\nC. three", ()),
        ("Which?\nA. one", ()),
        ("Which?\nA.\nB. two", ()),
        ("Which is vitamin A?", ()),
        ("", ()),
    ],
)
def test_options_are_found_where_they_are_listed(question: str, options: tuple[str, ...]) -> None:
    assert find_options(question) == options


def test_options_may_stand_in_the_prompt_alone() -> None:
    row = {
        "prompt": [{"role": "user", "content": "Capital of France?\nA. Paris\nB. Rome"}],
        "reward_model": {"ground_truth": "A"},
        "meta_data": {"index": 0, "question": "Capital of France?"},
    }
    kept = read_row(row, domain="general", where="here:1")
    assert isinstance(kept, Kept)
    assert (kept.prompt.kind, kept.prompt.options) == ("choice", ("Paris", "Rome"))
    row["reward_model"] = {"ground_truth": "Bonn"}
    dropped = read_row(row, domain="general", where="here:1")
    assert dropped == UngradableRow(reason="gold answer not among the options")


def test_a_missing_question_is_taken_from_the_prompt() -> None:
    row = {"prompt": "Who?", "reward_model": {"ground_truth": "I"}, "meta_data": {}}
    kept = read_row(row, domain="general", where="here:1")
    assert isinstance(kept, Kept)
    assert (kept.prompt.question, kept.prompt.source_index) == ("Who?", "")


def test_validation_prompts_are_kept_out_of_training(
    tmp_path: Path, limit: PromptLimit, converted: tuple[dict[str, Any], list[dict[str, Any]]]
) -> None:
    whole = [row["extra_info"]["question"] for row in converted[1]]
    train, held = tmp_path / "train.parquet", tmp_path / "held.parquet"
    manifest = convert_crossthink(
        CrossThinkRequest(
            limit=limit, qa=QA, math=MATH, out=train, validation_rows=3, validation_out=held
        )
    )
    rows = {file: pq.read_table(file).to_pylist() for file in (train, held)}
    asked = [row["extra_info"]["question"] for file in (train, held) for row in rows[file]]
    assert asked == whole
    assert {row["extra_info"]["split"] for row in rows[held]} == {"validation"}
    assert [row["extra_info"]["index"] for row in rows[held]] == [0, 1, 2]
    assert manifest["validation"]["rows"] == 3


@pytest.mark.parametrize(
    "words",
    [
        ("--validation-rows", "3"),
        ("--validation-out", "held.parquet"),
        ("--validation-rows", "3", "--validation-out", "rl.parquet"),
        ("--validation-rows", "3", "--validation-out", "held.jsonl"),
        ("--validation-rows", "999", "--validation-out", "held.parquet"),
    ],
)
def test_a_validation_that_cannot_be_is_refused_and_nothing_is_written(
    tmp_path: Path, limit: PromptLimit, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    measured = ("--tokenizer", limit.tokenizer.file, "--prompt-tokens", "4096")
    with pytest.raises(RecipeError, match="--validation-"):
        run("crossthink", "--qa", QA, "--math", MATH, "--out", "rl.parquet", *measured, *words)
    assert not list(tmp_path.iterdir())


def test_prompts_that_are_too_long_are_dropped_and_counted(
    tmp_path: Path, limit: PromptLimit, capsys: pytest.CaptureFixture[str]
) -> None:
    """The length is of the whole prompt: a byte is a token here, and the template writes some."""
    wide = tmp_path / "wide.parquet"
    convert_crossthink(CrossThinkRequest(qa=QA, math=MATH, out=wide, limit=limit))
    texts = {row["extra_info"]["question"]: prompt_text(row) for row in read(wide)}
    most = sorted(map(len, texts.values()))[9]
    out = tmp_path / "rl.parquet"
    words = ("--tokenizer", limit.tokenizer.file, "--prompt-tokens", str(most))
    assert run("crossthink", "--qa", QA, "--math", MATH, "--out", out, *words) == 0
    assert f"'over {most} tokens': " in capsys.readouterr().out
    manifest = json.loads((tmp_path / "rl.parquet.manifest.json").read_text())
    over = [manifest["dropped"][domain][f"over {most} tokens"] for domain in ("general", "math")]
    kept = [manifest["left_out_by_the_blend"][domain] for domain in ("general", "math")]
    assert sum(over) + sum(kept) + sum(manifest["rows"]["written"].values()) == 23, "fit by rule"
    assert max(len(prompt_text(row)) for row in read(out)) <= most
    assert manifest["prompt_tokens"] == most
    assert manifest["tokenizer_sha256"] == limit.tokenizer.sha256()


def prompt_text(row: dict[str, Any]) -> bytes:
    """The prompt of a row by the template of prompt_model.py, its marks one byte wide."""
    turns = "".join(f"[{turn['role']}\n{turn['content']}]" for turn in row["prompt"])
    return f"{turns}[assistant\n".encode()


def read(file: Path) -> list[dict[str, Any]]:
    return pq.read_table(file).to_pylist()


def test_prompts_all_too_long_are_refused_and_nothing_is_written(
    tmp_path: Path, limit: PromptLimit
) -> None:
    out = tmp_path / "rl.parquet"
    short = load_limit(limit.tokenizer.file, 5)
    with pytest.raises(RecipeError, match="over 5 tokens.*every part of the ratio"):
        convert_crossthink(CrossThinkRequest(qa=QA, math=MATH, out=out, limit=short))
    with pytest.raises(RecipeError, match="--prompt-tokens 0"):
        load_limit(limit.tokenizer.file, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left_out", ["--tokenizer", "--prompt-tokens"])
def test_prompts_are_not_made_without_the_tokenizer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], left_out: str
) -> None:
    from frontload.launch import cli

    words = {"--qa": QA, "--math": MATH, "--out": tmp_path / "rl.parquet"}
    words |= {"--tokenizer": write_model_tokenizer(tmp_path / "m"), "--prompt-tokens": 64}
    del words[left_out]
    given = [str(word) for pair in words.items() for word in pair]
    assert cli.main(["data", "crossthink", *given]) == 2
    said = capsys.readouterr().err
    assert left_out in said
    assert said.count("; ") >= 2
    assert not (tmp_path / "rl.parquet").exists()
