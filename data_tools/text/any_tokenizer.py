"""Any Hugging Face tokenizer.json: ids and text, without the six special tokens of this project."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer as LibraryTokenizer

from frontload.data_tools.disk.files import read_json
from frontload.recipes.artifact import tokenizer_file
from frontload.recipes.errors import RecipeError


class AnyTokenizer:
    """Encodes and decodes with a tokenizer file of whatever origin. Loading is by `load`."""

    def __init__(self, file: Path, library: LibraryTokenizer) -> None:
        self.file = file
        self.library = library
        library.no_truncation()  # a file may ask for 512 tokens: documents would lose their ends
        library.no_padding()
        decoder = library.get_added_tokens_decoder()
        self.added = {number: token for number, token in decoder.items() if token.content}
        self.added_tokens = tuple(token.content for token in self.added.values())
        self.special_tokens = {
            token.content: number for number, token in self.added.items() if token.special
        }

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest id; counted when first asked for, 0.04 s for 32,000 tokens."""
        return max(self.library.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def token_id(self, token: str) -> int | None:
        """The id of a token, None when it is not in the vocabulary."""
        return self.library.token_to_id(token)

    @classmethod
    def load(cls, path: Path) -> "AnyTokenizer":
        """Loads a tokenizer file, or the `tokenizer.json` of a folder.

        Raises: RecipeError when it is missing or unreadable, or a text's ids would be none or
                others each time.
        """
        file = tokenizer_file(path) if path.is_dir() else path
        if not file.is_file():
            raise RecipeError(
                f"--tokenizer {path}",
                found=f"no file {file}",
                rule="a tokenizer is a tokenizer.json, or a folder that holds one",
                do="correct the path",
            )
        try:
            library = LibraryTokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception for a bad file
            raise RecipeError(
                f"--tokenizer {path}",
                found=f"no Hugging Face tokenizer ({error})",
                rule="a tokenizer is a tokenizer.json, or a folder that holds one",
                do="save it again with `tokenizer.save_pretrained`, or name another",
            ) from error
        _check_model(library, path)
        return cls(file, library)

    def sha256(self) -> str:
        """Digest of the file."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text; the tokenizer adds none of its own.

        Raises: RecipeError when the tokenizer has no id for a text, not even one for the unknown.
        """
        try:
            found = self.library.encode_batch_fast(list(texts), add_special_tokens=False)
        except Exception as error:  # the library raises bare Exception
            raise RecipeError(
                f"--tokenizer {self.file}",
                found=f"a text that it cannot encode ({error})",
                rule="a tokenizer has ids for every text, or one that stands for the unknown",
                do="name another tokenizer, or give its model an unk_token of its vocabulary",
            ) from error
        return [encoding.ids for encoding in found]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, special tokens written out."""
        return self.library.decode(list(ids), skip_special_tokens=False)

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
            f"--tokenizer {path}",
            found=found,
            rule="a tokenizer gives a text ids, and the same ones each time",
            do=do,
        )
