"""Trains a study's tokenizer with `tokenizers`: a closed vocabulary of words, or byte-level BPE."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as LibraryTokenizer

from frontload.data_tools.text.document import read_documents, training_texts
from frontload.data_tools.text.tokenizer import SPECIAL_TOKENS, UNKNOWN, TextTokenizer
from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import Tokenizer

WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""What a token never reaches beyond: words with the space before them, single digits. GPT-4's
pattern with one digit instead of three, which is Qwen2's; gigatoken has a fast path for it."""


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
        for row in read_documents(file):
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
