"""What a node must have before Ray and veRL start on it: versions, kernels, GPUs, a loadable model.

Run on every node of a job: python -m frontload.rl.cluster.preflight --actor fsdp2 --model DIR ...
"""

import argparse
import importlib
import json
import platform
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from frontload.data_tools.prompts.length import load_limit
from frontload.data_tools.prompts.rl_parquet import check_prompts
from frontload.recipes.errors import FrontloadError, RecipeError, StageError
from frontload.rl.cluster.need import Need

VERL = "0.9.1"
TRANSFORMERS = ((5, 5, 3), (5, 11))  # veRL 0.9.1's own bounds: from, and below
TRANSFORMERS_BAD = (5, 6, 0)  # veRL 0.9.1 excludes it
VLLM_LEAST = (0, 18)  # below it veRL 0.9.1 does not import its rollout
BRIDGE_LEAST = (0, 6, 2)  # maps NemotronHForCausalLM; 0.5.2, which veRL pins, is not published
KERNELS = ("mamba-ssm", "causal-conv1d")
EMBEDDING = "backbone.embeddings.weight"
PACKAGES = ("verl", "transformers", "TransferQueue", "torch", "vllm", "megatron-bridge")
PACKAGES += ("transformer-engine", "flash-attn")


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks this node and says everything that is wrong with it. Exit code 0: nothing is."""
    need = _parse(arguments)
    problems = [
        *software_problems(need, found := installed()),
        *torch_problems(need, found),
        *kernel_problems(need),
        *gpu_problems(need),
        *model_problems(need),
        *prompt_problems(need),
    ]
    for problem in problems:
        print(f"frontload: {platform.node()}: {problem}", file=sys.stderr)
    return max((problem.exit_code for problem in problems), default=0)


def _parse(arguments: Sequence[str] | None) -> Need:
    parser = argparse.ArgumentParser(prog="preflight", allow_abbrev=False)
    parser.add_argument("--actor", required=True)
    parser.add_argument("--rollout", required=True)
    parser.add_argument("--hybrid", action="store_true", help="the model has Mamba layers")
    parser.add_argument("--gpus", type=int, default=0, help="that this node must have")
    parser.add_argument("--context", type=int, required=True, help="longest sequence in tokens")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--prompt-tokens", type=int, required=True, help="of the longest prompt")
    parser.add_argument("--prompts", type=Path, nargs="*", default=[], help="parquet files")
    options = parser.parse_args(arguments)
    return Need(
        actor=options.actor,
        rollout=options.rollout,
        is_hybrid=options.hybrid,
        gpus=options.gpus,
        context_tokens=options.context,
        prompt_tokens=options.prompt_tokens,
        model=options.model,
        files=tuple(options.prompts),
    )


def installed() -> dict[str, str]:
    """Versions of the packages that matter; what is absent is left out."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def numbers(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: "5.10.4.dev0" is (5, 10, 4)."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def software_problems(need: Need, found: Mapping[str, str]) -> Iterator[FrontloadError]:
    """What is missing, or of a version that is known not to work."""
    if found.get("verl") != VERL:
        yield _wrong(found, "verl", f"settings are rendered for veRL {VERL}", f"verl=={VERL}")
    have = numbers(found.get("transformers", ""))
    if not TRANSFORMERS[0] <= have < TRANSFORMERS[1] or have == TRANSFORMERS_BAD:
        rule = "veRL 0.9.1 runs with transformers 5.5.3 to 5.10, without 5.6.0"
        yield _wrong(found, "transformers", rule, "transformers==5.10.4")
    if need.rollout == "vllm" and numbers(found.get("vllm", "")) < VLLM_LEAST:
        yield _wrong(found, "vllm", "veRL 0.9.1 generates with vLLM 0.18 or newer", "vllm==0.24.0")
    if need.actor == "megatron" and numbers(found.get("megatron-bridge", "")) < BRIDGE_LEAST:
        rule = "veRL's Megatron engine reads NemotronH through Megatron-Bridge 0.6.2 or newer"
        yield _wrong(found, "megatron-bridge", rule, "megatron-bridge==0.6.2")
    for name, rule in wanted(need).items():
        if name not in found:
            yield _wrong(found, name, rule, name)


def wanted(need: Need) -> dict[str, str]:
    """Packages of any version that veRL imports on the way, and what for."""
    names = {"TransferQueue": "veRL's trainer imports it, and its base package does not bring it"}
    if need.actor == "megatron":
        names["transformer-engine"] = "Megatron-Bridge imports it (peft/lora_layers.py:20)"
    elif need.gpus:  # verl workers/config/model.py:185
        names["flash-attn"] = "veRL's FSDP actor loads its model with flash_attention_2"
    return names


def torch_problems(need: Need, found: Mapping[str, str]) -> Iterator[FrontloadError]:
    """vLLM's kernels are built for one version of torch, which its package names."""
    if need.rollout != "vllm" or "vllm" not in found:
        return
    asked = [one for one in map(Requirement, requires("vllm") or []) if one.name == "torch"]
    for one in asked:
        is_here = one.marker is None or one.marker.evaluate()
        if is_here and not one.specifier.contains(found.get("torch", "0"), prereleases=True):
            rule = f"vLLM {found['vllm']} is built for torch{one.specifier}"
            yield _wrong(found, "torch", rule, f"torch{one.specifier}, or another vLLM")


def _wrong(found: Mapping[str, str], name: str, rule: str, package: str) -> StageError:
    have = f"version {found[name]}" if name in found else "not installed"
    return StageError(name, found=have, rule=rule, do=f"install {package}")


def kernel_problems(need: Need) -> Iterator[FrontloadError]:
    """transformers' nemotron_h must find its CUDA kernels: its plain path is wrong past a chunk."""
    if not (need.is_hybrid and need.actor == "fsdp2" and need.gpus):
        return
    load = importlib.import_module("transformers.integrations.hub_kernels").lazy_load_kernel
    missing = [name for name in KERNELS if load(name) is None]
    if missing:
        yield StageError(
            "kernels of transformers",
            found=f"{' and '.join(missing)} cannot be loaded",
            rule="without them transformers 5.10 computes Mamba layers in plain torch, slowly and "
            "with a wrong state past one chunk",
            do="install mamba-ssm and causal-conv1d built for this torch and CUDA",
        )


def gpu_problems(need: Need) -> Iterator[FrontloadError]:
    """The node shows the GPUs that the job was given."""
    if not need.gpus:
        return
    count = importlib.import_module("torch").cuda.device_count()
    if count != need.gpus:
        yield StageError(
            "GPUs of this node",
            found=f"torch sees {count}",
            rule=f"the placement has {need.gpus} a node",
            do="check the driver, the container's GPU access, or placement.ranks_per_node",
        )


def prompt_problems(need: Need) -> Iterator[FrontloadError]:
    """Every prompt file can be read from here, and its prompts are no longer than the recipe's."""
    for path in need.files:
        if not path.is_file():
            yield RecipeError(
                str(path),
                found="no such file on this node",
                rule="every node reads the prompts",
                do="put it on the shared folder",
            )
            continue
        try:
            check_prompts(path, load_limit(need.model, need.prompt_tokens))
        except FrontloadError as error:
            yield error


def model_problems(need: Need) -> Iterator[FrontloadError]:
    """The start model is one that transformers and vLLM load whole, and long enough."""
    config_file = need.model / "config.json"
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        names = tensor_names(need.model)
    except (OSError, ValueError, KeyError) as error:
        yield RecipeError(
            str(need.model),
            found=f"is not a Hugging Face model folder ({error})",
            rule="RL starts from config.json and safetensors",
            do="export the checkpoint with `frontload convert to-hf`",
        )
        return
    if need.is_hybrid and config.get("model_type") != "nemotron_h":
        yield RecipeError(
            str(config_file),
            found=f"model_type is {config.get('model_type')}",
            rule="the recipe's model has Mamba layers, which is nemotron_h",
            do="give the export of the recipe's model",
        )
    if need.is_hybrid and EMBEDDING not in names:
        yield RecipeError(
            str(need.model),
            found=f"{EMBEDDING} is not among its tensors",
            rule="under any other name vLLM and newer transformers draw a random embedding; "
            "transformers 5.10's own save_pretrained writes such a name",
            do="export the checkpoint with `frontload convert to-hf`",
        )
    longest = config.get("max_position_embeddings", 0)
    if need.rollout == "vllm" and longest < need.context_tokens:
        yield RecipeError(
            str(config_file),
            found=f"max_position_embeddings is {longest}",
            rule=f"vLLM refuses sequences of {need.context_tokens} tokens with it",
            do=f"export with {need.context_tokens} or more, or shorten the recipe's context",
        )


def tensor_names(model: Path) -> frozenset[str]:
    """Names of all tensors of a folder, from its index or the header of its one file.

    Raises: OSError or ValueError if neither can be read.
    """
    index = model / "model.safetensors.index.json"
    if index.is_file():
        return frozenset(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    path = model / "model.safetensors"
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > path.stat().st_size:
            raise ValueError(f"{path.name} is torn")
        header = json.loads(file.read(size))
    return frozenset(header) - {"__metadata__"}


if __name__ == "__main__":
    sys.exit(main())
