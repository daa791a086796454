"""What travels to a GPU machine: the repository's files and a folder of packages; their limit."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT_MIB = 64.0
MIB = 2.0**20


def repository_mib(root: Path = ROOT) -> float:
    """Of the files that git tracks, and of those that it neither tracks nor ignores."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True).stdout
    files = [root / name for name in names.split("\0") if name]
    return sum(one.lstat().st_size for one in files if one.is_symlink() or one.is_file()) / MIB


def folder_mib(folder: Path) -> float:
    """Of all files of a folder."""
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file()) / MIB


def main(words: list[str]) -> int:
    """Prints the sizes; 1 if they are more than a GPU machine is sent in one call."""
    folder = Path(words[0])
    repository, packages = repository_mib(), folder_mib(folder)
    for one in sorted(folder.iterdir()):
        print(f"{one.stat().st_size / MIB:7.2f} MiB  {one.name}")
    total = repository + packages
    print(f"{total:7.2f} MiB  in all, {repository:.2f} of them the repository; at most {LIMIT_MIB}")
    return int(total > LIMIT_MIB)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
