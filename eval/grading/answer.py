"""Whether two final answers are the same, as far as that can be said without computer algebra.

What is left open goes to `grade_process`, where an expression cannot do harm.
"""

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum

from frontload.data_tools.prompts.choices import (
    chosen_letter,
    is_one_group,
    label_text,
    option_key,
)
from frontload.eval.grading.number import Quantity, read_quantity, same_quantity, split_unit

_SIGNS = {
    "\u2212": "-", "\u2013": "-", "\u2012": "-", "\u2010": "-", "\u2011": "-", "\ufe63": "-",
    "\u00d7": r"\times ", "\u00b7": r"\cdot ", "\u22c5": r"\cdot ", "\u2217": "*",
    "\u00f7": "/", "\u2044": "/", "\u2215": "/", "\u03c0": r"\pi ", "\u221a": r"\sqrt ",
    "\u221e": r"\infty ", "\u2264": r"\le ", "\u2265": r"\ge ", "\u2260": r"\ne ",
    "\u222a": r"\cup ", "\u2229": r"\cap ", "\u2205": r"\emptyset ", "\u2208": r"\in ",
    "\u00b0": r"^\circ ", "\u03b8": r"\theta ", "\u03b1": r"\alpha ", "\u03b2": r"\beta ",
    "\u00b1": r"\pm ", "\u211d": r"\mathbb{R} ", "\u2018": "'", "\u2019": "'",
    "\u201c": '"', "\u201d": '"', "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u200b": "",
}  # fmt: skip
_SIGN_TABLE = str.maketrans(_SIGNS)
_SUPERSCRIPTS = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b"
_SUBSCRIPTS = "\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089\u208b"
_RAISED = re.compile(f"[{_SUPERSCRIPTS}]+")
_LOWERED = re.compile(f"[{_SUBSCRIPTS}]+")
_TO_RAISED = str.maketrans(_SUPERSCRIPTS, "0123456789-")
_TO_LOWERED = str.maketrans(_SUBSCRIPTS, "0123456789-")
_VULGAR = re.compile("(?<=\\d)(?=[\u00bc-\u00be\u2150-\u215e])")

_SPACING = re.compile(r"(\\\\)|\\(?:[,;: ]|(?:q?quad|displaystyle)(?![a-zA-Z]))|~")
_SIZING = re.compile(r"\\(?:left|right|big|Big|bigl|bigr|Bigl|Bigr)(?![a-zA-Z])\.?")
_FRACTIONS = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_EMPTY_SET = re.compile(r"\\varnothing(?![a-zA-Z])")
_DELIMITED = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_FONT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox)\s*\{([^{}]*)\}")
_COMMAND = re.compile(r"\\(?:begin|end|operatorname)\s*\{[^{}]*\}|\\[a-zA-Z]+")
_WORD = re.compile(r"[^\W\d_]{3,}")
_MATH_WORDS = frozenset(
    {"sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh"}
    | {"log", "exp", "sqrt", "min", "max", "gcd", "lcm", "mod", "det", "lim", "inf", "sup", "deg"}
    | {"dim", "ker", "arg", "and", "for"}
)
_START = re.compile(r"^[\s=]+")
_END = re.compile(r"[\s,;:]+$|(?<![.\s])\s*\.$")
_FREE_SPACE = re.compile(r" (?!\w)|(?<!\w) ")
_DIGITS_APART = re.compile(r"[\d., ]*\d \d[\d., ]*")
_LETTERS = re.compile(r"[^\W\d_]{2,}")
_ELLIPSIS = re.compile(r"\\(?:ldots|cdots|dots)(?![a-zA-Z])|\.\.")
_DIGIT_SUBSCRIPT = re.compile(r"\d ?_")


class AnswerVerdict(StrEnum):
    """What a comparison found."""

    SAME = "same"
    DIFFERENT = "different"
    OPEN = "open"
    """Both may be mathematics: computer algebra has to decide."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A verdict, and the two forms that computer algebra is to compare when it is open."""

    verdict: AnswerVerdict
    gold: str = ""
    prediction: str = ""


def plain_form(text: str) -> str:
    """`text` with ASCII signs, without delimiters, spacing commands and a final stop.

    Superscripts and subscripts become `^{..}` and `_{..}` before compatibility characters are
    folded: Unicode's own folding would read ten squared as 102.
    """
    form = _RAISED.sub(lambda found: "^{" + found[0].translate(_TO_RAISED) + "}", text)
    form = _LOWERED.sub(lambda found: "_{" + found[0].translate(_TO_LOWERED) + "}", form)
    form = unicodedata.normalize("NFKC", _VULGAR.sub(" ", form).translate(_SIGN_TABLE))
    form = form.translate(_SIGN_TABLE)
    form = _EMPTY_SET.sub(lambda _: r"\emptyset", form)
    form = _SIZING.sub("", _FRACTIONS.sub(lambda _: r"\frac", form)).replace("{,}", ",")
    form = _SPACING.sub(lambda found: found[1] or " ", form.replace(r"\!", ""))
    form = _trimmed(_trimmed(" ".join(form.split())).strip("*`"))
    for opening, closing in _DELIMITED:
        if len(form) >= len(opening) + len(closing) and form.startswith(opening):
            inner = form[len(opening) : len(form) - len(closing)]
            if form.endswith(closing) and opening not in inner:
                form = _trimmed(inner)
    while form.startswith("{") and is_one_group(form):
        form = _trimmed(form[1:-1])
    return form


def _trimmed(text: str) -> str:
    """Without an equals sign before it, and a comma or one full stop (no ellipsis) after it."""
    return _END.sub("", _START.sub("", text)).strip()


def text_key(form: str) -> str:
    """The form in which two answers in words are the same: no font commands, case or quotes."""
    key = _trimmed(" ".join(_FONT.sub(r"\1", form).casefold().split()))
    return key.strip("\"'").rstrip("!") if is_prose(form) else key  # f' and 5! mean something


def is_prose(form: str) -> bool:
    """Whether an answer is words, which computer algebra would read as products of letters.

    (To math-verify `Paris` and `Pairs` are the same product, and so are `no` and `on`.) Words
    inside `\\text{}` are safe.
    """
    if _LETTERS.fullmatch(form):
        return True
    bare = _COMMAND.sub(" ", _FONT.sub(" ", form))
    return any(word.lower() not in _MATH_WORDS for word in _WORD.findall(bare))


def compare_answers(gold: str, prediction: str) -> Comparison:
    """Whether a prediction is the gold answer: same text, same number, or open."""
    gold_form, form = plain_form(gold), plain_form(prediction)
    if not gold_form or not form:
        return _decided(False)
    if text_key(gold_form) == text_key(form):
        return _decided(True)
    gold_number, number = _number(gold_form), _number(form)
    if gold_number is not None and number is not None:
        return _decided(same_quantity(gold_number, number))
    (gold_bare, gold_unit), (bare, unit) = split_unit(gold_form), split_unit(form)
    if gold_unit and unit and gold_unit != unit:
        return _decided(False)
    if _FREE_SPACE.sub("", gold_bare) == _FREE_SPACE.sub("", bare):
        return _decided(True)
    if _is_misread(gold_bare) or _is_misread(bare) or gold_bare.count("'") != bare.count("'"):
        return _decided(False)
    return Comparison(verdict=AnswerVerdict.OPEN, gold=gold_bare, prediction=bare)


def _number(form: str) -> Quantity | None:
    """The number that a form is, also where all of it stands in one font command."""
    return read_quantity(_FONT.sub(r"\1", form) if _FONT.fullmatch(form) else form)


def _is_misread(form: str) -> bool:
    """Whether math-verify 0.9.0 reads this form as something else.

    Words become products of letters, a base is dropped (`11_2` is 11), digits apart are added up,
    dots that say "and so on" are left out.
    """
    return (
        is_prose(form)
        or _ELLIPSIS.search(form) is not None
        or _DIGITS_APART.fullmatch(form) is not None
        or _DIGIT_SUBSCRIPT.search(form) is not None
    )


def compare_choice(gold: str, prediction: str, options: tuple[str, ...]) -> Comparison:
    """Whether a prediction names the gold option, by letter, by text, or by both.

    A gold answer such as `B) Rome` brings its own text where the options are not known.
    """
    letter, text = label_text(gold)
    if options:
        letter = chosen_letter(gold, options)
        text = options[ord(letter) - ord("A")] if letter else text
    named, named_text = label_text(prediction)
    if options:
        return _decided(bool(letter) and chosen_letter(prediction, options) == letter)
    if named and not named_text:
        return _decided(named == letter)
    if not text:
        return _decided(bool(letter) and named == letter)
    return _decided(named in ("", letter) and option_key(named_text) == option_key(text))


def _decided(is_same: bool) -> Comparison:
    return Comparison(verdict=AnswerVerdict.SAME if is_same else AnswerVerdict.DIFFERENT)
