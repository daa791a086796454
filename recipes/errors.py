"""The errors of the project, each with a message in four parts: asked, found, rule, do."""


class FrontloadError(Exception):
    """Base of every error that is told to a person instead of being shown as a traceback.

    The message has four parts: what was asked, what was found, the rule, and what to do.
    """

    exit_code = 1

    def __init__(self, asked: str, *, found: str, rule: str, do: str) -> None:
        super().__init__(f"{asked}: {found}; {rule}; {do}")
        self.asked = asked
        self.found = found
        self.rule = rule
        self.do = do

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.asked, self.found, self.rule, self.do))


def _rebuild(
    kind: type[FrontloadError], asked: str, found: str, rule: str, do: str
) -> FrontloadError:
    return kind(asked, found=found, rule=rule, do=do)


class RecipeError(FrontloadError):
    """What a user wrote is wrong (recipe, flag, row, file). Nothing was written. Exit code 2."""

    exit_code = 2


class ArtifactError(FrontloadError):
    """What lies on disk is not what its manifest says (torn, stale, of another recipe)."""

    exit_code = 2


class StageError(FrontloadError):
    """A stage failed while it ran (not-a-number loss, full disk, lost rank). Exit code 1."""

    exit_code = 1


class DiskFull(StageError):
    """A stage found no room on the disk of its store: no other stage would. Exit code 1."""


class Stopped(FrontloadError):
    """A run was asked to stop, has saved itself and waits to be started again. Exit code 75."""

    exit_code = 75  # EX_TEMPFAIL, sysexits.h: the same command succeeds later
