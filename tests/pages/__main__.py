"""`make pages`: writes the tables and numbers of README.md and RESULTS.md from the log.

With an artifact, first publishes its numbers in eval/log/data.
"""

import argparse
import sys
from pathlib import Path

from frontload.recipes.errors import RecipeError
from tests.pages.published import About, publish
from tests.pages.render import DATA, ROOT, list_run, write_pages


def main(words: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="tests.pages", description=__doc__)
    parser.add_argument("--artifact", type=Path, help="a finished store/tabulate/STUDY-KEY")
    parser.add_argument("--regime", help="what RESULTS.md calls this run")
    parser.add_argument("--made", help="the machine that made it")
    parser.add_argument("--date", help="YYYY-MM-DD")
    asked = parser.parse_args(words)
    if asked.artifact:
        if not (asked.regime and asked.made and asked.date):
            parser.error("--artifact needs --regime, --made and --date")
        about = About(regime=asked.regime, made=asked.made, date=asked.date)
        try:
            path = publish(asked.artifact, about, folder=DATA)
        except RecipeError as error:
            print(f"pages: {error}", file=sys.stderr)
            return 2
        list_run(path.stem)
        print(f"wrote {path.relative_to(ROOT)}")
    for page in write_pages():
        print(f"wrote {page.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
