"""The parity gate: the first documents of a run through `tokenizers`, beside all other work.

Its processes start before gigatoken is loaded and answer with digests of ids, too few to fill a
pipe, so nobody waits. What gigatoken encodes meanwhile counts for nothing until the gate is passed.
"""

from collections.abc import Sequence
from multiprocessing.connection import Connection

from frontload.data_tools.preprocess.crew import (
    Member,
    end_members,
    portable,
    receive,
    start_member,
)
from frontload.data_tools.preprocess.encoder import Encoder, EncoderRecipe, ids_digest
from frontload.data_tools.preprocess.vocabulary import in_slices

MOST_PROCESSES = 8  # ours: 1,000 documents cost half a second in all, a process more than a tenth


class Gate:
    """Compares gigatoken with `tokenizers` on texts, whose ids `processes` find, or this one."""

    def __init__(self, recipe: EncoderRecipe, texts: Sequence[str], *, processes: int) -> None:
        self._shares = _split_evenly(texts, max(min(processes, MOST_PROCESSES), 1))
        self._compared = [0] * len(self._shares)
        self._members: list[Member] = []
        if processes > 0:
            for share in self._shares:
                self._members.append(start_member(_answer, (recipe, share)))

    @property
    def compared(self) -> int:
        """Documents that were compared so far, and gave the same ids."""
        return sum(self._compared)

    def look(self, encoder: Encoder) -> None:
        """Compares what has come in, and waits for nothing.

        Raises: ParityError at the first text whose ids differ; StageError when a process died.
        """
        for number, member in enumerate(self._members):
            while self._is_open(number) and member.pipe.poll():
                self._take(number, encoder)

    def finish(self, encoder: Encoder) -> None:
        """Compares all that is left.

        Raises: ParityError, StageError.
        """
        for number, share in enumerate(self._shares):
            if not self._members and self._is_open(number):
                encoder.check(share)
                self._compared[number] = len(share)
            while self._is_open(number):
                self._take(number, encoder)

    def _is_open(self, number: int) -> bool:
        return self._compared[number] < len(self._shares[number])

    def _take(self, number: int, encoder: Encoder) -> None:
        kind, value = receive(self._members[number])
        if kind == "failed":
            raise value
        for digest in value:
            encoder.compare(self._shares[number][self._compared[number]], digest)
            self._compared[number] += 1

    def close(self) -> None:
        """Ends the processes."""
        end_members(self._members)


def _answer(pipe: Connection, recipe: EncoderRecipe, texts: Sequence[str]) -> None:
    """What a process does: digests of the ids of its texts, some at a time."""
    reference = recipe.vocabulary().reference
    for some in in_slices(texts):
        try:
            found = reference(some)
            pipe.send(("digests", [ids_digest(ids) for ids in found]))
        except Exception as error:
            pipe.send(("failed", portable(error)))
            return


def _split_evenly(texts: Sequence[str], parts: int) -> list[list[str]]:
    """The texts dealt out in turns, so that each part costs about the same."""
    dealt = [list(texts[part::parts]) for part in range(parts)]
    return [part for part in dealt if part]
