"""GrpoRecipe and Placement to veRL 0.9.1's settings: the single adapter. Pure; imports no veRL.

Each setting is one Hydra override, so that veRL's own `main_ppo` runs unchanged. What the recipe
does not name stays at veRL's default.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from frontload.recipes.machines.placement import Placement
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.rl.trainer import guards
from frontload.rl.trainer.hydra import Value, hydra_text
from frontload.rl.trainer.own_settings import ACTOR, MODEL, REF, ROLLOUT, add_own, asked_settings

# registers the CPU platform and rollout "frontload"
PLUGIN_MODULE = "frontload.rl.plugins.cpu_platform"
REWARD_MODULE = "pkg://frontload.rl.rewards"
REWARD_FUNCTION = "compute_score"
REWARD_MANAGER = "pkg://frontload.rl.plugins.whole_text"
REWARD_MANAGER_CLASS = "WholeTextRewardManager"
TRAINER = ("python", "-m", "verl.trainer.main_ppo")
SAVED = ("model", "optimizer", "extra")  # what resuming needs; never "hf_model", see guards

TORCH_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}

Overrides = dict[str, Value]
"""Hydra key (with its leading + where veRL's schema does not hold it) -> value."""


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """Where an RL run reads and writes. Folders are made by whoever starts the run."""

    model: Path  # Hugging Face folder, tokenizer and chat template included
    train_prompts: Path  # parquet
    validation_prompts: Path  # parquet
    checkpoints: Path  # veRL's global_step_N; a second run with the same folder goes on from it
    work: Path  # Hydra's own files, tensorboard
    validation_responses: Path | None = None  # folder of one JSON lines file a validation


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """What `main_ppo` is started with."""

    overrides: tuple[str, ...]  # Hydra's command line
    environment: dict[str, str]

    @property
    def command(self) -> tuple[str, ...]:
        """The trainer's whole command, without the environment."""
        return (*TRAINER, *self.overrides)


FIRST_VALIDATION = "trainer.val_before_train="


def going_on(settings: TrainerSettings) -> TrainerSettings:
    """The settings of a start that goes on from a checkpoint: the start model was validated."""
    return replace(settings, overrides=without_first_validation(settings.overrides))


def without_first_validation(words: Sequence[str]) -> tuple[str, ...]:
    """veRL's command line where its model is not validated before the first step."""
    off = f"{FIRST_VALIDATION}{hydra_text(False)}"
    return tuple(off if word.startswith(FIRST_VALIDATION) else word for word in words)


def verl_settings(recipe: GrpoRecipe, placement: Placement, files: RunFiles) -> TrainerSettings:
    """Renders a recipe for the machines it is placed on.

    Raises: RecipeError for a combination that veRL, vLLM or transformers would run wrongly.
    """
    guards.check_parts(recipe, placement)
    overrides: Overrides = {}
    if recipe.actor == "megatron":
        overrides["model_engine"] = "megatron"  # a choice of files, so it comes first
    overrides |= _data(recipe, files)
    overrides |= _algorithm(recipe)
    overrides |= _model(recipe, placement, files)
    overrides |= _actor(recipe, placement)
    overrides |= (
        _fsdp(recipe, placement) if recipe.actor == "fsdp2" else _megatron(recipe, placement)
    )
    overrides |= _rollout(recipe, placement)
    overrides |= _trainer(recipe, placement, files)
    overrides |= _ray(placement)
    rendered = {key: hydra_text(value) for key, value in overrides.items()}
    guards.check_rendered(recipe, placement, asked_settings(rendered, placement.rl.verl))
    rendered = add_own(rendered, placement.rl.verl)
    return TrainerSettings(
        overrides=tuple(f"{key}={text}" for key, text in rendered.items()),
        environment=_environment(recipe, placement),
    )


def _data(recipe: GrpoRecipe, files: RunFiles) -> Overrides:
    return {
        "data.train_files": str(files.train_prompts),
        "data.val_files": str(files.validation_prompts),
        "data.train_batch_size": recipe.batch_prompts,
        "data.max_prompt_length": recipe.prompt_tokens,
        "data.max_response_length": recipe.response_tokens,
        # Prompts are measured, dropped and counted where they are made; veRL must not drop more.
        "data.filter_overlong_prompts": False,
        "data.truncation": "error",
        "data.shuffle": True,
        "data.validation_shuffle": False,
        "data.seed": recipe.seed,
        "data.dataloader_num_workers": 0,  # with worker processes a resumed order may differ
        "reward.custom_reward_function.path": REWARD_MODULE,
        "reward.custom_reward_function.name": REWARD_FUNCTION,
        "+reward.custom_reward_function.reward_kwargs.layout": recipe.reward_layout,
        "reward.reward_manager.source": "importlib",
        "reward.reward_manager.name": REWARD_MANAGER_CLASS,
        "reward.reward_manager.module.path": REWARD_MANAGER,
    }


def _algorithm(recipe: GrpoRecipe) -> Overrides:
    found: Overrides = {
        "algorithm.adv_estimator": "grpo",
        "critic.enable": False,
        "algorithm.norm_adv_by_std_in_grpo": recipe.grpo.normalize_by_std,
        "algorithm.use_kl_in_reward": False,  # the KL is in the loss
        f"{ACTOR}.use_kl_loss": True,
        f"{ACTOR}.kl_loss_coef": recipe.grpo.kl_coefficient,
        f"{ACTOR}.kl_loss_type": recipe.grpo.kl_estimator,
        f"{ACTOR}.clip_ratio": recipe.grpo.clip_ratio_high,
        f"{ACTOR}.clip_ratio_low": recipe.grpo.clip_ratio_low,
        f"{ACTOR}.clip_ratio_high": recipe.grpo.clip_ratio_high,
        f"{ACTOR}.clip_ratio_c": recipe.grpo.dual_clip_ratio,
        f"{ACTOR}.entropy_coeff": recipe.grpo.entropy_coefficient,
        f"{ACTOR}.loss_agg_mode": recipe.grpo.loss_aggregation,
        f"{ACTOR}.ppo_epochs": 1,
        f"{ACTOR}.ppo_mini_batch_size": recipe.mini_batch_prompts,
    }
    if recipe.grpo.loss_aggregation == "seq-mean-token-sum-norm":
        # without it veRL divides by the longest response of each micro-batch
        found[f"{ACTOR}.loss_scale_factor"] = recipe.response_tokens
    if recipe.grpo.filter_one_reward_groups:
        found["algorithm.filter_groups.enable"] = True
        found["algorithm.filter_groups.metric"] = "reward"
    return found


def _model(recipe: GrpoRecipe, placement: Placement, files: RunFiles) -> Overrides:
    found: Overrides = {
        f"{MODEL}.path": str(files.model),
        f"{MODEL}.trust_remote_code": False,
        # veRL's workers copy this one over every engine's own field of the same name.
        f"{MODEL}.use_remove_padding": False,
        f"{MODEL}.enable_gradient_checkpointing": placement.recompute,
    }
    if recipe.rollout == "frontload":
        found |= {
            f"+{MODEL}.override_config.attn_implementation": "sdpa",
            # transformers 5.10's torch path is wrong past one chunk; the result does not depend
            # on the chunk, so one chunk holds the context.
            f"+{MODEL}.override_config.chunk_size": recipe.context_tokens,
        }
    elif recipe.is_hybrid:  # GPU kernels are right with any chunk, and fast with their own
        found[f"+{MODEL}.override_config.chunk_size"] = recipe.model.mamba_chunk_tokens
    return found


def _actor(recipe: GrpoRecipe, placement: Placement) -> Overrides:
    micro = micro_batch_sequences(recipe, placement)
    optimizer = recipe.optimizer
    return {
        f"{ACTOR}.ppo_micro_batch_size_per_gpu": micro,
        f"{ACTOR}.use_dynamic_bsz": False,
        f"{ACTOR}.data_loader_seed": recipe.seed,
        f"{ACTOR}.shuffle": False,
        f"{ACTOR}.optim.lr": optimizer.learning_rate,
        f"{ACTOR}.optim.lr_warmup_steps": optimizer.warmup_steps,
        f"{ACTOR}.optim.lr_warmup_steps_ratio": 0.0,
        f"{ACTOR}.optim.betas": (optimizer.adam_beta1, optimizer.adam_beta2),
        f"{ACTOR}.optim.weight_decay": optimizer.weight_decay,
        f"{ACTOR}.optim.clip_grad": optimizer.clip_grad,
        f"{ACTOR}.checkpoint.save_contents": SAVED,
        f"{REF}.log_prob_micro_batch_size_per_gpu": micro,
        f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": micro,
    }


def micro_batch_sequences(recipe: GrpoRecipe, placement: Placement) -> int:
    """Sequences one rank takes at a time: the placement's number, else its whole share."""
    cut = placement.tensor_parallel * placement.pipeline_parallel
    data_parallel = max(1, placement.world_size // cut)
    share = recipe.mini_batch_prompts * recipe.grpo.rollouts_per_prompt // data_parallel
    return placement.micro_batch_sequences or max(1, share)


def _fsdp(recipe: GrpoRecipe, placement: Placement) -> Overrides:
    is_cpu = recipe.rollout == "frontload"
    found: Overrides = {
        f"{ACTOR}.strategy": "fsdp2",
        f"{ACTOR}.optim.lr_scheduler_type": recipe.optimizer.decay,
        f"{ACTOR}.grad_clip": recipe.optimizer.clip_grad,
        f"{ACTOR}.use_torch_compile": not is_cpu,
        f"{REF}.use_torch_compile": not is_cpu,
        f"{ACTOR}.fsdp_config.optimizer_offload": placement.rl.offload,
    }
    for role in (ACTOR, REF):
        found |= {
            f"{role}.fsdp_config.strategy": "fsdp2",
            f"{role}.fsdp_config.seed": recipe.seed,
            f"{role}.fsdp_config.use_torch_compile": not is_cpu,
            f"{role}.fsdp_config.model_dtype": "fp32",  # master weights
            f"{role}.fsdp_config.param_offload": placement.rl.offload,
            # `fsdp_config.dtype` is not read by the FSDP engine; without these it computes in bf16.
            f"+{role}.fsdp_config.mixed_precision.param_dtype": recipe.precision,
            f"+{role}.fsdp_config.mixed_precision.reduce_dtype": "fp32",
            f"+{role}.fsdp_config.mixed_precision.buffer_dtype": "fp32",
        }
    return found


def _megatron(recipe: GrpoRecipe, placement: Placement) -> Overrides:
    """Layout of the Megatron actor; the reference model's interpolates from it."""
    engine = f"{ACTOR}.megatron"
    return {
        f"{ACTOR}.optim.lr_decay_style": recipe.optimizer.decay,
        f"{engine}.seed": recipe.seed,
        f"{engine}.tensor_model_parallel_size": placement.tensor_parallel,
        f"{engine}.pipeline_model_parallel_size": placement.pipeline_parallel,
        f"{engine}.sequence_parallel": placement.sequence_parallel,
        f"{REF}.megatron.sequence_parallel": placement.sequence_parallel,
        f"{engine}.use_distributed_optimizer": placement.distributed_optimizer,
        f"{engine}.use_remove_padding": False,
        f"{engine}.use_mbridge": True,  # Megatron-Bridge, which maps NemotronH both ways
        f"{engine}.vanilla_mbridge": False,
        f"{engine}.dtype": "bfloat16",
        f"{engine}.param_offload": placement.rl.offload,
        f"{engine}.optimizer_offload": placement.rl.offload,
        f"{engine}.override_transformer_config.recompute_granularity": (
            "full" if placement.recompute else None
        ),
        f"{engine}.override_transformer_config.recompute_method": (
            "uniform" if placement.recompute else None
        ),
        f"{engine}.override_transformer_config.recompute_num_layers": (
            1 if placement.recompute else None
        ),
    }


def _rollout(recipe: GrpoRecipe, placement: Placement) -> Overrides:
    sampling, machines = recipe.sampling, placement.rl
    found: Overrides = {
        f"{ROLLOUT}.name": recipe.rollout,
        f"{ROLLOUT}.n": recipe.grpo.rollouts_per_prompt,
        f"{ROLLOUT}.temperature": sampling.temperature,
        f"{ROLLOUT}.top_p": sampling.top_p,
        f"{ROLLOUT}.top_k": -1,
        f"{ROLLOUT}.seed": recipe.seed,
        f"{ROLLOUT}.dtype": TORCH_DTYPES[recipe.precision],
        f"{ROLLOUT}.calculate_log_probs": True,  # logs the rollout/actor difference every step
        f"{ROLLOUT}.max_model_len": recipe.context_tokens,
        f"{ROLLOUT}.max_num_seqs": machines.rollout_sequences,
        f"{ROLLOUT}.tensor_model_parallel_size": machines.rollout_tensor_parallel,
        f"{ROLLOUT}.agent.num_workers": machines.agent_workers,
        f"{ROLLOUT}.val_kwargs.n": sampling.validation_samples,
        f"{ROLLOUT}.val_kwargs.temperature": sampling.validation_temperature,
        f"{ROLLOUT}.val_kwargs.top_p": sampling.top_p,
        f"{ROLLOUT}.val_kwargs.do_sample": sampling.validation_temperature > 0,
        f"{ROLLOUT}.free_cache_engine": recipe.rollout == "vllm",
        "reward.num_workers": machines.reward_workers,
    }
    if recipe.rollout == "vllm":
        found |= {
            f"{ROLLOUT}.gpu_memory_utilization": machines.rollout_memory_share,
            f"{ROLLOUT}.max_num_batched_tokens": machines.rollout_batched_tokens,
            # Whole tensors through the model's own loader; the delta path loads layer by layer.
            f"{ROLLOUT}.checkpoint_engine.backend": "naive",
        }
    if recipe.rollout == "vllm" and recipe.is_hybrid:
        found |= {
            f"+{ROLLOUT}.engine_kwargs.vllm.{guards.SSM_CACHE}": "float32",
            # vLLM calls prefix caching of Mamba layers experimental; veRL turns it on by default.
            f"{ROLLOUT}.enable_prefix_caching": False,
        }
    return found


def _trainer(recipe: GrpoRecipe, placement: Placement, files: RunFiles) -> Overrides:
    found: Overrides = {
        "trainer.device": "cpu" if recipe.rollout == "frontload" else "cuda",
        "trainer.nnodes": placement.num_nodes,
        "trainer.n_gpus_per_node": placement.ranks_per_node,
        "trainer.total_training_steps": recipe.steps,
        "trainer.total_epochs": recipe.steps,  # an epoch has a step or more: the steps decide
        "trainer.val_before_train": True,
        # veRL validates the last step only where it validates at all
        "trainer.test_freq": recipe.validate_every_steps or recipe.steps,
        "trainer.save_freq": recipe.checkpoint_every_steps,
        "trainer.max_actor_ckpt_to_keep": placement.rl.checkpoints_kept,
        "trainer.default_local_dir": str(files.checkpoints),
        "trainer.resume_mode": "auto",
        "trainer.logger": placement.rl.loggers,
        "trainer.project_name": "frontload",
        "trainer.experiment_name": "grpo",
        "hydra.run.dir": str(files.work),
        "hydra.output_subdir": None,
    }
    if files.validation_responses is not None:
        found["trainer.validation_data_dir"] = str(files.validation_responses)
    return found


def _ray(placement: Placement) -> Overrides:
    """On a cluster the job's own Ray, which must be there; else one that veRL starts here."""
    if placement.slurm is not None:
        return {"+ray_kwargs.ray_init.address": "auto"}  # without it veRL starts a one-node Ray
    return {
        "ray_kwargs.ray_init.num_cpus": placement.rl.ray_cpus,
        "+ray_kwargs.ray_init.num_gpus": placement.ranks_per_node,  # logical: veRL counts these
        "+ray_kwargs.ray_init.include_dashboard": False,
        "+ray_kwargs.ray_init.object_store_memory": 500_000_000,
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
    }


def _environment(recipe: GrpoRecipe, placement: Placement) -> dict[str, str]:
    found = {
        "OMP_NUM_THREADS": str(placement.threads_per_rank),
        "TOKENIZERS_PARALLELISM": "false",
        "HYDRA_FULL_ERROR": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
    }
    if "wandb" not in placement.rl.loggers:
        found["WANDB_MODE"] = "disabled"
    if recipe.rollout == "frontload":
        found |= {
            "VERL_PLATFORM": "cpu",
            "VERL_USE_EXTERNAL_MODULES": PLUGIN_MODULE,
            "VERL_ENGINE_DEVICE": "cuda",  # veRL registers its FSDP engine for this name only
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        }
    return found
