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
#SBATCH --comment=/shared/runs/pretrain_8b_ldq
#SBATCH --output=/shared/runs/pretrain_8b_ldq/logs/%j.out

set -Eeuo pipefail

folder=/shared/runs/pretrain_8b_ldq
num_nodes=4
ranks_per_node=8
gpus_per_node=8
first_port=20000
num_ports=10000
start_seconds=600
stop_seconds=20
max_requeues=20
is_chained=''
poll_seconds=1

progress=('*/manifest.json' 'work/*/scratch/step-*[0-9]' checkpoints/latest_checkpointed_iteration.txt)

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
if [[ -e "$folder/error.json" && -n "${SLURM_JOB_DEPENDENCY:-}" ]]; then
    fail "an earlier job of this chain ended with a failure that would come again; read" \
        "$folder/error.json, mend its cause and submit the run again"
fi
(($(times failures) < max_failures)) || fail "this run failed $max_failures times at one" \
    "place; read $folder/logs, mend the cause, remove $folder/failures and submit it again"

rm -f "$folder/error.json"

start on_nodes "$num_nodes" "$everyone" "${checks[@]}"
watch "$started" "the checks" || fail "the checks of the nodes found what is said above"

# What a node runs: an agent, whose status it writes down, since srun says the highest of all. An
# agent that was asked to stop and has saved ends with 0 here: at another status of one node srun
# kills the others, which may not have ended yet.
ends="$folder/ends"
rm -rf "$ends"
mkdir "$ends"
on_one_node='trap : TERM INT HUP USR1 USR2
status=0
"${@:2}" || status=$?
echo "$status" > "$1/$SLURM_NODEID"
((status == 75)) || exit "$status"'

# cause STATUS: of the end of a step with that status. The status of a node that failed, else 75 if
# one was asked to stop: before they hear it, processes die of a signal (TERM 143, USR1 138).
cause() {
    local node status stopped=""
    for ((node = 0; node < num_nodes; node++)); do
        status=$(cat "$ends/$node" 2>/dev/null) || status=""
        case "$status" in
            0) ;;
            75 | 138 | 143) stopped=yes ;;
            "") echo "$1"; return ;;
            *) echo "$status"; return ;;
        esac
    done
    if [[ -n "$stopped" ]]; then echo 75; else echo "$1"; fi
}

agent=(python -m frontload.launch.torchrun torchrun
    --nnodes="$num_nodes" --nproc-per-node="$ranks_per_node" --max-restarts="$max_restarts"
    --rdzv-backend=c10d --rdzv-endpoint="$head_address:$port" --head-node="${nodes[0]}"
    --rdzv-id="$SLURM_JOB_ID.$restarts" --rdzv-conf="join_timeout=$start_seconds"
    --shutdown-timeout="$((stop_seconds * 9 / 10))")
start on_nodes "$num_nodes" "$everyone" bash -c "$on_one_node" frontload "$ends" \
    "${agent[@]}" "${worker[@]}"
status=0
watch "$started" "the ranks" || status=$?
status=$(cause "$status")
rm -rf "$ends"
if ((status == 75)); then
    requeue "the ranks were asked to stop"
fi
if ((status != 0)); then
    if [[ -e "$folder/error.json" ]]; then
        fail "a failure that would come again; read $folder/error.json"
    fi
    note failures
    (($(times failures) >= max_failures)) || requeue "the ranks ended with status $status"
fi

# ---- the end
stop
if ((status != 0)); then
    say "job $SLURM_JOB_ID: the trainer ended with status $status"
    exit "$status"
fi
: > "$folder/finished"
say "job $SLURM_JOB_ID: finished"
