"""A real Slurm on this machine: a controller and two nodes, in a folder and on ports of its own.

No root, munge, systemd or cgroups. The nodes are called n1 and n2, which is no name of this host,
and have unequal numbers of CPUs. Partition `low` is preempted by `high`.
"""

import contextlib
import getpass
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.slurm.guard import below
from tests.slurm.packages import Software, UnavailableError

ROOT = Path(__file__).resolve().parents[2]
NODES = {"n1": 4, "n2": 2}
"""Node -> its CPUs, as Slurm is told; the machine may have fewer."""

UP_SECONDS = 60.0
KILL_WAIT_SECONDS = 20  # between SIGTERM and SIGKILL when Slurm ends a job
NODE_SECONDS = 15  # after which a node that does not answer is down
REQUEUE_SECONDS = 5  # before a requeued job may start: the shortest lifetime of a credential
PORTS_EACH = 40  # for rendezvous of jobs; two clusters of one machine have other ones

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire={requeue}
PluginDir={plugins}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldPort={port}
FirstJobId={first_job}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
KillWait={kill_wait}
SlurmdTimeout={node_seconds}
MessageTimeout=30
BatchStartTimeout=60
InactiveLimit=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
{nodes}
PartitionName=low Nodes=ALL Default=YES State=UP PriorityTier=1 GraceTime={kill_wait}
PartitionName=high Nodes=ALL State=UP PriorityTier=10 PreemptMode=OFF
"""


@dataclass(kw_only=True)
class SlurmCluster:
    """The daemons of one cluster, and the commands of its users."""

    software: Software
    folder: Path
    first_port: int = 0  # of PORTS_EACH for jobs
    daemons: dict[str, int] = field(default_factory=dict)  # name -> process id
    _guard: "subprocess.Popen[str] | None" = None

    def start(self) -> None:
        """Starts everything; returns when both nodes are idle.

        Raises: UnavailableError with the last words of a daemon that does not come up.
        """
        for name in ("state", "log", *(f"spool/{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        port, *ports = _free_ports(1 + len(NODES))
        self.first_port = 21_000 + PORTS_EACH * (port % 250)
        host = socket.gethostname().partition(".")[0]
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={number} CPUs={cpus} "
            "RealMemory=1000 State=UNKNOWN"
            for (node, cpus), number in zip(NODES.items(), ports, strict=True)
        )
        text = CONF.format(
            host=host,
            user=getpass.getuser(),
            plugins=self.software.plugins,
            folder=self.folder,
            port=port,
            first_job=100 + port % 1_000,
            requeue=REQUEUE_SECONDS,
            kill_wait=KILL_WAIT_SECONDS,
            node_seconds=NODE_SECONDS,
            nodes=nodes,
        )
        self._conf.write_text(text, encoding="utf-8")
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "tests.slurm.guard"],
            env=self.environment(),
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        self.wait_until(lambda: set(self.node_states().values()) == {"idle"}, UP_SECONDS)

    def stop(self) -> None:
        """Ends every process of the cluster, with those of its jobs."""
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            self._guard.wait()

    def start_controller(self) -> None:
        """Starts the controller, which knows again what it knew."""
        self._start("controller", [self.software.daemon("slurmctld"), "-D"])

    def kill_controller(self) -> None:
        """Nobody answers commands; jobs run on."""
        os.kill(self.daemons["controller"], signal.SIGKILL)

    def start_node(self, node: str) -> None:
        """Starts the daemon of a node."""
        daemon, step = (self.software.daemon(name) for name in ("slurmd", "slurmstepd"))
        self._start(node, [daemon, "-D", "-N", node, "-d", step])

    def kill_node(self, node: str) -> None:
        """What the loss of a machine is to Slurm: its daemon and all that runs there are gone."""
        tasks = self.processes(node)
        above = {parent for pid in tasks if "slurmstepd" in command_of(parent := parent_of(pid))}
        for pid in (self.daemons[node], *above, *tasks):
            with contextlib.suppress(ProcessLookupError):  # it ended with one of the others
                os.kill(pid, signal.SIGKILL)

    def processes(self, node: str, *words: str, program: str = "") -> list[int]:
        """Ids of the processes of jobs on a node whose command line holds all `words`.

        With `program` only those that run it: the words of an agent stand in its srun's line too.
        """
        assert self._guard is not None
        return [
            pid
            for pid in below(self._guard.pid)
            if variables_of(pid).get("SLURMD_NODENAME") == node
            and all(word in command_of(pid) for word in words)
            and Path(command_of(pid).partition(" ")[0]).name.startswith(program)
        ]

    def environment(self, **more: str) -> dict[str, str]:
        """Of a user of the cluster."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
        variables = self.software.variables(os.environ["PATH"])
        return {**kept, **variables, "SLURM_CONF": str(self._conf), **more}

    def command(self, *words: str, stdin: str = "", **more: str) -> str:
        """What a command of Slurm prints."""
        done = subprocess.run(
            words,
            env=self.environment(**more),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout.strip()

    def node_states(self) -> dict[str, str]:
        """Node -> idle, allocated, down, ..."""
        done = subprocess.run(
            ["sinfo", "-h", "-N", "-p", "low", "-o", "%N %T"],
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        pairs = (line.partition(" ") for line in done.stdout.splitlines())
        return {name: state for name, _, state in pairs}

    def job(self, number: str, name: str = "JobState") -> str:
        """One field of `scontrol show job`."""
        shown = self.command("scontrol", "show", "job", "-o", number)
        return {word.partition("=")[0]: word.partition("=")[2] for word in shown.split()}[name]

    def wait_until(self, is_so: Callable[[], bool], seconds: float, *, about: str = "") -> None:
        """Returns when it is so.

        Raises: UnavailableError before the cluster is up, AssertionError after.
        """
        end = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > end:
                told = f"{about}\n{self.last_words()}"
                raise AssertionError(told) if about else UnavailableError(told)
            time.sleep(0.1)

    def wait_for(self, number: str, states: Sequence[str], *, seconds: float, log: Path) -> str:
        """The state of a job once it is one of `states`."""
        found = ""

        def is_there() -> bool:
            nonlocal found
            found = self.job(number)
            return found in states

        self.wait_until(is_there, seconds, about=f"job {number}: {found}, {log}")
        return found

    def last_words(self) -> str:
        """The ends of the daemons' logs."""
        logs = sorted((self.folder / "log").glob("*"))
        return "\n".join(f"{log.name}: {log.read_text()[-600:]}" for log in logs)

    @property
    def _conf(self) -> Path:
        return self.folder / "slurm.conf"

    def _start(self, name: str, words: list[str]) -> None:
        assert self._guard is not None
        assert self._guard.stdin is not None
        assert self._guard.stdout is not None
        asked = {"start": words, "log": str(self.folder / "log" / name)}
        self._guard.stdin.write(json.dumps(asked) + "\n")
        self._guard.stdin.flush()
        self.daemons[name] = int(self._guard.stdout.readline())


def command_of(pid: int) -> str:
    """The command line of a process; "" once it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def variables_of(pid: int) -> dict[str, str]:
    """The environment of a process; empty once it is gone."""
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes().decode()
    except OSError:
        return {}
    return {item.partition("=")[0]: item.partition("=")[2] for item in text.split("\0") if item}


def parent_of(pid: int) -> int:
    """The parent of a process; 0 once it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _free_ports(count: int) -> list[int]:
    """Ports that nothing listens on, all of them free at once."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
