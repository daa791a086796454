"""What a job asks of its nodes, as a command line for `preflight.py`, which looks at each."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a job asks of a node."""

    actor: str
    rollout: str
    is_hybrid: bool
    gpus: int
    context_tokens: int
    prompt_tokens: int
    model: Path
    files: tuple[Path, ...]  # of prompts


def arguments_of(need: Need) -> tuple[str, ...]:
    """The command line that asks for these checks."""
    flags = ("--hybrid",) if need.is_hybrid else ()
    files = ("--prompts", *map(str, need.files)) if need.files else ()
    return (
        *("--actor", need.actor, "--rollout", need.rollout, "--gpus", str(need.gpus)),
        *("--context", str(need.context_tokens), "--prompt-tokens", str(need.prompt_tokens)),
        *("--model", str(need.model), *flags, *files),
    )
