"""One run of `frontload data preprocess`: planned, encoded by units, published whole or not at all.

Killed at any moment and run again it goes on: finished units are kept, the bytes are the same.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.indexed import bin_file, idx_file, manifest_file
from frontload.data_tools.disk.publish import clear, disk_told, work_folder, workplace
from frontload.data_tools.preprocess.added import doubtful_spellings, refused_spellings
from frontload.data_tools.preprocess.crew import EncoderCrew
from frontload.data_tools.preprocess.encoder import Encoder, EncoderRecipe, ParityError
from frontload.data_tools.preprocess.gate import Gate
from frontload.data_tools.preprocess.plan import FORMAT, WorkPlan, check_unchanged, make_plan
from frontload.data_tools.preprocess.progress import Progress, quiet
from frontload.data_tools.preprocess.publish import (
    JoinedFile,
    describe_inputs,
    describe_parts,
    drop_counts,
    publish,
    unit_lengths,
    write_rejects,
)
from frontload.data_tools.preprocess.request import (
    EncoderChoice,
    PreprocessRequest,
    SpecialText,
    check_request,
)
from frontload.data_tools.preprocess.unit import (
    Receipt,
    UnitJob,
    read_receipt,
    read_texts,
    unit_file,
)
from frontload.data_tools.preprocess.vocabulary import (
    Vocabulary,
    load_vocabulary,
    package_versions,
)
from frontload.data_tools.preprocess.work import (
    describe_plan,
    enter_plan,
    find_published,
    mark_refused,
    note_encoder,
    noted_encoders,
)
from frontload.data_tools.raw.bad_rate import ROWS_TO_JUDGE
from frontload.data_tools.raw.inputs import expand_inputs
from frontload.data_tools.raw.rejects import check_rejects
from frontload.data_tools.text.joined import fields_hint, way_out
from frontload.data_tools.text.row_text import ChatText, TextRule, row_text
from frontload.recipes.errors import RecipeError

COMPARED_DOCUMENTS = 1000  # ours: the parity gate, before anything of gigatoken's is published
LONG_DOCUMENTS = 100  # ours: of those, this many are compared to their end, or so far ...
LONG_CHARACTERS = 1 << 18  # ours: 130 MiB in ASCII: `tokenizers` takes 500 bytes a token
COMPARED_CHARACTERS = 1000  # ours: ... and the others so far: one second instead of two or more
COMPARED_BYTES = 16 << 20  # ours: of long documents fewer are compared, 4 s on two cores


def preprocess(request: PreprocessRequest, *, progress: Progress | None = None) -> dict[str, Any]:
    """Writes `P.bin`, `P.idx` and, last, `P.manifest.json`, and returns the manifest.

    Raises: RecipeError for what cannot be read or used; StageError when the machine fails.
    """
    check_request(request)
    if request.is_chat:  # the template spells special tokens; a row that does is left out before
        request = replace(request, special_text=SpecialText.ENCODE)
    files = expand_inputs([str(name) for name in request.inputs])
    prefix = request.prefix
    check_rejects(
        request.rejects,
        read=[*files, request.tokenizer],
        written=[bin_file(prefix), idx_file(prefix), manifest_file(prefix), work_folder(prefix)],
    )
    vocabulary = load_vocabulary(request.tokenizer)
    eod = vocabulary.eod(request.eod_token) if request.append_eod else None
    of_tokenizer: dict[str, Any] = {
        "tokenizer_sha256": vocabulary.sha256,
        "eod_token": eod[0] if eod else None,
    }
    around = vocabulary.around(request.prepend_bos)
    if request.prepend_bos is not None:
        of_tokenizer["ids_around"] = [list(ids) for ids in around]
    elif left_out := vocabulary.tokens_around():
        of_tokenizer["left_out_around"] = left_out
    if isinstance(text := row_text(text_rule(request, eod)), ChatText):
        of_tokenizer["template_sha256"] = text.template.sha256
        of_tokenizer |= {"day": request.day.isoformat()} if request.day else {}
    plan = make_plan(request, files, of_tokenizer, columns=text.columns)
    if (earlier := find_published(prefix, plan.key)) and not work_folder(prefix).exists():
        return earlier
    with workplace(prefix, asked="--output-prefix") as folder:
        if earlier := find_published(prefix, plan.key):
            return earlier
        enter_plan(folder, prefix, describe_plan(plan))
        run = _Run(request, plan, vocabulary, folder, progress or quiet())
        try:
            manifest = run.encode_and_publish(eod)
        except RecipeError:
            if any(folder.glob("unit-*.json")):
                mark_refused(folder)
            else:
                clear(folder)  # a damaged or empty file: there is nothing to go on from
            raise
    return manifest


def text_rule(request: PreprocessRequest, eod: tuple[str, int] | None) -> TextRule:
    """What a request says of the text of its rows."""
    if not request.is_chat:
        return TextRule(key=request.json_key)
    end = eod[0] if eod else ""
    return TextRule(key="", chat=request.tokenizer, end=end, day=request.day)


class _Run:
    """The state of one run: which units are done, with which encoder."""

    def __init__(
        self,
        request: PreprocessRequest,
        plan: WorkPlan,
        vocabulary: Vocabulary,
        folder: Path,
        progress: Progress,
    ) -> None:
        self._request, self._plan, self._vocabulary = request, plan, vocabulary
        self._folder, self._progress = folder, progress
        self._rule = text_rule(request, None)
        self._done: dict[int, Receipt] = {}
        self._kept = 0

    def encode_and_publish(self, eod: tuple[str, int] | None) -> dict[str, Any]:
        """Encodes what is missing, then publishes."""
        self._rule = text_rule(self._request, eod)
        for unit in self._plan.units:
            if receipt := read_receipt(self._folder, unit.number):
                self._done[unit.number] = receipt
        self._kept = len(self._done)
        joined = self._new_joined()
        try:
            if len(self._done) < len(self._plan.units) or self._is_unproven():
                joined = self._encode_missing(eod, joined)
            self._judge(self._ordered())
            for receipt in self._ordered()[self._joined :]:
                joined.append(unit_file(self._folder, receipt.unit, "bin"))
            check_unchanged(self._plan)
            return self._publish(eod, joined)
        except BaseException:
            joined.discard()
            raise

    def _new_joined(self) -> JoinedFile:
        self._joined = self._joined_rows = self._joined_bad = 0
        with disk_told(self._request.prefix):
            return JoinedFile(self._folder / "joined.bin")

    def _encode_missing(self, eod: tuple[str, int] | None, joined: JoinedFile) -> JoinedFile:
        """Encodes the units without a receipt; falls back from gigatoken when it must."""
        wanted, reason = self._request.encoder, "asked for"
        if wanted is EncoderChoice.TOKENIZERS and self._is_unproven():
            self._forget_gigatoken()
        if wanted is not EncoderChoice.TOKENIZERS:
            try:
                self._encode_with(EncoderChoice.GIGATOKEN, eod, joined)
                return joined
            except ParityError as error:
                if wanted is EncoderChoice.GIGATOKEN:
                    raise RecipeError(
                        f"--encoder gigatoken with {self._vocabulary.file}",
                        found=str(error),
                        rule="gigatoken is used where its ids are those of tokenizers",
                        do="write --encoder auto, which falls back to tokenizers",
                    ) from error
                reason = str(error)
                self._progress.note(f"encoder: tokenizers, since {error}")
            self._forget_gigatoken()
            joined.discard()
            joined = self._new_joined()
        note_encoder(self._folder, EncoderChoice.TOKENIZERS, reason=reason, compared=0)
        self._encode_with(EncoderChoice.TOKENIZERS, eod, joined)
        return joined

    def _encode_with(
        self, choice: EncoderChoice, eod: tuple[str, int] | None, joined: JoinedFile
    ) -> None:
        recipe = EncoderRecipe(
            tokenizer=self._request.tokenizer,
            choice=choice,
            special_text=self._request.special_text,
            eod=eod,
            around=self._vocabulary.around(self._request.prepend_bos),
        )
        missing = [unit for unit in self._plan.units if unit.number not in self._done]
        workers = min(self._request.workers, len(missing))
        jobs = [self._job(unit) for unit in missing]
        kept_bytes = self._plan.num_bytes - sum(unit.stop - unit.start for unit in missing)
        self._progress.start(self._plan.num_bytes, done=kept_bytes)
        gate = crew = None
        first: list[str] = []
        try:
            if choice is EncoderChoice.GIGATOKEN:
                first = self._first_texts()
                gate = Gate(recipe, first, processes=workers - 1)
            encoder = Encoder(recipe)  # before the workers start: they share what it loaded
            encoder.check_spelled()
            recipe = replace(recipe, joins=encoder.can_join(first))
            if gate and workers < 2:
                self._finish(gate, encoder)
            crew = EncoderCrew(recipe, workers=workers, report=self._progress.advance)
            for receipt in crew.run(jobs):
                self._done[receipt.unit] = receipt
                self._join_ready(joined)
                if gate:
                    gate.look(encoder)
            if gate:
                self._finish(gate, encoder)
        finally:
            for processes in (crew, gate):
                if processes:
                    processes.close()
            self._progress.stop()

    def _finish(self, gate: Gate, encoder: Encoder) -> None:
        gate.finish(encoder)
        note_encoder(
            self._folder,
            EncoderChoice.GIGATOKEN,
            reason="ids compared with tokenizers",
            compared=gate.compared,
        )

    def _job(self, unit: Any) -> UnitJob:
        return UnitJob(
            unit=unit,
            source=self._plan.sources[unit.source],
            folder=self._folder,
            text=self._rule,
            max_row_bytes=self._request.max_row_bytes,
            keeps_rejects=self._request.rejects is not None,
        )

    def _first_texts(self) -> list[str]:
        """The documents that the parity gate compares: the first 1,000 of this run, or parts."""
        refused = refused_spellings(self._vocabulary, self._request.special_text)
        doubtful = doubtful_spellings(self._vocabulary, self._request.special_text)
        found = chain.from_iterable(read_texts(self._job(unit)) for unit in self._plan.units)
        documents = (text for text in found if not refused.found_in(text))
        texts: list[str] = []
        left = COMPARED_BYTES
        for number, text in enumerate(islice(documents, COMPARED_DOCUMENTS)):
            if doubtful.found_in(text):
                continue  # goes through `tokenizers` anyway
            is_long = number < LONG_DOCUMENTS
            texts.append(text[: LONG_CHARACTERS if is_long else COMPARED_CHARACTERS])
            left -= len(texts[-1])
            if left <= 0:
                break
        return texts

    def _join_ready(self, joined: JoinedFile) -> None:
        """Adds the finished units that follow what is joined, and judges the rows so far."""
        units = self._plan.units
        while self._joined < len(units) and units[self._joined].number in self._done:
            with disk_told(self._request.prefix):
                joined.append(unit_file(self._folder, units[self._joined].number, "bin"))
            receipt = self._done[units[self._joined].number]
            self._joined += 1
            self._joined_rows += receipt.rows
            self._joined_bad += sum(receipt.dropped.values())
            if self._joined_rows >= ROWS_TO_JUDGE and self._is_too_bad(
                self._joined_bad, self._joined_rows
            ):
                self._judge([self._done[unit.number] for unit in units[: self._joined]])

    def _ordered(self) -> list[Receipt]:
        return [self._done[unit.number] for unit in self._plan.units]

    def _is_unproven(self) -> bool:
        """Whether parts of a killed run came from gigatoken before it had passed the gate."""
        made = {receipt.encoder for receipt in self._done.values()}
        return EncoderChoice.GIGATOKEN in made - noted_encoders(self._folder).keys()

    def _forget_gigatoken(self) -> None:
        for number, receipt in list(self._done.items()):
            if receipt.encoder == EncoderChoice.GIGATOKEN:
                unit_file(self._folder, number, "json").unlink()
                del self._done[number]
        self._kept = len(self._done)

    def _is_too_bad(self, bad: int, rows: int) -> bool:
        return bad > rows * self._request.max_bad_rate

    def _judge(self, receipts: Sequence[Receipt]) -> None:
        """Stops a run whose first units, in order, or all, lose too many rows or have none.

        Raises: RecipeError.
        """
        rows = sum(receipt.rows for receipt in receipts)
        counts = drop_counts(receipts)
        bad = sum(counts.values())
        reasons = ", ".join(f"{name} {count}" for name, count in counts.most_common())
        if self._is_too_bad(bad, rows):
            raise RecipeError(
                f"--max-bad-rate {self._request.max_bad_rate:g}",
                found=f"{bad} of {rows} rows{' of this shard' * bool(self._request.shard)} cannot"
                f" be used ({reasons}), such as"
                f" {self._examples(receipts)}",
                rule="nothing is published when more rows than that are lost",
                do=f"mend the rows or {self._request.text_option}, or raise the rate and"
                " run again: finished parts are kept"
                + way_out(counts, [one[2] for receipt in receipts for one in receipt.examples]),
            )
        has_documents = any(receipt.documents for receipt in receipts)
        if not has_documents and self._request.shard is None:  # of a shard `merge` judges
            raise RecipeError(
                f"preprocessing {', '.join(source.name for source in self._plan.sources)}",
                found=f"no row to write of {rows} rows" + (f" ({reasons})" if reasons else ""),
                rule="at least one row has text",
                do=f"check the files and {self._request.text_option}",
            )

    def _examples(self, receipts: Sequence[Receipt]) -> str:
        """The first bad row, with its place and beginning, and the fields it has."""
        lines = 0
        units = {unit.number: unit for unit in self._plan.units}
        source = -1
        for receipt in receipts:
            unit = units[receipt.unit]
            if unit.source != source:
                source, lines = unit.source, 0
            for number, reason, shown in receipt.examples:
                text = bytes.fromhex(shown).decode("utf-8", "replace")
                place = f"{self._plan.sources[source].file}:{lines + number}"
                if unit.start and self._plan.units[0].start == unit.start:
                    place += f" after byte {unit.start}"
                return f"{place} ({reason}): {text!r}{fields_hint(text, self._request.json_key)}"
            lines += receipt.lines
        return "none"

    def _publish(self, eod: tuple[str, int] | None, joined: JoinedFile) -> dict[str, Any]:
        receipts = self._ordered()
        parts = describe_parts(self._plan, receipts)
        sources = [source.described() for source in self._plan.sources]
        shard = self._request.shard
        manifest: dict[str, Any] = {
            **self._plan.request,
            "format": FORMAT,
            "inputs": describe_inputs(sources, parts),
            "parts": parts,
            "shard": {"number": shard.number, "of": shard.of} if shard else None,
            "eod_id": eod[1] if eod else None,
            "dtype": self._vocabulary.dtype.name,
            "vocab_size": self._vocabulary.vocab_size,
            "num_rows": sum(receipt.rows for receipt in receipts),
            "num_documents": sum(receipt.documents for receipt in receipts),
            "num_tokens": sum(receipt.tokens for receipt in receipts),
            "text_bytes": sum(receipt.text_bytes for receipt in receipts),
            "dropped": dict(sorted(drop_counts(receipts).items())),
            "made_by": {
                "plan": self._plan.key,
                **self._encoders(receipts),
                "parts_kept_from_an_earlier_run": self._kept,
                "packages": package_versions(),
            },
        }
        if self._request.rejects is not None:
            write_rejects(self._request.rejects, self._folder, self._plan, receipts)
        return publish(
            self._request.prefix,
            joined=joined,
            dtype=self._vocabulary.dtype,
            lengths=lambda: unit_lengths(self._folder, receipts),
            manifest=manifest,
        )

    def _encoders(self, receipts: Sequence[Receipt]) -> dict[str, Any]:
        """What encoded the parts and why, of this run and of earlier ones that were kept."""
        made = sorted({receipt.encoder for receipt in receipts})
        unknown = {name: {"reason": "not noted", "compared": 0} for name in made}
        noted = unknown | noted_encoders(self._folder)  # an older version noted nothing
        compared = sum(noted[name]["compared"] for name in made)
        return {
            "encoder": " and ".join(made),
            "encoder_reason": "; ".join(noted[name]["reason"] for name in made),
            "documents_compared": compared + sum(receipt.checked for receipt in receipts),
        }
