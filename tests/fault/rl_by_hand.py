"""The first step of a GRPO run computed again without veRL: what its weights must have become."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from frontload.eval.grade import Kind
from frontload.megatron_ext.checkpoint_files import read_model
from frontload.megatron_ext.generate import Decoder, Response, Sampling, generate_responses
from frontload.megatron_ext.inference import read_weights
from frontload.recipes.rl_schema import GrpoRecipe
from frontload.rl.agent_loop import draw_seed
from frontload.rl.rewards import compute_score
from frontload.rl.rollout import decoder_weights
from frontload.rl.train import actor_weights
from tests.parity.reference_model import reference_logits

EPSILON = 1e-8  # torch's AdamW


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step: its answers with the advantage of each, and the weights around it."""

    recipe: GrpoRecipe
    rows: list[tuple[list[int], list[int], float]]  # prompt, response, advantage
    before: dict[str, Tensor]
    after: dict[str, Tensor]

    def objective(self, weights: dict[str, Tensor]) -> Tensor:
        """Sum of advantage x log-probability over all response tokens, a mean over the tokens."""
        longest = max(len(prompt) + len(response) for prompt, response, _ in self.rows)
        tokens_BS = torch.zeros(len(self.rows), longest, dtype=torch.long)
        advantage_BS = torch.zeros(len(self.rows), longest - 1)
        for row, (prompt, response, advantage) in enumerate(self.rows):
            end = len(prompt) + len(response)
            tokens_BS[row, :end] = torch.tensor(prompt + response)
            advantage_BS[row, len(prompt) - 1 : end - 1] = advantage
        logits_BSV = reference_logits(self.recipe.model, weights, tokens_BS)
        log_p_BSV = logits_BSV[:, :-1].log_softmax(-1)
        chosen_BS = log_p_BSV.gather(2, tokens_BS[:, 1:, None])[..., 0]
        return (advantage_BS * chosen_BS).sum() / sum(len(one) for _, one, _ in self.rows)

    def expected(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Name -> AdamW's first step on the objective, and where its sign is beyond rounding."""
        optimizer = self.recipe.optimizer
        weights = {name: one.clone().requires_grad_() for name, one in self.before.items()}
        (-self.objective(weights)).backward()
        gradients = {name: one.grad for name, one in weights.items() if one.grad is not None}
        norm = torch.stack([one.norm() for one in gradients.values()]).norm()
        scale = min(1.0, optimizer.clip_grad / float(norm))
        found = {}
        for name, gradient in gradients.items():
            moved = gradient * scale / (gradient.abs() * scale + EPSILON)
            decay = optimizer.weight_decay * self.before[name]
            is_plain = gradient.abs() > 1e-3 * gradient.abs().max()
            found[name] = (-optimizer.learning_rate * (moved + decay), is_plain)
        return found


def first_step(recipe: GrpoRecipe, start: Path, scratch: Path) -> Step:
    """Draws the answers of step 1 again from the start model and grades them.

    What it finds has to be what veRL wrote down: the same answers with the same rewards.
    """
    model = read_model(start)
    before = read_weights(start / "weights", torch.device("cpu"))
    tokenizer: Any = AutoTokenizer.from_pretrained(scratch / "model")
    rows = read_parquet(scratch / "train.parquet")
    generator = torch.Generator().manual_seed(recipe.seed)  # veRL's RandomSampler
    order = torch.randperm(len(rows), generator=generator)[: recipe.batch_prompts]
    batch = [rows[place] for place in order.tolist()]
    prompts = [
        tokenizer.apply_chat_template(
            row["prompt"], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        for row in batch
    ]
    sampling = Sampling(
        max_new_tokens=recipe.response_tokens,
        temperature=recipe.sampling.temperature,
        seed=draw_seed(recipe.seed, "step 1"),
        stop_token=tokenizer.eos_token_id,
        num_samples=recipe.grpo.rollouts_per_prompt,
    )
    groups = generate_responses(Decoder(model, before), prompts, sampling)
    pairs = list(zip(batch, groups, strict=True))
    scores = [[score(tokenizer, row, one) for one in group] for row, group in pairs]
    ours = Counter(
        (text(tokenizer, prompt), text(tokenizer, one.tokens), reward)
        for prompt, group, rewards in zip(prompts, groups, scores, strict=True)
        for one, reward in zip(group, rewards, strict=True)
    )
    told = [json.loads(line) for line in (scratch / "answers" / "1.jsonl").open()]
    assert ours == Counter((one["input"], one["output"], one["score"]) for one in told)
    tensors = actor_weights(scratch / "checkpoints", 1)
    return Step(
        recipe=recipe,
        rows=[
            (prompt, one.tokens, advantage)
            for prompt, group, rewards in zip(prompts, groups, scores, strict=True)
            for one, advantage in zip(group, advantages(rewards), strict=True)
        ],
        before=before,
        after=decoder_weights(model, tensors),
    )


def advantages(rewards: list[float]) -> list[float]:
    """GRPO's: a reward against the mean of its group, in its standard deviations."""
    mean = sum(rewards) / len(rewards)
    variance = sum((one - mean) ** 2 for one in rewards) / (len(rewards) - 1)
    return [(one - mean) / (variance**0.5 + 1e-6) for one in rewards]


def score(tokenizer: Any, row: dict[str, Any], response: Response) -> float:
    """The reward of one answer."""
    assert row["extra_info"]["kind"] == Kind.FAMILY
    return compute_score(
        data_source=row["data_source"],
        solution_str=tokenizer.decode(response.tokens, skip_special_tokens=False),
        ground_truth=row["reward_model"]["ground_truth"],
        extra_info=row["extra_info"],
        layout="marks",
    )["score"]


def text(tokenizer: Any, tokens: list[int]) -> str:
    """Tokens as veRL writes them down."""
    return tokenizer.decode(tokens, skip_special_tokens=True)


def read_parquet(path: Path) -> list[dict[str, Any]]:
    """Its rows."""
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist()
