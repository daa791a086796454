"""Counts and durations as people say them."""

UNITS = (
    *(("Y", 1e24), ("Z", 1e21), ("E", 1e18), ("P", 1e15), ("T", 1e12)),
    *(("G", 1e9), ("M", 1e6), ("k", 1e3)),
)
LONGEST_IN_HOURS = 172_800  # two days; a longer time is said in days


def show_count(number: float) -> str:
    """A count in short form: 4.10 M, 327 k, 12."""
    for unit, size in UNITS:
        if number >= 0.9995 * size:  # three digits: 999_600 is 1 M, not 1e+03 k
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"


def show_number(number: int, what: str) -> str:
    """A number of things: 1 worker, 2 workers."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def show_seconds(seconds: float) -> str:
    """A duration as people say it: 4 s, 3 min 20 s, 2 h 05 min, 11.5 days."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < LONGEST_IN_HOURS:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{seconds / 86_400:.3g} days"
