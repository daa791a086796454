"""Every setting of the adapter arrives where the installed veRL reads it, for each backend."""

import importlib
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from frontload.recipes.errors import RecipeError
from frontload.rl.trainer.hydra import hydra_text
from frontload.rl.trainer.own_settings import add_own
from frontload.rl.trainer.settings import TrainerSettings, verl_settings
from tests.unit.rl.cluster_recipes import (
    FILES,
    PAIRS,
    odd_placement,
    odd_recipe,
    placement_of,
    recipe_of,
)
from tests.unit.rl.verl_config import composed, dataclass_of, verl_configs

pytestmark = pytest.mark.usefixtures(verl_configs.__name__)

ACTOR, REF, ROLLOUT = (f"actor_rollout_ref.{role}" for role in ("actor", "ref", "rollout"))


def settings_of(pair: str) -> TrainerSettings:
    return verl_settings(odd_recipe(pair), odd_placement(pair), FILES)


@cache
def config_of(pair: str) -> DictConfig:
    return composed(settings_of(pair))


def reference_of(pair: str) -> Any:
    """The reference model's section, renamed as veRL's worker does before it reads it."""
    section = OmegaConf.to_container(config_of(pair).actor_rollout_ref.ref, resolve=True)
    assert isinstance(section, dict)
    for old, new in (
        ("log_prob_micro_batch_size", "ppo_micro_batch_size"),
        ("log_prob_micro_batch_size_per_gpu", "ppo_micro_batch_size_per_gpu"),
        ("log_prob_use_dynamic_bsz", "use_dynamic_bsz"),
        ("log_prob_max_token_len_per_gpu", "ppo_max_token_len_per_gpu"),
    ):
        section[new] = section.pop(old)
    return dataclass_of(OmegaConf.create(section))


@pytest.mark.parametrize("pair", PAIRS)
def test_every_override_arrives_in_the_composed_config(pair: str) -> None:
    settings = settings_of(pair)
    config = composed(settings)
    for override in OverridesParser.create().parse_overrides(list(settings.overrides)):
        if override.key_or_group == "model_engine":
            continue  # a choice of files: seen in test_the_actor_reads_the_recipe
        found = OmegaConf.select(config, override.key_or_group, throw_on_missing=True)
        found = OmegaConf.to_container(found) if OmegaConf.is_config(found) else found
        assert found == override.value() or str(found) == str(override.value()), (
            override.key_or_group
        )


@pytest.mark.parametrize("pair", PAIRS)
def test_a_key_is_added_only_where_verls_schema_lacks_it(pair: str) -> None:
    engine = ["model_engine=megatron"] if pair == "megatron" else []
    schema = compose("ppo_trainer", overrides=engine)
    for text in settings_of(pair).overrides:
        key = text.partition("=")[0]
        if key.startswith("+"):
            there = OmegaConf.select(schema, key[1:], throw_on_missing=False)
            assert there is None, f"{key} is in veRL's schema: set it without +"


@pytest.mark.parametrize(
    ("pair", "key"),
    [
        ("laptop", "actor_rollout_ref.actor.kl_loss_coeff"),
        ("fsdp", "algorithm.norm_adv_by_std"),
        ("megatron", "data.sede"),
    ],
)
def test_an_unknown_key_fails(pair: str, key: str) -> None:
    with pytest.raises(ConfigCompositionException, match="Could not override"):
        compose("ppo_trainer", overrides=[*settings_of(pair).overrides, f"{key}=1"])


@pytest.mark.parametrize("pair", PAIRS)
def test_verls_own_checks_pass(pair: str, capsys: pytest.CaptureFixture[str]) -> None:
    check = importlib.import_module("verl.utils.config").validate_config
    check(config_of(pair), use_reference_policy=True, use_critic=False)
    assert "passed" in capsys.readouterr().out


@pytest.mark.parametrize("pair", PAIRS)
def test_a_critic_is_not_needed_and_a_reference_is(pair: str) -> None:
    needs = importlib.import_module("verl.trainer.ppo.utils")
    config = config_of(pair)
    assert needs.need_reference_policy(config)
    assert not needs.need_critic(config)


@pytest.mark.parametrize("pair", PAIRS)
def test_the_actor_reads_the_recipe(pair: str) -> None:
    config, recipe = config_of(pair), odd_recipe(pair)
    actor = dataclass_of(config.actor_rollout_ref.actor)
    assert actor.strategy == recipe.actor
    assert actor.ppo_mini_batch_size == 96
    assert actor.ppo_epochs == 1
    assert (actor.use_kl_loss, actor.kl_loss_coef, actor.kl_loss_type) == (True, 0.0017, "k2")
    assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.clip_ratio_c) == (0.13, 0.27, 4.5)
    assert (actor.entropy_coeff, actor.loss_agg_mode) == (0.003, "seq-mean-token-mean")
    assert (actor.data_loader_seed, actor.shuffle) == (123, False)
    assert actor.rollout_n == 4
    optim = actor.optim
    assert (optim.lr, tuple(optim.betas)) == (3e-7, (0.85, 0.96))
    assert (optim.weight_decay, optim.clip_grad) == (0.02, 0.7)
    assert list(actor.checkpoint.save_contents) == ["model", "optimizer", "extra"]
    assert list(actor.checkpoint.load_contents) == ["model", "optimizer", "extra"]


@pytest.mark.parametrize(("pair", "dtype"), [("laptop", "fp32"), ("fsdp", "bf16")])
def test_the_fsdp_engine_computes_in_the_recipes_precision(pair: str, dtype: str) -> None:
    """`mixed_precision.param_dtype` is what veRL's FSDP engine reads; `dtype` it does not."""
    actor = dataclass_of(config_of(pair).actor_rollout_ref.actor)
    for engine in (actor.engine, reference_of(pair).engine):
        assert engine.strategy == "fsdp2"
        assert engine.mixed_precision["param_dtype"] == dtype
        assert engine.mixed_precision["reduce_dtype"] == "fp32"
        assert (engine.model_dtype, engine.param_offload) == ("fp32", True)
        assert engine.seed == 123


def test_the_megatron_engine_reads_the_layout() -> None:
    actor = dataclass_of(config_of("megatron").actor_rollout_ref.actor)
    for engine in (actor.engine, reference_of("megatron").engine):
        assert (engine.tensor_model_parallel_size, engine.pipeline_model_parallel_size) == (2, 1)
        assert (engine.sequence_parallel, engine.use_remove_padding) == (True, False)
        assert (engine.use_mbridge, engine.vanilla_mbridge) == (True, False)
        assert (engine.dtype, engine.param_offload) == ("bfloat16", True)
        assert engine.override_transformer_config["recompute_granularity"] == "full"
        assert engine.seed == 123
    assert actor.engine.use_distributed_optimizer is True


@pytest.mark.parametrize("pair", PAIRS)
def test_no_worker_packs_rows(pair: str) -> None:
    """veRL's workers copy the model's flag over the engine's, so the model's must be off."""
    config = config_of(pair)
    assert config.actor_rollout_ref.model.use_remove_padding is False
    assert dataclass_of(config.actor_rollout_ref.actor).get("use_remove_padding", False) is False


@pytest.mark.parametrize("pair", PAIRS)
def test_the_rollout_reads_the_recipe(pair: str) -> None:
    rollout = dataclass_of(config_of(pair).actor_rollout_ref.rollout)
    assert (rollout.n, rollout.temperature, rollout.top_p, rollout.top_k) == (4, 0.9, 0.95, -1)
    assert (rollout.prompt_length, rollout.response_length) == (60, 68)
    assert (rollout.max_model_len, rollout.seed) == (128, 123)
    assert (rollout.max_num_seqs, rollout.agent.num_workers) == (77, 3)
    greedy = rollout.val_kwargs
    assert (greedy.n, greedy.temperature, greedy.top_p, greedy.do_sample) == (3, 0.6, 0.95, True)
    assert rollout.calculate_log_probs is True
    assert rollout.dtype == ("float32" if pair == "laptop" else "bfloat16")
    if pair != "laptop":
        assert rollout.tensor_model_parallel_size == 4
        assert rollout.gpu_memory_utilization == 0.35
        assert rollout.max_num_batched_tokens == 9_000
        assert rollout.engine_kwargs["vllm"]["mamba_ssm_cache_dtype"] == "float32"
        assert rollout.enable_prefix_caching is False
        assert rollout.checkpoint_engine.backend == "naive"


@pytest.mark.parametrize("pair", PAIRS)
def test_data_algorithm_and_trainer_read_the_recipe(pair: str) -> None:
    config = config_of(pair)
    data, trainer = config.data, config.trainer
    assert (data.train_batch_size, data.seed, data.shuffle) == (192, 123, True)
    assert (data.max_prompt_length, data.max_response_length) == (60, 68)
    assert data.train_files == "/run/train, all.parquet"
    assert data.val_files == "/run/validation=1.parquet"
    assert config.actor_rollout_ref.model.path == "/run/it's a model"
    assert config.hydra.run.dir == "/run/work {1}"
    algorithm = dataclass_of(config.algorithm)
    assert (algorithm.adv_estimator, algorithm.norm_adv_by_std_in_grpo) == ("grpo", False)
    assert algorithm.use_kl_in_reward is False
    assert (trainer.total_training_steps, trainer.test_freq, trainer.save_freq) == (321, 17, 19)
    assert trainer.total_epochs == 321
    assert (trainer.resume_mode, trainer.default_local_dir) == ("auto", "/run/checkpoints")
    assert (trainer.max_actor_ckpt_to_keep, trainer.validation_data_dir) == (4, "/run/responses")
    assert list(trainer.logger) == ["console", "file", "tensorboard"]
    reward = config.reward.custom_reward_function
    assert (reward.path, reward.name) == ("pkg://frontload.rl.rewards", "compute_score")
    assert config.reward.num_workers == 5


def test_the_last_step_is_validated_even_if_no_step_between_is() -> None:
    recipe = recipe_of("grpo_tiny", steps=5, validate_every_steps=0)
    trainer = composed(verl_settings(recipe, placement_of("cpu"), FILES)).trainer
    assert (trainer.total_training_steps, trainer.test_freq) == (5, 5)
    assert trainer.val_before_train is True


def test_machines_are_the_placements() -> None:
    config = config_of("fsdp")
    assert (config.trainer.device, config.trainer.nnodes) == ("cuda", 4)
    assert config.trainer.n_gpus_per_node == 8
    assert config.ray_kwargs.ray_init.address == "auto"
    assert config.ray_kwargs.ray_init.num_cpus is None, "Ray refuses it with an address"
    laptop = config_of("laptop")
    assert (laptop.trainer.device, laptop.trainer.n_gpus_per_node) == ("cpu", 1)
    assert (laptop.ray_kwargs.ray_init.num_cpus, laptop.ray_kwargs.ray_init.num_gpus) == (6, 1)


def test_the_plug_in_is_chosen_by_environment_on_a_laptop_only() -> None:
    laptop, cluster = settings_of("laptop").environment, settings_of("fsdp").environment
    assert laptop["VERL_PLATFORM"] == "cpu"
    assert laptop["VERL_USE_EXTERNAL_MODULES"] == "frontload.rl.plugins.cpu_platform"
    assert not any(name.startswith("VERL_") for name in cluster)
    assert laptop["OMP_NUM_THREADS"] == "2"


def test_wandb_is_off_unless_it_is_a_logger() -> None:
    told = replace(placement_of("slurm").rl, loggers=("file", "wandb"))
    cases = ((placement_of("slurm"), "disabled"), (replace(placement_of("slurm"), rl=told), None))
    for placement, mode in cases:
        environment = verl_settings(recipe_of("grpo_8b"), placement, FILES).environment
        assert environment.get("WANDB_MODE") == mode


def test_a_rank_takes_its_whole_share_unless_told() -> None:
    recipe, cpu = recipe_of("grpo_tiny"), placement_of("cpu")
    assert micro_of(verl_settings(recipe, cpu, FILES)) == "32"  # 4 prompts x 8 rollouts
    eight = verl_settings(recipe_of("grpo_8b"), placement_of("slurm"), FILES)
    assert micro_of(eight) == "1"
    whole = placement_of("slurm", micro_batch_sequences=0)
    assert micro_of(verl_settings(recipe_of("grpo_8b"), whole, FILES)) == "32"  # 1024 / 32 GPUs
    cut = placement_of("slurm_megatron", micro_batch_sequences=0)
    megatron = verl_settings(recipe_of("grpo_8b", actor="megatron"), cut, FILES)
    assert micro_of(megatron) == "64"  # 16 copies of a model on 2 GPUs


def micro_of(settings: TrainerSettings) -> str:
    found = dict(text.split("=", 1) for text in settings.overrides)
    key = "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"
    assert found[f"{REF}.log_prob_micro_batch_size_per_gpu"] == found[key]
    assert found[f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu"] == found[key]
    return found[key]


def test_the_command_is_verls_own_trainer() -> None:
    command = settings_of("laptop").command
    assert command[:3] == ("python", "-m", "verl.trainer.main_ppo")
    importlib.import_module(command[2])


def test_a_placements_own_settings_are_added_below() -> None:
    machines = odd_placement("fsdp").rl
    own = {"trainer.log_val_generations": "7", "+trainer.mine": "[a,b]"}
    placement = placement_of("slurm", rl=type(machines)(verl=own))
    config = composed(verl_settings(odd_recipe("fsdp"), placement, FILES))
    assert config.trainer.log_val_generations == 7
    assert list(config.trainer.mine) == ["a", "b"]


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        ("trainer.save_freq", "one source"),
        ("++trainer.save_freq", "one source"),
        ("trainer", "one source"),
        ("model_engine", "one source"),
        ("~trainer.save_freq", "plain path"),
        ("rollout@trainer", "plain path"),
        ("a=1 b", "plain path"),
        ("algorithm.gamma", "what is learned"),
        ("+data.custom_cls.path", "what is learned"),
        ("actor_rollout_ref.actor.optim.min_lr_ratio", "what is learned"),
        ("actor_rollout_ref.model.lora_rank", "what is learned"),
        ("actor_rollout_ref.actor.loss_scale_factor", "what is learned"),
        ("actor_rollout_ref.rollout.ignore_eos", "what is learned"),
        ("actor_rollout_ref.rollout.val_kwargs.top_k", "what is learned"),
    ],
)
def test_a_placement_may_not_set_what_it_does_not_own(key: str, rule: str) -> None:
    with pytest.raises(RecipeError) as caught:
        add_own({"+trainer.save_freq": "19"}, {key: "1"})
    assert caught.value.asked == f"placement.rl.verl.{key}"
    assert rule in caught.value.rule


texts = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=12)


@given(
    st.from_regex(r"[a-zA-Z_/.0-9-]{1,8}", fullmatch=True)
    | st.sampled_from(["null", "True", "nan", "-inf", "1e-6", "/a/b-c.d", "a b", ""])
)
def test_a_name_or_a_path_stays_one(text: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"key={hydra_text(text)}"])
    value = override.value()
    assert (str(value), isinstance(value, (int, float, type(None)))) == (text, False)


@given(st.one_of(texts, st.text("'\\\"", max_size=6), st.text("${}=,[]: '\\", max_size=6)))
def test_any_text_survives_hydras_grammar(text: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"key={hydra_text(text)}"])
    assert str(override.value()) == text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False),
        lambda below: st.lists(below, max_size=3).map(tuple),
        max_leaves=5,
    )
)
def test_any_value_survives_hydras_grammar(value: Any) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"key={hydra_text(value)}"])
    assert as_tuple(override.value()) == value


def as_tuple(value: Any) -> Any:
    return tuple(as_tuple(one) for one in value) if isinstance(value, list) else value
