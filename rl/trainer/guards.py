"""What veRL, vLLM or transformers would accept and run wrongly, each refused with its reason.

`check_parts` looks at recipe and placement, `check_rendered` at the settings as veRL will read
them, a user's own included. The reasons name what was read or run; see rl/cluster/README.md.
"""

from collections.abc import Iterator, Mapping

from frontload.recipes.errors import RecipeError
from frontload.recipes.machines.placement import Placement
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.rl.trainer.hydra import plain_text

SSM_CACHE = "mamba_ssm_cache_dtype"
PACKING = (
    "actor_rollout_ref.model.use_remove_padding",
    "actor_rollout_ref.actor.use_remove_padding",
    "actor_rollout_ref.actor.megatron.use_remove_padding",
    "actor_rollout_ref.ref.megatron.use_remove_padding",
)
NEEDS_PACKING = (
    "actor_rollout_ref.actor.ulysses_sequence_parallel_size",
    "actor_rollout_ref.ref.ulysses_sequence_parallel_size",
    "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size",
    "actor_rollout_ref.actor.megatron.context_parallel_size",
)
FSDP_LEAK = (
    "a hybrid on FSDP is trained on padded rows: transformers' nemotron_h takes no sequence index, "
    "so in packed rows the state of one sample runs into the next"
)
MEGATRON_LEAK = (
    "a hybrid on Megatron is trained on padded rows: veRL 0.9.1 builds packed parameters without "
    "`total_tokens`, without which megatron-core makes no sequence index and the state of one "
    "sample runs into the next"
)


def check_parts(recipe: GrpoRecipe, placement: Placement) -> None:
    """Refuses a recipe on machines that cannot run it.

    Raises: RecipeError naming both numbers, or the two parts that do not go together.
    """
    if recipe.rollout == "frontload":
        _check_cpu(recipe, placement)
    if recipe.actor == "megatron" and recipe.precision != "bf16":
        raise RecipeError(
            "precision",
            found=f"is {recipe.precision} with actor megatron",
            rule="veRL's Megatron engine computes in bf16 only",
            do="write bf16, or `actor: fsdp2`",
        )
    for knob in ("tensor_parallel", "pipeline_parallel"):
        if recipe.actor == "fsdp2" and getattr(placement, knob) != 1:
            raise RecipeError(
                f"placement.{knob}",
                found=f"is {getattr(placement, knob)} with actor fsdp2",
                rule="FSDP2 cuts weights over all ranks and layers over none; it would be ignored",
                do="write 1, or `actor: megatron`",
            )
    if placement.context_parallel != 1:
        raise RecipeError(
            "placement.context_parallel",
            found=f"is {placement.context_parallel}",
            rule="veRL splits a sequence over ranks only when rows are packed, and a hybrid's "
            "state leaks between packed samples",
            do="write 1",
        )
    _check_division(recipe, placement)
    if placement.slurm and "file" not in placement.rl.loggers:
        raise RecipeError(
            "placement.rl.loggers",
            found=f"are {', '.join(placement.rl.loggers)}",
            rule="the file that veRL logs its steps to shows a run that makes no step, and the "
            "checkpoint's metrics are read from it",
            do="add file",
        )


def _check_cpu(recipe: GrpoRecipe, placement: Placement) -> None:
    if recipe.actor != "fsdp2":
        raise RecipeError(
            "actor",
            found=f"is {recipe.actor} with rollout frontload",
            rule="the CPU plug-in trains with FSDP2",
            do="write `actor: fsdp2`, or `rollout: vllm`",
        )
    if placement.world_size != 1 or placement.slurm is not None:
        where = "Slurm" if placement.slurm is not None else f"{placement.world_size} ranks"
        raise RecipeError(
            f"placement {placement.name}",
            found=f"{where} for rollout frontload",
            rule="the CPU plug-in generates in one process of this machine",
            do="choose placement cpu, or write `rollout: vllm`",
        )


def _check_division(recipe: GrpoRecipe, placement: Placement) -> None:
    model_ranks = placement.tensor_parallel * placement.pipeline_parallel
    if placement.world_size % model_ranks:
        raise RecipeError(
            "placement.tensor_parallel",
            found=f"a model on {model_ranks} of {placement.world_size} ranks",
            rule="copies of the model share the ranks evenly",
            do="change tensor_parallel, pipeline_parallel or the number of ranks",
        )
    copies = placement.world_size // model_ranks
    sequences = recipe.mini_batch_prompts * recipe.grpo.rollouts_per_prompt
    if sequences % copies:
        raise RecipeError(
            "mini_batch_prompts",
            found=f"{recipe.mini_batch_prompts} x {recipe.grpo.rollouts_per_prompt} sequences "
            f"for {copies} copies of the model",
            rule="every copy gets the same number of sequences",
            do="change the number of ranks, or the mini-batch",
        )
    micro = placement.micro_batch_sequences
    if micro and sequences // copies % micro:
        raise RecipeError(
            "placement.micro_batch_sequences",
            found=f"{micro} does not divide the {sequences // copies} sequences of a rank",
            rule="a mini-batch is whole micro-batches",
            do="write a divisor, or 0 for the whole share",
        )
    engine = placement.rl.rollout_tensor_parallel
    if engine < 1 or placement.ranks_per_node % engine:
        raise RecipeError(
            "placement.rl.rollout_tensor_parallel",
            found=f"{engine} does not divide the {placement.ranks_per_node} ranks of a node",
            rule="a rollout engine stays inside a node",
            do=f"write a divisor of {placement.ranks_per_node}",
        )


def check_rendered(recipe: GrpoRecipe, placement: Placement, rendered: Mapping[str, str]) -> None:
    """Refuses settings that veRL takes and runs wrongly. Keys may carry Hydra's leading +.

    Raises: RecipeError with the setting, its value, the reason and what to write.
    """
    settings = {key.lstrip("+"): plain_text(text) for key, text in rendered.items()}
    for refusal in _refusals(recipe, settings):
        raise refusal
    if placement.slurm is None and settings.get("ray_kwargs.ray_init.address", "local") != "local":
        raise _refuse(
            settings,
            "ray_kwargs.ray_init.address",
            rule="without Slurm the run starts its own Ray, on this machine only",
            do="remove it",
        )


def _refusals(recipe: GrpoRecipe, settings: Mapping[str, str]) -> Iterator[RecipeError]:
    if recipe.is_hybrid:
        yield from _packing(recipe, settings)
    if recipe.is_hybrid and recipe.rollout == "vllm":
        yield from _vllm_hybrid(settings)
    if recipe.rollout == "frontload":
        yield from _chunks(recipe, settings)
    contents = "actor_rollout_ref.actor.checkpoint.save_contents"
    if "hf_model" in settings.get(contents, ""):
        yield _refuse(
            settings,
            contents,
            rule="veRL writes `hf_model` in bf16 whatever was trained, and transformers 5.10 names "
            "its embedding so that vLLM and newer transformers draw a random one instead",
            do="save model, optimizer and extra, and export with the project's converter",
        )
    shards = "actor_rollout_ref.actor.megatron.use_dist_checkpointing"
    if settings.get(shards, "false") not in ("false", "0", "no", "off"):
        yield _refuse(
            settings,
            shards,
            rule="the stage's checkpoint is made of the Hugging Face folder that Megatron-Bridge "
            "writes; with this setting veRL writes Megatron's shards in its place",
            do="remove it",
        )
    for role in ("actor", "ref"):
        key = f"actor_rollout_ref.{role}.fsdp_config.dtype"
        if key in settings:
            yield _refuse(
                settings,
                key,
                rule="veRL's FSDP engine does not read it: it computes in mixed_precision's dtype",
                do="change `precision` of the recipe",
            )


def _packing(recipe: GrpoRecipe, settings: Mapping[str, str]) -> Iterator[RecipeError]:
    leak = FSDP_LEAK if recipe.actor == "fsdp2" else MEGATRON_LEAK
    for key in PACKING:
        if settings.get(key) in ("true", "1", "yes", "on"):
            yield _refuse(settings, key, rule=leak, do="write false")
    for key in NEEDS_PACKING:
        if settings.get(key, "1") not in ("1", "null"):
            yield _refuse(settings, key, rule=f"it needs packed rows, and {leak}", do="write 1")


def _vllm_hybrid(settings: Mapping[str, str]) -> Iterator[RecipeError]:
    cache = f"actor_rollout_ref.rollout.engine_kwargs.vllm.{SSM_CACHE}"
    if settings.get(cache) != "float32":
        yield _refuse(
            settings,
            cache,
            rule="vLLM keeps the state of Mamba layers in float32: in bf16 its error grows with "
            "every token and the rollout is no longer the actor's",
            do="write float32",
        )
    caching = "actor_rollout_ref.rollout.enable_prefix_caching"
    if settings.get(caching) != "false":
        yield _refuse(
            settings,
            caching,
            rule="vLLM calls prefix caching of Mamba layers experimental, and veRL's default is on",
            do="write false",
        )
    backend = "actor_rollout_ref.rollout.checkpoint_engine.backend"
    if settings.get(backend) != "naive":
        yield _refuse(
            settings,
            backend,
            rule="weights go to vLLM as whole named tensors: its layer-by-layer reload leaves out "
            "parameters of NemotronH (`mixer.D`), which then are not numbers",
            do="write naive",
        )


def _chunks(recipe: GrpoRecipe, settings: Mapping[str, str]) -> Iterator[RecipeError]:
    chunk = "actor_rollout_ref.model.override_config.chunk_size"
    found = settings.get(chunk, str(recipe.model.mamba_chunk_tokens))
    if recipe.is_hybrid and not (found.isdigit() and int(found) >= recipe.context_tokens):
        yield RecipeError(
            chunk,
            found=f"is {found} for sequences of up to {recipe.context_tokens} tokens",
            rule="on a CPU transformers 5.10 computes a wrong state past one chunk",
            do=f"write {recipe.context_tokens} or more: the result does not depend on it",
        )


def _refuse(settings: Mapping[str, str], key: str, *, rule: str, do: str) -> RecipeError:
    return RecipeError(
        f"veRL setting {key}", found=f"is {settings.get(key, 'not set')}", rule=rule, do=do
    )
