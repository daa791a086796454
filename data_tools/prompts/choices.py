"""Multiple choice as text: the options that a question lists, and which of them an answer names.

Used where data is filtered (the gold answer must be an option) and where answers are graded.
"""

import re
import unicodedata
from collections.abc import Sequence

LETTERS = "ABCDEFGHIJ"  # MMLU-Pro, the widest of the paper's benchmarks, has ten options

_WRAPPED = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_BARE = re.compile(r"(?:(?:option|choice|answer)\s+)?\(?\s*([A-Za-z])\s*[).:]?", re.IGNORECASE)
_LABELLED = re.compile(r"(?:\(\s*([A-Z])\s*\)|([A-Z])\s*[).:])\s*(\S.*)", re.DOTALL)
_ANY_LABELLED = re.compile(_LABELLED.pattern, re.DOTALL | re.IGNORECASE)
_AROUND = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_LINE_LABEL = r"^[ \t]*(?:\({0}\)|{0}[.):])[ \t]*(?=\S)"
_INLINE_LABEL = r"(?:^|(?<=[\s,;]))(?:\({0}\)|{0}[.):])[ \t]+(?=\S)"


def find_options(question: str, *, inline: bool = True) -> tuple[str, ...]:
    """The texts of the options that a question lists, from A on; empty when it lists none.

    Labels are `A.`, `A)`, `A:` or `(A)`: each at the start of a line, or else (`inline`) all in
    running text. At least two in alphabetical order make a list.
    """
    for label in (_LINE_LABEL, _INLINE_LABEL) if inline else (_LINE_LABEL,):
        options = _labelled_parts(question, label)
        if len(options) >= 2 and all(options):
            return options
    return ()


def _labelled_parts(question: str, label: str) -> tuple[str, ...]:
    """The text after each label, up to the next one; the last list that starts with A."""
    first = re.compile(label.format("A"), re.MULTILINE)
    starts = list(first.finditer(question))
    if not starts:
        return ()
    labels = [starts[-1]]
    for letter in LETTERS[1:]:
        found = re.compile(label.format(letter), re.MULTILINE).search(question, labels[-1].end())
        if found is None:
            break
        labels.append(found)
    ends = [found.start() for found in labels[1:]]
    last = question.find("\n\n", labels[-1].end())
    ends.append(last if last >= 0 else len(question))
    return tuple(
        question[found.end() : end].strip(" \t\r\n,;")
        for found, end in zip(labels, ends, strict=True)
    )


def option_key(text: str) -> str:
    """The form in which two option texts are the same: characters, case, spaces, final stop."""
    folded = unicodedata.normalize("NFKC", unwrapped(text)).casefold()
    return " ".join(folded.split()).rstrip(" .,;:!")


def unwrapped(text: str) -> str:
    r"""`text` without signs of mathematics or braces around it, Markdown's stars, LaTeX's fonts.

    A tie in a font command is a space: `10 \mathrm{~N}`.
    """
    bare = _without_fonts(text)
    while (inner := _inside(bare)) is not None:
        bare = _without_fonts(inner)
    return bare


def _without_fonts(text: str) -> str:
    plain = _WRAPPED.sub(lambda found: found[1].replace("~", " "), text)
    return plain.strip().strip("*`").strip()


def _inside(text: str) -> str | None:
    """What one pair of signs encloses, None when there is no such pair around all of the text."""
    if text.startswith("{") and is_one_group(text):
        return text[1:-1]
    for opening, closing in _AROUND:
        inner = text[len(opening) : len(text) - len(closing)]
        if text == opening + inner + closing and opening not in inner:
            return inner
    return None


def is_one_group(text: str) -> bool:
    """Whether the brace that `text` starts with closes at its end."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return position == len(text) - 1
    return False


def chosen_letter(answer: str, options: Sequence[str] = ()) -> str:
    """The letter of the option that an answer names, or "" when it names none or more than one.

    `B`, `(b)`, `B.`, `option B`, `B) Rome`, `(b) rome` and the text of an option (`Rome`) name an
    option. A letter beyond the options names none; a letter beside another option's text names
    none.
    """
    bare = unwrapped(answer)
    match = _BARE.fullmatch(bare)
    if match is not None:
        return _within(match[1].upper(), options)
    named = [
        letter
        for letter, option in zip(LETTERS, options, strict=False)
        if option_key(option) == option_key(bare)
    ]
    if named:  # before labels: the text of an option may be `E. coli`
        return named[0] if len(named) == 1 else ""
    # a small letter may begin a sentence: it is a label where the option's own text must follow
    labelled = (_ANY_LABELLED if options else _LABELLED).fullmatch(bare)
    if labelled is None:
        return ""
    letter = _within((labelled[1] or labelled[2]).upper(), options)
    if not options or not letter:
        return letter
    own_text = option_key(options[LETTERS.index(letter)])
    return letter if option_key(labelled[3]) == own_text else ""


def label_text(answer: str) -> tuple[str, str]:
    """(letter, text) of an answer such as `B) Rome`; the text is "" for a bare letter."""
    bare = unwrapped(answer)
    labelled = _LABELLED.fullmatch(bare)
    if labelled is not None:
        return labelled[1] or labelled[2], labelled[3].strip()
    match = _BARE.fullmatch(bare)
    return (match[1].upper(), "") if match is not None else ("", bare)


def _within(letter: str, options: Sequence[str]) -> str:
    if letter not in LETTERS or (options and LETTERS.index(letter) >= len(options)):
        return ""
    return letter
