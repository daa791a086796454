"""The job of a stage as Slurm and the stage's own folders show it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class JobState:
    """A job that was submitted for a stage."""

    number: str
    state: str  # Slurm's word: PENDING, RUNNING, ...; "" once Slurm has forgotten it
    step: int = 0  # of training, the last that was logged; 0 = none
    steps: int = 0  # of the whole stage
    tokens_per_second: float = 0.0  # of all ranks, in the last logged step

    @property
    def is_alive(self) -> bool:
        """It waits or runs."""
        return self.state in ALIVE


ALIVE = (
    *("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED", "REQUEUE_HOLD"),
    *("RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED", "SPECIAL_EXIT"),
)
"""Slurm's states of a job that has not ended for good (man squeue, "JOB STATE CODES")."""
