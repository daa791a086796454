"""Tokens of texts: by gigatoken where its ids are those of `tokenizers`, else by `tokenizers`."""

from collections.abc import Sequence
from pathlib import Path

from frontload.data_tools.preprocess.encoder import Encoder, EncoderRecipe, ParityError
from frontload.data_tools.preprocess.request import EncoderChoice, SpecialText


class TokenCounter:
    """Counts the tokens of a named tokenizer. Both libraries give the same counts."""

    def __init__(self, tokenizer: Path, choice: EncoderChoice) -> None:
        self._tokenizer = tokenizer
        self._encoder = _encoder(tokenizer, choice)

    def counts(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has; the tokenizer adds none of its own."""
        try:
            self._encoder.renew()
            return self._encoder.encode(texts).lengths.tolist()
        except ParityError:  # gigatoken cannot read one of these texts: it is not asked again
            self._encoder = _encoder(self._tokenizer, EncoderChoice.TOKENIZERS)
            return self._encoder.encode(texts).lengths.tolist()


def choose_encoder(tokenizer: Path, sample: Sequence[str]) -> tuple[EncoderChoice, str]:
    """(gigatoken, "") when it gives the sample the ids of `tokenizers`, else (tokenizers, why)."""
    try:
        encoder = _encoder(tokenizer, EncoderChoice.GIGATOKEN)
        encoder.check_spelled()
        encoder.check(sample)
    except ParityError as error:
        return EncoderChoice.TOKENIZERS, str(error)
    return EncoderChoice.GIGATOKEN, ""


def _encoder(tokenizer: Path, choice: EncoderChoice) -> Encoder:
    """Texts may spell special tokens here: none is refused."""
    recipe = EncoderRecipe(
        tokenizer=tokenizer, choice=choice, special_text=SpecialText.ENCODE, eod=None
    )
    return Encoder(recipe)
