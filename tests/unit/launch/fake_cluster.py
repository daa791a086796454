"""A cluster of shell scripts: srun, scancel, scontrol, ray, python and hostname that write what
they do, for what the real Slurm of tests/slurm cannot show: four nodes, Ray on each, a requeue that
is refused, processes that do not stop.

`srun` runs its command once for each node of its list, with FAKE_NODE set. A TERM makes it kill
them at once, as the real one does; `scancel` signals the processes of a step. A line of the log is
`EVENT NODE WORDS`. What a test wants to go wrong stands in FAKE_* variables.
"""

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

FAKES = {
    "scontrol": r"""
        case "$1 $2" in
            "show hostnames") printf '%s\n' $FAKE_NODES ;;
            "show node") echo "NodeName=$3 NodeAddr=$3 NodeHostName=$3" ;;
            *) echo "scontrol - $*" >> "$FAKE_LOG"; exit "${FAKE_SCONTROL_STATUS:-0}" ;;
        esac
    """,
    "hostname": r"""
        echo "${FAKE_ADDRESSES:-::1 127.0.1.1 10.1.2.3 10.1.2.4}"
    """,
    "squeue": r"""
        for step in "$FAKE_STATE"/step-*; do
            [[ ! -e "$step" ]] || echo "12345.${step##*/step-} ${step##*/step-}"
        done
    """,
    "scancel": r"""
        below() { echo "$1"; for child in $(pgrep -P "$1"); do below "$child"; done; }
        for task in $(cat "$FAKE_STATE/step-${2#12345.}" 2>/dev/null); do
            kill -"${1#--signal=}" $(below "$task") 2>/dev/null
        done
        exit 0
    """,
    "srun": r"""
        list="" tasks=1 name="" words=()
        while (($#)); do
            case "$1" in
                --nodelist=*) list=${1#*=} ;;
                --ntasks=*) tasks=${1#*=} ;;
                --job-name=*) name=${1#*=} ;;
                --*) ;;
                *) break ;;
            esac
            words+=("$1"); shift
        done
        echo "srun - ${words[*]}" >> "$FAKE_LOG"
        IFS=, read -ra nodes <<< "$list"
        ((${#nodes[@]} == tasks)) || { echo "srun: $tasks tasks, ${#nodes[@]} nodes" >&2; exit 9; }
        pids=()
        trap 'kill -KILL "${pids[@]}" 2>/dev/null' TERM
        for place in "${!nodes[@]}"; do
            FAKE_NODE=${nodes[place]} SLURMD_NODENAME=${nodes[place]} SLURM_NODEID=$place "$@" &
            pids+=($!)
        done
        [[ -z "$name" ]] || echo "${pids[*]}" > "$FAKE_STATE/step-$name"
        status=0 left=${#pids[@]}
        while ((left)); do
            wait -n; code=$?
            ((code > 128)) && jobs -r | grep -q . && continue  # a signal was passed on
            left=$((left - 1))
            if ((code)); then
                ((status)) || status=$code
                kill -TERM "${pids[@]}" 2>/dev/null
            fi
        done
        wait
        rm -f "$FAKE_STATE/step-$name"
        exit "$status"
    """,
    "ray": r"""
        echo "ray $FAKE_NODE $*" >> "$FAKE_LOG"
        [[ "$FAKE_NODE" == "${FAKE_ABSENT:-}" ]] || touch "$FAKE_STATE/alive-$FAKE_NODE"
        end() {
            rm -f "$FAKE_STATE/alive-$FAKE_NODE"
            echo "ray-end $FAKE_NODE" >> "$FAKE_LOG"
            exit 0
        }
        [[ -n "${FAKE_STUBBORN:-}" ]] && trap '' TERM || trap end TERM
        echo "$$" >> "$FAKE_STATE/pids"
        while :; do
            [[ -e "$FAKE_STATE/kill-$FAKE_NODE" ]] && exit 5
            sleep 0.05
        done
    """,
    "python": r"""
        echo "python $FAKE_NODE $2 $(printf '<%s>' "${@:3}")" >> "$FAKE_LOG"
        case "$2" in
            frontload.rl.cluster.preflight)
                [[ "$FAKE_NODE" == "${FAKE_UNFIT:-}" ]] && { echo "no GPU" >&2; exit 1; }
                exit 0 ;;
            frontload.rl.cluster.ray_nodes)
                while (($#)); do
                    [[ "$1" == --nodes ]] && wanted=$2
                    shift
                done
                for ((tries = 0; tries < 40; tries++)); do
                    there=("$FAKE_STATE"/alive-*)
                    [[ -e "${there[0]}" ]] && ((${#there[@]} == wanted)) && exit 0
                    sleep 0.05
                done
                exit 1 ;;
        esac
        env | grep -E '^(OMP|VERL|RAY|HYDRA|WANDB|MINE|ACTIVE|TOKENIZERS|HF)' | sort \
            > "$FAKE_STATE/trainer.env"
        printf '%s\n' "$@" > "$FAKE_STATE/trainer.arguments"
        echo "$$" >> "$FAKE_STATE/pids"
        trap 'echo "trainer-stopped $FAKE_NODE" >> "$FAKE_LOG"; exit 143' TERM
        touch "$FAKE_STATE/training"
        for ((tries = 0; tries < ${FAKE_TRAINS:-2}; tries++)); do sleep 0.05; done
        echo "trainer-end $FAKE_NODE" >> "$FAKE_LOG"
        exit "${FAKE_STATUS:-0}"
    """,
}


def _hear_interrupts() -> None:
    """A shell's background jobs ignore SIGINT, and so would all that they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class FakeCluster:
    """A folder of fakes, and runs of a job script against them."""

    folder: Path
    nodes: tuple[str, ...] = ("n1", "n2", "n3", "n4")
    left: list[int] = field(default_factory=list)  # processes that outlived the last job

    def __post_init__(self) -> None:
        for name in ("bin", "state"):
            (self.folder / name).mkdir()
        for name, text in FAKES.items():
            path = self.folder / "bin" / name
            path.write_text("#!/bin/bash\n" + text)
            path.chmod(0o755)

    @property
    def log(self) -> list[str]:
        """What happened, in order."""
        path = self.folder / "log"
        return path.read_text().splitlines() if path.is_file() else []

    def events(self, *names: str) -> list[str]:
        """The lines of the log whose first word is one of `names`."""
        return [line for line in self.log if line.split()[0] in names]

    def state(self, name: str) -> Path:
        return self.folder / "state" / name

    def start(self, script: str, **variables: str) -> "subprocess.Popen[str]":
        """Starts a job script as the batch step on the first node."""
        path = self.folder / "job.sh"
        path.write_text(script.replace("poll_seconds=1\n", "poll_seconds=0.05\n"))
        environment = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "FAKE_LOG": str(self.folder / "log"),
            "FAKE_STATE": str(self.folder / "state"),
            "FAKE_NODES": " ".join(self.nodes),
            "SLURM_JOB_ID": "12345",
            "SLURM_JOB_NODELIST": "n[1-4]",
            "SLURM_JOB_CPUS_PER_NODE": "128(x3),96",
            **variables,
        }
        return subprocess.Popen(
            ["bash", str(path)],
            env=environment,
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "said").open("w"),
            start_new_session=True,
            preexec_fn=_hear_interrupts,
        )

    def end(self, process: "subprocess.Popen[str]") -> tuple[int, str]:
        """Status of a job and what it said, after Slurm's own end: nothing of it lives on."""
        status = process.wait(timeout=300)
        self.left = self.alive()
        for pid in self.left:
            os.kill(pid, signal.SIGKILL)
        return status, (self.folder / "said").read_text()

    def run(self, script: str, **variables: str) -> tuple[int, str]:
        """Runs a job script to its end: its status and what it said."""
        return self.end(self.start(script, **variables))

    def signal_while_training(
        self, script: str, number: signal.Signals, **variables: str
    ) -> tuple[int, str]:
        """Runs a job script and sends it a signal once the trainer runs."""
        process = self.start(script, FAKE_TRAINS="1000", **variables)
        self.await_training()
        process.send_signal(number)
        return self.end(process)

    def await_training(self) -> None:
        """Returns when the trainer runs."""
        end = time.monotonic() + 120
        while not self.state("training").exists():
            assert time.monotonic() < end, self.log
            time.sleep(0.02)

    def alive(self) -> list[int]:
        """Process ids of rays and trainers that still run."""
        path = self.state("pids")
        pids = [int(line) for line in path.read_text().split()] if path.is_file() else []
        return [pid for pid in pids if _runs(pid)]


def _runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
