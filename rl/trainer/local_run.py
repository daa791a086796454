"""What a run on this machine adds to veRL's settings, and the environment it is given."""

from dataclasses import replace
from pathlib import Path

from frontload.recipes.machines.placement import Placement
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.rl.plugins.lean_ray import RAY_ENVIRONMENT, WORKER_ENVIRONMENT
from frontload.rl.trainer.hydra import hydra_text
from frontload.rl.trainer.settings import RunFiles, TrainerSettings, verl_settings

RUN_MARK = "FRONTLOAD_RL_RUN"
"""Environment variable that every process of a run inherits: its own, to be found and ended by."""

MICRO_BATCH_ROWS = 64


def local_settings(
    recipe: GrpoRecipe, placement: Placement, files: RunFiles, *, ray_folder: Path
) -> TrainerSettings:
    """`verl_settings` for one process of each kind, alone on the loopback interface.

    Prompts, rewards and the order of a batch are ours (`agent_loop.py`), so veRL's processes for
    prompts and rewards are not started; `ray_folder` is short, for it holds sockets.
    """
    plain = verl_settings(recipe, _alone(recipe, placement, files, ray_folder), files)
    environment = {
        **plain.environment,
        **RAY_ENVIRONMENT,
        RUN_MARK: ray_folder.name,
        "VERL_FILE_LOGGER_PATH": str(step_log(files)),
        "GLOO_SOCKET_IFNAME": "lo",
        "VERL_LOGGING_LEVEL": "WARN",
    }
    return TrainerSettings(overrides=plain.overrides, environment=environment)


def step_log(files: RunFiles) -> Path:
    """Where veRL writes one JSON line a step."""
    return files.work / "steps.jsonl"


def router_file(files: RunFiles) -> Path:
    """Where the run's router is named to veRL."""
    return files.work / "router.yaml"


def answers_folder(files: RunFiles) -> Path:
    """Where the agent loop writes what was answered at each validation."""
    return files.work / "answers"


def micro_batch_rows(rows: int) -> int:
    """The most rows of an update that are computed at a time, of equal parts of it."""
    return max(part for part in range(1, MICRO_BATCH_ROWS + 1) if rows % part == 0)


def _alone(
    recipe: GrpoRecipe, placement: Placement, files: RunFiles, ray_folder: Path
) -> Placement:
    rows = recipe.mini_batch_prompts * recipe.grpo.rollouts_per_prompt
    own = {
        "+actor_rollout_ref.rollout.agent.agent_loop_manager_class": (
            "frontload.rl.plugins.agent_loop.AgentLoop"
        ),
        "actor_rollout_ref.rollout.router_config_path": str(router_file(files)),
        "trainer.v1.sampler.custom_sampler.path": "pkg://frontload.rl.plugins.agent_loop",
        "trainer.v1.sampler.custom_sampler.name": "OrderedReplayBuffer",
        "+trainer.v1.sampler.sampler_kwargs.rows_an_update": rows,
        "+trainer.v1.sampler.sampler_kwargs.filtered_batch": (
            recipe.batch_prompts if recipe.grpo.filter_one_reward_groups else 0
        ),
        "+frontload.validation_answers": str(answers_folder(files)),
        "+ray_kwargs.ray_init.address": "local",  # never another run's Ray
        "+ray_kwargs.ray_init._temp_dir": str(ray_folder),
        "+ray_kwargs.ray_init.configure_logging": False,
        "+ray_kwargs.ray_init.runtime_env.worker_process_setup_hook": (
            "frontload.rl.plugins.lean_start.prepare"
        ),
        **{
            f"+ray_kwargs.ray_init.runtime_env.env_vars.{name}": value
            for name, value in WORKER_ENVIRONMENT.items()
        },
    }
    rendered = {key: hydra_text(value) for key, value in own.items()}
    machines = replace(
        placement.rl,
        reward_workers=0,
        loggers=("file",),
        verl={**rendered, **placement.rl.verl},
    )
    micro = placement.micro_batch_sequences or micro_batch_rows(rows)
    return replace(placement, rl=machines, micro_batch_sequences=micro)
