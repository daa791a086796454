"""The bodies of Slurm jobs: what is started on the nodes, in the words of `slurm.PROLOGUE`."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from frontload.launch.cluster.slurm import bash_array


def ray_body(
    trainer: Sequence[str], checks: Sequence[str], *, keeper: Sequence[str], max_failures: int
) -> str:
    """`checks` on each node, then Ray on every node, then `trainer` once on the head.

    `keeper` is the command that starts the trainer and ends it when it stands still; such a job is
    requeued, unless it got no further `max_failures` times.
    """
    words = {"checks": checks, "keeper": keeper, "trainer": trainer}
    arrays = "\n\n".join(bash_array(name, command) for name, command in words.items())
    return f"{arrays}\nmax_failures={max_failures}\n\n{RAY_BODY.strip()}"


def torchrun_body(
    worker: Sequence[str], checks: Sequence[str], *, max_restarts: int, max_failures: int
) -> str:
    """`checks` on each node, then torchrun on each, which meet at the head and start `worker`.

    A rank that fails is restarted with all others, `max_restarts` times. A job that ends in failure
    is requeued, unless its failure would come again or it got no further `max_failures` times.
    """
    arrays = f"{bash_array('checks', checks)}\n\n{bash_array('worker', worker)}"
    numbers = f"max_restarts={max_restarts}\nmax_failures={max_failures}"
    return f"{arrays}\n{numbers}\n\n{TORCHRUN_BODY.strip()}"


def command_body(command: Sequence[str], *, made: Path) -> str:
    """One command on the first node, unless what it makes is there: it appears by one rename."""
    return (
        f"{bash_array('command', command)}\nmade={shlex.quote(str(made))}\n{COMMAND_BODY.rstrip()}"
    )


COMMAND_BODY = r"""
# ---- one command
status=0
if [[ ! -e "$made" ]]; then
    start on_nodes 1 "${nodes[0]}" "${command[@]}"
    watch "$started" "the command" || status=$?
fi
"""

RAY_BODY = r"""
# ---- Ray on every node, one trainer on the head
(($(times hangs) < max_failures)) || fail "this run stood still $max_failures times at one" \
    "place; read $folder/logs, mend the cause, remove $folder/hangs and submit it again"

# veRL empties its file at a start, so each start of each job has one (rl/cluster/files.py)
export VERL_FILE_LOGGER_PATH="$folder/metrics-$SLURM_JOB_ID-$restarts.jsonl"
# Without a token whoever reaches a port of Ray can run code as this user.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
others=$(IFS=,; echo "${nodes[*]:1}")
ray_node=(--num-cpus="$cpus" --num-gpus="$gpus_per_node" --disable-usage-stats --block)

start on_nodes "$num_nodes" "$everyone" "${checks[@]}"
watch "$started" "the checks" || fail "the checks of the nodes found what is said above"

start on_nodes 1 "${nodes[0]}" ray start --head --node-ip-address="$head_address" \
    --port="$port" --include-dashboard=false --temp-dir="/tmp/frontload-ray-$SLURM_JOB_ID" \
    "${ray_node[@]}"
companions+=("$started")
wait_for=(python -m frontload.rl.cluster.ray_nodes --address "$head_address:$port"
    --seconds "$start_seconds")
start on_nodes 1 "${nodes[0]}" "${wait_for[@]}" --nodes 1 --gpus "$gpus_per_node"
watch "$started" "the head" || fail "the Ray head did not start"

if ((num_nodes > 1)); then
    start on_nodes "$((num_nodes - 1))" "$others" ray start \
        --address="$head_address:$port" "${ray_node[@]}"
    companions+=("$started")
    start on_nodes 1 "${nodes[0]}" "${wait_for[@]}" --nodes "$num_nodes" \
        --gpus "$((num_nodes * gpus_per_node))"
    watch "$started" "the workers" || fail "not every node joined Ray"
fi

export RAY_ADDRESS="$head_address:$port"
start on_nodes 1 "${nodes[0]}" "${keeper[@]}" --log "$VERL_FILE_LOGGER_PATH" -- "${trainer[@]}"
status=0
watch "$started" "the trainer" || status=$?
if ((status == 75)); then
    note hangs
    (($(times hangs) >= max_failures)) || requeue "the trainer stood still"
fi
"""

TORCHRUN_BODY = r"""
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
"""
