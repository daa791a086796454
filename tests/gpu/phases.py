"""The check of a phase border: a trunk and its branch against one run over both, in bf16."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.distributed.test_phases import train_phases, write_phases
from tests.gpu.findings import Finding, at_most

LIMIT = 1e-4
REASON = "nats; float32 masters that are lost there showed as 8e-4 from the second step on"


def phases(facts: dict[str, Any]) -> Iterator[Finding]:
    """The stage `pretrain` three times on this device, its checkpoint carried over."""
    del facts
    with tempfile.TemporaryDirectory() as folder:
        write_phases(Path(folder) / "in")
        lines = train_phases(f"{folder}/in", folder, "bf16", {})
    whole, trunk, branch = ([values["train__loss"] for _, values in one] for one in lines)
    parts = trunk + branch
    error = max(abs(one - other) for one, other in zip(parts, whole, strict=True))
    yield at_most("trunk and branch, and one run over both: losses", error, LIMIT, reason=REASON)
