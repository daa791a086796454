"""veRL's log of steps, read while veRL writes it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class LogReader:
    """Whole new lines of a file that another process appends to."""

    path: Path
    offset: int = 0

    def read(self) -> Iterator[dict[str, Any]]:
        """The objects written since the last call."""
        if not self.path.is_file():
            return
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self.offset += len(line)
                yield json.loads(line)
