"""Study recipe -> graph of stages: a pure function. No disk, no clock."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from frontload.recipes import schema
from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import Loaded, find_recipe, load_recipe, nearest, recipe_names
from frontload.recipes.machines.placement import Placement
from frontload.recipes.stage import Stage
from frontload.recipes.study.checks import check_study
from frontload.recipes.study.reinforcement import RL_DATA, prompts_stage, reinforce
from frontload.recipes.study.schema import (
    MixKnobs,
    PretrainingKnobs,
    SftKnobs,
    StudyRecipe,
    SuiteKnobs,
    TrainingKnobs,
)

BASE = "base"


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study and the stages that make it, inputs before what needs them."""

    name: str
    recipe: StudyRecipe
    placement: Placement
    stages: tuple[Stage, ...]
    tabulate: Stage


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One pretraining: the mix of its second phase and the share of base in it."""

    mix: str
    base_share: float  # 1.0 for the control
    is_off_grid: bool

    @property
    def name(self) -> str:
        """`lmq`, or `lmq@60-40` for an arm at another ratio."""
        if not self.is_off_grid:
            return self.mix
        base = round(100 * self.base_share)
        return f"{self.mix}@{base}-{100 - base}"

    @property
    def cell(self) -> str:
        """The cell id of claims.json."""
        mix, _, ratio = self.name.partition("@")
        return f"pt:{mix_title(mix)}" + (f"@{ratio}" if ratio else "")


def mix_title(mix: str) -> str:
    """The paper's name of a mix: base, SHQ, LDQ, LMQ, ALF, ALF'."""
    return mix if mix == BASE else mix.upper().replace("_PRIME", "'")


def load_study(
    study: str,
    *,
    overrides: Sequence[str] = (),
    settle: Callable[[Loaded[StudyRecipe]], Loaded[StudyRecipe]] | None = None,
) -> Study:
    """Loads a study by name (recipes/studies) or path and expands it to stages.

    `settle` gets the checked recipe: it may refuse it, or fill in what only the disk knows (the
    digest of a user's files).

    Raises: RecipeError naming file, line and key of what is wrong.
    """
    path = Path(study)
    if path.suffix != ".yaml":
        found = find_recipe("studies", study)
        if found is None:
            names = recipe_names("studies")
            raise RecipeError(
                f"study '{study}'",
                found="no such file in recipes/studies",
                rule="a study is one of " + ", ".join(names) + ", or the path of a .yaml file",
                do=nearest(study, names),
            )
        path = found
    loaded = load_recipe(path, StudyRecipe, overrides=overrides)
    check_study(loaded)
    return expand_study(path.stem, settle(loaded) if settle else loaded)


def expand_study(name: str, loaded: Loaded[StudyRecipe]) -> Study:
    """The graph of stages of a checked recipe, one stage a key."""
    recipe = loaded.value
    builder = _Builder(recipe)
    cells: dict[str, list[str]] = {}
    evaluations: dict[str, Stage] = {}
    for seed in range(1, recipe.seeds + 1):
        for cell, stage in builder.cells(seed).items():
            role = f"{cell} seed {seed}"
            cells.setdefault(cell, []).append(role)
            evaluations[role] = stage
    tabulate = Stage(
        kind="tabulate",
        label=name,
        recipe=schema.Tabulate(
            cells={cell: tuple(roles) for cell, roles in cells.items()},
            min_effect=recipe.evaluation.min_effect,
            seed_spreads=recipe.evaluation.seed_spreads,
            sft_tokens=recipe.sft.tokens,
            reasoning_pretraining_tokens=reasoning_tokens(recipe.pretraining),
        ),
        inputs=evaluations,
    )
    study = Study(
        name=name,
        recipe=recipe,
        placement=recipe.placement,
        stages=in_order(tabulate),
        tabulate=tabulate,
    )
    _check_expected(study, loaded)
    return study


def in_order(last: Stage) -> tuple[Stage, ...]:
    """`last` and everything below it, one stage a key, inputs first."""
    found: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        if stage.key in found:
            return
        for role in stage.inputs:
            visit(stage.inputs[role])
        found[stage.key] = stage

    visit(last)
    return tuple(found.values())


def study_arms(recipe: StudyRecipe) -> list[Arm]:
    """Grid arms in the order written, then the arms at other ratios."""
    share = recipe.pretraining.base_share
    grid = [
        Arm(mix=mix, base_share=1.0 if mix == BASE else share, is_off_grid=False)
        for mix in recipe.arms
    ]
    off = [
        Arm(mix=arm.mix, base_share=arm.base_share, is_off_grid=True) for arm in recipe.ratio_arms
    ]
    return grid + off


def reasoning_tokens(knobs: PretrainingKnobs) -> int:
    """Tokens of reasoning a grid arm reads in pretraining."""
    second = knobs.tokens - share_of(knobs.tokens, knobs.first_phase_share)
    return second - share_of(second, knobs.base_share)


def share_of(tokens: int, share: float) -> int:
    """`share` of `tokens`, exact because check_study refused what is not whole."""
    return round(tokens * share)


def _check_expected(study: Study, loaded: Loaded[StudyRecipe]) -> None:
    keys = {f"{stage.kind}/{stage.label}": stage.key for stage in study.stages}
    for label, key in study.recipe.expect.items():
        if keys.get(label) != key:
            raise loaded.refuse(
                f"expect.{label}",
                found=f"expected {key}, the recipe gives {keys.get(label, 'no such stage')}",
                rule="a pinned key may not move",
                do="undo the change that moved it (`frontload plan` names it) or pin the new key",
            )


class _Builder:
    """Makes the stages of one recipe; shared ones are made once."""

    def __init__(self, recipe: StudyRecipe) -> None:
        self.recipe = recipe
        own, synthesis = recipe.own, recipe.synthesis
        if own is not None:
            self.corpus = Stage(kind="import_own", label="corpus", recipe=own)
            self.data_seed = own.seed
        elif synthesis is not None:
            self.corpus = Stage(kind="synthesize", label="corpus", recipe=synthesis)
            self.data_seed = synthesis.seed
        self.tokenizer = Stage(
            kind="tokenizer",
            label=recipe.tokenizer.kind,
            recipe=recipe.tokenizer,
            inputs={"corpus": self.corpus},
        )
        self.documents = {name: self._curate(name, mix) for name, mix in recipe.mixes.items()}
        self.indexes = {
            name: Stage(
                kind="index",
                label=name,
                recipe=schema.Index(append_eod=True),
                inputs={"documents": documents, "tokenizer": self.tokenizer},
            )
            for name, documents in self.documents.items()
        }

        if recipe.rl is not None:
            self.prompts = prompts_stage(recipe.rl, self.corpus, seed=self.data_seed)

    def _curate(self, name: str, mix: MixKnobs) -> Stage:
        recipe = schema.Mix(
            name=name,
            members=mix.members,
            min_answer_tokens=mix.min_answer_tokens,
            share_of_member=mix.share_of_member,
            seed=self.data_seed,
        )
        inputs = {"corpus": self.corpus, "tokenizer": self.tokenizer}
        return Stage(kind="curate", label=name, recipe=recipe, inputs=inputs)

    def cells(self, seed: int) -> dict[str, Stage]:
        """Cell id -> its evaluation, for one seed."""
        trunk = self._trunk(seed)
        found: dict[str, Stage] = {}
        models: dict[str, tuple[Arm, Stage]] = {}
        fine_tuned: dict[tuple[str, str], tuple[str, Stage]] = {}
        for arm in study_arms(self.recipe):
            model = self._branch(arm, trunk, seed=seed)
            models[arm.name] = (arm, model)
            found[arm.cell] = self._evaluate("base", model, seed=seed)
        sft = self.recipe.sft
        grid = [(arm, mix, 1) for arm in self.recipe.arms for mix in sft.mixes]
        for name, mix, times in grid + [(c.arm, c.mix, c.multiplier) for c in sft.cells]:
            arm, model = models[name]
            tuned = self._tune(arm, model, pack=self._pack(mix, times, seed=seed))
            cell = f"{arm.cell}>sft:{mix_title(mix)}" + (f"*{times}" if times > 1 else "")
            found[cell] = self._evaluate("sft", tuned, seed=seed)
            if times == 1:
                fine_tuned[name, mix] = (cell, tuned)
        if self.recipe.rl is not None:
            for one in self.recipe.rl.cells:
                cell, tuned = fine_tuned[one.arm, one.mix]
                model = reinforce(self.recipe.rl, tuned, prompts=self.prompts, seed=seed)
                found[f"{cell}>rl:{RL_DATA}"] = self._evaluate("sft", model, seed=seed)
        return found

    # ------------------------------------------------------------ pretraining

    def _blend(
        self, name: str, windows: tuple[schema.Window, ...], *, seed: int, before: Stage | None
    ) -> Stage:
        knobs = self.recipe.pretraining
        inputs = {window.source: self.indexes[window.source] for window in windows}
        recipe = schema.Blend(
            phase="first" if before is None else "second",
            windows=windows,
            sequence_tokens=knobs.sequence_tokens,
            max_epochs={window.source: knobs.max_epochs[window.source] for window in windows},
            seed=seed,
        )
        more = {} if before is None else {"before": before}
        label = f"{name}-seed{seed}"
        return Stage(kind="blend", label=label, recipe=recipe, inputs={**inputs, **more})

    def _trunk(self, seed: int) -> Stage:
        knobs = self.recipe.pretraining
        tokens = share_of(knobs.tokens, knobs.first_phase_share)
        window = schema.Window(source=BASE, start_tokens=0, tokens=tokens)
        blend = self._blend("trunk", (window,), seed=seed, before=None)
        return self._pretrain(f"trunk-seed{seed}", blend, seed=seed, start=None)

    def _branch(self, arm: Arm, trunk: Stage, *, seed: int) -> Stage:
        knobs = self.recipe.pretraining
        first = share_of(knobs.tokens, knobs.first_phase_share)
        second = knobs.tokens - first
        base = share_of(second, arm.base_share)
        windows = (schema.Window(source=BASE, start_tokens=first, tokens=base),)
        if arm.mix != BASE:
            mixed = schema.Window(source=arm.mix, start_tokens=0, tokens=second - base)
            windows = (*windows, mixed)
        blend = self._blend(arm.name, windows, seed=seed, before=trunk.inputs["blend"])
        return self._pretrain(f"{arm.name}-seed{seed}", blend, seed=seed, start=trunk)

    def _pretrain(self, label: str, blend: Stage, *, seed: int, start: Stage | None) -> Stage:
        knobs = self.recipe.pretraining
        total = knobs.tokens // knobs.sequence_tokens
        spent = sum(window.tokens for window in blend.recipe.windows) // knobs.sequence_tokens
        recipe = schema.Pretrain(
            model=self.recipe.model,
            training=_training(knobs, total_samples=total, seed=seed),
            start_sample=0 if start is None else total - spent,
            num_samples=spent,
        )
        sources = {role: stage for role, stage in blend.inputs.items() if stage.kind == "index"}
        more = {} if start is None else {"start": start}
        inputs = {"blend": blend, "tokenizer": self.tokenizer, **sources, **more}
        return Stage(kind="pretrain", label=label, recipe=recipe, inputs=inputs)

    # ------------------------------------------------------------ SFT and scores

    def _pack(self, mix: str, times: int, *, seed: int) -> Stage:
        knobs = self.recipe.sft
        recipe = schema.Pack(
            sequence_tokens=knobs.sequence_tokens,
            tokens=knobs.tokens * times,
            over_long="drop",
            seed=seed,
        )
        return Stage(
            kind="pack",
            label=f"{mix}-x{times}-seed{seed}",
            recipe=recipe,
            inputs={"documents": self.documents[mix], "tokenizer": self.tokenizer},
        )

    def _tune(self, arm: Arm, model: Stage, *, pack: Stage) -> Stage:
        knobs: SftKnobs = self.recipe.sft
        samples = pack.recipe.tokens // knobs.sequence_tokens
        recipe = schema.Sft(
            model=self.recipe.model,
            training=_training(knobs, total_samples=samples, seed=pack.recipe.seed),
            num_samples=samples,
        )
        inputs = {"start": model, "pack": pack, "tokenizer": self.tokenizer}
        return Stage(kind="sft", label=f"{arm.name}+{pack.label}", recipe=recipe, inputs=inputs)

    def _evaluate(self, suite: str, model: Stage, *, seed: int) -> Stage:
        knobs: SuiteKnobs = getattr(self.recipe.evaluation, suite)
        recipe = schema.Evaluate(
            suite=suite,
            num_samples=knobs.num_samples,
            num_hard_samples=knobs.num_hard_samples,
            temperature=knobs.temperature,
            max_new_tokens=knobs.max_new_tokens,
            num_shots=knobs.num_shots,
            seed=seed,
        )
        inputs = {"checkpoint": model, "corpus": self.corpus, "tokenizer": self.tokenizer}
        return Stage(kind="evaluate", label=model.label, recipe=recipe, inputs=inputs)


def _training(knobs: TrainingKnobs, *, total_samples: int, seed: int) -> schema.Training:
    return schema.Training(
        sequence_tokens=knobs.sequence_tokens,
        global_batch_sequences=knobs.global_batch_sequences,
        optimizer=schema.Optimizer(
            learning_rate=knobs.learning_rate,
            min_learning_rate=_product(knobs.learning_rate, knobs.final_learning_rate_share),
            adam_beta1=knobs.adam_beta1,
            adam_beta2=knobs.adam_beta2,
            adam_epsilon=knobs.adam_epsilon,
            weight_decay=knobs.weight_decay,
            clip_grad=knobs.clip_grad,
        ),
        schedule=schema.Schedule(
            kind=knobs.schedule,
            warmup_share=knobs.warmup_share,
            decay_share=knobs.decay_share,
            total_samples=total_samples,
        ),
        precision=knobs.precision,
        reset_at_document_boundaries=knobs.reset_at_document_boundaries,
        seed=seed,
    )


def _product(rate: float, share: float) -> float:
    """Rounded to 12 digits, so that 1.0e-5 x 0.1 is 1e-06 in keys and messages."""
    return float(f"{rate * share:.12g}")
