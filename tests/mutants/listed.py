"""equivalent.txt: the mutants that change nothing anybody would miss, each with its reason."""

from dataclasses import dataclass
from pathlib import Path

from tests.mutants.sites import Mutant

FILE = Path(__file__).with_name("equivalent.txt")
ANY = "*"  # instead of a changed line: any change of the line


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One entry."""

    path: str
    old: str
    new: str
    reason: str

    def matches(self, mutant: Mutant) -> bool:
        """Whether the mutant is this one, wherever its line stands by now."""
        is_here = (mutant.path, mutant.old) == (self.path, self.old)
        return is_here and self.new in (ANY, mutant.new)


def read_listed(text: str) -> list[Listed]:
    """Entries, an empty line between two: path, `- ` line, `+ ` changed line, reason.

    Raises: ValueError for an entry without one of them.
    """
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if not lines:
            continue
        if len(lines) < 4 or lines[1][:2] != "- " or lines[2][:2] != "+ ":
            raise ValueError(f"{FILE.name}: not a path, `- `, `+ ` and a reason: {lines}")
        reason = " ".join(line.strip() for line in lines[3:])
        found.append(Listed(path=lines[0], old=lines[1][2:], new=lines[2][2:], reason=reason))
    return found


def gone(listed: list[Listed], mutants: list[Mutant]) -> list[Listed]:
    """Entries of the mutants' files that match none of them: their line has changed."""
    paths = {mutant.path for mutant in mutants}
    return [one for one in listed if one.path in paths and not any(map(one.matches, mutants))]


def shown(mutant: Mutant) -> str:
    """A mutant as an entry without its reason; its path says the line too."""
    return f"{mutant.path}:{mutant.line}\n- {mutant.old}\n+ {mutant.new}\n"
