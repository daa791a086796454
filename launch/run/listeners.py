"""Who hears the metrics of a training run beside its files: the terminal, TensorBoard, W&B."""

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frontload.launch.stage.workspace import Listener
from frontload.recipes.errors import RecipeError

SAID_EVERY_SECONDS = 10.0
ID_DIGITS = 16


class Teller:
    """Prints a line now and then, and the last: loss, pace, utilisation, the slowest rank."""

    def __init__(
        self, name: str, *, num_steps: int, every_seconds: float = SAID_EVERY_SECONDS
    ) -> None:
        self._name, self._num_steps, self._every = name, num_steps, every_seconds
        self._said_at = float("-inf")
        self._known: dict[str, float] = {}

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Hears the metrics of a step."""
        self._known.update(metrics)
        if "train/loss" not in metrics:
            return
        now = time.monotonic()
        if step == self._num_steps or now - self._said_at >= self._every:
            self._said_at = now
            print(f"{self._name}: " + self._line(step), flush=True)

    def _line(self, step: int) -> str:
        known = self._known
        parts = [
            f"step {step} of {self._num_steps}",
            f"loss {known['train/loss']:.4f}",
            f"grad norm {known['train/grad_norm']:.3g}",
            f"lr {known['train/learning_rate']:.3g}",
        ]
        if "system/tokens_per_second" in known:
            parts.append(f"{known['system/tokens_per_second']:,.0f} tokens/s")
        if "system/model_flops_utilisation" in known:
            parts.append(f"MFU {known['system/model_flops_utilisation']:.1%}")
        if "system/slowest_rank" in known:
            ratio = known["system/slowest_rank_seconds"] / known["system/median_rank_seconds"]
            parts.append(f"slowest rank {known['system/slowest_rank']:.0f} ({ratio:.2f}x median)")
        return ", ".join(parts)


class ProgressTeller:
    """Prints how far a stage is, now and then, and its end."""

    def __init__(self, name: str, *, every_seconds: float = SAID_EVERY_SECONDS) -> None:
        self._name, self._every = name, every_seconds
        self._said_at = float("-inf")

    def __call__(self, done: int, total: int, note: str) -> None:
        """Hears where the stage is."""
        now = time.monotonic()
        if done == total or now - self._said_at >= self._every:
            self._said_at = now
            print(f"{self._name} {done} of {total}" + (f", {note}" if note else ""), flush=True)


def tensorboard_listener(folder: Path, *, first_step: int) -> Listener:
    """Writes every metric as a scalar. Events of an earlier start from `first_step` on are purged.

    Raises: RecipeError if TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise _missing("upkeep.tensorboard", "tensorboard") from error
    writer = SummaryWriter(str(folder), purge_step=first_step, flush_secs=30)

    def listen(step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)
        if "train/loss" in metrics:
            writer.flush()

    return listen


def wandb_listener(project: str, *, run: str, folder: Path, config: Mapping[str, Any]) -> Listener:
    """Sends every metric to Weights & Biases, as one run over all starts.

    Its id follows from the folder: runs of one name in two folders stay apart.

    Run offline alone (`WANDB_MODE=offline` keeps it on this disk): online it needs an account.

    Raises: RecipeError if wandb is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise _missing("upkeep.wandb_project", "wandb") from error
    folder.mkdir(parents=True, exist_ok=True)
    live = wandb.init(
        project=project,
        id=hashlib.sha256(str(folder.absolute() / run).encode()).hexdigest()[:ID_DIGITS],
        name=run,
        resume="allow",
        dir=str(folder),
        config=dict(config),
        reinit="finish_previous",  # each stage is a run of its own
    )

    def listen(step: int, metrics: Mapping[str, float]) -> None:
        live.log({**metrics, "step": step})

    return listen


def _missing(field: str, package: str) -> RecipeError:
    return RecipeError(
        field,
        found=f"{package} is not installed",
        rule="what a recipe asks for is there before the run starts",
        do=f"pip install {package}, or turn it off",
    )
