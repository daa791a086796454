"""The study's tokenizer: trained with `tokenizers`, six special tokens with fixed ids."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as LibraryTokenizer

from frontload.data_tools.document import read_rows, training_texts
from frontload.recipes.artifact import tokenizer_file
from frontload.recipes.errors import ArtifactError, RecipeError
from frontload.recipes.schema import Tokenizer

PAD, END, USER, ASSISTANT, ANSWER, UNKNOWN = range(6)
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""What a token never reaches beyond: words with the space before them, single digits. GPT-4's
pattern with one digit instead of three, which is Qwen2's; gigatoken has a fast path for it."""
SPECIAL_TOKENS = ("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|answer|>", "<|unk|>")


class TextTokenizer:
    """Text to token ids and back, over one trained tokenizer file.

    Loading is by `load`; `encode` and `encode_batch` never add tokens of their own. Texts of known
    words, one space apart, are looked up here: the same ids, eight times faster than the library.
    """

    def __init__(self, library: LibraryTokenizer) -> None:
        self._library = library
        self.vocab_size = library.get_vocab_size()
        is_word_level = isinstance(library.model, models.WordLevel)
        self._word_ids: dict[str, int] = library.get_vocab() if is_word_level else {}

    @classmethod
    def load(cls, path: Path) -> "TextTokenizer":
        """Loads a tokenizer file, or the `tokenizer.json` of a folder.

        Raises: ArtifactError when it is missing, unreadable, or lacks our six special tokens.
        """
        file = tokenizer_file(path) if path.is_dir() else path
        if not file.is_file():
            raise ArtifactError(
                f"loading tokenizer {file}",
                found="there is no such file",
                rule="a tokenizer is a tokenizer.json written by the stage `tokenizer`",
                do="run the tokenizer stage, or correct the path",
            )
        try:
            library = LibraryTokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception for a bad file
            raise ArtifactError(
                f"loading tokenizer {file}",
                found=f"no Hugging Face tokenizer ({error})",
                rule="a tokenizer is a tokenizer.json written by the stage `tokenizer`",
                do="delete it and run the tokenizer stage again",
            ) from error
        found = [library.token_to_id(token) for token in SPECIAL_TOKENS]
        if found != list(range(len(SPECIAL_TOKENS))):
            raise ArtifactError(
                f"loading tokenizer {file}",
                found=f"special tokens {', '.join(SPECIAL_TOKENS)} with ids {found}",
                rule="their ids are 0 to 5, which the chat template and the masks rely on",
                do="use a tokenizer trained by the stage `tokenizer`",
            )
        return cls(library)

    def encode(self, text: str) -> list[int]:
        known = self._known_words(text) if self._word_ids else None
        if known is not None:
            return known
        return self._library.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        if self._word_ids:
            return [self.encode(text) for text in texts]
        encodings = self._library.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _known_words(self, text: str) -> list[int] | None:
        """The ids, when every word between single spaces is in the vocabulary; else None."""
        stripped = text.strip(" ")
        if not stripped:
            return []
        ids = [self._word_ids.get(word, -1) for word in stripped.split(" ")]
        return None if -1 in ids else ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, special tokens written out."""
        return self._library.decode(list(ids), skip_special_tokens=False)

    def to_json(self) -> str:
        return self._library.to_str(pretty=True) + "\n"


@dataclass(frozen=True, kw_only=True)
class TrainedTokenizer:
    """A tokenizer with the number of distinct words (kind word) or texts (byte_bpe) behind it."""

    tokenizer: TextTokenizer
    distinct_words: int
    texts: int


def train(recipe: Tokenizer, files: Sequence[Path]) -> TrainedTokenizer:
    """Trains the tokenizer that `recipe` asks for on the texts of corpus files, in their order.

    Raises: RecipeError for an unknown kind, or for a closed vocabulary that does not fit.
    """
    trainers_by_kind = {"word": train_words, "byte_bpe": train_byte_pairs}
    if recipe.kind not in trainers_by_kind:
        raise RecipeError(
            "tokenizer.kind",
            found=repr(recipe.kind),
            rule="it is word (whitespace words, closed vocabulary) or byte_bpe",
            do="write one of the two",
        )
    return trainers_by_kind[recipe.kind](corpus_texts(files), vocab_size=recipe.vocab_size)


def corpus_texts(files: Sequence[Path]) -> Iterator[str]:
    """Every training text of the corpus files, in order."""
    for file in files:
        for row in read_rows(file):
            yield from training_texts(row)


def train_words(texts: Iterable[str], *, vocab_size: int) -> TrainedTokenizer:
    """Takes every whitespace word of the texts, most frequent first, then by spelling."""
    words: Counter[str] = Counter()
    num_texts = 0
    for text in texts:
        words.update(text.split())
        num_texts += 1
    for word in [word for word in words if any(token in word for token in SPECIAL_TOKENS)]:
        del words[word]
    needed = len(words) + len(SPECIAL_TOKENS)
    if needed > vocab_size:
        raise RecipeError(
            "tokenizer.vocab_size",
            found=f"{vocab_size}, and the corpus has {len(words)} words",
            rule=f"a closed vocabulary holds every word and {len(SPECIAL_TOKENS)} special tokens",
            do=f"raise vocab_size to {needed} or more, or write kind: byte_bpe",
        )
    ordered = sorted(words, key=lambda word: (-words[word], word))
    vocabulary = {word: number for number, word in enumerate([*SPECIAL_TOKENS, *ordered])}
    library = LibraryTokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL_TOKENS[UNKNOWN]))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    library.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    return TrainedTokenizer(
        tokenizer=TextTokenizer(library), distinct_words=len(words), texts=num_texts
    )


def train_byte_pairs(texts: Iterable[str], *, vocab_size: int) -> TrainedTokenizer:
    """Trains byte-level BPE. A special token swallows the space before it, never the one after."""
    smallest = len(SPECIAL_TOKENS) + 256
    if vocab_size < smallest:
        raise RecipeError(
            "tokenizer.vocab_size",
            found=str(vocab_size),
            rule=f"byte-level BPE starts from 256 bytes and {len(SPECIAL_TOKENS)} special tokens",
            do=f"write {smallest} or more",
        )
    library = LibraryTokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    library.decoder = decoders.ByteLevel()
    special = [AddedToken(token, special=True, lstrip=True) for token in SPECIAL_TOKENS]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    num_texts = 0

    def counted() -> Iterator[str]:
        nonlocal num_texts
        for text in texts:
            num_texts += 1
            yield " " + text  # a rendered text follows a special token and a space

    library.train_from_iterator(counted(), trainer)
    return TrainedTokenizer(tokenizer=TextTokenizer(library), distinct_words=0, texts=num_texts)
