"""What `frontload data pack` was asked for, what is refused at once, and what decides the bytes."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import file_sha256
from frontload.data_tools.disk.publish import check_place
from frontload.data_tools.packing.encode import DROP, SPLIT, PackRules
from frontload.data_tools.packing.steps import StepBudget
from frontload.data_tools.raw.bad_rate import MAX_BAD_RATE, check_bad_rate
from frontload.data_tools.stores.path import StorePath
from frontload.data_tools.text.chat import ChatTemplate
from frontload.data_tools.text.targets import USUAL, TargetRules
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.recipes.errors import RecipeError

POLICIES = (DROP, SPLIT)
FORMAT = 2
ONE_PACK_ONLY = ("budget_tokens", "buffer_conversations")
"""Of a request, what a plan states where it was asked for."""
MOST_TOKENS = (1 << 31) - 2  # Megatron's .idx holds int32 lengths, and a row has one token more


@dataclass(frozen=True, kw_only=True)
class PackRequest:
    """What `frontload data pack` was asked for."""

    inputs: tuple[str, ...]
    tokenizer: Path
    template: Path | None
    output: Path
    sequence_tokens: int
    over_long: str
    source_field: str
    epochs: int
    seed: int
    workers: int
    max_bad_rate: float = MAX_BAD_RATE
    budget_tokens: int = 0  # instead of epochs; 0 = by epochs. Rows with their padding, or ...
    step_budget: StepBudget | None = None  # ... real tokens, spread over steps
    buffer_conversations: int = 0  # placed together; 0 = all
    targets: TargetRules = USUAL
    day: date | None = None  # that a template writes, where it writes one
    max_lost_rate: float = 1.0  # more rows lost than that, for their length too: nothing is made


def check_pack(request: PackRequest) -> None:
    """Refuses numbers, words and folders that cannot work.

    Raises: RecipeError.
    """
    for option, found in (
        ("--sequence-tokens", request.sequence_tokens),
        ("--epochs", request.epochs),
        ("--workers", request.workers),
    ):
        if found < 1:
            raise RecipeError(
                option, found=str(found), rule="it is at least 1", do="write 1 or more"
            )
    if request.sequence_tokens > MOST_TOKENS:
        raise RecipeError(
            "--sequence-tokens",
            found=str(request.sequence_tokens),
            rule=f"lengths are stored in 32 bits, so a row has {MOST_TOKENS} tokens at most",
            do="write for example 32768",
        )
    check_bad_rate(request.max_bad_rate)
    if not 0 <= request.max_lost_rate <= 1:
        raise RecipeError(
            f"--max-lost-rate {request.max_lost_rate:g}",
            found="no share",
            rule="it is from 0 to 1, a share of the rows",
            do="write for example 0.5",
        )
    if request.step_budget is None and request.budget_tokens % request.sequence_tokens:
        down = request.budget_tokens // request.sequence_tokens * request.sequence_tokens
        raise RecipeError(
            "pack.tokens",
            found=str(request.budget_tokens),
            rule=f"it is a positive multiple of sequence_tokens {request.sequence_tokens}",
            do=f"write {max(down, request.sequence_tokens)}",
        )
    if request.over_long not in POLICIES:
        raise RecipeError(
            "--over-long",
            found=repr(request.over_long),
            rule=f"it is one of {', '.join(POLICIES)}; no conversation is truncated",
            do=f"write {DROP}, or {SPLIT} to cut dialogues before a user's turn",
        )
    check_place(request.output, asked="--output")


def pack_plan(
    request: PackRequest,
    files: Sequence[Path],
    *,
    tokenizer: TextTokenizer,
    template: ChatTemplate,
) -> dict[str, Any]:
    """All that decides the bytes. Files are named without their folders."""
    inputs = []
    for file in files:
        digest = file_sha256(file)
        inputs.append({"name": file.name, "sha256": digest, "size_bytes": file.stat().st_size})
        if isinstance(file, StorePath):
            inputs[-1] |= {"url": str(file), "version": file.stored().version}
    plan = {
        "format": FORMAT,
        "inputs": inputs,
        "tokenizer_sha256": tokenizer.sha256(),
        "vocab_size": tokenizer.vocab_size,
        "template": template.name,
        "template_sha256": template.sha256,
        "reasoning": template.reasoning_field or "<think>",
        "sequence_tokens": request.sequence_tokens,
        "over_long": request.over_long,
        "source_field": request.source_field,
        "epochs_asked": request.epochs,
        "seed": request.seed,
        **{name: asked for name in ONE_PACK_ONLY if (asked := getattr(request, name))},
        **({"step_budget": asdict(request.step_budget)} if request.step_budget else {}),
        **_stated_targets(request),
    }
    text = json.dumps(plan, sort_keys=True)
    return plan | {"plan_sha256": hashlib.sha256(text.encode()).hexdigest()}


def _stated_targets(request: PackRequest) -> dict[str, Any]:
    """What was asked for otherwise than usual."""
    asked = {
        name: value
        for name, value in vars(request.targets).items()
        if value != getattr(USUAL, name)
    }
    return asked | ({"day": request.day.isoformat()} if request.day else {})


def pack_rules(request: PackRequest) -> PackRules:
    """What decides the sequences of a request."""
    return PackRules(
        sequence_tokens=request.sequence_tokens,
        over_long=request.over_long,
        source_field=request.source_field,
        targets=request.targets,
    )
