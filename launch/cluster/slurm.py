"""A Slurm job as text: header, environment, steps on nodes, a body, and an end that stops it all.

The body is what differs between kinds of jobs: `slurm_bodies.py` has one that starts Ray and a
trainer, and one that starts torchrun everywhere. A body uses what `PROLOGUE` defines (`nodes`,
`everyone`, `head_address`, `port`, and the functions say, fail, on_nodes, start, watch, requeue,
note, times) and leaves the exit status in `status`. Pure: starts nothing.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from frontload.recipes.errors import RecipeError
from frontload.recipes.machines.cluster import Slurm
from frontload.recipes.machines.placement import Placement

POLL_SECONDS = 1
PROGRESS = (
    *("*/manifest.json", "work/*/scratch/step-*[0-9]"),  # of training, in a run's folder
    "checkpoints/latest_checkpointed_iteration.txt",  # of veRL
)
"""Published stages and checkpoints: while these are the same, a job that starts got no further."""


@dataclass(frozen=True, kw_only=True)
class ClusterJob:
    """What to run on the nodes of a placement."""

    name: str
    folder: Path  # logs, metrics and the mark of a finished run; the same for every restart
    environment: Mapping[str, str]
    body: str
    progress: tuple[str, ...] = PROGRESS  # patterns in `folder` of what a job that gets on adds
    is_chained: bool = False  # further jobs wait for this one, so that it does not requeue itself
    needs_gpus: bool = True  # of those that the placement names


def job_script(job: ClusterJob, placement: Placement) -> str:
    """The whole text for sbatch.

    Raises: RecipeError for a placement without a `slurm` section, or a word that sbatch misreads.
    """
    slurm = slurm_of(placement)
    _check_words(job)
    exports = {**job.environment, **slurm.environment}
    numbers = {
        "folder": str(job.folder),
        "num_nodes": placement.num_nodes,
        "ranks_per_node": placement.ranks_per_node,
        "gpus_per_node": _gpus_per_node(job, placement),
        "first_port": slurm.first_port,
        "num_ports": slurm.num_ports,
        "start_seconds": slurm.start_seconds,
        "stop_seconds": slurm.stop_seconds,
        "max_requeues": slurm.max_requeues,
        "is_chained": "yes" if job.is_chained else "",
        "poll_seconds": POLL_SECONDS,
    }
    parts = [
        "\n".join(_header(job, placement, slurm)),
        "set -Eeuo pipefail",
        "\n".join(f"{name}={shlex.quote(str(value))}" for name, value in numbers.items()),
        f"progress=({' '.join(shlex.quote(pattern) for pattern in job.progress)})",
        f"activate={shlex.quote(slurm.activate or ':')}",
        f"container=({shlex.join(_container(slurm))})",
        "\n".join(f"export {name}={shlex.quote(text)}" for name, text in sorted(exports.items())),
        PROLOGUE.strip(),
        job.body.strip(),
        EPILOGUE.strip(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def slurm_of(placement: Placement) -> Slurm:
    """The Slurm section of a placement; its values were checked when it was loaded.

    Raises: RecipeError for a placement without one.
    """
    if placement.slurm is None:
        raise RecipeError(
            f"placement {placement.name}",
            found="no `slurm` section",
            rule="a job for a cluster says how its nodes are asked for",
            do="choose a placement with one, e.g. --placement slurm",
        )
    return placement.slurm


def check_gpus(placement: Placement) -> None:
    """Refuses a job that computes on GPUs where the placement names none, so asks Slurm for none.

    Raises: RecipeError for such a placement.
    """
    if placement.gpus is None:
        raise RecipeError(
            f"placement {placement.name}",
            found="no `gpus`, for a job that computes on them",
            rule="Slurm is asked for the GPUs that a placement names: one per rank",
            do="add e.g. gpus: {kind: h100_sxm, kernel_mfu: 0.33}",
        )


def _gpus_per_node(job: ClusterJob, placement: Placement) -> int:
    """One per rank, where the placement names GPUs and the job computes on them."""
    return placement.ranks_per_node if placement.gpus is not None and job.needs_gpus else 0


def _check_words(job: ClusterJob) -> None:
    for asked, word in (("launch --out", str(job.folder)), ("launch, the recipe's name", job.name)):
        if not word.isprintable() or " " in word or "%" in word:
            raise RecipeError(
                asked,
                found=f"'{word}'",
                rule="sbatch takes it as one word, and gives % a meaning of its own",
                do="write it without blanks and %",
            )


def _header(job: ClusterJob, placement: Placement, slurm: Slurm) -> list[str]:
    gpus = _gpus_per_node(job, placement)
    options = [
        f"--job-name=frontload-{job.name}",
        f"--nodes={placement.num_nodes}",
        "--ntasks-per-node=1",
        *([f"--gpus-per-node={gpus}"] if gpus else []),
        *([f"--cpus-per-task={slurm.cpus_per_node}"] if slurm.cpus_per_node else []),
        "--mem=0",
        "--exclusive",
        f"--time={slurm.time_limit}",
        *([f"--partition={slurm.partition}"] if slurm.partition else []),
        *([f"--account={slurm.account}"] if slurm.account else []),
        "--requeue",
        "--open-mode=append",
        f"--signal=B:USR1@{slurm.requeue_seconds}",
        f"--comment={job.folder}",  # by which queue.py finds the jobs of a folder
        f"--output={job.folder}/logs/%j.out",
        *slurm.header,
    ]
    return ["#!/bin/bash", *(f"#SBATCH {option}" for option in options)]


def _container(slurm: Slurm) -> list[str]:
    found = [f"--container-image={slurm.container_image}"] if slurm.container_image else []
    mounts = slurm.container_mounts
    return [*found, f"--container-mounts={mounts}"] if mounts else found


def bash_array(name: str, words: Sequence[str]) -> str:
    """A command as a bash array, one word a line."""
    return "\n".join([f"{name}=(", *(f"    {shlex.quote(word)}" for word in words), ")"])


PROLOGUE = r"""
# ---- what every job does first
say() { echo "frontload: $(date -u +%H:%M:%S) $*" >&2; }
fail() { say "$*"; exit 1; }

restarts=${SLURM_RESTART_COUNT:-0}
if [[ -e "$folder/finished" ]]; then
    say "job $SLURM_JOB_ID: this run has finished before; nothing to do"
    exit 0
fi

# reached: in one line, what there is to go on from; small files with their content
reached() {
    local pattern path
    (
        shopt -s nullglob
        cd "$folder" || exit
        for pattern in "${progress[@]}"; do
            for path in $pattern; do
                echo "$path"
                [[ ! -f "$path" ]] || head -c 64 "$path"
            done
        done
    ) | tr -s '\n' ' '
}

# note LIST: writes down in a list of the folder that the job was here; times LIST: how often it was
note() { echo "at $(reached)" >> "$folder/$1"; }
times() {
    local count
    count=$(grep -cxF -e "at $(reached)" "$folder/$1" 2>/dev/null) || true
    echo "${count:-0}"
}

mkdir -p "$folder/logs"
starts="logs/$SLURM_JOB_ID.starts"
(($(times "$starts") <= max_requeues)) || fail "job $SLURM_JOB_ID was started $(times "$starts")" \
    "times and got no further; read $folder/logs, then submit it again"
note "$starts"

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
((${#nodes[@]} == num_nodes)) || fail "job $SLURM_JOB_ID has ${#nodes[@]} nodes, not $num_nodes"
everyone=$(IFS=,; echo "${nodes[*]}")
port=$((first_port + SLURM_JOB_ID % num_ports))  # two jobs on one node rarely ask for the same

# fewest_cpus: those of the smallest node; Slurm writes e.g. 96(x3),64
fewest_cpus() {
    local each counts fewest=""
    IFS=, read -ra counts <<< "$SLURM_JOB_CPUS_PER_NODE"
    for each in "${counts[@]%%(*}"; do
        if [[ -z "$fewest" ]] || ((each < fewest)); then fewest=$each; fi
    done
    echo "$fewest"
}
cpus=${SLURM_CPUS_PER_TASK:-$(fewest_cpus)}

# on_nodes COUNT NODES COMMAND...: the command once on each of the nodes, in the job's software.
# --export: without it a job that was submitted with --export=NONE passes nothing on.
on_nodes() {
    local count=$1 list=$2
    shift 2
    exec srun --overlap --export=ALL --job-name="$step_name" --nodes="$count" --ntasks="$count" \
        --ntasks-per-node=1 --nodelist="$list" --cpus-per-task="$cpus" --cpu-bind=none \
        --kill-on-bad-exit=1 --wait=0 "${container[@]}" \
        bash -c "$activate && exec \"\$@\"" frontload "$@"
}

steps=()       # process ids of everything started
companions=()  # those that must live as long as the job
warned=""

# start COMMAND...: the command in the background; its process id in `started`
start() {
    step_name="frontload-$SLURM_JOB_ID-${#steps[@]}"
    "$@" &
    started=$!
    steps+=("$started")
}

# watch ID WHAT: waits for a step and returns its status; ends the job when a companion ends first
watch() {
    local status=0 companion
    while kill -0 "$1" 2>/dev/null; do
        [[ -z "$warned" ]] || requeue "the time limit is near"
        for companion in "${companions[@]}"; do
            kill -0 "$companion" 2>/dev/null && continue
            wait "$companion" || status=$?
            fail "$2: a step it needs ended first, with status $status"
        done
        sleep "$poll_seconds"
    done
    wait "$1" || status=$?
    return "$status"
}

# requeue WHY: stops everything; this job, or the next of its chain, goes on from a checkpoint
requeue() {
    say "$1: stopping, to go on from the last checkpoint"
    stop
    if [[ -n "$is_chained" ]]; then
        say "job $SLURM_JOB_ID: the next job of the chain goes on"
        exit 0
    fi
    scontrol requeue "$SLURM_JOB_ID" || fail "scontrol requeue $SLURM_JOB_ID failed"
    exit 0
}

# signal NAME PLACE: sends a signal to all processes of a step. Not to its srun: a TERM to srun
# kills them at once. Before the step has begun there is only its srun.
signal() {
    local step
    step=$(squeue --noheader --steps --jobs="$SLURM_JOB_ID" --format="%i %j" 2>/dev/null |
        awk -v name="frontload-$SLURM_JOB_ID-$2" '$2 == name {print $1}') || step=""
    if [[ -n "$step" ]]; then
        scancel --signal="$1" "$step" || true
    else
        kill -"$1" "${steps[$2]}" 2>/dev/null || true
    fi
}

# stop: asks every step to end, newest first, each before the next; kills what takes stop_seconds
stop() {
    local place step end
    for ((place = ${#steps[@]} - 1; place >= 0; place--)); do
        step=${steps[place]} end=$((SECONDS + stop_seconds))
        if kill -0 "$step" 2>/dev/null; then
            signal TERM "$place"
            while kill -0 "$step" 2>/dev/null && ((SECONDS < end)); do sleep "$poll_seconds"; done
        fi
        if kill -0 "$step" 2>/dev/null; then
            signal KILL "$place"
            sleep "$poll_seconds"
            kill -KILL "$step" 2>/dev/null || true
        fi
        wait "$step" 2>/dev/null || true
    done
    steps=()
}

trap stop EXIT
trap 'warned=yes' USR1
trap 'exit 143' TERM
trap 'exit 130' INT

# The head is reached at its first outer IPv4 address, else as Slurm reaches it.
head_address=""
for one in $(srun --overlap --export=ALL --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" \
    hostname --ip-address); do
    if [[ "$one" =~ ^[0-9]+(\.[0-9]+){3}$ && "$one" != 127.* ]]; then
        head_address=$one
        break
    fi
done
if [[ -z "$head_address" ]]; then
    head_address=$(scontrol show node "${nodes[0]}" | grep -o 'NodeAddr=[^ ]*' | cut -d= -f2) ||
        head_address=${nodes[0]}
fi
say "job $SLURM_JOB_ID, start $restarts: ${nodes[*]}, each with $ranks_per_node ranks," \
    "$gpus_per_node GPUs, $cpus CPUs; head ${nodes[0]} at $head_address:$port"
"""

EPILOGUE = r"""
# ---- the end
stop
if ((status != 0)); then
    say "job $SLURM_JOB_ID: the trainer ended with status $status"
    exit "$status"
fi
: > "$folder/finished"
say "job $SLURM_JOB_ID: finished"
"""
