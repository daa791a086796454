"""Numbers as people and models write them, read exactly: no float, no rounding.

`1,200.50`, `$1{,}200`, `-3/4`, `1\\frac{1}{2}`, `2.5e3`, `6 \\times 10^{-3}`, `0.\\overline{3}`,
`12 cm`, `50\\%`, `3 million`, `1101_2`. What is not one number is left to the other graders.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

MOST_CHARACTERS = 400  # ours: beyond this it is no number that a question asks for
MOST_EXPONENT = 400  # ours: the exact value keeps at most this many zeros

_INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.\d*)?|\.\d+)"
_REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\{(\d+)\}")
_BASED = re.compile(r"([0-9A-Fa-f]+)_(?:\{(?:\\text\{)?(\d+|[a-z]+)\}?\}|(\d))")
_SCIENTIFIC = re.compile(
    rf"({_DECIMAL})(?: ?(?:\\times|\\cdot|\*|x) ?10 ?\^ ?(?:\{{ ?([+-]?\d+) ?\}}|([+-]?\d+))"
    r"|[eE]([+-]?\d+))"
)
_POWER_OF_TEN = re.compile(r"10 ?\^ ?(?:\{ ?([+-]?\d+) ?\}|(\d))")
_FRACTION = (
    rf"(?:({_DECIMAL}) ?/ ?({_DECIMAL})"
    rf"|\\frac ?\{{ ?([+-]?{_DECIMAL}) ?\}} ?\{{ ?({_DECIMAL}) ?\}}|\\frac ?(\d) ?(\d))"
)
_MIXED = re.compile(rf"({_INTEGER})(?: | ?(?=\\)){_FRACTION}")
_PLAIN_FRACTION = re.compile(_FRACTION)
_PLAIN_DECIMAL = re.compile(_DECIMAL)
_SIGN = re.compile(r"([+-]?) ?")
_CURRENCY = re.compile(r"\\?[$\u00a3\u20ac\u00a5] ?")
_UNIT_WRAPPER = re.compile(r"\\(?:text|mathrm|textrm|mbox|rm|operatorname) ?\{([^{}]*)\}")
_LAST_UNIT = re.compile(r"\\(?:text|mathrm|textrm|mbox) ?\{([^{}]+)\} ?(\^ ?\{? ?-?\d ?\}?)?$")
_UNIT = re.compile(r"[A-Za-z][A-Za-z .]*(?:\^ ?\{? ?-?\d ?\}?)?(?: ?(?:/|per) ?[A-Za-z ]+\^?\d?)?")

_SCALES = {
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
}
_BASE_NAMES = {"two": 2, "three": 3, "eight": 8, "ten": 10, "sixteen": 16}
# words after a number that change its value or end no quantity
_NO_UNIT = {"squared", "cubed", "factorial", "or", "and", "to", "not", "half", "halves", "third"}
_NO_UNIT |= {"thirds", "quarter", "quarters", "fourths", "fifths", "plus", "minus", "times"}
_NO_UNIT |= {"alpha", "beta", "gamma", "delta", "theta", "sigma", "omega", "lambda", "infinity"}
_UNIT_NAMES = {
    "%": "% percent pct percentage",
    "$": "$ usd dollar dollars",
    "m": "m meter meters metre metres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "km": "km kilometer kilometers kilometre kilometres",
    "g": "g gram grams",
    "kg": "kg kilogram kilograms",
    "mg": "mg milligram milligrams",
    "l": "l L liter liters litre litres",
    "ml": "ml mL milliliter milliliters millilitre millilitres",
    "s": "s sec secs second seconds",
    "min": "min mins minute minutes",
    "h": "h hr hrs hour hours",
    "day": "day days",
    "ft": "ft foot feet",
    "in": "in inch inches",
    "yd": "yd yard yards",
    "mi": "mi mile miles",
    "lb": "lb lbs pound pounds",
    "degree": "degree degrees deg",
    "unit": "unit units",
    "mph": "mph",
    "N": "N newton newtons",
    "J": "J joule joules",
    "W": "W watt watts",
    "V": "V volt volts",
    "K": "K kelvin kelvins",
    "Pa": "Pa pascal pascals",
    "Hz": "Hz hertz",
    "mol": "mol mole moles",
    "cent": "cent cents",
}
_CANONICAL = {word: name for name, words in _UNIT_NAMES.items() for word in words.split()}


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """An exact value, its unit ("" for none), and its numeral when it is written in a base."""

    value: Fraction
    unit: str = ""
    numeral: str = ""
    base: int = 0  # 0: no base stated


def read_quantity(text: str) -> Quantity | None:
    """The number that `text` is, or None when it is anything else.

    `text` has plain ASCII signs (see `grade_answer.plain_form`).
    """
    if len(text) > MOST_CHARACTERS or not any(character.isdigit() for character in text):
        return None
    based = _BASED.fullmatch(text)
    if based is not None:
        return _based(based)
    sign = _SIGN.match(text)
    assert sign is not None
    rest, unit = text[sign.end() :], ""
    currency = _CURRENCY.match(rest)
    if currency is not None:
        rest, unit = rest[currency.end() :], currency[0].strip(" \\")
        if not sign[1]:  # $-5
            sign = _SIGN.match(rest)
            assert sign is not None
            rest = rest[sign.end() :]
    read = _leading_value(rest)
    if read is None:
        return None
    value, end = read
    found = _unit(rest[end:])
    if found is None or (unit and found[0] not in ("", unit)):
        return None
    value *= found[1]
    return Quantity(value=-value if sign[1] == "-" else value, unit=unit or found[0])


def _based(match: re.Match[str]) -> Quantity | None:
    stated = match[2] or match[3]
    base = int(stated) if stated.isdigit() else _BASE_NAMES.get(stated, 0)
    digits = match[1].upper()
    if not 2 <= base <= 36:
        return None
    try:
        value = int(digits, base)
    except ValueError:
        return None
    return Quantity(value=Fraction(value), numeral=digits.lstrip("0") or "0", base=base)


def _leading_value(text: str) -> tuple[Fraction, int] | None:
    """(value, where it ends) of the longest number that `text` starts with."""
    repeating = _REPEATING.match(text)
    if repeating is not None:
        whole, start, period = (repeating[group] or "" for group in (1, 2, 3))
        nines = (10 ** len(period) - 1) * 10 ** len(start)
        value = _decimal(f"{whole or 0}.{start or 0}") + Fraction(int(period), nines)
        return value, repeating.end()
    mixed = _MIXED.match(text)
    if mixed is not None:
        part = _fraction(mixed, first=2)
        return None if part is None else (_decimal(mixed[1]) + part, mixed.end())
    fraction = _PLAIN_FRACTION.match(text)
    if fraction is not None:
        part = _fraction(fraction, first=1)
        return None if part is None else (part, fraction.end())
    scientific = _SCIENTIFIC.match(text)
    if scientific is not None:
        power = _power_of_ten(scientific[2] or scientific[3] or scientific[4])
        return None if power is None else (_decimal(scientific[1]) * power, scientific.end())
    ten = _POWER_OF_TEN.match(text)
    if ten is not None:
        power = _power_of_ten(ten[1] or ten[2])
        return None if power is None else (power, ten.end())
    decimal = _PLAIN_DECIMAL.match(text)
    return None if decimal is None else (_decimal(decimal[0]), decimal.end())


def _decimal(text: str) -> Fraction:
    return Fraction(text.replace(",", "").replace(" ", "").rstrip("."))


def _fraction(match: re.Match[str], *, first: int) -> Fraction | None:
    """The value of _FRACTION's groups, of which two are set."""
    parts = [match[group] for group in range(first, first + 6) if match[group]]
    above, below = (_decimal(part) for part in parts)
    return above / below if below else None


def _power_of_ten(exponent: str) -> Fraction | None:
    if len(exponent) > 5 or abs(int(exponent)) > MOST_EXPONENT:
        return None
    return Fraction(10) ** int(exponent)


def split_unit(text: str) -> tuple[str, str]:
    r"""(expression, unit) where an expression ends with a unit in a font command: `\text{ cm}`."""
    found = _LAST_UNIT.search(text)
    if found is None or not found.start() or set(found[1].lower().split()) & _NO_UNIT:
        return text, ""
    words = " ".join((found[1] + (found[2] or "")).split())
    if not _UNIT.fullmatch(words) or not (len(words) > 1 or words in _CANONICAL):
        return text, ""
    return text[: found.start()].strip(), _canonical_unit(words)


def _unit(text: str) -> tuple[str, int] | None:
    """(unit, factor) of what follows a number, None when it is neither a unit nor nothing."""
    if not text.strip():
        return "", 1
    if re.fullmatch(r" ?\\?%", text):
        return "%", 1
    degree = re.fullmatch(r" ?\^ ?(?:\{ ?\\circ ?\}|\\circ) ?([CF]?)", text)
    if degree is not None:
        return "degree" + degree[1], 1
    unwrapped = _UNIT_WRAPPER.sub(r" \1", text)
    is_wrapped = unwrapped != text
    words = " ".join(unwrapped.replace("-", " ").split())
    if not _UNIT.fullmatch(words):
        return None
    scale = 1
    first, _, others = words.partition(" ")
    if first.lower() in _SCALES:
        scale, words = _SCALES[first.lower()], others
    if not words:
        return "", scale
    if set(words.lower().split()) & _NO_UNIT:
        return None
    if is_wrapped:
        is_unit = len(words) > 1 or words in _CANONICAL
    else:
        is_unit = _reads_as_unit(words, spaced=text.startswith((" ", "-")))
    return (_canonical_unit(words), scale) if is_unit else None


def _reads_as_unit(words: str, *, spaced: bool) -> bool:
    """Whether bare letters after a number are a unit and no algebra (`5 cm`, not `5x` or `5ab`)."""
    first = re.split(r"[ ^/.]", words, maxsplit=1)[0]
    if first in _CANONICAL:
        return spaced or len(first) > 1
    return spaced and len(first) >= 4 and first.lower() not in ("sqrt", "frac")


def _canonical_unit(words: str) -> str:
    """One spelling for each unit; an unknown word stays, in small letters and singular."""
    words = re.sub(r"\^ ?\{? ?(-?\d) ?\}?", r"^\1", words.rstrip(" ."))
    for square, power in (("square ", "^2"), ("sq ", "^2"), ("sq. ", "^2"), ("cubic ", "^3")):
        if words.lower().startswith(square):
            words = words[len(square) :] + power
    names = []
    for part in re.split(r" ?/ ?| per ", words):
        name, mark, power = part.strip().partition("^")
        name = _CANONICAL.get(name) or _CANONICAL.get(name.lower()) or _singular(name.lower())
        names.append(name + mark + power)
    return "/".join(names)


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def same_quantity(gold: Quantity, prediction: Quantity) -> bool:
    """Whether a prediction is the gold number. Exact: `1/3` is not `0.33`.

    A unit (or base) that only one of the two states is taken as understood; two stated ones must
    be the same. A percent sign may be left out, added to a gold answer above 1, or worked out
    (`10%` is `0.1`); not added to a gold answer up to 1: `0.5` and `0.5%` are different shares.
    """
    if gold.base or prediction.base:
        return _same_numeral(gold, prediction)
    if "%" in (gold.unit, prediction.unit) and gold.unit != prediction.unit:
        if gold.unit == "%" and not prediction.unit:
            return prediction.value in (gold.value, gold.value / 100)
        if prediction.unit == "%" and not gold.unit:
            is_added = prediction.value == gold.value and abs(gold.value) > 1
            return is_added or prediction.value / 100 == gold.value
        return False
    if gold.unit and prediction.unit and gold.unit != prediction.unit:
        return False
    return gold.value == prediction.value


def _same_numeral(gold: Quantity, prediction: Quantity) -> bool:
    if gold.base and prediction.base:
        return (gold.numeral, gold.base) == (prediction.numeral, prediction.base)
    based, other = (gold, prediction) if gold.base else (prediction, gold)
    return not other.unit and other.value.denominator == 1 and based.numeral == str(other.value)
