"""Points -> stages: the trunks, branches, packs, models and evaluations that a study is made of."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from frontload.recipes import schema
from frontload.recipes.stage import Stage
from frontload.recipes.study.data import DROP, StudyData, pack_recipe
from frontload.recipes.study.evaluations import ask_suite
from frontload.recipes.study.points import (
    BASE,
    PERCENT,
    SFT_SUITE,
    Arm,
    Point,
    Tuning,
    cell_of,
    loss_suffix,
    mix_title,
    tuning_name,
)
from frontload.recipes.study.reinforcement import reinforce
from frontload.recipes.study.schema import StudyRecipe, SuiteKnobs

PHASES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
WSD, PLATEAU = "wsd", "plateau"


class TrunkKind(NamedTuple):
    """What trunks of base text may go on from each other."""

    sparsity: float
    seed: int


class StudyGraph:
    """Makes the stages of one recipe; what several points share is made once."""

    def __init__(self, recipe: StudyRecipe, data: StudyData, *, points: Iterable[Point]) -> None:
        self.recipe, self.data = recipe, data
        self._onsets: dict[TrunkKind, list[int]] = {}  # in the order of the points
        for point in points:
            onsets = self._onsets.setdefault(TrunkKind(point.arm.sparsity, point.seed), [])
            if point.arm.onset_tokens not in onsets:
                onsets.append(point.arm.onset_tokens)
        self._trunks: dict[tuple[int, TrunkKind], Stage] = {}
        self._branches: dict[tuple[Arm, int], Stage] = {}
        self._tuned: dict[tuple[Arm, Tuning, int], Stage] = {}
        self._packs: dict[tuple[Tuning, int, Arm | None], Stage] = {}

    def evaluations(self, point: Point) -> dict[str, Stage]:
        """Role of `tabulate` -> an evaluation of the point's model."""
        model = self.model(point)
        cell = cell_of(point, self.recipe.sft)
        by_default = SFT_SUITE if point.tuning is not None else BASE
        found: dict[str, Stage] = {}
        for suite in point.suites:
            role = f"{cell} seed {point.seed}" + ("" if suite == by_default else f" {suite}")
            found[role] = self._evaluate(suite, model, point=point)
        return found

    def proxy(self, point: Point) -> dict[str, Stage]:
        """Role of `tabulate` -> the evaluation that says whether the point's model deserves RL."""
        knobs = self.recipe.evaluation.proxies
        if knobs is None or point.tuning is None or point.is_reinforced:
            return {}
        model = self.model(point)
        stage = self._evaluate(SFT_SUITE, model, point=point)
        recipe = replace(
            stage.recipe,
            num_samples=knobs.num_samples,
            num_hard_samples=knobs.num_samples,
            items_per_benchmark=knobs.items_per_benchmark,
        )
        label = f"{model.label}.proxy"
        role = f"{cell_of(point, self.recipe.sft)} seed {point.seed} proxy"
        return {role: replace(stage, recipe=recipe, label=label)}

    def set_losses(self, points: Sequence[Point]) -> dict[tuple[str, str], dict[str, Stage]]:
        """Pretrained cell and SFT set -> role of `tabulate` -> the set's loss under that model."""
        size = self.recipe.evaluation.set_loss_conversations
        packs: dict[tuple[str, int], Tuning] = {}  # the first tuning on each set at each seed
        for point in points:
            if point.tuning is not None and point.tuning.mix not in self.recipe.own_samples:
                packs.setdefault((point.tuning.mix, point.seed), point.tuning.data)
        found: dict[tuple[str, str], dict[str, Stage]] = {}
        bases = dict.fromkeys((point.arm, point.seed) for point in points) if size else {}
        for arm, seed in bases:
            for mix, tuning in [(m, t) for (m, of_seed), t in packs.items() if of_seed == seed]:
                role = f"{arm.cell} on {mix_title(mix)} seed {seed}"
                found.setdefault((arm.cell, mix_title(mix)), {})[role] = Stage(
                    kind="set_loss",
                    label=f"{arm.name}-seed{seed}.{mix}",
                    recipe=schema.SetLossRecipe(num_conversations=size),
                    inputs={
                        "checkpoint": self._branch(arm, seed),
                        "pack": self._pack(arm, tuning, seed=seed),
                    },
                )
        return found

    def model(self, point: Point) -> Stage:
        """The stage that leaves the point's checkpoint."""
        model = self._branch(point.arm, point.seed)
        if point.tuning is not None:
            model = self._tune(point.arm, point.tuning, seed=point.seed)
        if point.is_reinforced:
            assert self.recipe.rl is not None, "check_study refuses reinforced points without `rl`"
            model = reinforce(self.recipe.rl, model, prompts=self.data.prompts, seed=point.seed)
        return model

    # ------------------------------------------------------------ pretraining

    def _trunk(self, onset: int, kind: TrunkKind) -> Stage:
        """Base text up to `onset`, on from the longest trunk that was written before it."""
        if (onset, kind) not in self._trunks:
            onsets = self._onsets[kind]
            before = onsets[: onsets.index(onset)]
            start = max((one for one in before if 0 < one < onset), default=0)
            below = self._trunk(start, kind) if start else None
            window = schema.Window(source=BASE, start_tokens=start, tokens=onset - start)
            label = "trunk" if onset == onsets[0] else f"trunk{onset}"
            blend = self._blend(label, (window,), seed=kind.seed, start=below)
            if kind.sparsity != self.recipe.pretraining.sparsity:
                label += f"@sparse{round(PERCENT * kind.sparsity)}"
            made = self._pretrain(label, blend, start=below, end=onset)
            self._trunks[onset, kind] = _masked(made, kind.sparsity)
        return self._trunks[onset, kind]

    def _branch(self, arm: Arm, seed: int) -> Stage:
        """From the arm's onset to the end of pretraining."""
        if (arm, seed) not in self._branches:
            knobs, onset = self.recipe.pretraining, arm.onset_tokens
            start = self._trunk(onset, TrunkKind(arm.sparsity, seed)) if onset else None
            base = knobs.tokens - onset - arm.reasoning_tokens
            windows = [schema.Window(source=BASE, start_tokens=onset, tokens=base)] if base else []
            windows += [
                schema.Window(source=source, start_tokens=0, tokens=tokens)
                for source, tokens in arm.windows
            ]
            blend = self._blend(arm.name, tuple(windows), seed=seed, start=start)
            model = self._pretrain(arm.name, blend, start=start, end=knobs.tokens)
            self._branches[arm, seed] = _masked(model, arm.sparsity)
        return self._branches[arm, seed]

    def _blend(
        self, name: str, windows: tuple[schema.Window, ...], *, seed: int, start: Stage | None
    ) -> Stage:
        knobs = self.recipe.pretraining
        before = {} if start is None else {"before": start.inputs["blend"]}
        recipe = schema.Blend(
            phase=PHASES[_depth(start)],
            windows=windows,
            sequence_tokens=knobs.sequence_tokens,
            max_epochs={window.source: knobs.max_epochs[window.source] for window in windows},
            seed=seed,
        )
        sources = {window.source: self.data.index(window.source, seed=seed) for window in windows}
        label = f"{name}-seed{seed}"
        return Stage(kind="blend", label=label, recipe=recipe, inputs={**sources, **before})

    def _pretrain(self, name: str, blend: Stage, *, start: Stage | None, end: int) -> Stage:
        knobs, seed = self.recipe.pretraining, blend.recipe.seed
        tokens = sum(window.tokens for window in blend.recipe.windows)
        samples = knobs.tokens // knobs.sequence_tokens
        training = knobs.training_of(total_samples=samples, seed=seed)
        recipe = schema.Pretrain(
            model=self.recipe.model,
            training=on_plateau(training, end_sample=end // knobs.sequence_tokens),
            start_sample=(end - tokens) // knobs.sequence_tokens,
            num_samples=tokens // knobs.sequence_tokens,
        )
        sources = {role: stage for role, stage in blend.inputs.items() if stage.kind == "index"}
        more = {} if start is None else {"start": start}
        inputs = {"blend": blend, "tokenizer": self.data.tokenizer, **sources, **more}
        label = f"{name}-seed{seed}"
        return Stage(kind="pretrain", label=label, recipe=recipe, inputs=inputs)

    # ------------------------------------------------------------ SFT and scores

    def _pack(self, arm: Arm, tuning: Tuning, *, seed: int) -> Stage:
        """Of a set that every model shares, or of the answers that this arm's model gave."""
        own = self.recipe.own_samples.get(tuning.mix)
        at = (tuning, seed, None if own is None else arm)
        if at not in self._packs:
            knobs = self.recipe.sft
            label = f"{tuning_name(tuning, knobs)}-seed{seed}"
            if own is None:
                self._packs[at] = self.data.pack(tuning, knobs, label=label, seed=seed)
            else:
                recipe = pack_recipe(tuning, knobs, over_long=DROP, seed=seed)
                documents = self._own_samples(arm, tuning.mix, seed=seed)
                label = f"{arm.name}.{label}"
                self._packs[at] = self.data.pack_documents(documents, recipe, label=label)
        return self._packs[at]

    def _own_samples(self, arm: Arm, name: str, *, seed: int) -> Stage:
        """Right answers of the arm's model, as pretraining or a first fine-tuning left it."""
        knobs, model = self.recipe.own_samples[name], self._branch(arm, seed)
        if knobs.tuned is not None:
            loss = knobs.tuned.loss or self.recipe.sft.loss
            first = Tuning(mix=knobs.tuned.mix, tokens=knobs.tuned.tokens, loss=loss)
            model = self._tune(arm, first, seed=seed)
        recipe = schema.OwnSamples(
            num_questions=knobs.num_questions,
            num_samples=knobs.num_samples,
            most_kept=knobs.most_kept,
            temperature=knobs.temperature,
            max_new_tokens=knobs.max_new_tokens,
            seed=seed,
        )
        inputs = {
            "checkpoint": model,
            "documents": self.data.documents(knobs.questions_of, seed=seed),
            "corpus": self.data.corpus,
            "tokenizer": self.data.tokenizer,
        }
        label = f"{name}.{model.label}"
        return Stage(kind="own_samples", label=label, recipe=recipe, inputs=inputs)

    def _tune(self, arm: Arm, tuning: Tuning, *, seed: int) -> Stage:
        if (arm, tuning, seed) not in self._tuned:
            knobs, pack = self.recipe.sft, self._pack(arm, tuning.data, seed=seed)
            samples = knobs.num_samples(tuning.tokens)
            recipe = schema.Sft(
                model=self.recipe.model,
                training=knobs.training_of(total_samples=samples, seed=seed),
                num_samples=samples,
                loss=tuning.loss,
            )
            start = self._branch(arm, seed)
            inputs = {"start": start, "pack": pack, "tokenizer": self.data.tokenizer}
            label = f"{arm.name}+{tuning_name(tuning, knobs)}-seed{seed}{loss_suffix(tuning)}"
            stage = Stage(kind="sft", label=label, recipe=recipe, inputs=inputs)
            self._tuned[arm, tuning, seed] = stage
        return self._tuned[arm, tuning, seed]

    def _evaluate(self, suite: str, model: Stage, *, point: Point) -> Stage:
        seed = point.seed
        if self.recipe.evaluation.benchmarks is not None:
            used = "rl" if point.is_reinforced and suite == SFT_SUITE else suite
            return ask_suite(
                self.recipe.evaluation.benchmarks, used, model=model, data=self.data, seed=seed
            )
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
        data = self.data
        inputs = {"checkpoint": model, "corpus": data.corpus, "tokenizer": data.tokenizer}
        return Stage(kind="evaluate", label=model.label, recipe=recipe, inputs=inputs)


def _masked(stage: Stage, sparsity: float) -> Stage:
    """The same pretraining with a share of its weights masked."""
    return replace(stage, recipe=replace(stage.recipe, sparsity=sparsity))


def _depth(stage: Stage | None) -> int:
    """How many stages of pretraining lie below one."""
    depth = 0
    while stage is not None:
        stage, depth = stage.inputs.get("start"), depth + 1
    return depth


def on_plateau(training: schema.Training, *, end_sample: int) -> schema.Training:
    """The training of a stage that ends at `end_sample`, without the length of a run that WSD has
    not begun to end: another length, or another onset, goes on from the same checkpoint."""
    shape = training.schedule
    if shape.kind != WSD or end_sample > shape.total_samples * (1.0 - shape.decay_share):
        return training
    plateau = schema.Schedule(
        kind=PLATEAU,
        warmup_share=0.0,
        decay_share=0.0,
        total_samples=0,
        warmup_samples=round(shape.warmup_share * shape.total_samples),
    )
    return replace(training, schedule=plateau)
