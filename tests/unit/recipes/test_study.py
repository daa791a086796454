"""Study to stages: the shared trunk, budgets, cells, seeds, keys, and what is refused."""

import random
from collections import Counter
from pathlib import Path

import pytest
import yaml

from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import RECIPES
from frontload.recipes.stage import Stage
from frontload.recipes.study.expand import Study, load_study
from frontload.recipes.study.points import mixed_tokens

LAPTOP = RECIPES / "studies" / "laptop.yaml"


def by_label(study: Study, kind: str) -> dict[str, Stage]:
    return {stage.label: stage for stage in study.stages if stage.kind == kind}


def refusal(*overrides: str, study: str = "laptop") -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        load_study(study, overrides=overrides)
    return caught.value


@pytest.fixture(scope="module")
def laptop() -> Study:
    return load_study("laptop")


@pytest.mark.parametrize("path", sorted((RECIPES / "studies").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_study_that_ships_loads_and_names_no_key_twice(path: Path) -> None:
    study = load_study(path.stem)
    names = [stage.folder for stage in study.stages]
    assert len(set(names)) == len(names)
    built: set[str] = set()
    for stage in study.stages:
        assert all(below.key in built for below in stage.inputs.values()), stage.folder
        built.add(stage.key)


def test_the_papers_matrix_is_there(laptop: Study) -> None:
    grid = {
        f"pt:{arm}>sft:{mix}"
        for arm in ("base", "SHQ", "LDQ", "LMQ")
        for mix in ("SHQ", "LDQ", "LMQ")
    }
    off_grid = {"pt:base>sft:SHQ*2", "pt:LDQ>sft:LDQ*2", "pt:LDQ>sft:ALF", "pt:LDQ>sft:ALF'"}
    arms = {"pt:base", "pt:SHQ", "pt:LDQ", "pt:LMQ", "pt:LMQ@60-40"}
    cells = laptop.tabulate.recipe.cells
    rl = {f"pt:{arm}>sft:SHQ>rl:CrossThink" for arm in ("base", "LMQ")}
    assert set(cells) == grid | off_grid | arms | rl
    roles = [role for of_cell in cells.values() for role in of_cell]
    evaluations = [n for n, one in laptop.tabulate.inputs.items() if one.kind == "evaluate"]
    assert sorted(roles) == sorted(evaluations)


def test_one_trunk_is_branched_into_every_arm(laptop: Study) -> None:
    models = by_label(laptop, "pretrain")
    trunk = models.pop("trunk-seed1")
    assert len(models) == 5
    total = trunk.recipe.training.schedule.total_samples
    for branch in models.values():
        assert branch.inputs["start"].key == trunk.key
        assert branch.recipe.start_sample == trunk.recipe.num_samples
        assert branch.recipe.start_sample + branch.recipe.num_samples == total
        assert branch.recipe.training.schedule.total_samples == total


def test_every_mix_reads_the_same_reasoning_budget_and_base_windows_touch(laptop: Study) -> None:
    blends = by_label(laptop, "blend")
    trunk = blends.pop("trunk-seed1").recipe.windows[0]
    reasoning = {}
    for label, blend in blends.items():
        windows = {window.source: window for window in blend.recipe.windows}
        assert windows["base"].start_tokens == trunk.tokens
        mixed = {name: window.tokens for name, window in windows.items() if name != "base"}
        reasoning[label] = sum(mixed.values())
        assert sum(window.tokens for window in windows.values()) * 6 == trunk.tokens * 4
        assert blend.inputs["before"].kind == "blend"
    knobs = laptop.recipe.pretraining
    budget = mixed_tokens(knobs, knobs.base_share)
    assert reasoning == {
        "base-seed1": 0,
        "shq-seed1": budget,
        "ldq-seed1": budget,
        "lmq-seed1": budget,
        "lmq@60-40-seed1": 2 * budget,
    }


def test_a_doubled_cell_doubles_steps_from_the_same_model(laptop: Study) -> None:
    tuned = by_label(laptop, "sft")
    once, twice = tuned["base+shq-x1-seed1"], tuned["base+shq-x2-seed1"]
    assert twice.recipe.num_samples == 2 * once.recipe.num_samples
    assert twice.recipe.training.schedule.total_samples == twice.recipe.num_samples
    assert twice.inputs["start"].key == once.inputs["start"].key
    assert (
        twice.inputs["pack"].inputs["documents"].key == once.inputs["pack"].inputs["documents"].key
    )


def test_seeds_share_the_data_and_nothing_that_is_drawn() -> None:
    one, three = load_study("laptop"), load_study("laptop", overrides=["seeds=[1, 2, 3]"])
    first, more = Counter(s.kind for s in one.stages), Counter(s.kind for s in three.stages)
    for kind in ("synthesize", "tokenizer", "curate", "index", "tabulate"):
        assert more[kind] == first[kind]
    for kind in ("blend", "pretrain", "pack", "sft", "evaluate"):
        assert more[kind] == 3 * first[kind]
    tables = {one.tabulate.key, three.tabulate.key}
    assert {s.key for s in one.stages} - {s.key for s in three.stages} <= tables


def test_the_sft_learning_rate_moves_no_pretraining() -> None:
    before = {s.key for s in load_study("laptop").stages}
    changed = load_study("laptop", overrides=["sft.learning_rate=1.0e-5"])
    moved = Counter(s.kind for s in changed.stages if s.key not in before)
    assert set(moved) == {"sft", "grpo", "evaluate", "tabulate"}
    assert (moved["sft"], moved["grpo"], moved["evaluate"]) == (16, 2, 18)


def shuffled(value: object, draw: random.Random) -> object:
    if isinstance(value, dict):
        keys = list(value)
        draw.shuffle(keys)
        return {key: shuffled(value[key], draw) for key in keys}
    return value


def test_keys_ignore_the_order_of_keys_comments_and_the_name(tmp_path: Path) -> None:
    raw = yaml.load(LAPTOP.read_text(), Loader=yaml.BaseLoader)
    text = "# a comment\n" + yaml.safe_dump(shuffled(raw, random.Random(1)), sort_keys=False)
    text = text.replace("'", "")  # BaseLoader made every scalar text
    path = tmp_path / "other.yaml"
    path.write_text(text)
    ours = {(s.kind, s.key) for s in load_study(str(path)).stages}
    assert ours == {(s.kind, s.key) for s in load_study("laptop").stages}


def test_a_label_is_not_hashed(laptop: Study) -> None:
    stage = laptop.stages[0]
    renamed = Stage(kind=stage.kind, label="x", recipe=stage.recipe, inputs=stage.inputs)
    assert renamed.key == stage.key


def test_own_data_has_no_synthetic_stage() -> None:
    study = load_study("own_data")
    kinds = Counter(stage.kind for stage in study.stages)
    assert kinds["synthesize"] == 0
    assert kinds["import_own"] == 1
    assert set(study.tabulate.recipe.cells) == {
        "pt:base",
        "pt:OWN",
        "pt:base>sft:OWN",
        "pt:base>sft:OWN*2",
        "pt:OWN>sft:OWN",
    }


def test_a_pinned_key_that_moves_is_an_error() -> None:
    key = load_study("laptop").stages[0].key
    load_study("laptop", overrides=[f"expect={{synthesize/corpus: '{key}'}}"])
    error = refusal(f"expect={{synthesize/corpus: '{key}'}}", "synthesis.seed=2")
    assert key in error.found


@pytest.mark.parametrize(
    ("overrides", "asked", "said"),
    [
        (["seeds=[]"], "seeds", "at least one"),
        (["seeds=[0]"], "seeds.0", "is 0"),
        (["seeds=[2, 1, 2]"], "seeds.2", "stands there twice"),
        (["seeds=[2147483648]"], "seeds.0", "2147483647 or less"),
        (["arms=[base, shq, ldq, base]"], "arms.3", "base stands there twice"),
        (["sft.mixes=[shq, shq]"], "sft.mixes.1", "shq stands there twice"),
        (["synthesis.base_tokens=0"], "synthesis.base_tokens", "1 or more"),
        (["synthesis.items_per_family=-5"], "synthesis.items_per_family", "1 or more"),
        (["synthesis.choice_items=-5"], "synthesis.choice_items", "0 or more"),
        (["synthesis.shq.tokens=0"], "synthesis.shq.tokens", "1 or more"),
        (["tokenizer.vocab_size=0"], "tokenizer.vocab_size", "1 or more"),
        (["mixes.alf.min_answer_tokens=-1"], "mixes.alf.min_answer_tokens", "0 or more"),
        (["evaluation.sft.temperature=-0.5"], "evaluation.sft.temperature", "0 or more"),
        (["evaluation.sft.max_new_tokens=0"], "evaluation.sft.max_new_tokens", "1 or more"),
        (["evaluation.base.num_shots=-1"], "evaluation.base.num_shots", "0 or more"),
        (["evaluation.min_effect=-1.0"], "evaluation.min_effect", "0 or more"),
        (["rl.prompts.families.add=-0.5"], "rl.prompts.families.add", "0 or more"),
        (["placement.rl.ray_cpus=0"], "placement.rl.ray_cpus", "1 or more"),
        (["placement.upkeep.keep_last=0"], "placement.upkeep.keep_last", "1 or more"),
        (["synthesis.shq.families.chain=0.5"], "synthesis.shq.families", "sums to 1.1"),
        (["synthesis.ldq.wrong_share=1.5"], "synthesis.ldq.wrong_share", "between 0 and 1"),
        (["synthesis.ldq.long_share=0.9"], "synthesis.ldq.short_share", "at most 1"),
        (["synthesis.shq.level_low=1.0", "synthesis.shq.level_high=0.5"], "level_low", "above"),
        (["synthesis=null"], "synthesis", "exactly one"),
        (["arms=[base, ldqq]"], "arms.1", "write 'ldq'"),
        (["mixes.ldq.members=[ldqq]"], "mixes.ldq.members", "write 'ldq'"),
        (["sft.mixes=[sqh]"], "sft.mixes.0", "write 'shq'"),
        (["rl.cells=[{arm: base, mix: alf}]"], "rl.cells.0", "arms x sft.mixes"),
        (["rl.steps=65"], "rl.prompts.num_prompts", "asked once"),
        (["rl.response_tokens=65"], "rl.response_tokens", "fit the model"),
        (["rl.grpo.kl_estimator=k9"], "rl.grpo.kl_estimator", "low_var_kl"),
        (["sft.cells=[{arm: lmq@70-30, mix: shq, multiplier: 1}]"], "sft.cells.0.arm", "lmq@60-40"),
        (
            ["sft.cells=[{arm: lmq, mix: shq, multiplier: 0}]"],
            "sft.cells.0.multiplier",
            "1 or more",
        ),
        (["model.pattern=M*X"], "model.pattern", "'X'"),
        (["model.pattern=''"], "model.pattern", "is empty"),
        (["model.hidden_size=0"], "model.hidden_size", "above 0"),
        (["tokenizer.kind=words"], "tokenizer.kind", "write 'word'"),
        (["placement.ranks_per_node=0"], "placement.ranks_per_node", "1 or more"),
        (["placement.workers=-1"], "placement.workers", "0 or more"),
        (["pretraining.first_phase_share=1.0"], "first_phase_share", "both phases have tokens"),
        (["pretraining.adam_beta2=1.0"], "pretraining.adam_beta2", "[0, 1)"),
        (["sft.clip_grad=-0.1"], "sft.clip_grad", "it is 0 or more"),
        (["sft.adam_epsilon=0.0"], "sft.adam_epsilon", "it is above 0"),
        (["sft.weight_decay=-0.1"], "sft.weight_decay", "0 or more"),
        (["model.vocab_size=100"], "model.vocab_size", "at least 256"),
        (["model.num_query_groups=3"], "model.num_attention_heads", "num_query_groups must divide"),
        (["model.mamba_num_groups=3"], "model.mamba_num_heads", "mamba_num_groups must divide"),
        (["model.max_sequence_tokens=64"], "pretraining.sequence_tokens", "at most 64"),
        (["model=hybrid_138"], "model", "write 'hybrid_138k'"),
        (["placement=gpu"], "placement", "cpu"),
        (["sft.schedule=cosin"], "sft.schedule", "write 'cosine'"),
        (["pretraining.precision=fp16"], "pretraining.precision", "write 'bf16'"),
        (["pretraining.warmup_share=2.0"], "pretraining.warmup_share", "between 0 and 1"),
        (["sft.learning_rate=0.0"], "sft.learning_rate", "above 0"),
        (["sft.global_batch_sequences=0"], "sft.global_batch_sequences", "1 or more"),
        (["pretraining.max_epochs={base: 1.0}"], "pretraining.max_epochs", "nothing for 'shq'"),
        (["synthesis.shq.tokens=1_000"], "pretraining.max_epochs.shq", "epochs of shq are allowed"),
        (["evaluation.sft.temperature=0.0"], "evaluation.sft.num_samples", "temperature 0"),
    ],
)
def test_parts_that_do_not_fit_are_refused(overrides: list[str], asked: str, said: str) -> None:
    error = refusal(*overrides)
    assert asked in error.asked
    assert said in str(error)


@pytest.mark.parametrize("rows", [-5, 0])
def test_a_study_of_own_data_holds_questions_out(rows: int) -> None:
    with pytest.raises(RecipeError, match=rf"own.heldout_rows: is {rows}; it is 1 or more"):
        load_study("own_data", overrides=[f"own.heldout_rows={rows}"])


@pytest.mark.parametrize("section", ["pretraining", "sft"])
def test_a_budget_that_is_no_whole_batches_names_the_two_nearest_that_are(section: str) -> None:
    rows = ["sft.budget_unit=rows", "sft.step_tokens=0"]
    error = refusal(*rows, f"{section}.tokens=1_000_001")
    below, above = (int(word) for word in error.do.removeprefix("write ").split(" or "))
    assert below < 1_000_001 < above
    for tokens in (below, above):
        load_study("laptop", overrides=[*rows, f"{section}.tokens={tokens}"])
    step = above - below
    with pytest.raises(RecipeError):
        load_study("laptop", overrides=[*rows, f"{section}.tokens={below + step // 2}"])


@pytest.mark.parametrize("unit", ["read", "loss"])
def test_a_budget_in_real_tokens_may_be_any_number_and_has_its_steps(unit: str) -> None:
    words = [f"sft.budget_unit={unit}", "sft.tokens=1_000_001", "sft.step_tokens=800"]
    study = load_study("laptop", overrides=words)
    (pack, *_) = by_label(study, "pack").values()
    assert (pack.recipe.unit, pack.recipe.tokens) == (unit, 1_000_001)
    assert (pack.recipe.steps, pack.recipe.batch_rows) == (1_251, 8)
    tuned = by_label(study, "sft")["base+shq-x1-seed1"]
    assert tuned.recipe.num_samples == 1_251 * 8 == tuned.recipe.training.schedule.total_samples
    for wrong in (128, 1_025):
        error = refusal(f"sft.budget_unit={unit}", f"sft.step_tokens={wrong}")
        assert (error.asked.rpartition(" ")[2], error.do.split(",")[0]) == (
            "sft.step_tokens",
            "write 768",
        )
    assert "leave it out" in refusal("sft.budget_unit=rows", "sft.tokens=1_024_000").do
    assert "read" in refusal("sft.budget_unit=red").do


def test_rl_goes_on_from_the_papers_two_cells_with_one_set_of_prompts(laptop: Study) -> None:
    runs = by_label(laptop, "grpo")
    tuned = by_label(laptop, "sft")
    assert set(runs) == {"base+shq-x1-seed1+rl", "lmq+shq-x1-seed1+rl"}
    (prompts,) = by_label(laptop, "rl_prompts").values()
    for label, run in runs.items():
        assert run.inputs["start"].key == tuned[label.removesuffix("+rl")].key
        assert run.inputs["prompts"].key == prompts.key
        assert run.recipe.seed == 1
    cells = laptop.tabulate.recipe.cells
    for arm in ("base", "LMQ"):
        assert f"pt:{arm}>sft:SHQ>rl:CrossThink" in cells
    without = load_study("laptop", overrides=["rl=null"])
    kept = {stage.key for stage in without.stages} - {without.tabulate.key}
    assert kept < {stage.key for stage in laptop.stages}, "RL moves no other stage's key"
    more = "rl.cells=[{arm: base, mix: shq}, {arm: shq, mix: shq}, {arm: ldq, mix: shq}]"
    assert len(by_label(load_study("laptop", overrides=[more]), "grpo")) == 3


def test_an_unknown_study_names_the_nearest_one() -> None:
    assert refusal(study="laptob").do == "write 'laptop'"
    assert "cannot be read" in refusal(study="nowhere/mine.yaml").found


def test_each_seed_may_read_a_draw_of_the_data_of_its_own() -> None:
    """The first seed and all questions stay where they were; one tokenizer serves all draws."""
    one = load_study("laptop", overrides=["seeds=[1, 2, 3]", "rl=null"])
    own = load_study("laptop", overrides=["seeds=[1, 2, 3]", "rl=null", "draws_data_per_seed=true"])
    first = {stage.key for stage in load_study("laptop", overrides=["rl=null"]).stages[:-1]}
    assert first <= {stage.key for stage in own.stages}
    corpora = by_label(own, "synthesize")
    assert [stage.recipe.seed for stage in corpora.values()] == [1, 2, 3]
    assert len(by_label(one, "synthesize")) == len(by_label(own, "tokenizer")) == 1
    for kind, role in (("pretrain", "base"), ("pack", "documents")):
        read = {stage.inputs[role].key for stage in by_label(own, kind).values()}
        shared = {stage.inputs[role].key for stage in by_label(one, kind).values()}
        assert len(read) == 3 * len(shared)
    for stage in by_label(own, "evaluate").values():
        assert stage.inputs["corpus"].recipe.seed == 1
    assert own.tabulate.recipe.draws_data_per_seed
    error = refusal("draws_data_per_seed=true", study="own_data")
    assert "can be drawn anew" in error.rule
