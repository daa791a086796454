"""What a stage costs before it is made: tokens, FLOPs, seconds at rates measured or stated."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from frontload.launch.store import Store
from frontload.launch.study.crew import GPU_KINDS, RANKED
from frontload.megatron_ext.sizing.memory import GIB
from frontload.megatron_ext.sizing.search import LayoutEstimate, estimate_layout
from frontload.recipes import schema
from frontload.recipes.errors import RecipeError
from frontload.recipes.facts.census import count_parameters, forward_flops_per_token
from frontload.recipes.machines.gpus import find_gpu
from frontload.recipes.machines.placement import Placement, Placements
from frontload.recipes.machines.precision import find_precision
from frontload.recipes.runs.suite import SuiteRun, most_answer_tokens, num_scored_rows
from frontload.recipes.stage import Stage
from frontload.recipes.study.reading import trained_tokens, training_flops

TRAINING = ("pretrain", "sft")
READERS = ("tabulate", "decide", "register", "conclude", "readings")
"""Kinds that read evaluations; the unit of work of each is one of them."""
GRPO_FACTOR = 6.0  # the same for a rollout: sampled, scored by actor and reference, trained on

DEFAULT_SECONDS_PER_WORK: dict[str, float] = {
    "synthesize": 2.8e-6,
    "import_own": 1e-6,
    "import_raw": 0.0,
    "import_tokenizer": 0.0,
    "tokenizer": 8e-7,
    "curate": 1.8e-6,
    "curate_sets": 4e-6,
    "index": 1e-6,
    "blend": 3e-8,
    "pack": 2.7e-6,
    "rl_prompts": 2e-4,
    "crossthink": 2e-4,
    "pretrain": 7.6e-11,
    "sft": 7.8e-11,
    "convert": 2e-9,
    "grpo": 9.5e-11,
    "evaluate": 1.1e-10,
    "own_samples": 1.1e-10,
    "set_loss": 1.1e-10,
    "decide": 4e-2,
    "register": 4e-2,
    "conclude": 4e-2,
    "readings": 4e-2,
    "import_benchmarks": 0.0,
    "benchmarks": 1.1e-10,
    "tabulate": 4e-2,
}
"""CPU seconds per unit of work where this store has measured nothing of like size. The unit is a
token for data, a prompt for rl_prompts and crossthink, a parameter for convert, a floating-point
operation for training and evaluation, an evaluation for those that read them.
Found by the laptop study on one x86 core."""

DEFAULT_FIXED_SECONDS = {"grpo": 60.0}
"""CPU seconds before the first unit of work: veRL's processes start (tests/bench/bench_rl.py)."""

GPU_FIXED_SECONDS = {
    "pretrain": 6.0,
    "sft": 6.0,
    "evaluate": 12.0,
    "own_samples": 12.0,
    "set_loss": 12.0,
    "benchmarks": 180.0,
    "grpo": 600.0,
}
"""Seconds of a GPU before and after the work that its rate prices: a checkpoint read and written,
and kernels loaded; of an evaluation, the steps of generation too, which launching bounds and not
arithmetic, and grading; of benchmarks, vLLM's start. Assumed: never run on a GPU."""

ANSWER_SHARE = 0.5
"""Mean length of an answer to a benchmark, of the longest that a suite allows. Assumed: the paper's
answers of SHQ average over 10k tokens, base models stop at a few hundred."""

SCORED_ROW_TOKENS = 1_000
"""Tokens that are read to score a row's options: four short ones behind up to five examples."""

OWN_TOKENS, RAW_ITEMS = 1_000_000, 1_000
"""Taken for the size of a user's own or raw files, which are not read to price them."""

TERA, HOUR_SECONDS = 1e12, 3600.0

LIKE_SIZE = 4.0
"""A measured stage speaks for one up to this factor larger or smaller, past fixed costs."""

Measured = Mapping[str, Sequence[tuple[float, float]]]
"""Kind -> (work, seconds) of each stage that was made."""


@dataclass(frozen=True, kw_only=True)
class Price:
    """Cost of one stage. `work` is in the unit of its kind."""

    tokens: int
    flops: float
    work: float
    seconds: float  # of one core; on GPUs, of all that the stage holds at once
    is_measured: bool  # the rate comes from this store's earlier runs
    gpus: int = 0  # that the stage holds
    dollars: float = 0.0  # 0 = the placement states no price
    memory_gib: float = 0.0  # of the fullest GPU, by the estimate of its layout; 0 = none was made
    fits: bool = True

    @property
    def on_gpu(self) -> bool:
        return self.gpus > 0

    @property
    def gpu_hours(self) -> float:
        return self.gpus * self.seconds / HOUR_SECONDS


def work_of(stage: Stage) -> tuple[int, float, float]:
    """Tokens, FLOPs and units of work of a stage, from recipes alone."""
    recipe = stage.recipe
    if stage.kind in TRAINING:
        tokens, flops = trained_tokens(stage), training_flops(stage)
        return tokens, flops, flops
    if stage.kind == "evaluate":
        model = stage.inputs["checkpoint"].recipe.model
        answer = min(recipe.max_new_tokens, model.max_sequence_tokens)
        tokens = _items(stage.inputs["corpus"], recipe) * answer
        flops = tokens * forward_flops_per_token(model, model.max_sequence_tokens)
        return tokens, flops, flops
    if stage.kind == "own_samples":
        model = stage.inputs["checkpoint"].recipe.model
        tokens = recipe.num_questions * recipe.num_samples * recipe.max_new_tokens
        flops = tokens * forward_flops_per_token(model, model.max_sequence_tokens)
        return tokens, flops, flops
    if stage.kind == "set_loss":
        model, width = (
            stage.inputs["checkpoint"].recipe.model,
            _trained_context(stage.inputs["checkpoint"]),
        )
        tokens = recipe.num_conversations * width
        flops = tokens * forward_flops_per_token(model, width)
        return tokens, flops, flops
    if stage.kind == "benchmarks":
        model = stage.inputs["checkpoint"].recipe.model
        context = _trained_context(stage.inputs["checkpoint"])
        tokens = benchmark_tokens(recipe, context=context)
        flops = tokens * forward_flops_per_token(model, context)
        return tokens, flops, flops
    if stage.kind == "grpo":
        tokens = recipe.most_tokens  # answers that end early cost less
        flops = GRPO_FACTOR * tokens * forward_flops_per_token(recipe.model, recipe.context_tokens)
        return tokens, flops, flops
    if stage.kind == "rl_prompts":
        return 0, 0.0, float(recipe.num_prompts)
    if stage.kind == "crossthink":
        return 0, 0.0, float(recipe.validation_prompts)
    if stage.kind == "convert":
        return 0, 0.0, float(count_parameters(stage.inputs["checkpoint"].recipe.model).total)
    if stage.kind == "import_benchmarks":
        return 0, 0.0, 1.0
    if stage.kind in READERS:
        return 0, 0.0, float(len(stage.inputs))
    if stage.kind == "blend":
        tokens = sum(window.tokens for window in recipe.windows)
    elif stage.kind == "pack":
        tokens = recipe.tokens
    else:
        tokens = _corpus_tokens(stage)
    return tokens, 0.0, float(tokens)


def benchmark_tokens(run: SuiteRun, *, context: int) -> int:
    """Tokens that an evaluation on benchmarks generates and reads."""
    longest = most_answer_tokens(run.suite, size=run.size, context=context)
    scored = num_scored_rows(run.suite, size=run.size)
    return round(ANSWER_SHARE * longest) + SCORED_ROW_TOKENS * scored


def _trained_context(checkpoint: Stage) -> int:
    """Tokens of the longest text that a checkpoint was trained on: those of its fine-tuning."""
    if checkpoint.kind == "grpo":
        checkpoint = checkpoint.inputs["start"]
    most = checkpoint.recipe.model.max_sequence_tokens
    return max(most, checkpoint.recipe.training.sequence_tokens)


def read_measured(store: Store, placements: Placements) -> Measured:
    """What the stages of this store took, from its provenance, where they ran as placed here."""
    measured: dict[str, list[tuple[float, float]]] = {}
    for kind in DEFAULT_SECONDS_PER_WORK:
        placement = placements.of(kind)
        on_gpu = is_on_gpu(kind, placement)
        for path in sorted((store.root / "provenance" / kind).glob("*.json")):
            found = json.loads(path.read_text(encoding="utf-8"))
            if kind in GPU_KINDS and _hardware(found["placement"]) != _hardware(asdict(placement)):
                continue
            seconds = found["wall_seconds" if on_gpu else "cpu_seconds"]
            measured.setdefault(kind, []).append((found["work"], seconds))
    return measured


def is_on_gpu(kind: str, placement: Placement) -> bool:
    """Whether a stage of this kind holds a GPU under this placement."""
    return placement.gpus is not None and kind in GPU_KINDS


def gpus_of(kind: str, placement: Placement) -> int:
    """GPUs that a stage of this kind holds: those of all ranks, or one."""
    if not is_on_gpu(kind, placement):
        return 0
    return placement.world_size if kind in RANKED else 1


def _hardware(placement: Mapping[str, Any]) -> Any:
    """What a measured rate holds for: none on a CPU, whose seconds count every core's."""
    gpus = placement["gpus"]
    if gpus is None:
        return None
    parts = ("num_nodes", "ranks_per_node", "kernels", "stages_per_gpu")
    return gpus["kind"], *(placement.get(part, 1) for part in parts)


def price_stages(
    stages: Sequence[Stage], measured: Measured, *, placements: Placements
) -> dict[str, Price]:
    """Key -> price of each stage.

    Raises: RecipeError for a layout that the model or the batch cannot be cut to.
    """
    layouts: dict[tuple[Any, ...], LayoutEstimate] = {}
    found: dict[str, Price] = {}
    for stage in stages:
        placement = placements.of(stage.kind)
        tokens, flops, work = work_of(stage)
        gpus = gpus_of(stage.kind, placement)
        layout = (
            _layout(stage, placement, known=layouts) if gpus and stage.kind in TRAINING else None
        )
        rate = _measured_rate(work, measured.get(stage.kind, ()))
        seconds = _default(stage.kind, work, placement=placement) if rate is None else work * rate
        if rate is None and layout is not None and layout.time is not None:
            seconds = GPU_FIXED_SECONDS[stage.kind] + tokens / layout.time.tokens_per_second
        rent = placement.gpus.dollars_per_hour if placement.gpus is not None else 0.0
        found[stage.key] = Price(
            tokens=tokens,
            flops=flops,
            work=work,
            seconds=seconds,
            is_measured=rate is not None,
            gpus=gpus,
            dollars=gpus * seconds / HOUR_SECONDS * rent,
            memory_gib=layout.fullest.total / GIB if layout is not None else 0.0,
            fits=layout is None or layout.fits,
        )
    return found


def _layout(
    stage: Stage, placement: Placement, *, known: dict[tuple[Any, ...], LayoutEstimate]
) -> LayoutEstimate:
    """What `frontload estimate` says of a training stage as it is placed; one answer a shape."""
    training = stage.recipe.training
    shape = (
        stage.kind,
        stage.recipe.model,
        training.sequence_tokens,
        training.global_batch_sequences,
        training.precision,
    )
    if shape not in known:
        precision = find_precision(training.precision)
        try:
            known[shape] = estimate_layout(
                stage.recipe.model, training, placement=placement, precision=precision
            )
        except RecipeError as error:
            raise RecipeError(
                f"{stage.kind}/{stage.label} on placement {placement.name}: {error.asked}",
                found=error.found,
                rule=error.rule,
                do=f"{error.do}; `frontload estimate` lists the layouts that are legal",
            ) from error
    return known[shape]


def _default(kind: str, work: float, *, placement: Placement) -> float:
    """Seconds at the stated rates: on a GPU the placement's share of the data sheet's."""
    gpus = placement.gpus
    if gpus is not None and kind in GPU_KINDS:
        rate = find_gpu(gpus.kind).bf16_tflops * TERA * gpus.kernel_mfu * gpus_of(kind, placement)
        return GPU_FIXED_SECONDS[kind] + work / rate
    return DEFAULT_FIXED_SECONDS.get(kind, 0.0) + work * DEFAULT_SECONDS_PER_WORK[kind]


def _measured_rate(work: float, measured: Sequence[tuple[float, float]]) -> float | None:
    """Seconds a unit of work over the stages of like size; None if there is none."""
    like = [one for one in measured if work / LIKE_SIZE <= one[0] <= work * LIKE_SIZE]
    total = sum(one[0] for one in like)
    return sum(one[1] for one in like) / total if total > 0 else None


def _corpus_tokens(stage: Stage) -> int:
    """Tokens that a data stage reads: of a synthetic corpus as stated, of files at a guess."""
    recipe = stage.inputs["documents"].recipe if stage.kind == "index" else stage.recipe
    corpus = _corpus(stage)
    if corpus is None or not isinstance(corpus.recipe, schema.Synthesis):
        return OWN_TOKENS
    synthesis = corpus.recipe
    sizes = {
        "base": synthesis.base_tokens,
        "ldq": synthesis.ldq.tokens,
        "shq": synthesis.shq.tokens,
    }
    members = recipe.members if isinstance(recipe, schema.Mix) else tuple(sizes)
    return sum(sizes[member] for member in members)


def _corpus(stage: Stage) -> Stage | None:
    """The corpus below a data stage; None for a tokenizer that was given."""
    while stage.inputs:
        names = [name for name in ("corpus", "documents", "raw") if name in stage.inputs]
        if not names:
            return None
        stage = stage.inputs[names[0]]
    return stage


def _items(corpus: Stage, recipe: schema.Evaluate) -> int:
    """Generations (or scored items) of one evaluation."""
    if isinstance(corpus.recipe, schema.OwnData):
        return corpus.recipe.heldout_rows * recipe.num_samples
    if not isinstance(corpus.recipe, schema.Synthesis):
        return RAW_ITEMS * recipe.num_samples
    synthesis = corpus.recipe
    families = len(synthesis.ldq.families)
    if recipe.items_per_benchmark:
        of_families = families * min(recipe.items_per_benchmark, synthesis.items_per_family)
        hard = 2 * min(recipe.items_per_benchmark, synthesis.hard_items_per_family)
        return of_families * recipe.num_samples + hard * recipe.num_hard_samples
    items = families * synthesis.items_per_family * recipe.num_samples
    return items + 2 * synthesis.hard_items_per_family * recipe.num_hard_samples
