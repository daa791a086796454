#!/bin/bash
#SBATCH --job-name=frontload-pretrain_8b_ldq
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=04:00:00
#SBATCH --partition=h100
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@600
#SBATCH --output=/shared/runs/pretrain_8b_ldq/logs/%j.out

set -Eeuo pipefail

folder=/shared/runs/pretrain_8b_ldq
num_nodes=4
gpus_per_node=8
first_port=20000
num_ports=10000
start_seconds=600
stop_seconds=20
max_requeues=20
is_chained=''
poll_seconds=1

activate='export ACTIVE="yes on $FAKE_NODE"'

container=()

export MINE='a b'"'"'c'
export OMP_NUM_THREADS=8

# ---- what every job does first
say() { echo "frontload: $(date -u +%H:%M:%S) $*" >&2; }
fail() { say "$*"; exit 1; }

restarts=${SLURM_RESTART_COUNT:-0}
if [[ -e "$folder/finished" ]]; then
    say "job $SLURM_JOB_ID: this run has finished before; nothing to do"
    exit 0
fi
((restarts <= max_requeues)) || fail "job $SLURM_JOB_ID was requeued $restarts times, at most" \
    "$max_requeues; read $folder/logs, then submit it again"

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
((${#nodes[@]} == num_nodes)) || fail "job $SLURM_JOB_ID has ${#nodes[@]} nodes, not $num_nodes"
everyone=$(IFS=,; echo "${nodes[*]}")
cpus=${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}
port=$((first_port + SLURM_JOB_ID % num_ports))  # two jobs on one node rarely ask for the same

# on_nodes COUNT NODES COMMAND...: the command once on each of the nodes, in the job's software
on_nodes() {
    local count=$1 list=$2
    shift 2
    exec srun --overlap --nodes="$count" --ntasks="$count" --ntasks-per-node=1 \
        --nodelist="$list" --cpus-per-task="$cpus" --cpu-bind=none --kill-on-bad-exit=1 \
        "${container[@]}" bash -c "$activate && exec \"\$@\"" frontload "$@"
}

steps=()       # process ids of everything started
companions=()  # those that must live as long as the job
warned=""

# start COMMAND...: the command in the background; its process id in `started`
start() {
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

# stop: asks every step to end, newest first, each before the next; kills what takes stop_seconds
stop() {
    local place step end
    for ((place = ${#steps[@]} - 1; place >= 0; place--)); do
        step=${steps[place]} end=$((SECONDS + stop_seconds))
        kill -TERM "$step" 2>/dev/null || true
        while kill -0 "$step" 2>/dev/null && ((SECONDS < end)); do sleep "$poll_seconds"; done
        kill -KILL "$step" 2>/dev/null || true
        wait "$step" 2>/dev/null || true
    done
    steps=()
}

trap stop EXIT
trap 'warned=yes' USR1
trap 'exit 143' TERM
trap 'exit 130' INT

mkdir -p "$folder/logs"
head_address=${nodes[0]}
for one in $(srun --overlap --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" hostname --ip-address); do
    if [[ "$one" =~ ^[0-9]+(\.[0-9]+){3}$ && "$one" != 127.* ]]; then
        head_address=$one
        break
    fi
done
say "job $SLURM_JOB_ID, start $restarts: ${nodes[*]}; head ${nodes[0]} at $head_address:$port"

checks=(
    python
    -m
    frontload.launch.cli
    doctor
    --brief
)

worker=(
    --module
    --
    frontload.launch.cli
    train
    pretrain_8b_ldq
)
max_restarts=3
max_failures=3

# ---- torchrun on every node
# reached: what there is to go on from
reached() { (shopt -s nullglob; cd "$folder" && echo */manifest.json work/*/scratch/step-*[0-9]); }
failures() {
    local count
    count=$(grep -cxF -e "at $(reached)" "$folder/failures" 2>/dev/null) || true
    echo "${count:-0}"
}

if [[ -e "$folder/error.json" && -n "${SLURM_JOB_DEPENDENCY:-}" ]]; then
    fail "an earlier job of this chain ended with a failure that would come again; read" \
        "$folder/error.json, mend its cause and submit the run again"
fi
(($(failures) < max_failures)) || fail "this run failed $max_failures times at one place; read" \
    "$folder/logs, mend the cause, remove $folder/failures and submit it again"

rm -f "$folder/error.json"

start on_nodes "$num_nodes" "$everyone" "${checks[@]}"
watch "$started" "the checks" || fail "the checks of the nodes found what is said above"

agent=(python -m frontload.launch.torchrun torchrun
    --nnodes="$num_nodes" --nproc-per-node="$gpus_per_node" --max-restarts="$max_restarts"
    --rdzv-backend=c10d --rdzv-endpoint="$head_address:$port"
    --rdzv-id="$SLURM_JOB_ID.$restarts" --rdzv-conf="join_timeout=$start_seconds"
    --shutdown-timeout="$((stop_seconds * 9 / 10))")
start on_nodes "$num_nodes" "$everyone" "${agent[@]}" "${worker[@]}"
status=0
watch "$started" "the ranks" || status=$?
if ((status == 75)); then
    requeue "the ranks were asked to stop"
fi
if ((status != 0)); then
    if [[ -e "$folder/error.json" ]]; then
        fail "a failure that would come again; read $folder/error.json"
    fi
    echo "at $(reached)" >> "$folder/failures"
    (($(failures) >= max_failures)) || requeue "the ranks ended with status $status"
fi

# ---- the end
stop
if ((status != 0)); then
    say "job $SLURM_JOB_ID: the trainer ended with status $status"
    exit "$status"
fi
: > "$folder/finished"
say "job $SLURM_JOB_ID: finished"
