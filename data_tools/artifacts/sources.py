"""The indexes behind a phase of a blend: those that --index names, else those of its store."""

from collections.abc import Sequence
from pathlib import Path

from frontload.data_tools.artifacts.kind import find_indexes
from frontload.data_tools.disk.files import file_sha256, read_json
from frontload.data_tools.disk.indexed import idx_file
from frontload.recipes.errors import RecipeError
from frontload.recipes.index_flag import named_prefixes

SHOWN_NAMES = 8  # ours: of sources without an index; a line


def phase_indexes(phase: Path, given: Sequence[str]) -> dict[str, Path]:
    """Source -> index of each source of a phase, whose plan states the digests.

    Raises: RecipeError for an index that is not the one of the plan, and a source that has none.
    """
    plan = read_json(phase / "plan.json")
    sources = {one["name"]: one["index_sha256"] for one in plan["sources"]}
    named = named_prefixes(given, sources)
    for name, prefix in named.items():
        found = file_sha256(idx_file(prefix)) if idx_file(prefix).is_file() else ""
        if found != sources[name]:
            raise RecipeError(
                f"--index {name}={prefix}",
                found=f"an .idx of sha256 {found[:12]}" if found else "no such pair",
                rule=f"the blend was planned on the one of sha256 {sources[name][:12]}",
                do=f"name the index of {name} that `frontload data blend` was given",
            )
    if missing := [name for name in sources if name not in named]:
        in_store = find_indexes(phase, ())
        named |= {name: in_store[name] for name in missing if name in in_store}
        missing = [name for name in missing if name not in in_store]
    if missing:
        more = f" and {len(missing) - SHOWN_NAMES:_} more" if len(missing) > SHOWN_NAMES else ""
        raise RecipeError(
            f"blend {phase}",
            found=f"no index of {', '.join(missing[:SHOWN_NAMES])}{more}",
            rule="samples are read from the indexes that the plan names by sha256",
            do=f"add --index {missing[0]}=PREFIX",
        )
    return named
