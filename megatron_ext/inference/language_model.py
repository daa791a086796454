"""A checkpoint artifact as a language model: log-probabilities and generation, on one device."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from frontload.megatron_ext.checkpoints.files import METADATA, WEIGHTS, first_line, read_model
from frontload.megatron_ext.checkpoints.table import CheckpointReader, check_whole
from frontload.megatron_ext.inference.beginnings import (
    Beginnings,
    ReadRows,
    pad_rows,
    read_side_by_side,
)
from frontload.megatron_ext.inference.draws import Sampling
from frontload.megatron_ext.inference.generate import (
    Decoder,
    Decoding,
    Weights,
    generate,
)
from frontload.megatron_ext.inference.running import NEXT, Ranked, RunningBatch, rank_logits
from frontload.recipes.errors import ArtifactError
from frontload.recipes.facts.census import count_parameters
from frontload.recipes.schema import Model

_SPLIT = {
    "in_proj.weight": ("z", "x", "B", "C", "dt"),
    "conv1d.weight": ("x", "B", "C"),
    "conv1d.bias": ("x", "B", "C"),
}
"""Tensors that a checkpoint keeps in parts (mamba_mixer.py:1410), in the order of their rows."""

MAX_LOGITS = 2**23  # logits of one block of tokens: 32 MiB in float32


@dataclass(frozen=True, kw_only=True)
class TokenScores:
    """Every token of a sequence but the first, predicted from those before it.

    Shapes: log_probabilities_S float32; is_greedy_S bool: the token is the model's first choice.
    """

    log_probabilities_S: np.ndarray
    is_greedy_S: np.ndarray


class LanguageModel:
    """A model whose weights are whole on one device: what evaluation talks to."""

    def __init__(self, model: Model, weights: Weights) -> None:
        self._hold(
            Decoder(model, weights),
            vocab_size=model.vocab_size,
            max_sequence_tokens=model.max_sequence_tokens,
        )

    @classmethod
    def of_decoder(
        cls, decoder: Decoding, *, vocab_size: int, max_sequence_tokens: int
    ) -> "LanguageModel":
        """The model of another library, behind the decoder's methods."""
        made = cls.__new__(cls)
        made._hold(decoder, vocab_size=vocab_size, max_sequence_tokens=max_sequence_tokens)
        return made

    def _hold(self, decoder: Decoding, *, vocab_size: int, max_sequence_tokens: int) -> None:
        self.vocab_size = vocab_size
        self.max_sequence_tokens = max_sequence_tokens
        self._decoder = decoder

    @classmethod
    def load(cls, checkpoint: Path) -> "LanguageModel":
        """Loads a checkpoint artifact, whatever layout wrote it, onto the GPU if there is one.

        Raises: ArtifactError for a torn checkpoint or one of another model than its model.json.
        """
        model = read_model(checkpoint)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        weights = read_weights(checkpoint / WEIGHTS, device)
        _check_shapes(checkpoint, model, weights)
        return cls(model, weights)

    def log_probabilities(
        self, sequences: list[list[int]], *, batch_sequences: int = 64
    ) -> list[np.ndarray]:
        """log p(token[i + 1] | tokens[: i + 1]) of each sequence, float32 [length - 1]."""
        scores = self.token_scores(sequences, batch_sequences=batch_sequences)
        return [one.log_probabilities_S for one in scores]

    @torch.inference_mode()
    def token_scores(
        self, sequences: list[list[int]], *, batch_sequences: int = 64
    ) -> list[TokenScores]:
        """Log-probability of each sequence's tokens and whether greedy decoding writes them."""
        nothing = TokenScores(
            log_probabilities_S=np.zeros(0, np.float32), is_greedy_S=np.zeros(0, bool)
        )
        results = [nothing] * len(sequences)
        places = [place for place, tokens in enumerate(sequences) if len(tokens) > 1]
        inputs = [sequences[place][:-1] for place in places]
        beginnings, firsts = None, list[TokenScores]()
        for read in read_side_by_side(self._decoder, inputs, batch_rows=batch_sequences):
            indices = [places[index] for index in read.indices]
            if read.beginnings is not beginnings:
                beginnings = read.beginnings
                firsts = self._score_beginnings(beginnings) if beginnings else []
            scores = self._score_read(read, [sequences[index] for index in indices], firsts=firsts)
            for index, one in zip(indices, scores, strict=True):
                results[index] = one
        return results

    @torch.inference_mode()
    def candidate_scores(
        self,
        contexts: list[list[int]],
        candidates: list[list[int]],
        *,
        batch_sequences: int = 64,
    ) -> list[TokenScores]:
        """Log-probability of each candidate as the token after its context: one pass a context."""
        results: list[TokenScores | None] = [None] * len(contexts)
        for read in read_side_by_side(self._decoder, contexts, batch_rows=batch_sequences):
            logits_BV = self._decoder.logits(read.last_BD).float()
            log_p_BV = logits_BV.log_softmax(-1).cpu().numpy()
            best_B = log_p_BV.argmax(-1)
            for row, index in enumerate(read.indices):
                tokens = np.asarray(candidates[index])
                results[index] = TokenScores(
                    log_probabilities_S=log_p_BV[row, tokens], is_greedy_S=tokens == best_B[row]
                )
        return [one for one in results if one is not None]

    def generate(self, prompts: list[list[int]], sampling: Sampling) -> list[list[list[int]]]:
        """[prompt][sample] -> new tokens, with the stop token if it was produced.

        A draw depends on (seed, prompt index, sample, position), not on how prompts are batched.
        """
        return generate(self._decoder, prompts, sampling)

    def open_batch(self) -> RunningBatch:
        """A batch that rows join and leave at any token."""
        return RunningBatch(self._decoder)

    @torch.inference_mode()
    def ranked_scores(self, sequences: list[list[int]], *, num_top: int) -> list[list[Ranked]]:
        """Every token but the first, and at the end the likeliest next one, with the likeliest
        tokens of its place: all sequences side by side."""
        hidden: dict[int, Tensor] = {}
        for read in read_side_by_side(self._decoder, sequences, batch_rows=len(sequences)):
            hidden |= zip(read.indices, read.whole(), strict=True)
        hidden_TD = torch.cat([hidden[index] for index in range(len(sequences))])
        targets = [token for row in sequences for token in (*row[1:], NEXT)]
        targets_T = torch.tensor(targets, device=hidden_TD.device)
        size = max(1, MAX_LOGITS // self.vocab_size)
        ranked: list[Ranked] = []
        for start in range(0, len(targets), size):
            logits_TV = self._decoder.logits(hidden_TD[start : start + size])
            ranked += rank_logits(logits_TV, targets_T[start : start + size], num_top=num_top)
        ends = np.cumsum([len(row) for row in sequences]).tolist()
        return [ranked[end - len(row) : end] for end, row in zip(ends, sequences, strict=True)]

    def _score_beginnings(self, beginnings: Beginnings) -> list[TokenScores]:
        """The tokens of each beginning but its first."""
        targets = [tokens[1:] for tokens in beginnings.tokens]
        return self._score(beginnings.hidden_BSD[:, :-1], targets)

    def _score_read(
        self, read: ReadRows, sequences: list[list[int]], *, firsts: list[TokenScores]
    ) -> list[TokenScores]:
        """The tokens of each sequence but its first; `firsts` are those of the beginnings."""
        if read.beginnings is None or read.at_B is None:
            return self._score(read.hidden_BSD, [tokens[1:] for tokens in sequences])
        at = read.at_B.tolist()
        starts = [len(read.beginnings.tokens[one]) for one in at]
        rests = [tokens[start:] for tokens, start in zip(sequences, starts, strict=True)]
        scores = self._score(read.behind_beginnings(), rests)
        return [_joined(firsts[one], rest) for one, rest in zip(at, scores, strict=True)]

    def _score(self, hidden_BSD: Tensor, targets: list[list[int]]) -> list[TokenScores]:
        """Each row's targets, the first of which its first hidden state predicts."""
        targets_BS, lengths_B = pad_rows(targets, hidden_BSD.device)
        positions_S = torch.arange(targets_BS.shape[1], device=hidden_BSD.device)
        real_BS = positions_S < lengths_B[:, None]
        hidden_TD, targets_T = hidden_BSD[real_BS], targets_BS[real_BS]
        size = max(1, MAX_LOGITS // self.vocab_size)
        blocks = [
            self._score_tokens(hidden_TD[start : start + size], targets_T[start : start + size])
            for start in range(0, len(targets_T), size)
        ]
        lengths = lengths_B.tolist()
        log_p, greedy = (
            torch.cat(parts).cpu().split(lengths) for parts in zip(*blocks, strict=True)
        )
        return [
            TokenScores(log_probabilities_S=one.numpy(), is_greedy_S=first.numpy())
            for one, first in zip(log_p, greedy, strict=True)
        ]

    def _score_tokens(self, hidden_TD: Tensor, targets_T: Tensor) -> tuple[Tensor, Tensor]:
        logits_TV = self._decoder.logits(hidden_TD).float()
        chosen_T = logits_TV.gather(1, targets_T[:, None]).squeeze(1)
        return chosen_T - logits_TV.logsumexp(-1), logits_TV.argmax(-1) == targets_T


def _joined(first: TokenScores, rest: TokenScores) -> TokenScores:
    log_p = np.concatenate([first.log_probabilities_S, rest.log_probabilities_S])
    is_greedy = np.concatenate([first.is_greedy_S, rest.is_greedy_S])
    return TokenScores(log_probabilities_S=log_p, is_greedy_S=is_greedy)


def read_weights(folder: Path, device: torch.device) -> dict[str, Tensor]:
    """Reads the model's tensors out of a Megatron distributed checkpoint, without Megatron.

    Blocks that the checkpoint keeps apart so that they can be cut by rank are joined again. Weights
    are float32 on a CPU, else of the dtype they were trained in.

    Raises: ArtifactError for a torn checkpoint.
    """
    check_whole(folder)
    reader = CheckpointReader(folder)
    stored = reader.read_metadata().state_dict_metadata
    state = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in stored.items()
        if isinstance(entry, TensorStorageMetadata) and not name.startswith("optimizer")
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "torch.distributed is uninitialized": meant so
            load(state, storage_reader=reader, no_dist=True)
    except (Exception, CheckpointException) as error:  # torch's is a BaseException
        raise ArtifactError(
            f"checkpoint {folder}",
            found=f"it does not load ({type(error).__name__}: {first_line(error)})",
            rule=f"the tensors that {METADATA} lists lie beside it",
            do="delete the artifact by its key and run the study again",
        ) from error
    weights = join_parts(state)
    on_cpu = device.type == "cpu"
    return {n: w.to(device, torch.float32 if on_cpu else w.dtype) for n, w in weights.items()}


def join_parts(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Joins the blocks that a checkpoint keeps apart; names as the decoder knows them."""
    weights: dict[str, Tensor] = {}
    for name, tensor in state.items():
        whole, _, part = name.rpartition(".")
        order = _SPLIT.get(".".join(whole.split(".")[-2:]))
        if order is None:
            weights[name] = tensor
        elif part == order[0]:
            joined = torch.cat([state[f"{whole}.{each}"] for each in order])
            weights[whole.replace("conv1d.", "conv1d_")] = joined
    return weights


def _check_shapes(checkpoint: Path, model: Model, weights: Weights) -> None:
    found, expected = sum(w.numel() for w in weights.values()), count_parameters(model).total
    if found != expected:
        raise ArtifactError(
            f"checkpoint {checkpoint}",
            found=f"its weights hold {found} parameters",
            rule=f"the model of its model.json has {expected}",
            do="delete the artifact by its key and run the study again",
        )
