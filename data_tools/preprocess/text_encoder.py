"""Ids of texts, for who writes no documents: by gigatoken where they are those of `tokenizers`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from frontload.data_tools.preprocess.encoder import (
    CHECKED_CHARACTERS,
    Encoded,
    Encoder,
    EncoderRecipe,
    ParityError,
)
from frontload.data_tools.preprocess.request import EncoderChoice, SpecialText

CHECK_EVERY = 4 << 20  # ours: of as many characters one text is compared, 0.3% of the time


class TextEncoder:
    """Ids of texts that may spell special tokens. Both libraries give the same."""

    def __init__(
        self,
        tokenizer: Path,
        choice: EncoderChoice,
        *,
        special_text: SpecialText = SpecialText.ENCODE,
    ) -> None:
        self._tokenizer, self._choice, self._special_text = tokenizer, choice, special_text
        self._encoder = _encoder(tokenizer, choice, special_text=special_text)
        self._unchecked = CHECK_EVERY

    def ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text, in the vocabulary's dtype; the tokenizer adds none of its own.

        Raises: ParityError when gigatoken gave other ids than `tokenizers`, now or before.
        """
        if not texts:
            return []
        encoded = self._encode(texts)
        self._check(texts)
        return np.split(encoded.tokens, np.cumsum(encoded.lengths)[:-1])

    def counts(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has."""
        return self._encode(texts).lengths.tolist()

    def _encode(self, texts: Sequence[str]) -> Encoded:
        try:
            self._encoder.renew()
            return self._encoder.encode(texts)
        except ParityError:  # gigatoken cannot read one of these texts: it is not asked again
            self._choice = EncoderChoice.TOKENIZERS
            self._encoder = _encoder(self._tokenizer, self._choice, special_text=self._special_text)
            return self._encoder.encode(texts)

    def _check(self, texts: Sequence[str]) -> None:
        """Compares one text from time to time, the first time at once."""
        self._unchecked += sum(map(len, texts))
        if self._unchecked < CHECK_EVERY or self._choice is EncoderChoice.TOKENIZERS:
            return
        short = [text for text in texts if len(text) <= CHECKED_CHARACTERS]
        if short:
            self._encoder.check(short[-1:])
            self._unchecked = 0


def choose_encoder(
    tokenizer: Path, sample: Sequence[str], *, special_text: SpecialText = SpecialText.ENCODE
) -> tuple[EncoderChoice, str]:
    """(gigatoken, "") when it gives the sample the ids of `tokenizers`, else (tokenizers, why)."""
    try:
        encoder = _encoder(tokenizer, EncoderChoice.GIGATOKEN, special_text=special_text)
        encoder.check_spelled()
        encoder.check(sample)
    except ParityError as error:
        return EncoderChoice.TOKENIZERS, str(error)
    return EncoderChoice.GIGATOKEN, ""


def _encoder(tokenizer: Path, choice: EncoderChoice, *, special_text: SpecialText) -> Encoder:
    recipe = EncoderRecipe(
        tokenizer=tokenizer,
        choice=choice,
        special_text=special_text,
        eod=None,
        keeps_empty=True,
    )
    return Encoder(recipe)
