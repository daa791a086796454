"""The machine: cores, memory, disk, clock, limits, GPUs and their libraries."""

import os
import re
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from frontload.launch.doctor.finding import NOTE, OK, WRONG, Finding

GIB = 1 << 30
DRIVERS = ("/dev/nvidiactl", "/dev/dxg")  # of Linux, of Linux inside Windows
LEAST_MEMORY = 4 * GIB  # two workers of study laptop at about 1.3 GiB each, and the runner
LEAST_DISK = 2 * GIB  # store of study laptop at three seeds, and its report
LEAST_SHARED_MEMORY = GIB // 16  # Docker's default of 64 MiB; Ray falls back to /tmp below its wish
LEAST_FILES = 1_024
FILES_OF_A_CLUSTER = 65_536  # Ray's own advice for nodes with many processes
NCCL_BAD = ((2, 28, 3), (2, 28, 8))  # from, to: README of nvidia-resiliency-ext, table of versions


def machine_findings(disk: Path, *, gpus: int) -> list[Finding]:
    """Every finding about the machine. `gpus` is how many the job asks for; 0 = none."""
    return [
        _memory(),
        *_disk(disk),
        _clock(),
        *_limits(is_cluster=gpus > 0),
        *_cuda(gpus),
    ]


def has_cuda() -> bool:
    """Whether torch sees a GPU. It is asked, which takes seconds, where a driver is there."""
    if not any(Path(path).exists() for path in DRIVERS):
        return False
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


def _memory() -> Finding:
    page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    cores = len(os.sched_getaffinity(0))
    total = min(page * pages, _cgroup_limit())
    found = f"{cores} cores, {total / GIB:.1f} GiB of memory"
    if total >= LEAST_MEMORY:
        return Finding(name="cores, memory", state=OK, found=found)
    return Finding(
        name="cores, memory",
        state=NOTE,
        found=f"{found}; two workers of study laptop take {LEAST_MEMORY / GIB:.0f} GiB",
        do="run one worker: --workers 1",
    )


def _cgroup_limit() -> int:
    """Bytes that this container may use; very many where nothing limits it."""
    path = Path("/sys/fs/cgroup/memory.max")
    text = path.read_text().strip() if path.is_file() else "max"
    return int(text) if text.isdigit() else 1 << 62


def _disk(folder: Path) -> Iterator[Finding]:
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    free = shutil.disk_usage(there).free
    is_enough = free >= LEAST_DISK
    yield Finding(
        name="disk",
        state=OK if is_enough else WRONG,
        found=f"{free / GIB:.1f} GiB free at {there}",
        do="" if is_enough else f"free {LEAST_DISK / GIB:.0f} GiB, or name another place: --disk",
    )
    if not os.access(there, os.W_OK):
        yield Finding(
            name="disk",
            state=WRONG,
            found=f"{there} is not writable",
            do="mend its rights, or name another place: --disk",
        )
    shared = Path("/dev/shm")
    if shared.is_dir():
        size = shutil.disk_usage(shared).total
        if size < LEAST_SHARED_MEMORY:
            yield Finding(
                name="shared memory",
                state=NOTE,
                found=f"/dev/shm has {size / (1 << 20):.0f} MiB; Ray then keeps objects in files",
                do="start the container with --shm-size=1g",
            )


def _clock() -> Finding:
    """Against the newest of this project's own files: a clock behind them is wrong."""
    newest = max(path.stat().st_mtime for path in Path(__file__).parent.glob("*.py"))
    behind = newest - time.time()
    told = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if behind <= 1.0:
        return Finding(name="clock", state=OK, found=told)
    return Finding(
        name="clock",
        state=NOTE,
        found=f"{told}, {behind:.0f} s behind this project's own files",
        do="set it: chronyc makestep",
    )


def _limits(*, is_cluster: bool) -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    least = FILES_OF_A_CLUSTER if is_cluster else LEAST_FILES
    few = soft != resource.RLIM_INFINITY and soft < least
    yield Finding(
        name="open files",
        state=NOTE if few else OK,
        found=_limit(soft),
        do=f"ulimit -n {least if hard < 0 else min(least, hard)}" if few else "",
    )
    if is_cluster:
        locked, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        bounded = locked != resource.RLIM_INFINITY
        yield Finding(
            name="locked memory",
            state=NOTE if bounded else OK,
            found=_limit(locked) + (" bytes; InfiniBand registers memory" if bounded else ""),
            do="ulimit -l unlimited, in the limits of the node's Slurm daemon" if bounded else "",
        )


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else f"{value}"


def _cuda(gpus: int) -> Iterator[Finding]:
    if not has_cuda():
        state = WRONG if gpus else OK
        do = "ask for a node with GPUs; look at nvidia-smi" if gpus else ""
        yield Finding(name="CUDA", state=state, found="no GPU: the CPU engine runs", do=do)
        return
    import torch

    count = torch.cuda.device_count()
    names = {torch.cuda.get_device_name(number) for number in range(count)}
    found = f"{count} x {', '.join(sorted(names))}, CUDA {torch.version.cuda}, driver {_driver()}"
    lacks = count < gpus
    yield Finding(
        name="CUDA",
        state=WRONG if lacks else OK,
        found=found + (f"; the job asks for {gpus}" if lacks else ""),
        do="look at nvidia-smi: a GPU has fallen off" if lacks else "",
    )
    nccl: tuple[int, ...] = torch.cuda.nccl.version()  # pyright: ignore[reportAttributeAccessIssue]
    is_bad = NCCL_BAD[0] <= nccl <= NCCL_BAD[1]
    yield Finding(
        name="NCCL",
        state=NOTE if is_bad else OK,
        found=".".join(map(str, nccl)) + (": a release with known hangs" if is_bad else ""),
        do="use an image with a later NCCL" if is_bad else "",
    )


def _driver() -> str:
    path = Path("/proc/driver/nvidia/version")
    match = re.search(r"\b(\d+\.\d+(\.\d+)?)\b", path.read_text()) if path.is_file() else None
    return match[1] if match else "unknown"
