"""Numbers that no run could use are refused when the recipe is loaded, with place and rule."""

from collections.abc import Callable
from typing import Any

import pytest

from frontload.data_tools.corpus import own_items
from frontload.data_tools.synthetic import families, items
from frontload.data_tools.text.tokenizer import SPECIAL_TOKENS
from frontload.launch.study.settle import settle
from frontload.recipes.artifact import FAMILIES
from frontload.recipes.errors import RecipeError
from frontload.recipes.machines.slurm_checks import limit_seconds
from frontload.recipes.runs.curation import load_curation
from frontload.recipes.runs.load import load_placement, load_training
from frontload.recipes.study import ends
from frontload.recipes.study.expand import load_study


def refused(load: Callable[[], Any]) -> str:
    with pytest.raises(RecipeError) as caught:
        load()
    assert caught.value.exit_code == 2
    assert caught.value.asked.startswith("command line: "), "the place that set it is named"
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("synthesis.seed=-1", "synthesis.seed: is -1; it is 0 or more"),
        ("synthesis.shq.families={chian: 1.0}", "'chian' is not known; it is one of chain"),
        ("synthesis.items_per_family=10_001", "it is 10000 or less"),
        ("synthesis.choice_items=10_001", "it is 10000 or less"),
        ("tokenizer={kind: byte_bpe, vocab_size: 261}", "tokenizer.vocab_size: is 261; it is 262"),
        ("evaluation.base.num_shots=4", "evaluation.base.num_shots: is 4; it is 3 or less"),
        ("evaluation.sft.num_shots=1", "evaluation.sft.num_shots: is 1; it is 0 or less"),
        ("arms=[]", "arms: is empty"),
        ("pretraining.base_share=1.0", "pretraining.base_share: is 1; the second phase has base"),
        ("pretraining.base_share=0.0", "pretraining.base_share: is 0; the second phase has base"),
        ("ratio_arms=[{mix: lmq, base_share: 1.0}]", "ratio_arms.0.base_share: is 1"),
        ("ratio_arms=[{mix: base, base_share: 0.6}]", "name a mix of reasoning"),
        (
            "ratio_arms=[{mix: lmq, base_share: 0.6}, {mix: lmq, base_share: 0.600001}]",
            "ratio_arms.1: is lmq@60-40, as another is",
        ),
        ("sft.mixes=[base]", "sft.mixes.0: 'base' holds base text; SFT packs conversations"),
        ("synthesis.shq.families={}", "is empty; shares must sum to 1"),
        ("rl.prompts.families={chian: 1.0}", "write 'chain'"),
        ("rl.prompts.families.add=0.5", "rl.prompts.families: sums to 1.34; shares must sum to 1"),
        ("rl.prompts.level_high=1.5", "rl.prompts.level_high: is 1.5; a share lies between 0 and"),
        ("rl.rollout=vllm", "rl.rollout: is 'vllm' on placement cpu"),
        ("rl.actor=megatron", "the CPU plug-in trains with FSDP2"),
        ("rl.grpo.clip_ratio_low=1.5", "write at most 1.0"),
        ("rl.sampling.temperature=1.0e-300", "write 0.01 or more"),
        ("evaluation.sft.temperature=1.0e-300", "it is 0.01 or more"),
        ("mixes.ldq.members=[]", "mixes.ldq.members: is empty"),
        ("mixes.lmq.members=[ldq, ldq]", "ldq stands there twice"),
        ("mixes.ldq.share_of_member={ldq: 0.0}", "a share lies above 0"),
        ("pretraining.max_epochs={base: 1.0, own: 0.0}", "'own' is not known"),
        ("pretraining.decay_share=0.5", "is 0.5 with cosine; only wsd"),
        ("pretraining.tokens=9_223_372_036_854_775_808", "at most 9_223_372_036_854_775_807"),
        ("sft.learning_rate=.nan", "is `.nan`; it must be a finite"),
        ("sft.learning_rate=-.inf", "is `-.inf`; it must be a finite"),
        ("sft.tokens=.inf", "is `.inf`; it must be a whole number"),
        ("placement.rl.rollout_memory_share=0.0", "above 0 and at most at 1"),
        ("placement.rl.rollout_memory_share=-1.0", "above 0 and at most at 1"),
        ("placement.rl.rollout_memory_share=1.5", "above 0 and at most at 1"),
        ("placement.rl.rollout_sequences=8", "placement.rl: is set; GRPO of a study"),
        ("placement.num_nodes=2", "placement.num_nodes: is 2; without a `slurm` section"),
        ("placement.kernels=cuda", "'cuda' is not known; it is one of torch"),
        ("placement.kernels=transformer_engine", "these layers need CUDA"),
        ("placement.kernels=mamba_ssm", "is mamba_ssm in a placement without `gpus`"),
        ("placement.threads_per_rank=1_000_000_000_000", "it is 1024 or less"),
        ("placement.stages_per_gpu=1_000_000_000_000", "it is 64 or less"),
        ("placement.upkeep.pause_seconds=1.0e+30", "it is 604800 or less"),
        ("placement.upkeep.spike_deviations=-1.0", "it is 0 or more"),
    ],
)
def test_a_study_is_refused_by_its_plan(override: str, said: str) -> None:
    assert said in refused(lambda: load_study("laptop", overrides=[override], settle=settle))


def test_a_mix_of_no_tokens_is_refused_in_words() -> None:
    overrides = ["mixes.ldq.share_of_member={ldq: 1.0e-300}"]
    with pytest.raises(RecipeError, match="tokens of a set of 0; .* enlarge the set"):
        load_study("laptop", overrides=overrides)


def test_levels_of_prompts_lie_from_low_to_high() -> None:
    overrides = ["rl.prompts.level_low=0.9", "rl.prompts.level_high=0.1"]
    assert "is above level_high" in refused(lambda: load_study("laptop", overrides=overrides))


@pytest.mark.parametrize("section", ["pretraining", "sft"])
def test_a_warm_up_and_a_decay_do_not_overlap(section: str) -> None:
    shares = [f"{section}.warmup_share=0.6", f"{section}.decay_share=0.6"]
    overrides = [f"{section}.schedule=wsd", *shares]
    said = refused(lambda: load_study("laptop", overrides=overrides))
    assert "warmup_share + decay_share is 1.2" in said


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("own.seed=-1", "it is 0 or more"),
        ("pretraining.max_epochs.own=0", "a mix may be read for more than 0 epochs"),
        ("pretraining.max_epochs.own=-1.0", "a mix may be read for more than 0 epochs"),
        ("pretraining.max_epochs.onw=1.0", "write 'own'"),
    ],
)
def test_a_study_of_own_files_is_refused_by_its_plan(override: str, said: str) -> None:
    assert said in refused(lambda: load_study("own_data", overrides=[override]))


@pytest.mark.parametrize(
    ("name", "override", "said"),
    [
        ("pretrain_tiny", "seed=-1", "it is 0 or more"),
        ("pretrain_tiny", "adam_epsilon=-1.0", "it is above 0"),
        ("sft_tiny", "adam_epsilon=0.0", "it is above 0"),
        ("sft_tiny", "upkeep.pause_seconds=1.0e+30", "it is 604800 or less"),
        ("grpo_tiny", "steps=9223372036854775808", "at most 9_223_372_036_854_775_807"),
        ("grpo_tiny", "model.hidden_size=0", "model.hidden_size: is 0; sizes of a model"),
        ("sft_tiny", "model.norm_epsilon=-1.0", "model.norm_epsilon: is -1.0; sizes of a"),
        ("grpo_tiny", "sampling.validation_temperature=1.0e-3", "write 0.01 or more"),
        ("grpo_tiny", "seed=1000000000000000000000000000000", "a whole number has 64 bits"),
    ],
)
def test_a_training_recipe_is_refused_when_it_is_loaded(
    name: str, override: str, said: str
) -> None:
    assert said in refused(lambda: load_training(name, [override]))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("rl.rollout_memory_share=1.5", "a share lies above 0 and at most at 1"),
        ("slurm.num_ports=0", "slurm.num_ports: is 0; it is 1 or more"),
        ("slurm.start_seconds=-1", "slurm.start_seconds: is -1; it is 1 or more"),
        ("slurm.first_port=80", "write 1024 or more"),
        ("slurm.cpus_per_node=-1", "it is 0 or more"),
        ("slurm.max_requeues=-1", "it is 0 or more"),
        ("slurm.requeue_seconds=-1", "240 seconds or more"),
        ("kernels=cuda", "write one of mamba_ssm, torch, transformer_engine"),
    ],
)
def test_a_placement_is_refused_when_it_is_loaded(override: str, said: str) -> None:
    assert said in refused(lambda: load_placement("slurm", [override]))


def test_a_seed_of_a_curation_is_no_less_than_0() -> None:
    assert "a seed is 0 or more" in refused(lambda: load_curation("gsm8k", overrides=["seed=-1"]))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("00:10:00", 600), ("04:00:30", 14_430), ("2-00:00:01", 172_801), ("30", None)],
)
def test_a_limit_in_seconds(text: str, seconds: int | None) -> None:
    assert limit_seconds(text) == seconds


def test_limits_of_other_rooms_are_theirs() -> None:
    assert families.MOST_DRAWS == ends.MOST_ITEMS
    shown = {"synthesis": items.NUM_EXEMPLARS, "own": own_items.NUM_EXEMPLARS}
    assert shown == ends.MOST_SHOTS
    assert ends.LEAST_VOCABULARY["byte_bpe"] == 256 + len(SPECIAL_TOKENS)


def test_the_families_that_recipes_know_are_those_that_are_written() -> None:
    assert tuple(families.FAMILIES) == FAMILIES


@pytest.mark.parametrize(
    ("field", "value"),
    [("adam_beta1", "1.0"), ("adam_beta2", "-0.1"), ("weight_decay", "-0.1")],
)
def test_adamw_is_refused_in_the_same_words_by_a_study_a_training_and_grpo(
    field: str, value: str
) -> None:
    inside = f"optimizer.{field}={value}"
    said = (
        refused(lambda: load_study("laptop", overrides=[f"sft.{field}={value}"])),
        refused(lambda: load_training("pretrain_tiny", overrides=[f"{field}={value}"])),
        refused(lambda: load_training("grpo_tiny", overrides=[inside])),
    )
    (words,) = {one.partition(f"{field}: ")[2] for one in said}
    assert words.startswith(f"is {float(value):g}; ")
