"""What evaluation asks of a model, as `megatron_ext.inference.language_model` answers it."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from frontload.megatron_ext.inference.draws import Sampling


class Scored(Protocol):
    """Every token of a sequence but the first, predicted from those before it.

    Shapes: log_probabilities_S float32; is_greedy_S bool: the token is the model's first choice.
    """

    @property
    def log_probabilities_S(self) -> np.ndarray: ...

    @property
    def is_greedy_S(self) -> np.ndarray: ...


class ScoringModel(Protocol):
    """A causal language model over token ids."""

    vocab_size: int
    max_sequence_tokens: int

    def token_scores(
        self, sequences: list[list[int]], *, batch_sequences: int = 64
    ) -> Sequence[Scored]:
        """Scores of each sequence, in order."""
        ...

    def candidate_scores(
        self,
        contexts: list[list[int]],
        candidates: list[list[int]],
        *,
        batch_sequences: int = 64,
    ) -> Sequence[Scored]:
        """Scores of each context's candidates for its next token: S counts the candidates."""
        ...

    def generate(self, prompts: list[list[int]], sampling: Sampling) -> list[list[list[int]]]:
        """[prompt][sample] -> new tokens, the stop token included when it was reached."""
        ...
