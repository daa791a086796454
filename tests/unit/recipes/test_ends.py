"""The ends of the ranges: the last value that is taken, and beside it the first that is refused."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import RECIPES, load_recipe
from frontload.recipes.machines.slurm_checks import limit_seconds
from frontload.recipes.runs.blend import load_blend
from frontload.recipes.runs.curation import load_curation
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.recipes.runs.grpo_checks import check_grpo, num_validation_prompts
from frontload.recipes.runs.load import load_placement
from frontload.recipes.runs.training import PretrainRecipe
from frontload.recipes.runs.training_checks import check_phase_plan, check_train
from frontload.recipes.study.checks import check_study
from frontload.recipes.study.schema import StudyRecipe


def study(*overrides: str) -> None:
    """The checks of study `laptop`, without its graph."""
    path = RECIPES / "studies" / "laptop.yaml"
    check_study(load_recipe(path, StudyRecipe, overrides=overrides))


def training(*overrides: str) -> None:
    path = RECIPES / "training" / "pretrain_tiny.yaml"
    check_train(load_recipe(path, PretrainRecipe, overrides=overrides))


def grpo(*overrides: str) -> None:
    path = RECIPES / "training" / "grpo_8b.yaml"
    check_grpo(load_recipe(path, GrpoRecipe, overrides=overrides))


def placement(*overrides: str) -> None:
    load_placement("slurm", list(overrides))


def curation(*overrides: str) -> None:
    load_curation("gsm8k", overrides=overrides)


def blend(*overrides: str) -> None:
    load_blend("tiny_ldq", overrides=overrides)


Load = Callable[..., None]
GREEDY = "{num_samples: 1, num_hard_samples: 1, temperature: 0.0, max_new_tokens: 1, num_shots: 0}"
WHOLE_NODE = "{kind: h100_sxm, kernel_mfu: 1.0, link_share: 1.0, reserved_gib: 0.0}"
PAUSE = "placement.upkeep.pause_seconds=604_800"
ONE_PHASE = "phases=[{{name: a, tokens: 128, sources: {{{}}}}}]"
PARTS = "{base: 256, ldq: 256}"


@pytest.mark.parametrize(
    ("load", "taken", "refused"),
    [
        (study, [f"seeds={list(range(1, 101))}"], f"seeds={list(range(1, 102))}"),
        (study, ["synthesis.items_per_family=10_000"], "synthesis.items_per_family=10_001"),
        (study, ["synthesis.items_per_family=1"], "synthesis.items_per_family=0"),
        (study, ["synthesis.hard_items_per_family=0"], "synthesis.hard_items_per_family=-1"),
        (study, ["synthesis.choice_items=0"], "synthesis.choice_items=-1"),
        (study, ["synthesis.ldq.wrong_share=1.0"], "synthesis.ldq.wrong_share=1.01"),
        (study, ["synthesis.ldq.wrong_share=0.0"], "synthesis.ldq.wrong_share=-0.01"),
        (study, ["synthesis.ldq.short_share=0.4"], "synthesis.ldq.short_share=0.41"),
        (study, ["synthesis.shq.level_low=1.0"], "synthesis.shq.level_low=1.01"),
        (study, ["synthesis.ldq.level_high=0.0"], "synthesis.ldq.level_high=-0.01"),
        (study, ["model.vocab_size=256"], "model.vocab_size=255"),
        (study, ["model.num_query_groups=1"], "model.num_query_groups=0"),
        (study, ["model.max_sequence_tokens=128"], "model.max_sequence_tokens=127"),
        (study, ["evaluation.base.num_shots=3"], "evaluation.base.num_shots=4"),
        (study, ["evaluation.base.num_shots=0"], "evaluation.base.num_shots=-1"),
        (study, ["evaluation.sft.temperature=0.01"], "evaluation.sft.temperature=0.009"),
        (study, [f"evaluation.sft={GREEDY}"], "evaluation.sft.num_hard_samples=0"),
        (study, ["evaluation.min_effect=0.0"], "evaluation.min_effect=-0.1"),
        (study, ["sft.adam_beta1=0.0"], "sft.adam_beta1=-0.1"),
        (study, ["sft.adam_beta2=0.9999"], "sft.adam_beta2=1.0"),
        (study, ["sft.clip_grad=0.0"], "sft.clip_grad=-0.1"),
        (study, ["sft.weight_decay=0.0"], "sft.weight_decay=-0.1"),
        (study, ["sft.final_learning_rate_share=1.0"], "sft.final_learning_rate_share=1.1"),
        (study, ["sft.final_learning_rate_share=0.0"], "sft.final_learning_rate_share=-0.1"),
        (study, ["sft.warmup_share=1.0"], "sft.warmup_share=1.01"),
        (study, ["sft.decay_share=0.95", "sft.schedule=wsd"], "sft.decay_share=0.96"),
        (study, ["sft.cells=[{arm: base, mix: shq, multiplier: 1}]"], "sft.mixes=[alf, base]"),
        (study, ["mixes.ldq.share_of_member.ldq=1.0"], "mixes.ldq.share_of_member.ldq=1.01"),
        (study, ["pretraining.max_epochs.shq=7.38"], "pretraining.max_epochs.shq=7.37"),
        (study, ["pretraining.max_epochs.lmq=0.71"], "pretraining.max_epochs.lmq=0.70"),
        (study, ["pretraining.max_epochs.base=0.99"], "pretraining.max_epochs.base=0.98"),
        (study, ["rl.steps=48"], "rl.steps=49"),
        (study, ["rl.grpo.clip_ratio_low=1.0"], "rl.grpo.clip_ratio_low=1.01"),
        (study, ["rl.prompts.level_high=0.0"], "rl.prompts.level_high=-0.1"),
        (study, ["rl.prompts.num_prompts=1_600"], "rl.prompts.num_prompts=1_599"),
        (study, ["placement.workers=0"], "placement.workers=-1"),
        (study, ["placement.threads_per_rank=1024"], "placement.threads_per_rank=1025"),
        (study, ["placement.stages_per_gpu=64"], "placement.stages_per_gpu=65"),
        (study, ["placement.stages_per_gpu=1"], "placement.stages_per_gpu=0"),
        (study, ["placement.upkeep.hang_seconds=604_800", PAUSE], f"{PAUSE}.1"),
        (study, ["model.mamba_num_groups=1"], "model.mamba_num_groups=0"),
        (training, ["seed=0"], "seed=-1"),
        (training, ["global_batch_sequences=1", "sequence_tokens=128"], "sequence_tokens=129"),
        (training, ["adam_beta1=0.0"], "adam_beta1=-0.1"),
        (training, ["clip_grad=0.0"], "clip_grad=-0.1"),
        (training, ["final_learning_rate_share=1.0"], "final_learning_rate_share=1.1"),
        (training, ["upkeep.hang_seconds=1800"], "upkeep.pause_seconds=1_799"),
        (training, ["upkeep.hang_seconds=0", "upkeep.pause_seconds=1"], "upkeep.pause_seconds=0.9"),
        (training, ["upkeep.spike_window_steps=8", "upkeep.spike_deviations=0.1"], "seed=-1"),
        (training, ["upkeep.spike_window_steps=0", "upkeep.spike_deviations=0.0"], "seed=-1"),
        (training, ["warmup_share=0.8"], "warmup_share=0.81"),
        (training, [ONE_PHASE.format("base: 1.0")], "phases=[]"),
        (training, [ONE_PHASE.format("base: 1.0")], ONE_PHASE.format("base: 1.0, ldq: 0.0")),
        (grpo, ["sampling.top_p=1.0"], "sampling.top_p=0.999"),
        (grpo, ["sampling.validation_temperature=0.01"], "sampling.validation_temperature=0.009"),
        (grpo, ["optimizer.adam_beta2=0.0"], "optimizer.adam_beta2=-0.1"),
        (grpo, ["grpo.rollouts_per_prompt=2"], "grpo.rollouts_per_prompt=1"),
        (grpo, ["grpo.dual_clip_ratio=1.01"], "grpo.dual_clip_ratio=1.0"),
        (grpo, ["response_tokens=31_744"], "response_tokens=31_745"),
        (placement, ["rl.rollout_memory_share=1.0"], "rl.rollout_memory_share=0.0"),
        (placement, ["slurm.requeue_seconds=240"], "slurm.requeue_seconds=239"),
        (placement, ["slurm.requeue_seconds=14_399"], "slurm.requeue_seconds=14_400"),
        (placement, ["slurm.stop_seconds=180"], "slurm.stop_seconds=181"),
        (placement, ["slurm.first_port=1_024"], "slurm.first_port=1_023"),
        (placement, ["slurm.first_port=55_536"], "slurm.first_port=55_537"),
        (placement, ["slurm.max_failures=1"], "slurm.max_failures=0"),
        (placement, ["slurm.max_requeues=0"], "slurm.max_requeues=-1"),
        (placement, ["slurm.header=[--constraint=h100]"], "slurm.header=[constraint=h100]"),
        (placement, ["slurm.partition=h100"], "slurm.partition=h 100"),
        (placement, ["slurm.account=a"], 'slurm.account="a\\tb"'),
        (placement, ["slurm.environment={NCCL_DEBUG: INFO}"], "slurm.environment={1A: x}"),
        (placement, ["slurm.time_limit=1-00:00:00"], "slurm.time_limit=24"),
        (placement, [f"gpus={WHOLE_NODE}"], "gpus.kernel_mfu=0.0"),
        (placement, ["gpus.link_share=0.01"], "gpus.link_share=1.01"),
        (placement, ["gpus.network_gbyte_per_second=0.1"], "gpus.network_gbyte_per_second=0.0"),
        (placement, ["gpus.dollars_per_hour=0.0"], "gpus.dollars_per_hour=-0.1"),
        (placement, ["micro_batch_sequences=0"], "micro_batch_sequences=-1"),
        (curation, ["heldout_share=0.0"], "heldout_share=1.0"),
        (curation, ["duplicates.shingle_words=64"], "duplicates.shingle_words=65"),
        (curation, ["duplicates.shingle_words=1"], "duplicates.shingle_words=0"),
        (curation, ["duplicates.permutations=1024", "duplicates.bands=2"], "duplicates.bands=3"),
        (curation, ["duplicates.permutations=1", "duplicates.bands=1"], "duplicates.bands=0"),
        (curation, ["duplicates.bands=1"], "duplicates.permutations=1_025"),
        (curation, ["duplicates.threshold=1.0"], "duplicates.threshold=0.0"),
        (curation, ["duplicates.seed=0"], "duplicates.seed=-1"),
        (curation, ["rows_a_file=0"], "rows_a_file=-1"),
        (curation, ["decontamination.overlap_words=13"], "decontamination.overlap_words=12"),
        (curation, ["decontamination.shortest_item_words=13"], "decontamination.ngram_words=7"),
        (curation, ["decontamination.shortest_item_words=1"], "decontamination.ngram_words=14"),
        (curation, ["decontamination.item_share=1.0"], "decontamination.item_share=0.0"),
        (curation, ["sets.math.answers_per_question=0"], "sets.math.answers_per_question=-1"),
        (curation, ["sets.math.answer_tokens_above=0"], "sets.math.answer_tokens_above=-1"),
        (curation, ["sets.math.share_of_member.gsm8k=1.0"], "sets.math.share_of_member.gsm8k=0.0"),
        (curation, ["overlaps={a: [math, base]}"], "overlaps={a: [math, math]}"),
        (curation, ["sources.text.truncated=drop"], "sources.text.truncated=drp"),
        (blend, ["sources.base.max_epochs=1"], "sources.base.max_epochs=0"),
        (blend, ["phases.second.tokens=128"], "phases.second.tokens=127"),
        (blend, ["phases.second={tokens: 512, parts: " + PARTS + "}"], "phases.second.parts={}"),
    ],
)
def test_the_last_value_is_taken_and_the_next_refused(
    load: Load, taken: list[str], refused: str
) -> None:
    load(*taken)
    path = refused.partition("=")[0]
    others = [one for one in taken if one.partition("=")[0] != path]
    with pytest.raises(RecipeError, match=path.rpartition(".")[2]):
        load(*others, refused)


def said(load: Load, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load(*overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("load", "override", "told"),
    [
        (placement, "slurm.first_port=80", "write 1024 or more"),
        (placement, "slurm.first_port=60_000", "ports 60000 to 69999; .*lower first_port"),
        (placement, "slurm.environment={HF_TOKEN: x}", "a secret; .*export it in your shell"),
        (placement, "slurm.environment={A-B: x}", "not a name of a variable; .*rename it"),
        (placement, 'slurm.header=["--a\\n#SBATCH --b"]', "a line is one option of sbatch"),
        (placement, "slurm.container_mounts=/a b:/b", "take it as one word"),
        (placement, "gpus.kind=h100", "write 'h100_sxm'"),
        (curation, "overlaps={a: [math]}", "overlaps.a: math; .*name two sets"),
        (curation, "overlaps={a: [math, bse]}", "write 'base'"),
        (curation, "overlaps={a: [math, base, math]}", "between two sets"),
        (curation, "sets.gsm8k={members: [text]}", "the name of a source"),
        (curation, "sets.a-b={members: [text]}", "no plain word"),
        (curation, "sets.math.members=[]", "no member; .*gsm8k, text$"),
        (curation, "sets.math.members=[gsm8k, gsm8k]", "each named once"),
        (curation, "sets.math.members=[base]", "sets.math.members: 'base'; .*written above"),
        (curation, "sets.base.members=[mth]", "write 'math'"),
        (curation, "sets.math.share_of_member={text: 0.5}", "shares are of members"),
        (curation, "sets.math.duplicates=[exact, nearly]", "duplicates.1: 'nearly'; .*'near'"),
        (curation, "policy.unsplit=keep", "policy.unsplit: 'keep'; it is one of drop, whole_text"),
        (curation, "multi_turn_answer=first", "it is one of last, sum"),
        (blend, "sources.base.max_epochs=2", "at most 1 for a one_pass"),
        (blend, "mixes={base: {members: [ldq], weighting: token}}", "'base' is a source too"),
        (blend, "mixes={a: {members: [ldq, ldq], weighting: token}}", "each once"),
        (blend, "mixes={a: {members: [], weighting: token}}", "one member or more"),
        (blend, "phases.second={tokens: 512}", "neither shares nor parts"),
        (blend, "phases.second.parts=" + PARTS, "both shares and parts"),
        (blend, "phases.second.shares={base: 1/2, ldq: 1/4}", "sums to 3/4; .*add 1/4"),
        (blend, "phases.second.shares={base: 1/2, ldq: 3/4}", "take away 1/4"),
        (blend, "phases.second.shares={base: 1, ldq: 0}", "part above 0"),
        (blend, "phases={}", "one phase or more"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_what_to_write(
    load: Load, override: str, told: str
) -> None:
    assert re.search(told, said(load, override)), said(load, override)


def test_a_repeatable_source_may_be_read_twice_and_one_name_at_a_time() -> None:
    blend("sources.base.reading=repeatable", "sources.base.max_epochs=2")
    mix = "mixes={both: {members: [base, ldq], weighting: equal}}"
    blend(mix, "phases.second.shares={both: 1}")
    twice = said(blend, mix, "phases.second.shares={both: 1/2, ldq: 1/2}")
    assert "source ldq is in both too" in twice


@pytest.mark.parametrize(
    ("prompts", "held"), [(1, 1), (7, 1), (15, 1), (16, 2), (511, 63), (512, 64), (9_999, 64)]
)
def test_an_eighth_of_the_prompts_validates_and_no_more_than_64(prompts: int, held: int) -> None:
    assert num_validation_prompts(prompts) == held


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1-02:03:04", 93_784), ("99:59:59", 359_999), ("0:10:00", 600), ("00:60:00", None)],
)
def test_a_limit_of_a_job_in_seconds(text: str, seconds: int | None) -> None:
    assert limit_seconds(text) == seconds


def plan(**sources: int) -> dict[str, Any]:
    listed = [{"name": name, "num_samples": count} for name, count in sources.items()]
    return {"sequence_tokens": 32, "sources": listed}


def test_members_of_a_mix_count_as_the_mix_and_a_share_may_end_inside_a_sample() -> None:
    phases = "[{name: a, tokens: 512, sources: {base: 0.5, lmq: 0.5}}]"
    path = RECIPES / "training" / "pretrain_tiny.yaml"
    recipe = load_recipe(path, PretrainRecipe, overrides=[f"phases={phases}"]).value
    mixed = plan(base=8, ldq=6, shq=2)
    for member in mixed["sources"][1:]:
        member["mix"] = "lmq"
    check_phase_plan(recipe, "a", mixed)
    check_phase_plan(recipe, "a", plan(base=7, lmq=9))
    with pytest.raises(RecipeError, match="6 samples of base; .*gives it 8 of 16"):
        check_phase_plan(recipe, "a", plan(base=6, lmq=10))
    with pytest.raises(RecipeError, match="8 samples of ldq; .*gives it 0 of 16"):
        check_phase_plan(recipe, "a", plan(base=8, ldq=8))
