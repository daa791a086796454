"""veRL's own FSDP2 engine on gloo ranks, with the settings that `grpo_8b --placement slurm` gets.

The model, the batch and the numbers of ranks are small; attention and compilation are a CPU's.
"""

import json
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import NemotronHForCausalLM
from transformers.models.nemotron_h import modeling_nemotron_h

from frontload.megatron_ext.hf.convert import export_hf
from frontload.megatron_ext.hf.names import our_name
from frontload.megatron_ext.hf.safetensors import ShardReader
from frontload.megatron_ext.inference.language_model import LanguageModel
from frontload.recipes.grammar.load import find_recipe, load_recipe
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.recipes.schema import Model
from frontload.rl.cluster.files import RUN, checkpoints_folder
from frontload.rl.plugins.scan import mixer_forward
from frontload.rl.stages import grpo
from frontload.rl.trainer.gather import gather_actor
from frontload.rl.watch.checkpoints import is_whole, num_ranks
from tests.ranks import run_on_ranks
from tests.unit.megatron_ext.convert_inputs import write_checkpoint, write_tokenizer_file
from tests.unit.rl.cluster_recipes import FILES, placement_of, recipe_of
from tests.unit.rl.job_folder import finish_step, step_data, workspace, write_answers, write_log

ROWS, RATE = 16, 1e-3
PRECISIONS = ("fp32", "bf16")
OF_A_CPU = (
    "+actor_rollout_ref.model.override_config.attn_implementation=sdpa",
    "actor_rollout_ref.actor.use_torch_compile=false",
    "actor_rollout_ref.actor.fsdp_config.use_torch_compile=false",
)


def tiny_model() -> Model:
    path = find_recipe("models", "hybrid_138k")
    assert path is not None
    return load_recipe(path, Model).value


def tiny_recipe(precision: str) -> GrpoRecipe:
    recipe = recipe_of("grpo_8b", model=tiny_model(), precision=precision)
    return replace(
        recipe,
        batch_prompts=4,
        mini_batch_prompts=4,
        steps=1,
        prompt_tokens=64,
        response_tokens=64,
        grpo=replace(recipe.grpo, rollouts_per_prompt=ROWS // 4),
        optimizer=replace(recipe.optimizer, learning_rate=RATE),
    )


# ---------------------------------------------------------------- on a rank


def updates(model: str, out: str) -> None:
    """On a rank: one update in each precision, written to `out` by rank 0.

    The responses are as old in both as in float32, so that bf16 has another loss.
    """
    os.environ |= {"VERL_PLATFORM": "cpu", "VERL_ENGINE_DEVICE": "cuda", "HF_HUB_OFFLINE": "1"}
    torch.distributed.init_process_group("gloo")
    from frontload.rl.plugins import cpu_platform
    from frontload.rl.plugins.scan import use_chunked_scan

    cpu_platform.prepare_process()
    cpu_platform.use_pageable_memory()
    use_chunked_scan()
    old: list[torch.Tensor] = []
    for precision in PRECISIONS:
        found, mine = update(Path(model), Path(out), precision, old=old)
        old = old or mine
        if torch.distributed.get_rank() == 0:
            torch.save(found, Path(out) / f"{precision}.pt")


def update(
    model: Path, out: Path, precision: str, *, old: list[torch.Tensor]
) -> tuple[dict[str, Any], list[torch.Tensor]]:
    """Log-probabilities, the gradient and the weights of one update of all ranks together."""
    from verl.workers.utils.losses import ppo_loss
    from verl.workers.utils.padding import no_padding_2_padding

    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    engine, actor = engine_of(model, out, precision=precision, world=world)
    rows = batch_rows()[rank * ROWS // world : (rank + 1) * ROWS // world]
    batch = verl_batch(rows)
    with engine.eval_mode():
        scored = engine.infer_batch(batch.clone(), None)["model_output"]["log_probs"]
    dense = no_padding_2_padding(scored, batch)
    mine = [dense[row, : len(answer)].clone() for row, (_, answer, _) in enumerate(rows)]
    batch["old_log_probs"] = ragged(old or mine)
    batch["ref_log_prob"] = ragged([one - 0.1 for one in old or mine])
    sent = {name: tensor.clone() for name, tensor in engine.get_per_tensor_param()[0]}
    with engine.train_mode():
        engine.optimizer_zero_grad()
        loss = partial(ppo_loss, config=actor)
        told = engine.forward_backward_batch(batch.clone(), loss, forward_only=False)
        gradient = {
            name: weight.grad.full_tensor().clone()
            for name, weight in engine.module.named_parameters()
        }
        norm = engine.optimizer_step()
    after = {name: tensor.clone() for name, tensor in engine.get_per_tensor_param()[0]}
    scores, losses = [None] * world, [None] * world
    torch.distributed.all_gather_object(scores, torch.cat(mine).float())
    torch.distributed.all_gather_object(losses, sum(told["loss"]))
    folder = checkpoints_of(out, precision) / "global_step_1" / "actor"
    engine.save_checkpoint(str(folder), global_step=1, max_ckpt_to_keep=2)
    found = {
        "log_probs": torch.cat(scores),  # pyright: ignore[reportArgumentType]
        "gradient": gradient,
        "norm": float(norm),
        "loss": sum(losses) / world,  # pyright: ignore[reportArgumentType]
        "sent": sent,
        "after": after,
    }
    return found, mine


def checkpoints_of(out: Path, precision: str) -> Path:
    return checkpoints_folder(out / f"run-{precision}")


def engine_of(model: Path, out: Path, *, precision: str, world: int) -> tuple[Any, Any]:
    """The engine as veRL's ActorRolloutRefWorker makes it of the composed settings."""
    from hydra import compose, initialize_config_module
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.engine import EngineRegistry

    from frontload.rl.trainer.settings import verl_settings

    recipe = tiny_recipe(precision)
    placement = placement_of("slurm", num_nodes=1, ranks_per_node=world)
    files = replace(FILES, model=model, checkpoints=out / "checkpoints", work=out / "work")
    settings = verl_settings(recipe, placement, files)
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=[*settings.overrides, *OF_A_CPU])
    section = config.actor_rollout_ref
    actor, hf_model = (omega_conf_to_dataclass(one) for one in (section.actor, section.model))
    actor.model_config = hf_model
    engine_config = actor.engine
    engine_config.use_remove_padding = hf_model.use_remove_padding
    engine_config.use_dynamic_bsz = section.actor.use_dynamic_bsz
    engine_config.micro_batch_size_per_gpu = section.actor.ppo_micro_batch_size_per_gpu
    hf_model.model_type = "language_model"
    engine = EngineRegistry.new(
        model_type="language_model",
        backend=engine_config.strategy,
        model_config=hf_model,
        engine_config=engine_config,
        optimizer_config=actor.optim,
        checkpoint_config=actor.checkpoint,
    )
    engine.initialize()
    return engine, actor


def batch_rows() -> list[tuple[torch.Tensor, torch.Tensor, float]]:
    """Prompt, response and advantage of every row, shortest first."""
    stream = torch.Generator().manual_seed(5)

    def words(low: int, high: int) -> torch.Tensor:
        size = int(torch.randint(low, high, (1,), generator=stream))
        return torch.randint(10, 200, (size,), generator=stream)

    rows = [
        (words(8, 30), words(3, 60), float(torch.randn(1, generator=stream))) for _ in range(ROWS)
    ]
    return sorted(rows, key=lambda row: len(row[0]) + len(row[1]))


def ragged(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(tensors, layout=torch.jagged)


def verl_batch(rows: list[tuple[torch.Tensor, torch.Tensor, float]]) -> Any:
    """The rows as veRL's trainer hands them to an actor."""
    from tensordict import TensorDict
    from verl.utils import tensordict_utils

    masks = [torch.ones(len(answer), dtype=torch.long) for _, answer, _ in rows]
    columns = {
        "prompts": [prompt for prompt, _, _ in rows],
        "responses": [answer for _, answer, _ in rows],
        "input_ids": [torch.cat([prompt, answer]) for prompt, answer, _ in rows],
        "position_ids": [torch.arange(len(prompt) + len(answer)) for prompt, answer, _ in rows],
        "response_mask": masks,
        "loss_mask": masks,
        "advantages": [torch.full((len(answer),), gain) for _, answer, gain in rows],
    }
    batch = TensorDict(
        {name: ragged(column) for name, column in columns.items()}, batch_size=[len(rows)]
    )
    tensordict_utils.assign_non_tensor(
        batch,
        use_remove_padding=False,
        use_dynamic_bsz=False,
        micro_batch_size_per_gpu=1,
        temperature=1.0,
        global_batch_size=ROWS,
        calculate_entropy=False,
        use_fused_kernels=False,
        max_token_len_per_gpu=16_384,
    )
    return batch


# ---------------------------------------------------------------- here


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    """(ranks, precision) -> what the update was; "rounded" -> scores of rounded weights."""
    root = tmp_path_factory.mktemp("actor")
    (root / "start").mkdir()
    write_checkpoint(root / "start", tiny_model(), scale=0.5)
    export_hf(root / "start", root / "hf", tokenizer=write_tokenizer_file(root / "tokenizer.json"))
    told: dict[Any, Any] = {"rounded": rounded_scores(root / "hf"), "root": root}
    for world in (1, 2):
        (root / str(world)).mkdir()
        arguments = {"model": str(root / "hf"), "out": str(root / str(world))}
        run_on_ranks(__file__, "updates", world, arguments=arguments)
        for precision in PRECISIONS:
            saved = root / str(world) / f"{precision}.pt"
            told[world, precision] = torch.load(saved, weights_only=True)
    return told


def rounded_scores(model: Path) -> torch.Tensor:
    """Log-probabilities of the responses in float32, by transformers, of weights in bf16."""
    exact = NemotronHForCausalLM.from_pretrained(model, dtype=torch.float32)
    exact.config.use_mamba_kernels = False
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(modeling_nemotron_h.NemotronHMamba2Mixer, "torch_forward", mixer_forward)
        for weight in exact.parameters():
            weight.copy_(weight.bfloat16())
        scores = []
        for prompt, answer, _ in batch_rows():
            words = torch.cat([prompt, answer])[None]
            known = exact(words, use_cache=False).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
            scores.append(known.gather(1, answer[:, None])[:, 0])
    return torch.cat(scores)


def difference(one: dict[str, Any], other: dict[str, Any], name: str = "gradient") -> float:
    """Of all tensors together, relative to the first's."""
    pairs = [(one[name][key], other[name][key]) for key in one[name]]
    apart = sum(float((mine - theirs).square().sum()) for mine, theirs in pairs)
    return (apart / sum(float(mine.square().sum()) for mine, _ in pairs)) ** 0.5


@pytest.mark.parametrize("precision", PRECISIONS)
def test_two_ranks_compute_what_one_does(found: dict[Any, Any], precision: str) -> None:
    """A rank scores the same rows whoever else there is. Of the gradient only the order of sums
    over rows differs, which are in float32 in either precision (`reduce_dtype`)."""
    one, two = found[1, precision], found[2, precision]
    assert torch.equal(one["log_probs"], two["log_probs"])
    assert difference(one, two) < ROWS * 2**-23
    assert two["norm"] == pytest.approx(one["norm"], rel=ROWS * 2**-23)
    assert two["loss"] == pytest.approx(one["loss"], rel=ROWS * 2**-23)


def test_bf16_differs_from_fp32_by_its_own_rounding(found: dict[Any, Any]) -> None:
    """The yardstick is float32 on weights that were rounded to bf16: one rounding of each product.

    bf16 rounds its other factor and its result too, which adds squares: three times is above that.
    The loss moves by the advantages times what the log-probabilities move by, at most.
    """
    exact, bf16 = found[2, "fp32"], found[2, "bf16"]
    apart = (bf16["log_probs"] - exact["log_probs"]).abs()
    rounding = (found["rounded"] - exact["log_probs"]).abs()
    assert 0.5 * rounding.mean() < apart.mean() < 3 * rounding.mean()
    gains = torch.cat([torch.full((len(answer),), gain) for _, answer, gain in batch_rows()])
    bound = float((gains.abs() * (apart.exp() - 1)).mean())
    assert abs(bf16["loss"] - exact["loss"]) < bound


@pytest.mark.parametrize("precision", PRECISIONS)
def test_master_weights_are_float32_and_move_by_the_rate(
    found: dict[Any, Any], precision: str
) -> None:
    """AdamW's first step moves a weight by the rate; in bf16 weights of 0.5 could not take it."""
    sent, after = found[2, precision]["sent"], found[2, precision]["after"]
    moved = torch.cat([(after[name] - sent[name]).flatten().abs() for name in sent])
    assert {tensor.dtype for tensor in (*sent.values(), *after.values())} == {torch.float32}
    assert float(moved.median()) == pytest.approx(RATE, rel=0.02)


@pytest.mark.parametrize("world", [1, 2])
def test_what_the_actor_saved_is_known_as_whole(found: dict[Any, Any], world: int) -> None:
    """rl/watch/checkpoints.py, on real files: of an FSDP actor, each rank's parts."""
    folder = checkpoints_of(found["root"] / str(world), "fp32") / "global_step_1"
    assert not is_whole(folder)
    (folder / "data.pt").touch()  # the trainer's, written last
    assert (is_whole(folder), num_ranks(folder)) == (True, world)
    (folder / "actor" / f"optim_world_size_{world}_rank_{world - 1}.pt").unlink()
    assert not is_whole(folder)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("world", [1, 2])
def test_what_the_ranks_saved_is_gathered_to_the_bit(
    found: dict[Any, Any], world: int, precision: str
) -> None:
    """The whole tensors are those that veRL sends to the engine that generates."""
    actor = checkpoints_of(found["root"] / str(world), precision) / "global_step_1" / "actor"
    after = {our_name(name): one for name, one in found[world, precision]["after"].items()}
    whole = gather_actor(actor)
    assert whole.keys() == after.keys()
    assert all(torch.equal(whole[name], one) for name, one in after.items())
    assert not all(torch.equal(whole[our_name(name)], one) for name, one in sent_of(found, world))


def sent_of(found: dict[Any, Any], world: int) -> Any:
    """What the actor began from, and the update moved away from."""
    return found[world, "fp32"]["sent"].items()


def test_a_finished_job_becomes_a_checkpoint_that_evaluation_loads(
    found: dict[Any, Any], tmp_path: Path
) -> None:
    """The stage of a study, on what two ranks of veRL's actor and its trainer's writers left."""
    root = found["root"]
    work = workspace(tmp_path / "work", placement_of("slurm", num_nodes=1, ranks_per_node=2))
    run = work.scratch / RUN
    shutil.copytree(checkpoints_of(root / "2", "bf16"), checkpoints_folder(run))
    finish_step(checkpoints_folder(run), 1)
    write_log(run, "metrics-7-0.jsonl", {0: {}, 1: step_data(0.5, validation=0.25)})
    for step in (0, 1):
        write_answers(run, step)
    (tmp_path / "exported").mkdir()
    shutil.copytree(root / "hf", tmp_path / "exported" / "model")
    inputs = {"start": root / "start", "exported": tmp_path / "exported"}
    grpo(tiny_recipe("bf16"), inputs, work)
    work.close()

    after = {our_name(name): one for name, one in found[2, "bf16"]["after"].items()}
    export_hf(work.path, tmp_path / "again", tokenizer=root / "tokenizer.json")
    again = ShardReader(tmp_path / "again")
    assert all(torch.equal(again.read(name), one) for name, one in after.items())
    words = [torch.cat([prompt, answer]) for prompt, answer, _ in batch_rows()[:4]]
    scores = LanguageModel.load(work.path).log_probabilities([one.tolist() for one in words])
    exact = NemotronHForCausalLM.from_pretrained(tmp_path / "again", dtype=torch.float32)
    exact.config.use_mamba_kernels = False
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(modeling_nemotron_h.NemotronHMamba2Mixer, "torch_forward", mixer_forward)
        for one, mine in zip(words, scores, strict=True):
            known = exact(one[None], use_cache=False).logits.log_softmax(-1)[0, :-1]
            theirs = known.gather(1, one[1:, None])[:, 0]
            assert float((torch.from_numpy(mine) - theirs).abs().max()) < 1e-4
    rows = [json.loads(line) for line in (work.path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1]
    assert rows[0]["train/reward"] == 0.5
