"""GRPO in one process without veRL: prompts, draws, groups, clipping, KL, updates, in plain torch.

It shares with the stage what has its own parity: the generator, the grader, the model's scan.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

from frontload.megatron_ext.checkpoints.files import read_model
from frontload.megatron_ext.hf.names import our_name
from frontload.megatron_ext.inference.draws import Sampling
from frontload.megatron_ext.inference.generate import Decoder, generate_responses
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.rl.plugins.agent_loop import draw_seed
from frontload.rl.plugins.rollout import decoder_weights
from frontload.rl.rewards import compute_score


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One response, its grades, and its reward against its group's."""

    prompt: list[int]
    tokens: list[int]
    grade: dict[str, float]
    advantage: float = 0.0


class PlainGrpo:
    """A run on what the stage made for veRL in `folder`: the model and the training prompts.

    The caller puts `rl.scan.mixer_forward` in the place of the stock scan.
    """

    def __init__(self, recipe: GrpoRecipe, folder: Path, *, rows_a_time: int) -> None:
        self.recipe, self.folder, self.rows_a_time = recipe, folder, rows_a_time
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder / "model")
        self.actor, self.start = self._model(), self._model()
        asked = recipe.optimizer
        self.optimizer = torch.optim.AdamW(
            self.actor.parameters(),
            lr=asked.learning_rate,
            betas=(asked.adam_beta1, asked.adam_beta2),
            weight_decay=asked.weight_decay,
        )
        self.batches = self._batches()

    def weights(self) -> dict[str, Tensor]:
        """The actor's weights by the generator's names."""
        named = {our_name(name): one.detach() for name, one in self.actor.named_parameters()}
        return decoder_weights(read_model(self.folder / "model"), named)

    def step(self, number: int) -> dict[str, float]:
        """Step `number`, the next one: what the log says of it."""
        groups = self._answers(next(self.batches), number)
        kinds = [[answer.grade["score"] for answer in group] for group in groups]
        flat = [answer for group in groups for answer in group]
        found = {
            "train/reward": statistics.fmean(answer.grade["score"] for answer in flat),
            "train/formed_share": statistics.fmean(answer.grade["format"] for answer in flat),
            "train/degenerate_group_share": statistics.fmean(len(set(one)) == 1 for one in kinds),
            "train/response_tokens": statistics.fmean(len(answer.tokens) for answer in flat),
            "train/cut_share": statistics.fmean(self._is_cut(answer.tokens) for answer in flat),
        }
        size = self.recipe.mini_batch_prompts
        updates = [
            sorted(
                (answer for group in groups[first : first + size] for answer in group),
                key=lambda answer: len(answer.prompt) + len(answer.tokens),
            )
            for first in range(0, len(groups), size)
        ]
        with torch.no_grad():  # of all updates before the first: the ratio is to these
            before = [self._scored(self.actor, update) for update in updates]
        told = [self._update(*pair) for pair in zip(updates, before, strict=True)]
        return found | {name: statistics.fmean(one[name] for one in told) for name in told[0]}

    def _model(self) -> Any:
        options = {"attn_implementation": "sdpa", "chunk_size": self.recipe.context_tokens}
        folder = self.folder / "model"
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).train()

    def _batches(self) -> Iterator[list[dict[str, Any]]]:
        """Whole batches, in an order drawn anew for each pass over the prompts."""
        rows = pq.read_table(self.folder / "train.parquet").to_pylist()
        generator = torch.Generator().manual_seed(self.recipe.seed)
        size = self.recipe.batch_prompts
        while True:
            order = torch.randperm(len(rows), generator=generator).tolist()
            for first in range(0, len(rows) - size + 1, size):
                yield [rows[place] for place in order[first : first + size]]

    def _answers(self, rows: Sequence[dict[str, Any]], number: int) -> list[list[Answer]]:
        prompts = [
            self.tokenizer.apply_chat_template(
                row["prompt"], add_generation_prompt=True, tokenize=True, return_dict=False
            )
            for row in rows
        ]
        sampling = Sampling(
            max_new_tokens=self.recipe.response_tokens,
            temperature=self.recipe.sampling.temperature,
            seed=draw_seed(self.recipe.seed, f"step {number}"),
            stop_token=self.tokenizer.eos_token_id,
            num_samples=self.recipe.grpo.rollouts_per_prompt,
        )
        decoder = Decoder(read_model(self.folder / "model"), self.weights())
        found = []
        for row, prompt, group in zip(
            rows, prompts, generate_responses(decoder, prompts, sampling), strict=True
        ):
            grades = [self._grade(row, response.tokens) for response in group]
            rewards = torch.tensor([grade["score"] for grade in grades])
            advantages = ((rewards - rewards.mean()) / (rewards.std() + 1e-6)).tolist()
            found.append(
                [
                    Answer(prompt=prompt, tokens=one.tokens, grade=grade, advantage=advantage)
                    for one, grade, advantage in zip(group, grades, advantages, strict=True)
                ]
            )
        return found

    def _is_cut(self, tokens: list[int]) -> bool:
        ends = tokens[-1] == self.tokenizer.eos_token_id
        return len(tokens) == self.recipe.response_tokens and not ends

    def _grade(self, row: dict[str, Any], tokens: list[int]) -> dict[str, float]:
        return compute_score(
            data_source=row["data_source"],
            solution_str=self.tokenizer.decode(tokens, skip_special_tokens=False),
            ground_truth=row["reward_model"]["ground_truth"],
            extra_info=row["extra_info"],
            layout=self.recipe.reward_layout,
        )

    def _scored(self, model: Any, answers: Sequence[Answer]) -> list[Tensor]:
        """Log-probabilities of each answer's tokens, computed `rows_a_time` rows together."""
        found = []
        for first in range(0, len(answers), self.rows_a_time):
            part = answers[first : first + self.rows_a_time]
            rows = [torch.tensor(answer.prompt + answer.tokens) for answer in part]
            tokens_BS = pad_sequence(rows, batch_first=True)
            is_there_BS = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
            logits_BSV = model(tokens_BS, attention_mask=is_there_BS, use_cache=False).logits
            logits_BSV = logits_BSV / self.recipe.sampling.temperature
            for answer, row, logits_SV in zip(part, rows, logits_BSV, strict=True):
                begin = len(answer.prompt) - 1
                logits_RV = logits_SV[begin : len(row) - 1]
                chosen_R = logits_RV.gather(1, row[begin + 1 :, None]).squeeze(1)
                found.append(chosen_R - logits_RV.logsumexp(-1))
        return found

    def _update(self, answers: Sequence[Answer], before: Sequence[Tensor]) -> dict[str, float]:
        """One update: losses are means over all its tokens, gradients are summed part by part."""
        asked = self.recipe.grpo
        num_tokens = sum(len(answer.tokens) for answer in answers)
        losses = {"train/policy_loss": 0.0, "train/kl": 0.0}
        self.optimizer.zero_grad()
        for first in range(0, len(answers), self.rows_a_time):
            part = answers[first : first + self.rows_a_time]
            now_BR = _padded(self._scored(self.actor, part))
            with torch.no_grad():
                start_BR = _padded(self._scored(self.start, part))
            is_token_BR = _padded([torch.ones(len(answer.tokens)) for answer in part])
            advantage_BR = is_token_BR * torch.tensor([[answer.advantage] for answer in part])
            ratio_BR = (now_BR - _padded(before[first : first + self.rows_a_time])).exp()
            near_BR = ratio_BR.clamp(1 - asked.clip_ratio_low, 1 + asked.clip_ratio_high)
            loss_BR = torch.maximum(-advantage_BR * ratio_BR, -advantage_BR * near_BR)
            bound_BR = torch.minimum(loss_BR, -advantage_BR * asked.dual_clip_ratio)
            loss_BR = torch.where(advantage_BR < 0, bound_BR, loss_BR)
            gap_BR = start_BR - now_BR
            policy = (loss_BR * is_token_BR).sum() / num_tokens
            kl = ((gap_BR.exp() - gap_BR - 1) * is_token_BR).sum() / num_tokens
            (policy + asked.kl_coefficient * kl).backward()
            losses["train/policy_loss"] += policy.item()
            losses["train/kl"] += kl.item()
        norm = torch.nn.utils.clip_grad_norm_(
            self.actor.parameters(), self.recipe.optimizer.clip_grad
        )
        self.optimizer.step()
        return {**losses, "train/grad_norm": norm.item()}


def _padded(rows: Sequence[Tensor]) -> Tensor:
    return pad_sequence(list(rows), batch_first=True)
