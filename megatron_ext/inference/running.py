"""A batch that rows join and leave at any token: what a server runs its requests in.

Each row has a temperature, a nucleus and a stream of draws of its own, so what a row says does not
depend on the rows beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from frontload.megatron_ext.inference.beginnings import read_to_ends
from frontload.megatron_ext.inference.draws import choose_row_tokens, draws_at, row_key
from frontload.megatron_ext.inference.generate import Decoding
from frontload.megatron_ext.inference.states import State

RESERVED_TOKENS = 64  # slots of keys and values made at once
NEXT = -1  # a target that is not known: the likeliest token
LIVE_SHARE = 0.8  # copying states costs about a step, as in generate.py


@dataclass(frozen=True, kw_only=True)
class RowRequest:
    """One response to draw. `row` names it; draws are those of (seed, sample, position) alone."""

    row: int
    prompt: tuple[int, ...]
    temperature: float  # 0 = greedy
    seed: int
    top_p: float = 1.0
    sample: int = 0
    num_top: int | None = None  # likeliest tokens to name with each drawn one; None = no scores


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A token, its log-probability, and the likeliest tokens of its place with theirs."""

    token: int
    log_probability: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True)
class DrawnToken:
    """The next token of a row; `ranked` where the row asked for scores (at temperature 1)."""

    row: int
    token: int
    ranked: Ranked | None


class RunningBatch:
    """Rows that are being continued, one token a call of `draw`."""

    def __init__(self, decoder: Decoding) -> None:
        self.num_passes = 0  # calls of the model, of prompts and of single tokens
        self._decoder = decoder
        self._device = decoder.table_VD.device
        self._requests: list[RowRequest] = []  # by place in the batch
        self._keys_B = np.zeros(0, np.uint64)
        self._positions_B = np.zeros(0, np.int64)
        self._is_live_B = np.zeros(0, bool)
        self._states: list[State] = []
        self._logits_BV: Tensor | None = None  # None = no rows
        self._chosen_B = torch.zeros(0, dtype=torch.long)
        self._num_reserved = 0

    @property
    def num_rows(self) -> int:
        """Rows that were not ended yet."""
        return int(self._is_live_B.sum())

    @torch.inference_mode()
    def admit(self, requests: Sequence[RowRequest]) -> None:
        """Reads the prompts, each once however many rows start with it, and adds their rows."""
        prompts = list(dict.fromkeys(request.prompt for request in requests))
        place = {prompt: number for number, prompt in enumerate(prompts)}
        copies = [place[one.prompt] for one in requests]
        last_BD, states = read_to_ends(self._decoder, [list(one) for one in prompts], copies=copies)
        self.num_passes += 1
        self._add(requests, states, logits=self._decoder.logits(last_BD))

    def _add(self, requests: Sequence[RowRequest], states: list[State], *, logits: Tensor) -> None:
        self._drop_ended()
        if self._logits_BV is None:
            self._states, self._logits_BV = states, logits
        else:
            for state, other in zip(self._states, states, strict=True):
                state.join(other)
            self._logits_BV = torch.cat([self._logits_BV, logits])
        self._num_reserved = 0
        keys = np.array([row_key(one.seed, one.sample) for one in requests], np.uint64)
        self._requests += requests
        self._keys_B = np.concatenate([self._keys_B, keys])
        self._positions_B = np.append(self._positions_B, np.zeros(len(keys), np.int64))
        self._is_live_B = np.append(self._is_live_B, np.ones(len(keys), bool))

    @torch.inference_mode()
    def draw(self) -> list[DrawnToken]:
        """The next token of every row; `advance` must follow."""
        assert self._logits_BV is not None, "a batch has rows"
        draws_B = torch.from_numpy(draws_at(self._keys_B, self._positions_B)).to(self._device)
        temperature = [one.temperature for one in self._requests]
        top_p = [one.top_p for one in self._requests]
        self._chosen_B = choose_row_tokens(
            self._logits_BV,
            draws_B,
            temperature_B=torch.tensor(temperature, device=self._device),
            top_p_B=torch.tensor(top_p, dtype=torch.float64, device=self._device),
        )
        tokens, ranked = self._chosen_B.tolist(), self._rank()
        return [
            DrawnToken(row=one.row, token=token, ranked=ranked.get(place))
            for place, (one, token) in enumerate(zip(self._requests, tokens, strict=True))
            if self._is_live_B[place]
        ]

    @torch.inference_mode()
    def advance(self, ended: set[int]) -> None:
        """Ends the rows named; the others read their drawn token."""
        assert self._logits_BV is not None, "a batch has rows"
        names = np.array([one.row for one in self._requests])
        self._is_live_B &= ~np.isin(names, list(ended))
        if self.num_rows <= LIVE_SHARE * len(names):
            self._chosen_B = self._chosen_B[self._drop_ended()]
        if self._logits_BV is None:
            return
        if self._num_reserved == 0:
            self._num_reserved = RESERVED_TOKENS
            for state in self._states:
                state.reserve(RESERVED_TOKENS)
        self._num_reserved -= 1
        self._logits_BV = self._decoder.step(self._chosen_B, self._states)
        self.num_passes += 1
        self._positions_B += 1

    def _drop_ended(self) -> Tensor:
        """Drops the rows that were ended; the places of the others."""
        places = np.flatnonzero(self._is_live_B)
        kept = torch.from_numpy(places).to(self._device)
        if len(places) == len(self._is_live_B):
            return kept
        self._requests = [self._requests[place] for place in places]
        self._keys_B, self._positions_B = self._keys_B[places], self._positions_B[places]
        self._is_live_B = self._is_live_B[places]
        for state in self._states:
            state.take(kept)
        if self._logits_BV is not None:
            self._logits_BV = self._logits_BV[kept] if len(places) else None
        return kept

    def _rank(self) -> dict[int, Ranked]:
        """Scores of the drawn tokens, by place, of the rows that ask for them."""
        assert self._logits_BV is not None
        places = [place for place, one in enumerate(self._requests) if one.num_top is not None]
        if not places:
            return {}
        num_top = max(self._requests[place].num_top or 0 for place in places)
        chosen_B = self._chosen_B[places]
        ranked = rank_logits(self._logits_BV[places], chosen_B, num_top=num_top)
        return dict(zip(places, ranked, strict=True))


def rank_logits(logits_TV: Tensor, tokens_T: Tensor, *, num_top: int) -> list[Ranked]:
    """Each token's log-probability, and the `num_top` likeliest of its place.

    `NEXT` among the tokens stands for the likeliest one.
    """
    log_p_TV = logits_TV.float().log_softmax(-1)
    tokens_T = tokens_T.where(tokens_T != NEXT, log_p_TV.argmax(-1))
    own = log_p_TV.gather(1, tokens_T[:, None]).squeeze(1).tolist()
    values, names = log_p_TV.topk(num_top, -1)
    rows = zip(tokens_T.tolist(), own, names.tolist(), values.tolist(), strict=True)
    return [
        Ranked(token=token, log_probability=one, top=tuple(zip(ids, sizes, strict=True)))
        for token, one, ids, sizes in rows
    ]
