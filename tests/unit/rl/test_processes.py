"""Processes of a run that are nobody's children any more: ended, waited for, counted."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

BURNS = """
import pathlib, sys, time
while time.process_time() < 1.0:
    pass
pathlib.Path(sys.argv[1]).write_text(str(__import__("os").getpid()))
time.sleep(600)
"""
STARTS_AND_LEAVES = (
    'import subprocess, sys; subprocess.Popen([sys.executable, "-c", *sys.argv[1:]])'
)
LAUNCHES = """
import pathlib, resource, subprocess, sys, time
from frontload.rl.trainer.processes import waited_for

with waited_for():
    subprocess.run([sys.executable, "-c", *sys.argv[2:], sys.argv[1]], check=True)
    while not pathlib.Path(sys.argv[1]).exists():
        time.sleep(0.05)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(usage.ru_utime + usage.ru_stime)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives a process its grandchildren")
def test_the_cpu_second_of_an_orphaned_grandchild_is_counted(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    script = [LAUNCHES, str(note), STARTS_AND_LEAVES, BURNS]
    found = subprocess.run(
        [sys.executable, "-c", *script],
        env=environment, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert 1.0 <= float(found.stdout) < 5.0
    assert not psutil.pid_exists(int(note.read_text()))
