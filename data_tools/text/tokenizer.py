"""Any Hugging Face tokenizer.json; one of this project has six special tokens with fixed ids."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import models

from frontload.data_tools.disk.files import read_json
from frontload.recipes.artifact import tokenizer_file
from frontload.recipes.errors import ArtifactError, RecipeError

PAD, END, USER, ASSISTANT, ANSWER, UNKNOWN = range(6)
PROBE = "a"  # ours: a text that every tokenizer has an id for
SPECIAL_TOKENS = ("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|answer|>", "<|unk|>")


class TextTokenizer:
    """Encodes and decodes with a tokenizer file of whatever origin. Loading is by `load`.

    It never adds tokens of its own. Texts of known words, one space apart, are looked up here where
    it is this project's kind `word`: the same ids, eight times faster than the library.
    """

    def __init__(self, library: LibraryTokenizer, *, file: Path = Path("tokenizer.json")) -> None:
        self.file = file
        self.library = library
        library.no_truncation()  # a file may ask for 512 tokens: documents would lose their ends
        library.no_padding()
        decoder = library.get_added_tokens_decoder()
        self.added = {number: token for number, token in decoder.items() if token.content}
        self.added_tokens = tuple(token.content for token in self.added.values())
        numbers = {token.content: number for number, token in self.added.items()}
        ids = [numbers.get(token) for token in SPECIAL_TOKENS]
        self.is_ours = ids == list(range(len(SPECIAL_TOKENS)))
        # an exported file calls fewer of them special, so that servers show the others
        ours = SPECIAL_TOKENS if self.is_ours else ()
        self.special_tokens = {
            token.content: number
            for number, token in self.added.items()
            if token.special or token.content in ours
        }
        is_words = self.is_ours and isinstance(library.model, models.WordLevel)
        self._word_ids: dict[str, int] = library.get_vocab() if is_words else {}

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest id; counted when first asked for, 0.04 s for 32,000 tokens."""
        return max(self.library.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def token_id(self, token: str) -> int | None:
        """The id of a token, None when it is not in the vocabulary."""
        return self.library.token_to_id(token)

    @cached_property
    def added_around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids that the file's post-processor puts before a text, and those behind it.

        Raises: RecipeError when it does something else to a text.
        """
        plain = self._library_ids([PROBE])[0]
        whole = self.library.encode(PROBE).ids
        for at in range(len(whole) - len(plain) + 1):
            if plain and whole[at : at + len(plain)] == plain:
                return tuple(whole[:at]), tuple(whole[at + len(plain) :])
        raise RecipeError(
            f"--tokenizer {self.file}",
            found=f"a post_processor that makes ids {whole[:8]} of {plain[:8]}",
            rule="one puts ids before a text or behind it",
            do="name the token that begins a document, or leave --prepend-bos out",
        )

    @classmethod
    def load(cls, path: Path) -> "TextTokenizer":
        """Loads a tokenizer file, or the `tokenizer.json` of a folder.

        Raises: RecipeError when it is missing or unreadable, or a text's ids would be none or
                others each time.
        """
        file = tokenizer_file(path) if path.is_dir() else path
        if not file.is_file():
            raise RecipeError(
                f"loading tokenizer {path}",
                found=f"no file {file}",
                rule="a tokenizer is a tokenizer.json, or a folder that holds one",
                do="correct the path",
            )
        try:
            library = LibraryTokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception for a bad file
            raise RecipeError(
                f"loading tokenizer {path}",
                found=f"no Hugging Face tokenizer ({error})",
                rule="a tokenizer is a tokenizer.json, or a folder that holds one",
                do="save it again with `tokenizer.save_pretrained`, or name another",
            ) from error
        _check_model(library, path)
        return cls(library, file=file)

    @classmethod
    def load_ours(cls, path: Path) -> "TextTokenizer":
        """As `load`, of a tokenizer that this project trained.

        Raises: ArtifactError when its special tokens are others.
        """
        found = cls.load(path)
        if not found.is_ours:
            raise ArtifactError(
                f"loading tokenizer {found.file}",
                found=f"special tokens {', '.join(found.special_tokens) or 'none'}",
                rule=f"{', '.join(SPECIAL_TOKENS)} have ids 0 to 5, which masks and items rely on",
                do="use a tokenizer trained by the stage `tokenizer`",
            )
        return found

    def sha256(self) -> str:
        """Digest of the file."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Ids of one text."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text.

        Raises: RecipeError when the tokenizer has no id for a text, not even one for the unknown.
        """
        if self._word_ids:
            known = [self._known_words(text) for text in texts]
            return [
                self._library_ids([t])[0] if ids is None else ids
                for t, ids in zip(texts, known, strict=True)
            ]
        return self._library_ids(texts)

    def _known_words(self, text: str) -> list[int] | None:
        """The ids, when every word between single spaces is in the vocabulary; else None."""
        stripped = text.strip(" ")
        if not stripped:
            return []
        ids = [self._word_ids.get(word, -1) for word in stripped.split(" ")]
        return None if -1 in ids else ids

    def _library_ids(self, texts: Sequence[str]) -> list[list[int]]:
        try:
            found = self.library.encode_batch_fast(list(texts), add_special_tokens=False)
        except Exception as error:  # the library raises bare Exception
            raise RecipeError(
                f"encoding with tokenizer {self.file}",
                found=f"a text that it cannot encode ({error})",
                rule="a tokenizer has ids for every text, or one that stands for the unknown",
                do="name another tokenizer, or give its model an unk_token of its vocabulary",
            ) from error
        return [encoding.ids for encoding in found]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, special tokens written out."""
        return self.library.decode(list(ids), skip_special_tokens=False)

    def to_json(self) -> str:
        """The file of the tokenizer."""
        return self.library.to_str(pretty=True) + "\n"

    def check_made(self, description: Path) -> None:
        """Refuses to read ids that another tokenizer gave, where their description names it.

        Raises: RecipeError.
        """
        stated = read_json(description) if description.is_file() else {}
        digest = stated.get("tokenizer_sha256") if isinstance(stated, dict) else None
        if digest not in (None, self.sha256()):
            raise RecipeError(
                f"--tokenizer {self.file}",
                found=f"sha256 {self.sha256()[:12]}; {description} states {str(digest)[:12]}",
                rule="ids are read with the tokenizer that gave them: another makes other text",
                do="name that tokenizer",
            )


def _check_model(library: LibraryTokenizer, path: Path) -> None:
    """Refuses a model that gives a text no ids, or other ones each time."""
    found = do = ""
    if dropout := getattr(library.model, "dropout", None):  # of BPE alone
        found = f"dropout {dropout:g}: merges are left out at random"
        do = 'write "dropout": null in its model, as it is outside of training'
    if library.get_vocab_size(with_added_tokens=False) == 0:
        found, do = "a model without a token", "name another, or train it on some text"
    if found:
        raise RecipeError(
            f"loading tokenizer {path}",
            found=found,
            rule="a tokenizer gives a text ids, and the same ones each time",
            do=do,
        )
