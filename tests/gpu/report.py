"""What a proof leaves: a line of JSON for each fact, and beside it a page that a person reads."""

import json
import os
import resource
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from tests.gpu.findings import FAIL, Finding, markdown_table
from tests.gpu.processes import Ended


class Log:
    """Both files, on the disk after each check."""

    def __init__(self, path: Path, machine: dict[str, Any], *, began: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page = path.with_suffix(".md")
        self._file: TextIO = path.open("w")
        self._machine, self._began = machine, began
        self._findings: list[Finding] = []
        self._times: list[str] = []

    def write(self, kind: str, **content: Any) -> None:
        """Adds a line of JSON."""
        line = {"kind": kind, "time": round(time.time(), 1)} | content
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def add(self, ended: Ended) -> list[Finding]:
        """Writes a check down, shows it, and returns its findings."""
        for finding in ended.findings:
            self.write("finding", **asdict(finding))
            print(f"{finding.result:14s} {finding.check}: {finding.figure}", flush=True)
        self.write("check", name=ended.check, seconds=round(ended.seconds, 1))
        self._findings += ended.findings
        if ended.seconds:
            self._times.append(f"{ended.check} {ended.seconds:.0f}")
        self.page.write_text(self.text() + "\n")
        return ended.findings

    def text(self) -> str:
        """The page."""
        spent = time.monotonic() - self._began
        times = ", ".join(self._times) or "none"
        table = markdown_table(self._findings, self._machine)
        failed = [one.check for one in self._findings if one.result == FAIL]
        table = f"Failed: {'; '.join(failed) or 'nothing'}.\n\n{table}"
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = used.ru_utime + used.ru_stime
        return (
            f"{table}\n\nSeconds of each check: {times}; {spent:.0f} in all, set-up included; "
            f"{processor:.0f} s of processors."
        )

    def close(self, code: int) -> str:
        """Writes the end down; returns the page."""
        text = self.text()
        self.page.write_text(text + "\n")
        self.write("table", text=text, exit_code=code)
        return text
