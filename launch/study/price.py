"""What a stage costs before it is made: tokens, FLOPs, seconds at rates measured or stated."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from frontload.launch.store import Store
from frontload.launch.study.crew import GPU_KINDS
from frontload.recipes import schema
from frontload.recipes.facts.census import forward_flops_per_token
from frontload.recipes.machines.gpus import find_gpu
from frontload.recipes.machines.placement import Placement
from frontload.recipes.stage import Stage

TRAINING = ("pretrain", "sft")
BACKWARD_FACTOR = 3.0  # forward and backward in units of the forward pass
GRPO_FACTOR = 6.0  # the same for a rollout: sampled, scored by actor and reference, trained on

DEFAULT_SECONDS_PER_WORK: dict[str, float] = {
    "synthesize": 2.8e-6,
    "import_own": 1e-6,
    "tokenizer": 8e-7,
    "curate": 1.8e-6,
    "index": 1e-6,
    "blend": 3e-8,
    "pack": 2.7e-6,
    "rl_prompts": 2e-4,
    "pretrain": 7.6e-11,
    "sft": 7.8e-11,
    "grpo": 9.5e-11,
    "evaluate": 1.1e-10,
    "tabulate": 4e-2,
}
"""CPU seconds a unit of work where this store has measured nothing of like size. The unit is a
token for data, a prompt for rl_prompts, a floating-point operation for training and evaluation, an
evaluation for tabulate.
Found by the laptop study on one x86 core."""

DEFAULT_FIXED_SECONDS = {"grpo": 60.0}
"""CPU seconds before the first unit of work: veRL's processes start (tests/bench/bench_rl.py)."""

GPU_FIXED_SECONDS = {"pretrain": 6.0, "sft": 6.0, "evaluate": 12.0}
"""Seconds of a GPU before and after the work that its rate prices: a checkpoint read and written,
and kernels loaded; of an evaluation, the steps of generation too, which launching bounds and not
arithmetic, and grading. Assumed: never run on a GPU."""

OWN_TOKENS = 1_000_000
"""Taken for the size of a user's own files, which are not tokenised to price them."""

TERA = 1e12

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
    seconds: float  # of one core; on a GPU, of the GPUs that the stage holds
    is_measured: bool  # the rate comes from this store's earlier runs
    on_gpu: bool = False


def work_of(stage: Stage) -> tuple[int, float, float]:
    """Tokens, FLOPs and units of work of a stage, from recipes alone."""
    recipe = stage.recipe
    if stage.kind in TRAINING:
        tokens = recipe.num_samples * recipe.training.sequence_tokens
        forward = forward_flops_per_token(recipe.model, recipe.training.sequence_tokens)
        flops = BACKWARD_FACTOR * forward * tokens
        return tokens, flops, flops
    if stage.kind == "evaluate":
        model = stage.inputs["checkpoint"].recipe.model
        answer = min(recipe.max_new_tokens, model.max_sequence_tokens)
        tokens = _items(stage.inputs["corpus"], recipe) * answer
        flops = tokens * forward_flops_per_token(model, model.max_sequence_tokens)
        return tokens, flops, flops
    if stage.kind == "grpo":
        tokens = recipe.most_tokens  # answers that end early cost less
        flops = GRPO_FACTOR * tokens * forward_flops_per_token(recipe.model, recipe.context_tokens)
        return tokens, flops, flops
    if stage.kind == "rl_prompts":
        return 0, 0.0, float(recipe.num_prompts)
    if stage.kind == "tabulate":
        return 0, 0.0, float(len(stage.inputs))
    if stage.kind == "blend":
        tokens = sum(window.tokens for window in recipe.windows)
    elif stage.kind == "pack":
        tokens = recipe.tokens
    else:
        tokens = _corpus_tokens(stage)
    return tokens, 0.0, float(tokens)


def read_measured(store: Store, placement: Placement) -> Measured:
    """What the stages of this store took, from its provenance, where they ran as placed here."""
    measured: dict[str, list[tuple[float, float]]] = {}
    for kind in DEFAULT_SECONDS_PER_WORK:
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


def _hardware(placement: Mapping[str, Any]) -> Any:
    """What a measured rate holds for: none on a CPU, whose seconds count every core's."""
    gpus = placement["gpus"]
    if gpus is None:
        return None
    parts = ("ranks_per_node", "kernels", "stages_per_gpu")
    return gpus["kind"], *(placement.get(part, 1) for part in parts)


def price_stages(
    stages: Sequence[Stage], measured: Measured, *, placement: Placement
) -> dict[str, Price]:
    """Key -> price of each stage."""
    found: dict[str, Price] = {}
    for stage in stages:
        tokens, flops, work = work_of(stage)
        rate = _measured_rate(work, measured.get(stage.kind, ()))
        found[stage.key] = Price(
            tokens=tokens,
            flops=flops,
            work=work,
            seconds=_default(stage.kind, work, placement) if rate is None else work * rate,
            is_measured=rate is not None,
            on_gpu=is_on_gpu(stage.kind, placement),
        )
    return found


def _default(kind: str, work: float, placement: Placement) -> float:
    """Seconds at the stated rates: on a GPU the placement's share of the data sheet's."""
    gpus = placement.gpus
    if gpus is not None and kind in GPU_KINDS:
        ranks = placement.ranks_per_node if kind in TRAINING else 1
        rate = find_gpu(gpus.kind).bf16_tflops * TERA * gpus.kernel_mfu * ranks
        return GPU_FIXED_SECONDS[kind] + work / rate
    return DEFAULT_FIXED_SECONDS.get(kind, 0.0) + work * DEFAULT_SECONDS_PER_WORK[kind]


def _measured_rate(work: float, measured: Sequence[tuple[float, float]]) -> float | None:
    """Seconds a unit of work over the stages of like size; None if there is none."""
    like = [one for one in measured if work / LIKE_SIZE <= one[0] <= work * LIKE_SIZE]
    total = sum(one[0] for one in like)
    return sum(one[1] for one in like) / total if total > 0 else None


def _corpus_tokens(stage: Stage) -> int:
    """Tokens of the corpus below a data stage; a stated guess for a user's own files."""
    recipe = stage.inputs["documents"].recipe if stage.kind == "index" else stage.recipe
    corpus = stage
    while corpus.inputs:
        corpus = corpus.inputs.get("corpus") or corpus.inputs["documents"]
    synthesis = corpus.recipe
    if not isinstance(synthesis, schema.Synthesis):
        return OWN_TOKENS
    sizes = {
        "base": synthesis.base_tokens,
        "ldq": synthesis.ldq.tokens,
        "shq": synthesis.shq.tokens,
    }
    members = recipe.members if isinstance(recipe, schema.Mix) else tuple(sizes)
    return sum(sizes[member] for member in members)


def _items(corpus: Stage, recipe: schema.Evaluate) -> int:
    """Generations (or scored items) of one evaluation."""
    synthesis = corpus.recipe
    if not isinstance(synthesis, schema.Synthesis):
        return corpus.recipe.heldout_rows * recipe.num_samples
    families = len(synthesis.ldq.families)
    items = families * synthesis.items_per_family * recipe.num_samples
    return items + 2 * synthesis.hard_items_per_family * recipe.num_hard_samples
