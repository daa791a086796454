"""The tokenizer of a run: ids of texts through `tokenizers` or gigatoken, and what both refuse."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as LibraryTokenizer

from frontload.data_tools.disk.indexed import MOST_TOKENS, token_dtype
from frontload.data_tools.preprocess.request import AS_TOKENIZER, SpecialText
from frontload.data_tools.raw.parse import nearest_name
from frontload.data_tools.text.tokenizer import END, SPECIAL_TOKENS, TextTokenizer
from frontload.recipes.artifact import tokenizer_file
from frontload.recipes.errors import RecipeError

END_NAMES = (  # of tokens that end a text, not a turn: GPT-2, Llama 2 and 3, Gemma, DeepSeek, BERT
    *("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "<|eos|>", "[EOS]"),
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
)
ANCHOR_CHARACTERS = 3  # ours: "<|e" is rare in text, "<" is not
SLICE_TEXTS = 8  # ours: after as many a process of the gate sees that nobody reads
SLICE_CHARACTERS = 1 << 18  # ours: as a text of the gate may have


class Spellings:
    """Finds texts that hold one of some strings; a text with none of their beginnings is quick."""

    def __init__(self, strings: Iterable[str]) -> None:
        self._by_anchor: dict[str, list[str]] = {}
        for string in strings:
            self._by_anchor.setdefault(string[:ANCHOR_CHARACTERS], []).append(string)
        self._firsts = sorted({anchor[0] for anchor in self._by_anchor})

    def __bool__(self) -> bool:
        return bool(self._by_anchor)

    def found_in(self, text: str) -> bool:
        """Whether the text holds one of the strings."""
        for first in self._firsts:
            if first in text:
                break
        else:
            return False
        return any(
            (len(strings) == 1 or anchor in text) and any(string in text for string in strings)
            for anchor, strings in self._by_anchor.items()
        )

    def first_in(self, text: str) -> str:
        """The one of the strings that the text holds first, or ""."""
        if not self.found_in(text):
            return ""
        held = (one for strings in self._by_anchor.values() for one in strings if one in text)
        return min(held, key=text.index)


@dataclass(frozen=True, kw_only=True, eq=False)
class Vocabulary:
    """A loaded tokenizer file: reference encoder, size, special tokens, end of document."""

    loaded: TextTokenizer
    data: bytes
    sha256: str

    def reference(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids that are right, by `tokenizers`."""
        return self.loaded.encode_batch(texts)

    @property
    def file(self) -> Path:
        return self.loaded.file

    @property
    def special(self) -> tuple[str, ...]:
        return tuple(self.loaded.special_tokens)

    @property
    def added(self) -> tuple[str, ...]:
        return self.loaded.added_tokens

    @property
    def vocab_size(self) -> int:
        return self.loaded.vocab_size

    @property
    def dtype(self) -> np.dtype:
        """The dtype of its ids in an index.

        Raises: RecipeError when they do not fit into the widest.
        """
        if self.vocab_size > MOST_TOKENS:
            raise RecipeError(
                f"--tokenizer {self.file}",
                found=f"a token with id {self.vocab_size - 1}",
                rule=f"ids are stored in 32 bits, so they are below {MOST_TOKENS}",
                do="mend the file: its ids are not those of a model",
            )
        return token_dtype(self.vocab_size)

    def eod(self, named: str | None) -> tuple[str, int]:
        """The token that ends a document, and its id.

        Raises: RecipeError when it does not exist, or was not named and cannot be told.
        """
        if named is None and self.loaded.is_ours:
            return SPECIAL_TOKENS[END], END
        ends = [token for token in self.special if token in END_NAMES]
        if named is None and len(ends) == 1:
            return ends[0], self.loaded.special_tokens[ends[0]]
        if named is None:
            raise RecipeError(
                "--append-eod",
                found=f"a tokenizer of another origin, with special tokens {self._present}",
                rule="only the token that its models end documents with is right; it is taken where"
                " one special token alone is named as an end of text",
                do="name it with --eod-token TOKEN",
            )
        number = self.loaded.token_id(named)
        if number is None:
            raise RecipeError(
                f"--eod-token {named}",
                found=f"special tokens {self._present}{nearest_name(named, self.special)}",
                rule="the token is one of the tokenizer's",
                do="name it as it is in tokenizer.json",
            )
        return named, number

    def around(self, bos: str | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids before each document and behind it that `--prepend-bos` asks for.

        Raises: RecipeError when the token does not exist, or the tokenizer's file names none.
        """
        if bos is None:
            return (), ()
        if bos != AS_TOKENIZER:
            number = self.loaded.token_id(bos)
            if number is not None:
                return (number,), ()
            raise RecipeError(
                f"--prepend-bos {bos}",
                found=f"special tokens {self._present}{nearest_name(bos, self.special)}",
                rule="the token is one of the tokenizer's",
                do="name it as it is in tokenizer.json",
            )
        around = self.loaded.added_around
        if not around[0]:
            raise RecipeError(
                "--prepend-bos",
                found=f"a tokenizer whose post_processor puts nothing before a text: {self.file}",
                rule="without a TOKEN the documents begin as the tokenizer's file says",
                do="name the token, or leave --prepend-bos out",
            )
        return around

    @property
    def _present(self) -> str:
        return ", ".join(self.special[:8]) or "none"

    def tokens_around(self) -> dict[str, list[str]]:
        """What the file's post-processor puts before a text and behind it; {} if nothing."""
        try:
            before, behind = self.loaded.added_around
        except RecipeError:
            return {}  # it is told where --prepend-bos asks for it
        if not (before or behind):
            return {}
        name = self.loaded.library.id_to_token
        return {"before": [*map(name, before)], "behind": [*map(name, behind)]}


def load_vocabulary(path: Path, *, special_text: SpecialText = SpecialText.ENCODE) -> Vocabulary:
    """Loads a tokenizer.json, or the one of a folder; loaded once a process while it is the same.

    With SpecialText.TEXT it knows no special token: one that a text spells is text like any other.

    Raises: RecipeError when it is missing or no tokenizer, or cannot tell a special token's
            letters from the token.
    """
    file = tokenizer_file(path) if path.is_dir() else path
    digest = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
    whole = _load(path, digest)
    return _without_special(whole) if special_text is SpecialText.TEXT else whole


@lru_cache(maxsize=2)
def _load(path: Path, sha256: str) -> Vocabulary:
    loaded = TextTokenizer.load(path)
    return Vocabulary(loaded=loaded, data=loaded.file.read_bytes(), sha256=sha256)


@lru_cache(maxsize=2)
def _without_special(whole: Vocabulary) -> Vocabulary:
    """The same tokenizer, which finds no special token; `data`, for gigatoken, adds none.

    Raises: RecipeError when a special token's letters give its id all the same: the model's own
            vocabulary holds it as a word.
    """
    special = whole.loaded.special_tokens
    library = LibraryTokenizer.from_buffer(whole.data)
    library.encode_special_tokens = True
    loaded = TextTokenizer(library, file=whole.file)
    probes = [f"a{one}b {one} {one}" for one in special]
    for (token, number), ids in zip(special.items(), loaded.encode_batch(probes), strict=True):
        if number in ids:
            raise RecipeError(
                "special text as text",
                found=f"a tokenizer whose model has {token} as a word of its own: {whole.file}",
                rule="what is text may not give the id of a special token",
                do="drop such rows, or encode the token",
            )
    stated = json.loads(whole.data)
    added = [one for one in stated.get("added_tokens") or [] if one["content"] not in special]
    stated |= {"added_tokens": added, "post_processor": None}  # the latter may name special ones
    data = json.dumps(stated, ensure_ascii=False).encode()
    return Vocabulary(loaded=loaded, data=data, sha256=whole.sha256)


def in_slices(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts, some at a time: `tokenizers` holds all of a call's at once."""
    first = characters = 0
    for number, text in enumerate(texts):
        characters += len(text)
        if characters > SLICE_CHARACTERS and number > first or number - first == SLICE_TEXTS:
            yield texts[first:number]
            first, characters = number, len(text)
    if first < len(texts):
        yield texts[first:]


def package_versions() -> dict[str, str]:
    """Versions of the packages that turn rows to ids."""
    from importlib.metadata import version

    return {name: version(name) for name in ("gigatoken", "numpy", "orjson", "tokenizers")}


def as_json(value: dict[str, Any]) -> str:
    """One line of JSON, keys sorted."""
    return json.dumps(value, sort_keys=True) + "\n"
