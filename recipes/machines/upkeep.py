"""Upkeep: how a long run saves itself, watches itself and tells how it goes. Never hashed."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Upkeep:
    """Moves no weight: a run with another upkeep ends with the same bytes, or stops."""

    checkpoint_every_steps: int = 0  # 0 = by the placement's checkpoint_every_seconds alone
    keep_last: int = 1  # newest checkpoints of an unfinished stage
    keep_every_steps: int = 0  # checkpoints at multiples of this stay as well; 0 = none
    asynchronous: bool = False  # a thread writes them while training goes on
    spike_window_steps: int = 0  # losses that a step is compared with; 0 = no look-out for spikes
    spike_deviations: float = 0.0  # robust deviations above the window's median that stop the run
    rank_log_every_steps: int = 0  # every rank logs its own pace; 0 = never
    hang_seconds: float = 300.0  # a rank that stands still this long in a step is killed; 0 = none
    pause_seconds: float = 1_800.0  # as long may start, first step, save and every collective last
    tensorboard: bool = False
    wandb_project: str = ""  # "" = Weights & Biases is off
