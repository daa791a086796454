"""What a stage costs before it is made: tokens, FLOPs, CPU seconds at rates measured or stated."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from frontload.launch.store import Store
from frontload.megatron_ext.pattern import forward_flops_per_token
from frontload.recipes import schema
from frontload.recipes.stage import Stage

TRAINING = ("pretrain", "sft")
BACKWARD_FACTOR = 3.0  # forward and backward in units of the forward pass

DEFAULT_SECONDS_PER_WORK: dict[str, float] = {
    "synthesize": 4e-6,
    "import_own": 1e-6,
    "tokenizer": 1e-6,
    "curate": 1e-6,
    "index": 1e-6,
    "blend": 2e-7,
    "pack": 4e-6,
    "pretrain": 1e-10,
    "sft": 1e-10,
    "evaluate": 4e-10,
    "tabulate": 5e-2,
}
"""CPU seconds a unit of work on one core where nothing was measured yet: order of magnitude. The
unit is a token for data, a floating-point operation for training and evaluation, an evaluation for
tabulate. After one run the store's own provenance takes its place."""


@dataclass(frozen=True, kw_only=True)
class Price:
    """Cost of one stage. `work` is in the unit of its kind."""

    tokens: int
    flops: float
    work: float
    cpu_seconds: float
    is_measured: bool  # the rate comes from this store's earlier runs


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
        tokens = _items(stage.inputs["corpus"], recipe) * recipe.max_new_tokens
        flops = tokens * forward_flops_per_token(model, model.max_sequence_tokens)
        return tokens, flops, flops
    if stage.kind == "tabulate":
        return 0, 0.0, float(len(stage.inputs))
    if stage.kind == "blend":
        tokens = sum(window.tokens for window in recipe.windows)
    elif stage.kind == "pack":
        tokens = recipe.tokens
    else:
        tokens = _corpus_tokens(stage)
    return tokens, 0.0, float(tokens)


def measured_rates(store: Store) -> dict[str, float]:
    """CPU seconds a unit of work by kind, over all provenance of the store."""
    seconds: dict[str, float] = {}
    work: dict[str, float] = {}
    for kind in DEFAULT_SECONDS_PER_WORK:
        for path in (store.root / "provenance" / kind).glob("*.json"):
            found = json.loads(path.read_text(encoding="utf-8"))
            seconds[kind] = seconds.get(kind, 0.0) + found["cpu_seconds"]
            work[kind] = work.get(kind, 0.0) + found["work"]
    return {kind: seconds[kind] / work[kind] for kind in seconds if work[kind] > 0}


def price_stages(stages: Sequence[Stage], rates: Mapping[str, float]) -> dict[str, Price]:
    """Key -> price of each stage."""
    found: dict[str, Price] = {}
    for stage in stages:
        tokens, flops, work = work_of(stage)
        rate = rates.get(stage.kind, DEFAULT_SECONDS_PER_WORK[stage.kind])
        found[stage.key] = Price(
            tokens=tokens,
            flops=flops,
            work=work,
            cpu_seconds=work * rate,
            is_measured=stage.kind in rates,
        )
    return found


def _corpus_tokens(stage: Stage) -> int:
    """Tokens of the corpus below a data stage; a stated guess for a user's own files."""
    recipe = stage.inputs["documents"].recipe if stage.kind == "index" else stage.recipe
    corpus = stage
    while corpus.inputs:
        corpus = corpus.inputs.get("corpus") or corpus.inputs["documents"]
    synthesis = corpus.recipe
    if not isinstance(synthesis, schema.Synthesis):
        return 1_000_000  # a user's files are not opened to price them
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
