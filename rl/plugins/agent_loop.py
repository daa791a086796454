"""From veRL's batch of prompts to rewarded responses in its TransferQueue, without a process more.

veRL's own loop asks a server for one response at a time, from a process of its own; here a step is
one call to the generator, and its order and its draws depend on the recipe's seed only.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import ray
import torch
import transfer_queue as tq
from ray import cloudpickle
from tensordict import NonTensorStack, TensorDict
from torch import Tensor
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.utils.config import omega_conf_to_dataclass

from frontload.megatron_ext.inference.draws import Sampling
from frontload.megatron_ext.inference.generate import Response
from frontload.recipes.errors import StageError
from frontload.rl.plugins.lean_queue import use_lean_rows
from frontload.rl.plugins.lean_start import keep_what_is_there
from frontload.rl.plugins.rollout import Request, generate_on
from frontload.rl.plugins.validation import answers_of, write_answers

POLL_SECONDS = 0.01  # veRL's is 2 s: it waits for servers, here the batch is always there
METRICS = "frontload"
"""Group of the metrics that veRL does not have, in veRL's log."""

MOST_DRAWS = 20
"""Calls for prompts in one step, of at most a batch each, before a filter has found no batch."""


@dataclass(frozen=True, kw_only=True)
class PromptRow:
    """One row of veRL's batch."""

    uid: str
    tokens: list[int]
    row: Mapping[str, Any]


class AgentLoop:
    """veRL's `agent_loop_manager_class`: everything between two updates but the actor's passes."""

    def __init__(self, config: Any, llm_client: Any) -> None:
        self.config = config
        self.rollout = config.actor_rollout_ref.rollout
        self.tokenizer = omega_conf_to_dataclass(config.actor_rollout_ref.model).tokenizer
        score = get_custom_reward_fn(config)
        assert score is not None, "reward.custom_reward_function.path"
        self.score: Callable[..., dict[str, float]] = score
        _, handle = asyncio.run(llm_client._acquire_server("frontload"))
        self._actor = cloudpickle.loads(handle)  # read back by the run whose rollout.py wrote it
        self._draws = PromptDraws(limit=MOST_DRAWS)
        use_lean_rows()
        keep_what_is_there()

    @classmethod
    def create(
        cls, config: Any, llm_client: Any, teacher_client: Any, reward_loop_worker_handles: Any
    ) -> "AgentLoop":
        """Makes the loop; veRL calls this once its trainer and its workers are there."""
        del teacher_client, reward_loop_worker_handles
        return cls(config, llm_client)

    def generate_sequences(self, prompts: TensorDict) -> None:
        """Generates and scores a whole batch and puts it where the trainer looks for it."""
        is_validation = "validate" in prompts and bool(prompts["validate"])
        step = int(prompts["global_steps"])
        draw = 0 if is_validation else self._draws.next(step)
        rows = self._prompts(prompts)
        begin = time.monotonic()
        sampling = self._sampling(step, draw, is_validation=is_validation)
        groups = self._generate(rows, sampling)
        generated = time.monotonic()
        texts = self._texts(groups)
        scores = self._scores(rows, texts)
        seconds = {"generation": generated - begin, "reward": time.monotonic() - generated}
        seconds = seconds if is_validation else self._draws.add(seconds)
        if is_validation:
            answers = list(answers_of([row.row for row in rows], texts, scores))
            write_answers(Path(self.config.frontload.validation_answers), step, answers)
        names = objects_read(self.config, is_validation=is_validation)
        keys, fields, tags = rows_for_queue(rows, groups, scores, step=step, names=names)
        for tag, response in zip(tags, chain.from_iterable(groups), strict=True):
            tag |= {"cut": is_cut(response, sampling), "draw": draw}
        for tag in tags if draw else tags[:1]:  # a filter may leave out any row of a later draw
            tag["seconds"] = seconds
        partition = "val" if is_validation else "train"
        tq.kv_batch_put(keys=keys, fields=fields, tags=tags, partition_id=partition)
        done = [{"status": "finished"} for _ in rows]
        tq.kv_batch_put(keys=[row.uid for row in rows], tags=done, partition_id=partition)

    def _prompts(self, batch: TensorDict) -> list[PromptRow]:
        names = ("uid", "raw_prompt", "data_source", "reward_model", "extra_info")
        columns = {name: [_plain(one) for one in batch[name]] for name in names}
        chats = [list(chat) for chat in columns.pop("raw_prompt")]
        encoded = self.tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        found = []
        for place, tokens in enumerate(encoded):
            row = {name: column[place] for name, column in columns.items()}
            found.append(PromptRow(uid=row["uid"], tokens=list(tokens), row=row))
        return found

    def _sampling(self, step: int, draw: int, *, is_validation: bool) -> Sampling:
        source = self.rollout.val_kwargs if is_validation else self.rollout
        assert source.top_p == 1.0, "the generator draws from the whole vocabulary"
        stream = f"step {step}" + (f" draw {draw}" if draw else "")
        return Sampling(
            max_new_tokens=self.rollout.response_length,
            temperature=source.temperature,
            seed=draw_seed(self.rollout.seed, "validation" if is_validation else stream),
            stop_token=self.tokenizer.eos_token_id,
            num_samples=source.n,
        )

    def _generate(self, rows: Sequence[PromptRow], sampling: Sampling) -> list[list[Response]]:
        request = Request(prompts=[row.tokens for row in rows], sampling=sampling)
        return ray.get(self._actor.__ray_call__.remote(generate_on, request))

    def _texts(self, groups: Sequence[Sequence[Response]]) -> list[list[str]]:
        return [
            self.tokenizer.batch_decode(
                [response.tokens for response in group], skip_special_tokens=False
            )
            for group in groups
        ]

    def _scores(
        self, rows: Sequence[PromptRow], texts: Sequence[Sequence[str]]
    ) -> list[list[dict[str, float]]]:
        return [
            [
                self.score(
                    data_source=prompt.row["data_source"],
                    solution_str=text,
                    ground_truth=prompt.row["reward_model"]["ground_truth"],
                    extra_info=prompt.row["extra_info"],
                )
                for text in group
            ]
            for prompt, group in zip(rows, texts, strict=True)
        ]


@dataclass(kw_only=True)
class PromptDraws:
    """How often a step has asked for prompts: once, and again for what a filter left out."""

    limit: int
    step: int = -1
    made: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def next(self, step: int) -> int:
        """The number of this call in its step, from 0.

        Raises: StageError when the step has asked too often.
        """
        if step != self.step:
            self.step, self.made, self.seconds = step, 0, {}
        if self.made == self.limit:
            raise StageError(
                f"grpo.filter_one_reward_groups, step {step}",
                found=f"no whole batch of groups with two rewards after {self.made} calls for "
                "prompts",
                rule=f"a step calls at most {self.limit} times",
                do="look at the answers of the first validation: prompts that are all too hard or "
                "too easy teach nothing; change them, or leave the filter off",
            )
        self.made += 1
        return self.made - 1

    def add(self, seconds: Mapping[str, float]) -> dict[str, float]:
        """What this call took, added to what the step's earlier ones did."""
        self.seconds = {name: self.seconds.get(name, 0.0) + one for name, one in seconds.items()}
        return self.seconds


class OrderedReplayBuffer(ReplayBuffer):
    """veRL's buffer with the batch in one order: the same sums in every run.

    The prompts' order decides what an update holds; inside an update rows stand by length, so that
    its micro-batches are padded little. veRL's filter of groups is on where the kwargs name the
    batch that is to be filled; it gives none to a buffer that is not its own.
    """

    def __init__(self, **options: Any) -> None:
        batch = options["sampler_kwargs"].get("filtered_batch", 0)
        own = {"filter_groups_metric": "reward", "train_batch_size": batch, "gen_batch_size": 1}
        super().__init__(poll_interval=POLL_SECONDS, **options, **(own if batch else {}))

    def sample(
        self, global_steps: int, partition_id: str, batch_size: int
    ) -> tuple[KVBatchMeta, dict[str, Any]]:
        """A batch in order, and what is known of its groups as metrics."""
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        batch.reorder(row_order(batch.tags, rows_an_update=self.sampler_kwargs.rows_an_update))
        return batch, {**metrics, **group_metrics(batch.tags)}

    def _select_prompt_uids(
        self, partition_id: str, sampleable_keys: set[str], batch_size: int
    ) -> tuple[list[str], dict[str, dict], dict[str, int]]:
        """Of groups that a filter left, the first that were asked; veRL takes any."""
        asked = {
            key.split("_")[0]: asked_place(tag)
            for key, tag in self.partitions[partition_id].items()
        }
        ordered: Any = sorted(sampleable_keys, key=asked.__getitem__)
        return super()._select_prompt_uids(partition_id, ordered, batch_size)


def asked_place(tag: Mapping[str, Any]) -> tuple[int, int]:
    """Where a row's prompt stands among all that its step asked."""
    return tag["draw"], tag["place"]


def row_order(tags: Sequence[Mapping[str, Any]], *, rows_an_update: int) -> list[int]:
    """The order of rows: by place, then by length inside each run of `rows_an_update`."""
    by_place = sorted(range(len(tags)), key=lambda row: asked_place(tags[row]))
    found: list[int] = []
    for start in range(0, len(tags), rows_an_update):
        update = by_place[start : start + rows_an_update]
        found += sorted(update, key=lambda row: tags[row]["seq_len"])
    return found


def group_metrics(tags: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Shares over groups and responses, and the seconds that were spent on them."""
    groups: dict[tuple[int, int], list[float]] = {}
    for tag in tags:
        groups.setdefault((tag["draw"], tag["group"]), []).append(tag["score"])
    flat = [score for group in groups.values() for score in group]
    told = [tag for tag in tags if "seconds" in tag]
    seconds = max(told, key=lambda tag: tag["draw"])["seconds"] if told else {}
    return {
        f"{METRICS}/reward": sum(flat) / len(flat),
        f"{METRICS}/formed": sum(tag["formed"] for tag in tags) / len(tags),
        f"{METRICS}/cut": sum(tag["cut"] for tag in tags) / len(tags),
        f"{METRICS}/degenerate_groups": sum(len(set(group)) == 1 for group in groups.values())
        / len(groups),
        **{f"{METRICS}/{name}_seconds": value for name, value in seconds.items()},
    }


def is_cut(response: Response, sampling: Sampling) -> bool:
    """Whether the limit ended a response. veRL compares with the longest of a batch instead."""
    is_full = len(response.tokens) == sampling.max_new_tokens
    return is_full and response.tokens[-1] != sampling.stop_token


def draw_seed(seed: int, stream: str) -> int:
    """A seed for the generator; a draw also depends on prompt, sample and position."""
    digest = hashlib.sha256(f"{seed} {stream}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def objects_read(config: Any, *, is_validation: bool) -> tuple[str, ...]:
    """The columns of objects that veRL's trainer_base.py reads (:1115, :1745, :1871, :1300)."""
    if is_validation:
        return ("uid", "num_turns", "reward_model", "data_source", "extra_fields")
    if config.trainer.get("rollout_data_dir"):
        return ("uid", "num_turns", "reward_model")
    return ("uid", "num_turns")


def rows_for_queue(
    rows: Sequence[PromptRow],
    groups: Sequence[Sequence[Response]],
    scores: Sequence[Sequence[Mapping[str, float]]],
    *,
    step: int,
    names: Sequence[str],
) -> tuple[list[str], TensorDict, list[dict[str, Any]]]:
    """Keys, columns and tags as veRL's own loop (v1/agent_loop_tq.py:150) writes them.

    Of its columns of objects only `names`: a queue copies every column in every pass, and objects
    one by one.
    """
    keys: list[str] = []
    tags: list[dict[str, Any]] = []
    ragged: dict[str, list[Tensor]] = {}
    objects: dict[str, list[Any]] = {}
    for group, (prompt, responses) in enumerate(zip(rows, groups, strict=True)):
        for sample, response in enumerate(responses):
            score = scores[group][sample]
            keys.append(f"{prompt.uid}_{sample}_0")
            for name, tensor in _tensors(prompt, response, score["score"]).items():
                ragged.setdefault(name, []).append(tensor)
            row = {
                **prompt.row,
                "num_turns": 2,
                "extra_fields": {"reward_extra_info": dict(score)},
            }
            for name in names:
                objects.setdefault(name, []).append(row[name])
            lengths = {"prompt_len": len(prompt.tokens), "response_len": len(response.tokens)}
            tags.append(
                {
                    "status": "success",
                    **lengths,
                    "seq_len": sum(lengths.values()),
                    "global_steps": step,
                    "min_global_steps": step - 1,
                    "max_global_steps": step - 1,
                    "place": len(keys),
                    "group": group,
                    "score": score["score"],
                    "formed": score["format"],
                }
            )
    columns: dict[str, Any] = {
        name: torch.nested.as_nested_tensor(tensors, layout=torch.jagged)
        for name, tensors in ragged.items()
    }
    columns |= {name: NonTensorStack(*values) for name, values in objects.items()}  # type: ignore
    return keys, TensorDict(columns, batch_size=[len(keys)]), tags


def _tensors(prompt: PromptRow, response: Response, score: float) -> dict[str, Tensor]:
    prompts, responses = torch.tensor(prompt.tokens), torch.tensor(response.tokens)
    input_ids = torch.cat([prompts, responses])
    mask = torch.ones_like(responses)
    rewards = torch.zeros(len(responses))
    rewards[-1] = score
    return {
        "prompts": prompts,
        "responses": responses,
        "input_ids": input_ids,
        "position_ids": torch.arange(len(input_ids)),
        "response_mask": mask,
        "loss_mask": mask,
        "rollout_log_probs": torch.tensor(response.log_probabilities),
        "rm_scores": rewards,
    }


def _plain(value: Any) -> Any:
    return getattr(value, "data", value)
