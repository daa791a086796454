"""What evaluation asks of a model. `frontload.megatron_ext.inference.LanguageModel` gives it."""

from typing import Protocol

import numpy as np


class ScoringModel(Protocol):
    """A causal language model over token ids."""

    vocab_size: int
    max_sequence_tokens: int

    def log_probabilities(
        self, sequences: list[list[int]], *, batch_sequences: int = 64
    ) -> list[np.ndarray]:
        """For each sequence, float32 [len - 1]: log p(token[i + 1] | tokens[: i + 1])."""
        ...

    def greedy_matches(
        self, sequences: list[list[int]], *, batch_sequences: int = 64
    ) -> list[np.ndarray]:
        """For each sequence, bool [len - 1]: whether token[i + 1] is the model's first choice."""
        ...

    def generate(
        self,
        prompts: list[list[int]],
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
        stop_token: int,
        num_samples: int = 1,
    ) -> list[list[list[int]]]:
        """[prompt][sample] -> new tokens, the stop token included when it was reached."""
        ...
