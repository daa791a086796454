"""What must hold in the `slurm` section of a placement, before any job is rendered from it."""

import re
from typing import Any

from frontload.recipes.grammar.limits import require_all_at_least
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.machines.cluster import Slurm

TIME_LIMIT = re.compile(r"(?:(\d+)-)?(\d{1,2}):([0-5]\d):([0-5]\d)")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SECRET = re.compile(
    r"KEY|TOKEN|SECRET|(?<!BY)PASS(?!IVE)|JWT|CRED|AUTH(?!OR(?:_|S|$))|BEARER|COOKIE|PRIVATE",
    re.IGNORECASE,
)
"""A name of a variable that may hold a secret: rather one too many than one on a shared disk."""
LOWEST_PORT, HIGHEST_PORT = 1_024, 65_535
SIGNAL_LATE_SECONDS = 60  # Slurm sends its warning up to a minute late
STEPS_TO_STOP = 3  # the head, the workers and the trainer
LEAST = {
    "cpus_per_node": 0,
    "num_ports": 1,
    "start_seconds": 1,
    "stop_seconds": 1,
    "max_requeues": 0,
    "max_failures": 1,
}


def check_slurm(loaded: Loaded[Any], slurm: Slurm, *, under: str) -> None:
    """Refuses what Slurm would refuse or misread, and a job that would not come back.

    Raises: RecipeError with the place, the value and the rule.
    """
    require_all_at_least(loaded, under, of=slurm, least=LEAST)
    limit = limit_seconds(slurm.time_limit)
    if limit is None:
        raise loaded.refuse(
            f"{under}.time_limit",
            found=f"is '{slurm.time_limit}'",
            rule="a limit is hours, minutes and seconds, with days in front if needed",
            do='write e.g. "04:00:00" or "2-00:00:00" in quotes',
        )
    least = SIGNAL_LATE_SECONDS + STEPS_TO_STOP * slurm.stop_seconds
    if not least <= slurm.requeue_seconds < limit:
        raise loaded.refuse(
            f"{under}.requeue_seconds",
            found=f"{slurm.requeue_seconds} of a limit of {limit} seconds",
            rule=f"the job is warned early enough to stop {STEPS_TO_STOP} steps of "
            f"{slurm.stop_seconds} seconds each before its limit: {least} seconds or more",
            do=f"write {least} or a shorter stop_seconds, with a time_limit of more",
        )
    last = slurm.first_port + slurm.num_ports - 1
    if slurm.first_port < LOWEST_PORT or last > HIGHEST_PORT:
        raise loaded.refuse(
            f"{under}.first_port",
            found=f"ports {slurm.first_port} to {last}",
            rule=f"ports of a job lie between {LOWEST_PORT} and {HIGHEST_PORT}",
            do="lower first_port or num_ports"
            if last > HIGHEST_PORT
            else f"write {LOWEST_PORT} or more",
        )
    _check_variables(loaded, slurm, under)
    _check_texts(loaded, slurm, under)


def limit_seconds(text: str) -> int | None:
    """Seconds of a limit written HH:MM:SS or D-HH:MM:SS; None for another form.

    Slurm reads "30" as minutes and "1:30" as a minute, so neither is one here.
    """
    match = TIME_LIMIT.fullmatch(text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _check_variables(loaded: Loaded[Any], slurm: Slurm, under: str) -> None:
    for name in slurm.environment:
        if not NAME.fullmatch(name) or SECRET.search(name):
            raise loaded.refuse(
                f"{under}.environment.{name}",
                found="a secret" if SECRET.search(name) else "not a name of a variable",
                rule="the script is printed and kept; secrets come from the shell that submits, "
                "whose variables sbatch passes on",
                do="remove it, and export it in your shell" if SECRET.search(name) else "rename it",
            )


def _check_texts(loaded: Loaded[Any], slurm: Slurm, under: str) -> None:
    for place, line in enumerate(slurm.header):
        if not line.startswith("--") or not line.isprintable():
            raise loaded.refuse(
                f"{under}.header.{place}",
                found=f"'{line}'",
                rule="a line is one option of sbatch",
                do="write e.g. --constraint=h100",
            )
    for knob in ("partition", "account", "container_image", "container_mounts", "shared_folder"):
        text = getattr(slurm, knob)
        if not text.isprintable() or " " in text:
            raise loaded.refuse(
                f"{under}.{knob}",
                found=f"'{text}'",
                rule="sbatch and srun take it as one word",
                do="write it without blanks",
            )
