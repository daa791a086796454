"""What a page of the theory holds: checks and figures, as data."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TheoryLine:
    """One curve. `is_reference`: a formula, or a start to compare with; drawn broken."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    errors: tuple[float, ...] = ()  # standard errors of y, where several draws are behind it
    is_reference: bool = False
    of: str = ""  # the line whose start this is: drawn in its colour


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Curves over the same axis; `marks`: places on it that the theory names."""

    title: str
    lines: tuple[TheoryLine, ...]
    x: str
    y: str
    is_log_x: bool = False
    is_log_y: bool = True
    marks: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TheoryFigure:
    """Plots of one question, and what of a study they can and cannot mirror."""

    name: str
    title: str
    source: str
    plots: tuple[Plot, ...]
    says: str
    mirrors: str
    cannot: str


@dataclass(frozen=True, kw_only=True)
class TheoryCheck:
    """A formula beside another way to its number."""

    name: str
    source: str
    found: float
    allowed: float  # the largest that passes
    unit: str

    @property
    def holds(self) -> bool:
        """Whether the two ways agree."""
        return self.found <= self.allowed


@dataclass(frozen=True, kw_only=True)
class Theory:
    """All checks and figures of one dimension and seed."""

    dim: int
    seed: int
    checks: tuple[TheoryCheck, ...]
    figures: tuple[TheoryFigure, ...]
