"""Values as Hydra's command line writes them. No Hydra is imported; a test parses them with it."""

import re

Value = str | int | float | bool | None | tuple["Value", ...]

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
_WORDS = ("true", "false", "null", "nan", "inf")


def hydra_text(value: Value) -> str:
    """One value in Hydra's override grammar, quoted wherever it could be read as something else."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, tuple):
        return "[" + ",".join(hydra_text(one) for one in value) + "]"
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    # Backslashes mean themselves, except in front of the closing quote.
    escaped = re.sub(r"(\\*)'", lambda run: run[1] * 2 + "\\'", value)
    return "'" + re.sub(r"(\\+)$", lambda run: run[1] * 2, escaped) + "'"


def plain_text(text: str) -> str:
    """What a rendered value means, lower case and without quotes: for comparing names."""
    return text.strip().strip("'\"").lower()
