"""How tokens are chosen: numbers drawn by seed, prompt, sample and position; what they pick."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How new tokens are chosen; a draw depends on seed, prompt, sample and position only."""

    max_new_tokens: int
    temperature: float  # 0 = greedy
    seed: int
    stop_token: int
    num_samples: int = 1
    top_p: float = 1.0  # a draw is from the fewest likeliest tokens that hold this share; 1 = all


def choose_tokens(
    logits_BV: Tensor, draws_B: Tensor, temperature: float, *, top_p: float = 1.0
) -> Tensor:
    """The likeliest token at temperature 0, else the one whose share of [0, 1) holds the draw.

    Shares are those of the nucleus `top_p`, which at 1 is every token.
    """
    if temperature == 0 and logits_BV.is_cuda:
        return logits_BV.argmax(-1)
    if temperature == 0:  # numpy's argmax is many times torch's on a CPU
        return torch.from_numpy(logits_BV.float().numpy().argmax(-1))
    shares_BV = (logits_BV.float() / temperature).softmax(-1)
    if top_p < 1:
        shares_BV = _keep_nucleus(shares_BV, draws_B.new_full((len(draws_B),), top_p))
    shares_BV = shares_BV.cumsum(-1, dtype=torch.float64)
    chosen = torch.searchsorted(shares_BV, (draws_B * shares_BV[:, -1])[:, None], right=True)
    return chosen.squeeze(1).clamp_(max=logits_BV.shape[1] - 1)


def choose_row_tokens(
    logits_BV: Tensor, draws_B: Tensor, *, temperature_B: Tensor, top_p_B: Tensor
) -> Tensor:
    """`choose_tokens` with a temperature and a nucleus of each row's own (top_p 1 keeps all)."""
    greedy_B = choose_tokens(logits_BV, draws_B, 0.0)
    is_sampled_B = temperature_B > 0
    if not bool(is_sampled_B.any()):
        return greedy_B
    scaled_BV = logits_BV.float() / temperature_B.where(is_sampled_B, 1.0)[:, None]
    shares_BV = scaled_BV.softmax(-1)
    if bool((top_p_B < 1).any()):
        shares_BV = _keep_nucleus(shares_BV, top_p_B)
    sums_BV = shares_BV.cumsum(-1, dtype=torch.float64)
    drawn_B1 = torch.searchsorted(sums_BV, (draws_B * sums_BV[:, -1])[:, None], right=True)
    drawn_B = drawn_B1.squeeze(1).clamp_(max=logits_BV.shape[1] - 1)
    return drawn_B.where(is_sampled_B, greedy_B)


def _keep_nucleus(shares_BV: Tensor, top_p_B: Tensor) -> Tensor:
    """The fewest likeliest tokens that hold `top_p` together; the others get 0.

    Source: Holtzman et al. 2020, section 3.1.
    """
    sorted_BV, order_BV = shares_BV.sort(stable=True, dim=-1, descending=True)
    before_BV = sorted_BV.cumsum(-1, dtype=torch.float64) - sorted_BV
    is_out_BV = (before_BV >= top_p_B[:, None]) & (top_p_B < 1)[:, None]
    is_out_BV[:, 0] = False
    return torch.zeros_like(shares_BV).scatter_(-1, order_BV, sorted_BV.masked_fill(is_out_BV, 0.0))


def row_key(seed: int, sample: int) -> np.uint64:
    """The stream of a request of one prompt: that of prompt 0 in `uniform_draws`."""
    key = _mix(_mix(np.array([seed % 2**64], np.uint64)))
    return _mix(key ^ np.uint64(sample))[0]


def draws_at(keys_B: np.ndarray, positions_B: np.ndarray) -> np.ndarray:
    """Each stream's number in [0, 1) at the row's own position, float64."""
    bits_B = _mix(keys_B.astype(np.uint64) ^ positions_B.astype(np.uint64))
    return (bits_B >> np.uint64(11)) * 2.0**-53


def uniform_draws(indices: list[int], sampling: Sampling) -> np.ndarray:
    """Uniform numbers in [0, 1), float64 [prompts x samples, max_new_tokens].

    Source: Steele et al. 2014, SplitMix64, as a hash of (seed, prompt, sample, position).
    """
    prompt = np.repeat(np.array(indices, np.uint64), sampling.num_samples)
    sample = np.tile(np.arange(sampling.num_samples, dtype=np.uint64), len(indices))
    seed = np.array([sampling.seed % 2**64], np.uint64)
    key = _mix(_mix(_mix(seed) ^ prompt) ^ sample)
    position = np.arange(sampling.max_new_tokens, dtype=np.uint64)
    return (_mix(key[:, None] ^ position) >> np.uint64(11)) * 2.0**-53


def _mix(bits: np.ndarray) -> np.ndarray:
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
