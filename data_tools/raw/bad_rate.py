"""How many rows a command may lose before it publishes nothing."""

from frontload.recipes.errors import RecipeError

MAX_BAD_RATE = 0.01  # ours: web text loses less; a wrong key or template loses every row
ROWS_TO_JUDGE = 10_000  # ours: rows after which a bad rate stops a run before its end


def check_bad_rate(rate: float) -> None:
    """Refuses a --max-bad-rate that is no share.

    Raises: RecipeError.
    """
    if not 0 <= rate <= 1:
        raise RecipeError(
            "--max-bad-rate",
            found=str(rate),
            rule="it is a share of the rows, from 0 to 1",
            do="write for example 0.01",
        )
