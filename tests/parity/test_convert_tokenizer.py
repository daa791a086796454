"""AutoTokenizer on an exported folder: our ids, special tokens and chat template, both kinds."""

import random
from pathlib import Path

import pytest

from frontload.data_tools.text.document import Conversation
from frontload.data_tools.text.render import encode_documents, encode_prompts
from frontload.data_tools.text.tokenizer import END, PAD, SPECIAL_TOKENS, TextTokenizer
from frontload.data_tools.text.train_tokenizer import train
from frontload.megatron_ext.hf.convert import export_hf
from frontload.megatron_ext.hf.tokenizer import TOKENS
from frontload.recipes.errors import ArtifactError
from frontload.recipes.schema import Tokenizer
from tests.training_inputs import tiny_model
from tests.unit.data_tools.room import write_jsonl
from tests.unit.megatron_ext.convert_inputs import write_checkpoint, write_tokenizer_file

transformers = pytest.importorskip("transformers")

SENTENCE = "what is the sum of 3 and 41 ? steps : + = 44 so done . x7"


def text(seed: int, *, count: int = 12) -> str:
    return " ".join(random.Random(seed).choices(SENTENCE.split(), k=count))


@pytest.fixture(params=["word", "byte_bpe"])
def folders(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A trained tokenizer's folder and an export that holds it."""
    rows = [{"id": str(seed), "text": text(seed)} for seed in range(40)]
    corpus = write_jsonl(tmp_path / "base.jsonl", rows)
    made = train(Tokenizer(kind=request.param, vocab_size=300), [corpus]).tokenizer
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text(made.to_json())
    (tmp_path / "checkpoint").mkdir()
    write_checkpoint(tmp_path / "checkpoint", tiny_model(vocab_size=320))
    export_hf(tmp_path / "checkpoint", tmp_path / "hf", tokenizer=tmp_path / "tokenizer")
    return tmp_path / "tokenizer", tmp_path / "hf"


def test_ids_roles_and_template_are_ours(folders: tuple[Path, Path]) -> None:
    ours, theirs = (
        TextTokenizer.load(folders[0]),
        transformers.AutoTokenizer.from_pretrained(folders[1]),
    )
    assert (theirs.pad_token_id, theirs.eos_token_id) == (PAD, END)
    assert (theirs.bos_token_id, theirs.unk_token_id) == (None, None)
    assert [theirs.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS] == list(range(6))
    assert set(theirs.all_special_tokens) == {SPECIAL_TOKENS[PAD], SPECIAL_TOKENS[END]}
    assert theirs.model_max_length == tiny_model().max_sequence_tokens
    for seed in range(100, 130):
        question, trace, answer = (text(seed + part, count=9) for part in (0, 1000, 2000))
        assert theirs(question)["input_ids"] == ours.encode(question)
        assert theirs.decode(ours.encode(question)) == ours.decode(ours.encode(question))
        asked = [{"role": "user", "content": question}]
        prompt = theirs.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
        assert prompt == encode_prompts(ours, [question])[0]
        steps = trace if seed % 2 else ""
        said = {"role": "assistant", "content": answer, "reasoning_content": steps}
        row = Conversation(
            id="0", question=question, trace=steps, answer=answer, family="", domain=""
        )
        document = theirs.apply_chat_template([*asked, said], return_dict=False)
        assert document == encode_documents(ours, [row], append_eod=True)[0]


def test_special_tokens_are_named_alike_in_both_rooms() -> None:
    assert TOKENS == SPECIAL_TOKENS


def test_marks_stay_visible_through_every_round_trip(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """A server that skips special tokens leaves out the end, and nothing that a grader needs."""
    ours = TextTokenizer.load(folders[0])
    ids = ours.encode(f"{text(1)} <|user|> {text(2)} <|answer|> 44 <|unk|> <|end|> <|pad|>")
    theirs = transformers.AutoTokenizer.from_pretrained(folders[1])
    theirs.save_pretrained(tmp_path / "saved")
    for found in (theirs, transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")):
        assert found.decode(ids, skip_special_tokens=True) == ours.decode(ids[:-2])
        assert found.decode(ids) == ours.decode(ids)
        assert found(ours.decode(ids))["input_ids"] == ids


def test_an_exported_tokenizer_is_still_this_projects_own(folders: tuple[Path, Path]) -> None:
    """Its data tools still refuse a row that spells a mark, and the folder exports again."""
    made, exported = (TextTokenizer.load_ours(folder) for folder in folders)
    assert exported.special_tokens == made.special_tokens
    sample = f"{text(5)} <|answer|> 44 <|end|>"
    assert exported.encode(sample) == made.encode(sample)


def test_generation_stops_at_our_end(folders: tuple[Path, Path]) -> None:
    config = transformers.GenerationConfig.from_pretrained(folders[1])
    assert (config.eos_token_id, config.pad_token_id) == (END, PAD)
    model = transformers.AutoConfig.from_pretrained(folders[1])
    ids = (model.bos_token_id, model.eos_token_id, model.pad_token_id)
    assert ids == (None, END, PAD)


@pytest.mark.parametrize("case", ["other special tokens", "no file", "not a tokenizer"])
def test_a_tokenizer_of_another_family_is_refused(tmp_path: Path, case: str) -> None:
    (tmp_path / "checkpoint").mkdir()
    write_checkpoint(tmp_path / "checkpoint", tiny_model())
    file = tmp_path / "tokenizer.json"
    if case == "other special tokens":
        write_tokenizer_file(file, special=("<unk>", "<s>", "</s>"))
    if case == "not a tokenizer":
        file.write_text("[]")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ArtifactError, match="tokenizer"):
        export_hf(tmp_path / "checkpoint", tmp_path / "hf", tokenizer=file)
    assert sorted(tmp_path.rglob("*")) == before
