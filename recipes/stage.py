"""Stage, its canonical form and its key. No disk, no clock."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from frontload.recipes import schema
from frontload.recipes.runs import allocation
from frontload.recipes.runs.curation import Curation
from frontload.recipes.runs.grpo import MARKS, GrpoRecipe
from frontload.recipes.runs.suite import BenchmarkRows, SuiteRun

REVISION: dict[str, int] = {
    "synthesize": 2,  # split by matter, orders in base text, items of the trained families only
    "import_raw": 1,
    "import_tokenizer": 1,
    "import_own": 3,  # no choice items, line ends as \n, near copies of held-out questions found
    "tokenizer": 1,
    "curate": 1,
    "curate_sets": 1,
    "index": 1,
    "blend": 1,
    "pack": 2,  # pack.json and origin.npy of `data pack`; rows moved where one was over-long
    "rl_prompts": 1,
    "crossthink": 2,  # gold answers such as `(b) rome` or `{B}` name their option
    "pretrain": 4,  # heads that forget within a token or a chunk: rows of their own
    "sft": 4,  # as pretrain
    "convert": 2,  # a chunk that covers the trained length; marks that servers show
    "grpo": 4,  # as pretrain
    "evaluate": 1,
    "own_samples": 1,
    "set_loss": 1,
    "decide": 1,
    "register": 1,
    "conclude": 1,
    "readings": 1,
    "import_benchmarks": 1,
    "benchmarks": 2,  # evaluation.json with every gate, and the digest of the sampling
    "tabulate": 6,  # FLOPs without masked weights; what SFT forgets; whose draw of the data
}
"""Raise a number, with a line here saying what changed, when a stage means something else."""

BF16_BRANCH_REVISION = 5  # goes on with the float32 masters of its start, not with their bf16 copy
"""Of `pretrain` from a checkpoint in bf16 or FP8: float32 has no masters, so its bytes stayed."""

BOXED_REWARD_REVISION = 5  # decimals exact, tiny values told apart, no box of unclosed thinking
"""Of `grpo` with boxed answers: the families behind the template's marks are graded as before."""

RECIPE_TYPES: dict[str, type] = {
    "synthesize": schema.Synthesis,
    "import_own": schema.OwnData,
    "import_raw": schema.RawFiles,
    "import_tokenizer": schema.GivenTokenizer,
    "tokenizer": schema.Tokenizer,
    "curate": schema.Mix,
    "curate_sets": Curation,
    "index": schema.Index,
    "blend": schema.Blend,
    "pack": schema.Pack,
    "rl_prompts": schema.RlPrompts,
    "crossthink": schema.CrossThink,
    "pretrain": schema.Pretrain,
    "sft": schema.Sft,
    "convert": schema.Export,
    "grpo": GrpoRecipe,
    "evaluate": schema.Evaluate,
    "own_samples": schema.OwnSamples,
    "set_loss": schema.SetLossRecipe,
    "decide": allocation.Decide,
    "register": allocation.Register,
    "conclude": allocation.Conclude,
    "readings": allocation.Readings,
    "import_benchmarks": BenchmarkRows,
    "benchmarks": SuiteRun,
    "tabulate": schema.Tabulate,
}


def revision_of(kind: str, recipe: Any) -> int:
    """The revision that a stage's key is made of."""
    if kind == "pretrain" and recipe.start_sample and recipe.training.precision != "fp32":
        return BF16_BRANCH_REVISION
    if kind == "grpo" and recipe.reward_layout != MARKS:
        return BOXED_REWARD_REVISION
    return REVISION[kind]


def canonical(value: Any, where: str = "recipe") -> Any:
    """The JSON form of a recipe that is hashed: keys sorted, neutral fields left out.

    Raises: TypeError naming the field, for a value without a stable form.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found: dict[str, Any] = {}
        for item in dataclasses.fields(value):
            current = getattr(value, item.name)
            if "neutral" in item.metadata and current == item.metadata["neutral"]:
                continue
            found[item.name] = canonical(current, f"{where}.{item.name}")
        return found
    if isinstance(value, Mapping):
        return {str(key): canonical(value[key], f"{where}.{key}") for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [canonical(item, f"{where}[{place}]") for place, item in enumerate(value)]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"{where} is a {type(value).__name__}, which has no stable form to hash")


def payload_of(kind: str, recipe: Any, keys: Mapping[str, str]) -> dict[str, Any]:
    """What the key of a stage is made of; `keys` are those of its inputs by role."""
    return {
        "kind": kind,
        "revision": revision_of(kind, recipe),
        "recipe": canonical(recipe),
        "inputs": {role: keys[role] for role in sorted(keys)},
    }


def key_of(payload: Mapping[str, Any]) -> str:
    """The first 12 hexadecimal digits of the sha256 of a canonical payload."""
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One node of a study: what to make (recipe) from what (inputs).

    `label` is for people and is not hashed. `inputs` maps a role to the stage that fills it.
    """

    kind: str
    label: str
    recipe: Any
    inputs: Mapping[str, "Stage"] = field(default_factory=dict)

    def payload(self) -> dict[str, Any]:
        """What is hashed: kind, revision, recipe and the keys of the inputs by role."""
        keys = {role: below.key for role, below in self.inputs.items()}
        return payload_of(self.kind, self.recipe, keys)

    @property
    def key(self) -> str:
        """The key of its payload."""
        cached = self.__dict__.get("_key")
        if cached is None:
            cached = key_of(self.payload())
            object.__setattr__(self, "_key", cached)
        return cached

    @property
    def folder(self) -> str:
        """Where the artifact lies under the store: `<kind>/<label>-<key>`."""
        return f"{self.kind}/{self.label}-{self.key}"
