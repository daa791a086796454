"""A study for a cluster as runs, each after the one it starts from, and the data that they read.

Pure: no disk, no clock. A run's folder, and a data product's, carry its label.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from frontload.recipes.cluster_study import (
    CONVERT,
    GRPO,
    PRETRAIN,
    SFT,
    ClusterData,
    ClusterStudy,
    Recipes,
)
from frontload.recipes.runs.training import SFT_STAGE, Phase
from frontload.recipes.study.expand import Arm, mix_title
from frontload.recipes.study.reinforcement import RL_DATA

TRUNK = f"{PRETRAIN}/trunk"
MODEL = "model"  # the folder that a conversion leaves
PERCENT = 100
SETS, INDEX, BLENDS, PACKS, PROMPTS = "sets", "index", "blends", "packs", "prompts"
TRAIN_PROMPTS, VALIDATION_PROMPTS = "prompts.train.parquet", "prompts.validation.parquet"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One job. `label` names it and its folder; it begins with its kind."""

    label: str
    kind: str
    recipe: str  # name of its training recipe; "" for a conversion
    placement: str
    start: str = ""  # label of the run whose result it goes on from
    start_folder: str = ""  # what that run leaves there
    until: str = ""  # pretraining: the last phase of this run; "" = the recipe's last
    tokens: int = 0
    data: tuple[str, ...] = ()  # labels of what the data tools made for it
    cell: str = ""  # of claims.json


@dataclass(frozen=True, kw_only=True)
class Product:
    """Something that the data tools make. Paths are below the data folder."""

    label: str
    files: tuple[str, ...]  # there when it is finished
    command: tuple[str, ...]  # after `frontload data`, run in the data folder

    @property
    def parent_folder(self) -> str:
        """What is there before the command: a prefix's own folder, else the one above a folder."""
        kind, _, name = self.label.partition("/")
        return self.label if kind == INDEX else kind if name else "."


def expand_runs(study: ClusterStudy, recipes: Recipes) -> tuple[Run, ...]:
    """All runs of a checked study, each behind the one that it starts from."""
    trunk = _pretrain(study, recipes, study.trunk, is_trunk=True)
    runs, last = [trunk], dict[str, Run]()
    for name in study.arms:
        last[name] = _pretrain(study, recipes, name, is_trunk=False)
        runs.append(last[name])
    tuned: dict[tuple[str, str], Run] = {}
    arms = [name for name in study.arms if not arm_of(name).is_off_grid]
    grid = [(arm, mix, 1) for arm in arms for mix in study.sft.mixes]
    for arm, mix, times in grid + [(c.arm, c.mix, c.multiplier) for c in study.sft.cells]:
        run = _tune(study, recipes, last[arm], mix=mix, times=times)
        runs.append(run)
        if times == 1:
            tuned[arm, mix] = run
    for cell in study.rl.cells if study.rl else ():
        runs += _reinforce(study, recipes, tuned[cell.arm, cell.mix])
    return tuple(runs)


def arm_of(name: str) -> Arm:
    """The study's arm of a name such as `ldq` or `lmq@60-40`."""
    mix, _, ratio = name.partition("@")
    base = float(ratio.partition("-")[0]) / PERCENT if ratio else 1.0
    return Arm(mix=mix, base_share=base, is_off_grid=bool(ratio))


def _pretrain(study: ClusterStudy, recipes: Recipes, name: str, *, is_trunk: bool) -> Run:
    """The trunk, or an arm from there on."""
    arm = study.arms[name]
    phases = recipes.pretrain[arm.recipe].phases
    cut = [phase.name for phase in phases].index(study.branch_after) + 1
    mine = phases[:cut] if is_trunk else phases[cut:]
    sources = members(study, recipes, name, phases=mine)
    return Run(
        label=TRUNK if is_trunk else f"{PRETRAIN}/{name}",
        kind=PRETRAIN,
        recipe=arm.recipe,
        placement=study.placements.pretrain,
        start="" if is_trunk else TRUNK,
        start_folder="" if is_trunk else study.branch_after,
        until=study.branch_after if is_trunk else "",
        tokens=sum(phase.tokens for phase in mine),
        data=(
            *(f"{BLENDS}/{name}/{phase.name}" for phase in mine),
            *(f"{INDEX}/{source}" for source in sources),
        ),
        cell="" if is_trunk else arm_of(name).cell,
    )


def members(
    study: ClusterStudy, recipes: Recipes, arm: str, *, phases: Sequence[Phase]
) -> tuple[str, ...]:
    """The sources behind phases of an arm: those of a mix are its members."""
    mixes = recipes.blends[study.arms[arm].blend].mixes
    found = dict.fromkeys(
        member
        for phase in phases
        for name in phase.sources
        for member in (mixes[name].members if name in mixes else (name,))
    )
    return tuple(found)


def _tune(study: ClusterStudy, recipes: Recipes, start: Run, *, mix: str, times: int) -> Run:
    name = study.sft.recipes[str(times)]
    return Run(
        label=f"{SFT}/{start.label.partition('/')[2]}+{mix}-x{times}",
        kind=SFT,
        recipe=name,
        placement=study.placements.sft,
        start=start.label,
        start_folder=recipes.pretrain[start.recipe].phases[-1].name,
        tokens=recipes.sft[name].tokens,
        data=(f"{PACKS}/{mix}",),
        cell=f"{start.cell}>sft:{mix_title(mix)}" + (f"*{times}" if times > 1 else ""),
    )


def _reinforce(study: ClusterStudy, recipes: Recipes, start: Run) -> list[Run]:
    """The bridge to Hugging Face, which RL starts from, and RL."""
    assert study.rl is not None
    below = start.label.partition("/")[2]
    bridge = Run(
        label=f"{CONVERT}/{below}",
        kind=CONVERT,
        recipe="",
        placement=study.placements.convert,
        start=start.label,
        start_folder=SFT_STAGE,
    )
    reinforced = Run(
        label=f"{GRPO}/{below}",
        kind=GRPO,
        recipe=study.rl.recipe,
        placement=study.placements.grpo,
        start=bridge.label,
        start_folder=MODEL,
        tokens=recipes.grpo[study.rl.recipe].most_tokens,
        data=(PROMPTS,),
        cell=f"{start.cell}>rl:{RL_DATA}",
    )
    return [bridge, reinforced]


# ---------------------------------------------------------------- data


def expand_data(study: ClusterStudy, recipes: Recipes, runs: Iterable[Run]) -> tuple[Product, ...]:
    """What must be there before the runs; what a product is made of stands before it."""
    wanted = list(dict.fromkeys(label for run in runs for label in run.data))
    data = study.data
    found = [
        Product(
            label=SETS,
            files=(f"{SETS}/manifest.json",),
            command=("curate", data.curation, f"tokenizer={data.tokenizer}", "--out", SETS),
        )
    ]
    arms = dict.fromkeys(
        label.split("/")[1] for label in wanted if label.partition("/")[0] == BLENDS
    )
    sources = {
        arm: members(study, recipes, arm, phases=recipes.pretrain[study.arms[arm].recipe].phases)
        for arm in arms
    }
    found += [_index(data, name) for name in dict.fromkeys(n for arm in arms for n in sources[arm])]
    found += [_blend(study, recipes, arm, sources=sources[arm]) for arm in arms]
    packs = [label for label in wanted if label.startswith(f"{PACKS}/")]
    rows = next(iter(recipes.sft.values())).sequence_tokens
    found += [_pack(data, label.partition("/")[2], sequence_tokens=rows) for label in packs]
    if PROMPTS in wanted:
        assert study.rl is not None
        found.append(_prompts(data, prompt_tokens=recipes.grpo[study.rl.recipe].prompt_tokens))
    return tuple(found)


def _index(data: ClusterData, name: str) -> Product:
    is_base = name == "base"
    inputs = data.base_files if is_base else (f"{SETS}/{name}.text.jsonl",)
    return Product(
        label=f"{INDEX}/{name}",
        files=tuple(f"{INDEX}/{name}/documents.{end}" for end in ("bin", "idx", "manifest.json")),
        command=(
            *(
                "preprocess",
                "--input",
                *inputs,
                "--json-key",
                data.base_field if is_base else "text",
            ),
            *("--output-prefix", f"{INDEX}/{name}/documents"),
            *("--tokenizer", data.tokenizer, "--append-eod"),
        ),
    )


def _blend(study: ClusterStudy, recipes: Recipes, arm: str, *, sources: Sequence[str]) -> Product:
    blend = study.arms[arm].blend
    return Product(
        label=f"{BLENDS}/{arm}",
        files=tuple(f"{BLENDS}/{arm}/{phase}/plan.json" for phase in recipes.blends[blend].phases),
        command=(
            *("blend", blend, "--out", f"{BLENDS}/{arm}", "--index"),
            *(f"{source}={INDEX}/{source}/documents" for source in sources),
        ),
    )


def _pack(data: ClusterData, mix: str, *, sequence_tokens: int) -> Product:
    return Product(
        label=f"{PACKS}/{mix}",
        files=(f"{PACKS}/{mix}/pack.json",),
        command=(
            *("pack", f"{SETS}/{mix}.jsonl", "--tokenizer", data.tokenizer),
            *("--sequence-tokens", str(sequence_tokens), "--over-long", data.over_long),
            *("--epochs", str(data.pack_epochs[mix]), "--output", f"{PACKS}/{mix}"),
        ),
    )


def _prompts(data: ClusterData, *, prompt_tokens: int) -> Product:
    general, math = data.prompts
    return Product(
        label=PROMPTS,
        files=(TRAIN_PROMPTS, VALIDATION_PROMPTS),
        command=(
            *("crossthink", "--qa", general, "--math", math, "--out", TRAIN_PROMPTS),
            *("--tokenizer", data.tokenizer, "--prompt-tokens", str(prompt_tokens)),
            *("--validation-rows", str(data.validation_prompts)),
            *("--validation-out", VALIDATION_PROMPTS),
        ),
    )
