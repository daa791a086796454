"""The command `doctor`: this machine, the nodes of a job, or the culprits of a failing group."""

import argparse
import json
import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from frontload.launch.doctor.bisect import find_culprits
from frontload.launch.doctor.finding import Finding, is_fit, shown, to_json
from frontload.launch.doctor.machine import has_cuda, machine_findings
from frontload.launch.doctor.software import software_findings
from frontload.recipes.errors import RecipeError

RANK_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `frontload doctor`."""
    parser.add_argument("--json", action="store_true", help="findings for a program")
    parser.add_argument("--brief", action="store_true", help="say what is wrong alone")
    parser.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs that must be here")
    parser.add_argument("--disk", type=Path, default=Path(), help="folder that a run will write to")
    parser.add_argument(
        "--nodes", action="store_true", help="measure every rank; torchrun starts them"
    )
    parser.add_argument(
        "--least-share", type=float, default=0.85, help="of the median; a slower node is named"
    )
    parser.add_argument(
        "--bisect", metavar="HOSTS", help="comma-separated hosts of a group that fails"
    )
    parser.add_argument(
        "--probe",
        metavar="COMMAND",
        default="srun --overlap --nodes={count} --ntasks-per-node=1 --nodelist={hosts}"
        " python -m frontload.launch.torchrun torchrun --nnodes={count} --nproc-per-node=gpu"
        " --rdzv-backend=c10d --rdzv-endpoint={first}:29400"
        " --module frontload.launch.cli doctor --nodes",
        help="ends with 0 if the group works; {hosts}, {first} and {count} are filled in",
    )
    parser.add_argument("--probe-seconds", type=float, default=180.0, help="after which it failed")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Looks, tells, and returns 0 if nothing is wrong, else 1."""
    if not 0.0 < options.least_share <= 1.0:
        raise RecipeError(
            f"doctor --least-share {options.least_share:g}",
            found="not a share",
            rule="a share lies above 0 and is at most 1",
            do="write e.g. 0.85",
        )
    for flag, number, is_right, rule in (
        ("--gpus", options.gpus, options.gpus >= 0, "it is 0 or more"),
        ("--probe-seconds", options.probe_seconds, options.probe_seconds > 0.0, "it is above 0"),
    ):
        if not is_right:
            raise RecipeError(
                f"doctor {flag}",
                found=f"is {number:g}",
                rule=rule,
                do="write e.g. 8, or leave it out",
            )
    if options.bisect:
        return _bisect(options)
    if options.nodes:
        return _nodes(options)
    findings = [
        *software_findings(on_cuda=has_cuda()),
        *machine_findings(options.disk, gpus=options.gpus),
    ]
    return _tell(findings, options)


def _tell(findings: Sequence[Finding], options: argparse.Namespace) -> int:
    if options.json:
        print(json.dumps({"fit": is_fit(findings), "findings": to_json(findings)}, indent=1))
    else:
        for line in shown(findings, is_brief=options.brief):
            print(line)
        if not options.brief:
            print(
                "this machine can run the CPU study"
                if is_fit(findings)
                else "something is WRONG; each line above says what to do"
            )
    return 0 if is_fit(findings) else 1


def _nodes(options: argparse.Namespace) -> int:
    from frontload.launch.doctor import nodes

    absent = [name for name in RANK_VARIABLES if name not in os.environ]
    if absent:
        raise RecipeError(
            "doctor --nodes",
            found=f"no {', '.join(absent)} in the environment",
            rule="it is run by every rank of a job, which torchrun tells who it is",
            do="torchrun --nproc-per-node=gpu --module frontload.launch.cli doctor --nodes; on "
            "several nodes the srun that `frontload doctor --help` shows for --probe",
        )
    findings, figures = nodes.measure(options.disk, least_share=options.least_share)
    if not findings:
        return 0  # another rank tells
    if options.json:
        told = {"fit": is_fit(findings), "findings": to_json(findings), **figures}
        print(json.dumps(told, indent=1))
    else:
        lines = [*nodes.figure_lines(figures), *shown(findings, is_brief=False)]
        print("\n".join(lines), flush=True)
    return 0 if is_fit(findings) else 1


def _bisect(options: argparse.Namespace) -> int:
    hosts = [one for one in options.bisect.split(",") if one]
    if len(set(hosts)) != len(hosts) or not hosts:
        raise RecipeError(
            f"doctor --bisect {options.bisect}",
            found="no host" if not hosts else "a host twice",
            rule="a group is hosts, each once, with commas between them",
            do="write e.g. n1,n2,n3",
        )

    def works(group: Sequence[str]) -> bool:
        words = fill(options.probe, group)
        print(f"{len(group)} hosts, {','.join(group)}: ", end="", flush=True)
        try:
            done = subprocess.run(
                words, timeout=options.probe_seconds, capture_output=True, check=False
            )
            code = done.returncode
        except subprocess.TimeoutExpired:
            code = None
        except OSError as error:
            raise RecipeError(
                f"doctor --probe {words[0]}",
                found=f"cannot be started ({error.strerror})",
                rule="the probe is a command of this machine",
                do="run it inside the job's allocation, or name another with --probe",
            ) from error
        print("works" if code == 0 else "no answer in time" if code is None else f"fails ({code})")
        return code == 0

    culprits = find_culprits(hosts, works)
    for one in culprits:
        told = "bad host" if len(one) == 1 else "work alone, but not together"
        print(f"{told}: {', '.join(one)}")
    if not culprits:
        print("the whole group works")
    return 1 if culprits else 0


def fill(probe: str, group: Sequence[str]) -> list[str]:
    """The words of a probe for a group."""
    places = {"{hosts}": ",".join(group), "{first}": group[0], "{count}": str(len(group))}
    words = shlex.split(probe)
    for place, text in places.items():
        words = [word.replace(place, text) for word in words]
    return words
