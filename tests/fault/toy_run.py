"""Runs the toy study on the store named on the command line, as a process that tests can kill."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from toy_stages import REGISTRY, diamond

from frontload.launch.shown.progress import StudyProgress
from frontload.launch.store import Store
from frontload.launch.study.runner import Settings, run_stages
from frontload.recipes.errors import FrontloadError
from frontload.recipes.machines.placement import Placement, Placements


def main() -> int:
    """Exit code as the command line's."""
    stages = diamond(does=sys.argv[2] if len(sys.argv) > 2 else "write")
    settings = Settings(
        placements=Placements(default=Placement()), workers=2, registry=REGISTRY, preload=()
    )
    try:
        summary = run_stages(
            stages, Store(Path(sys.argv[1])), settings=settings, watcher=StudyProgress(stages, {})
        )
    except FrontloadError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 1 if summary.failed else 0


if __name__ == "__main__":
    sys.exit(main())
