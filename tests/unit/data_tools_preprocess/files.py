"""Small tokenizers of several origins, a small corpus, and the plain way to preprocess it."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from frontload.data_tools.disk.indexed import IndexedWriter
from frontload.data_tools.preprocess.request import PreprocessRequest

EOD = "<|endoftext|>"
PART_BYTES = 8192  # many parts of a small file
WORDS = ["the", "of", "and", "def", "return", "import", "class", "self", "data", "model"]
WORDS += ["caf\u00e9", "na\u00efve", "\u4e2d\u6587", "x", "=", "1", "(", ")", ":", "\n\n"]


def documents(count: int, *, seed: int = 1, longest: int = 60) -> list[str]:
    rng = random.Random(seed)
    return ["the " + " ".join(rng.choices(WORDS, k=rng.randrange(longest))) for _ in range(count)]


def write_texts(file: Path, texts: list[str]) -> Path:
    rows = (json.dumps({"text": text, "n": 1}, ensure_ascii=False) + "\n" for text in texts)
    file.write_text("".join(rows), encoding="utf-8")
    return file


def request_for(corpus: Path, prefix: Path, tokenizer: Path) -> PreprocessRequest:
    return PreprocessRequest(
        inputs=[corpus],
        output_prefix=prefix,
        tokenizer=tokenizer,
        append_eod=True,
        eod_token=EOD,
        part_bytes=PART_BYTES,
    )


def train_foreign(file: Path) -> Path:
    """A byte-level BPE as anyone trains it with `tokenizers`; gigatoken reads it."""
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[EOD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    library.train_from_iterator(documents(300), trainer)
    library.enable_truncation(8)  # as many files on the hub ask for: documents stay whole
    library.enable_padding(length=8)
    library.save(str(file))
    return file


def word_level(file: Path) -> Path:
    """A word-level tokenizer as anyone makes it, which gigatoken does not read."""
    vocabulary = {"[UNK]": 0, **{f"w{number}": number + 1 for number in range(9)}}
    library = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    library.save(str(file))
    return file


def wrong_library(
    right: Callable[..., Callable], is_odd: Callable[[str], bool]
) -> Callable[..., Callable]:
    """A `fast_encoder` that loses the last id of odd texts, alone or joined to others."""

    def make(vocabulary: object) -> Callable[[str | bytes], np.ndarray]:
        encode = right(vocabulary)

        def one(text: str) -> np.ndarray:
            return encode(text)[:-1] if is_odd(text) else encode(text)

        def any_number(text: str | bytes) -> np.ndarray:
            if isinstance(text, str):
                return one(text)
            *texts, _ = text.decode().split(EOD)
            return np.concatenate([part for each in texts for part in (one(each), encode(EOD))])

        return any_number

    return make


def expected_pair(prefix: Path, tokenizer: Path, texts: list[str], *, eod: int | None) -> Path:
    """What the plain way writes: the library's `encode`, one document after another."""
    library = Tokenizer.from_file(str(tokenizer))
    library.no_truncation()
    library.no_padding()
    with IndexedWriter(prefix, np.dtype(np.uint16)) as writer:
        for text in texts:
            ids = library.encode(text, add_special_tokens=False).ids
            writer.add_document(np.array([*ids, *([] if eod is None else [eod])], dtype=np.uint16))
    return prefix


def pair(prefix: Path) -> tuple[bytes, ...]:
    return tuple(prefix.with_name(f"{prefix.name}.{kind}").read_bytes() for kind in ("bin", "idx"))
