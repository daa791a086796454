"""What stands around a document: the tokenizer's own begin and end, named, told or left out."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from megatron.core.tokenizers.text.libraries.huggingface_tokenizer import HuggingFaceTokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from frontload.data_tools.disk.indexed import IndexedReader
from frontload.data_tools.preprocess.request import PreprocessRequest
from frontload.data_tools.preprocess.slurm import array_script
from frontload.recipes.errors import RecipeError
from tests.unit.data_tools_preprocess.files import EOD, documents, train_foreign, write_texts

TEXTS = [*documents(40, seed=5), "\u00e9t\u00e9", "a"]


@pytest.fixture
def model(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder as models ship it; its post-processor puts <s> before a text, and </s> behind."""
    folder = tmp_path / "model"
    folder.mkdir()
    library = Tokenizer.from_file(str(train_foreign(folder / "tokenizer.json")))
    library.no_truncation()
    library.no_padding()
    library.add_special_tokens(["<s>", "</s>"])
    library.post_processor = processors.TemplateProcessing(
        single=getattr(request, "param", "<s> $A"),
        special_tokens=[(one, library.token_to_id(one)) for one in ("<s>", "</s>")],
    )
    library.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def ids(prefix: Path) -> list[list[int]]:
    reader = IndexedReader(prefix)
    return [reader.sequence(number).tolist() for number in range(reader.num_sequences)]


def run(frontload: Callable[..., int], folder: Path, tokenizer: Path, *more: object) -> Path:
    file = write_texts(folder / "rows.jsonl", TEXTS)
    words = ["--input", file, "--output-prefix", folder / "P", "--tokenizer", tokenizer]
    assert frontload("preprocess", *words, "--workers", 1, *more) == 0
    return folder / "P"


@pytest.mark.parametrize("model", ["<s> $A", "<s> $A </s>"], indirect=True)
@pytest.mark.parametrize("eod", [(), ("--append-eod", "--eod-token", EOD)], ids=["bare", "eod"])
def test_as_the_tokenizer_says_is_what_megatron_core_writes(
    tmp_path: Path, frontload: Callable[..., int], model: Path, eod: tuple[str, ...]
) -> None:
    prefix = run(frontload, tmp_path, model, "--prepend-bos", *eod)
    megatron = HuggingFaceTokenizer(str(model))
    end = [Tokenizer.from_file(str(model / "tokenizer.json")).token_to_id(EOD)] if eod else []
    assert ids(prefix) == [[*megatron.text_to_ids(text), *end] for text in TEXTS]


def test_a_named_token_begins_each_document(
    tmp_path: Path, frontload: Callable[..., int], foreign: Path
) -> None:
    prefix = run(frontload, tmp_path, foreign, "--prepend-bos", EOD)
    library = Tokenizer.from_file(str(foreign))
    library.no_truncation()
    library.no_padding()
    number = library.token_to_id(EOD)
    assert ids(prefix) == [[number, *library.encode(text).ids] for text in TEXTS]
    assert json.loads((tmp_path / "P.manifest.json").read_text())["ids_around"] == [[number], []]
    assert frontload("verify", prefix, "--tokenizer", foreign) == 0


def test_what_is_left_out_is_told(
    tmp_path: Path,
    frontload: Callable[..., int],
    model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(frontload, tmp_path, model)
    assert (
        "without <s>, which the tokenizer puts around a text: --prepend-bos"
        in capsys.readouterr().out
    )
    stated = json.loads((tmp_path / "P.manifest.json").read_text())
    assert stated["left_out_around"] == {"before": ["<s>"], "behind": []}


@pytest.mark.parametrize(
    ("token", "told"),
    [
        (("<ss>",), "--prepend-bos <ss>: special tokens <|endoftext|>"),
        ((), "--prepend-bos: a tokenizer whose post_processor puts nothing before a text"),
    ],
)
def test_a_token_that_is_none_is_refused(
    tmp_path: Path, frontload: Callable[..., int], foreign: Path, token: tuple[str, ...], told: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        run(frontload, tmp_path, foreign, "--prepend-bos", *token)
    assert told in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_the_tasks_of_an_array_ask_for_it_too(tmp_path: Path) -> None:
    asked = PreprocessRequest(
        inputs=["a"], output_prefix=tmp_path / "P", tokenizer=Path("t"), prepend_bos=""
    )
    assert "--prepend-bos --shard" in array_script(asked, shards=2).replace("\n", " ")


def test_a_text_without_an_id_is_a_counted_drop(
    tmp_path: Path, frontload: Callable[..., int]
) -> None:
    """As BERT's tokenizers: zero-width characters are dropped, and then nothing is left."""
    library = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, EOD: 2}, unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer()
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    library.add_special_tokens([EOD])
    library.save(str(tmp_path / "t.json"))
    file = write_texts(tmp_path / "rows.jsonl", ["a", "\u200b", "a a", "\u200b\u200b"])
    for more in ((), ("--append-eod", "--eod-token", EOD)):
        prefix, log = tmp_path / f"P{len(more)}", tmp_path / "rejects.jsonl"
        words = ["--input", file, "--output-prefix", prefix, "--tokenizer", tmp_path / "t.json"]
        words += ["--max-bad-rate", 0.5, "--rejects", log, "--workers", 1]
        assert frontload("preprocess", *words, *more) == 0
        end = [2] if more else []
        assert ids(prefix) == [[1, *end], [1, 1, *end]]
        stated = json.loads(prefix.with_name(f"{prefix.name}.manifest.json").read_text())
        assert stated["dropped"] == {"gives no token": 2}
        assert [json.loads(line)["row"] for line in log.open()] == [2, 4]
        assert np.array_equal(IndexedReader(prefix).sequence_lengths, [1 + len(end), 2 + len(end)])
