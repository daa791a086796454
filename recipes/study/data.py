"""The data of a study as stages: its corpus, tokenizer, sets, indexes, packs and prompts.

Three kinds of corpus end in the same roles: a synthetic one, a user's own files, and raw files of
any size, which a curation turns into sets.
"""

from abc import ABC, abstractmethod
from dataclasses import replace

from frontload.recipes import schema
from frontload.recipes.artifact import HELDOUT, ITEMS, PROMPTS
from frontload.recipes.runs.training import ROWS
from frontload.recipes.stage import Stage
from frontload.recipes.study.points import BASE, Tuning
from frontload.recipes.study.reinforcement import prompts_stage
from frontload.recipes.study.schema import MixKnobs, RawKnobs, SftKnobs, StudyRecipe

DROP = "drop"


class StudyData(ABC):
    """What the points of a study read. Every set has one index and one document stage."""

    corpus: Stage  # holds the evaluation items
    tokenizer: Stage

    def __init__(self) -> None:
        self._indexes: dict[tuple[str, int], Stage] = {}
        self._prompts: Stage | None = None

    def index(self, name: str, *, seed: int) -> Stage:
        """The token index of a set, of the draw that a training seed reads."""
        draw = self.draw_of(seed)
        if (name, draw) not in self._indexes:
            self._indexes[name, draw] = self._make_index(name, draw=draw)
        return self._indexes[name, draw]

    def draw_of(self, seed: int) -> int:
        """Which draw of the data a training seed reads; 0 = the first, which files always are."""
        return 0

    @property
    def prompts(self) -> Stage:
        """What reinforcement learning asks."""
        if self._prompts is None:
            self._prompts = self._make_prompts()
        return self._prompts

    @abstractmethod
    def documents(self, name: str, *, seed: int) -> Stage:
        """What holds the rows of a set, of the draw that a training seed reads."""

    @abstractmethod
    def pack(self, tuning: Tuning, knobs: SftKnobs, *, label: str, seed: int) -> Stage:
        """Conversations of a set as rows for SFT."""

    def pack_documents(self, documents: Stage, recipe: schema.Pack, *, label: str) -> Stage:
        """Rows for SFT of what a stage wrote as documents."""
        inputs = {"documents": documents, "tokenizer": self.tokenizer}
        return Stage(kind="pack", label=label, recipe=recipe, inputs=inputs)

    @abstractmethod
    def _make_index(self, name: str, *, draw: int) -> Stage: ...

    @abstractmethod
    def _make_prompts(self) -> Stage: ...


def study_data(recipe: StudyRecipe) -> StudyData:
    """The data of a checked recipe."""
    return RawData(recipe, recipe.raw) if recipe.raw is not None else CorpusData(recipe)


def pack_recipe(tuning: Tuning, knobs: SftKnobs, *, over_long: str, seed: int) -> schema.Pack:
    """The hashed pack of one SFT set at one budget."""
    is_cut = knobs.budget_unit != ROWS
    return schema.Pack(
        sequence_tokens=knobs.sequence_tokens,
        tokens=tuning.tokens,
        over_long=over_long,
        seed=seed,
        max_epochs=knobs.max_epochs.get(tuning.mix, 0.0),
        unit=knobs.budget_unit,
        steps=knobs.num_steps(tuning.tokens) if is_cut else 0,
        batch_rows=knobs.global_batch_sequences if is_cut else 0,
    )


class CorpusData(StudyData):
    """A synthetic corpus or a user's own files; each mix is a stage of its own."""

    def __init__(self, recipe: StudyRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        own, synthesis = recipe.own, recipe.synthesis
        if own is not None:
            self.corpus = Stage(kind="import_own", label="corpus", recipe=own)
            self.seed = own.seed
        else:
            assert synthesis is not None, "check_study refuses a study without a corpus"
            self.corpus = Stage(kind="synthesize", label="corpus", recipe=synthesis)
            self.seed = synthesis.seed
        assert recipe.tokenizer is not None, "check_study refuses a study without a tokenizer"
        self.tokenizer = Stage(
            kind="tokenizer",
            label=recipe.tokenizer.kind,
            recipe=recipe.tokenizer,
            inputs={"corpus": self.corpus},
        )
        self._documents: dict[tuple[str, int], Stage] = {}

    def draw_of(self, seed: int) -> int:
        """Seed 1 reads the corpus that holds the evaluation items, the others each their own."""
        return seed - 1 if self.recipe.draws_data_per_seed else 0

    def _corpus_of(self, draw: int) -> Stage:
        synthesis = self.recipe.synthesis
        if not draw:
            return self.corpus
        assert synthesis is not None, "check_study refuses draws of files"
        recipe = replace(synthesis, seed=self.seed + draw)
        return Stage(kind="synthesize", label=f"corpus-draw{draw + 1}", recipe=recipe)

    def documents(self, name: str, *, seed: int) -> Stage:
        return self._documents_of(name, self.draw_of(seed))

    def _documents_of(self, name: str, draw: int) -> Stage:
        if (name, draw) not in self._documents:
            made = self._curate(name, self.recipe.mixes[name], draw=draw)
            self._documents[name, draw] = made
        return self._documents[name, draw]

    def _curate(self, name: str, mix: MixKnobs, *, draw: int) -> Stage:
        recipe = schema.Mix(
            name=name,
            members=mix.members,
            min_answer_tokens=mix.min_answer_tokens,
            share_of_member=mix.share_of_member,
            part_of_member=mix.part_of_member,
            row_weights=mix.row_weights,
            seed=self.seed + draw,
        )
        inputs = {"corpus": self._corpus_of(draw), "tokenizer": self.tokenizer}
        return Stage(kind="curate", label=_drawn(name, draw), recipe=recipe, inputs=inputs)

    def _make_index(self, name: str, *, draw: int) -> Stage:
        inputs = {"documents": self._documents_of(name, draw), "tokenizer": self.tokenizer}
        recipe = schema.Index(append_eod=True)
        return Stage(kind="index", label=_drawn(name, draw), recipe=recipe, inputs=inputs)

    def pack(self, tuning: Tuning, knobs: SftKnobs, *, label: str, seed: int) -> Stage:
        recipe = pack_recipe(tuning, knobs, over_long=DROP, seed=seed)
        documents = self.documents(tuning.mix, seed=seed)
        return self.pack_documents(documents, recipe, label=label)

    def _make_prompts(self) -> Stage:
        assert self.recipe.rl is not None
        return prompts_stage(self.recipe.rl, self.corpus, seed=self.seed)


class RawData(StudyData):
    """Raw files of any size: a curation makes the sets, the data tools their indexes and packs."""

    def __init__(self, recipe: StudyRecipe, raw: RawKnobs) -> None:
        super().__init__()
        self.recipe, self.raw = recipe, raw
        sources = {f"source/{name}": one.files for name, one in raw.curation.sources.items()}
        self.corpus = Stage(
            kind="import_raw",
            label="raw",
            recipe=schema.RawFiles(
                revision=raw.revision,
                groups={
                    BASE: raw.base_files,
                    ITEMS: (raw.items,),
                    HELDOUT: (raw.heldout,),
                    **({PROMPTS: raw.prompts} if raw.prompts else {}),
                    **sources,
                },
            ),
        )
        self.tokenizer = Stage(
            kind="import_tokenizer",
            label="given",
            recipe=schema.GivenTokenizer(file=raw.tokenizer, revision=raw.revision),
        )
        self.sets = Stage(
            kind="curate_sets",
            label="sets",
            recipe=replace(raw.curation, tokenizer=""),  # the stage's own input
            inputs={"raw": self.corpus, "tokenizer": self.tokenizer},
        )

    def documents(self, name: str, *, seed: int) -> Stage:
        return self.sets

    def _make_index(self, name: str, *, draw: int) -> Stage:
        is_base = name == BASE
        recipe = schema.Index(
            append_eod=True, source=name, text_field=self.raw.base_field if is_base else "text"
        )
        documents = self.corpus if is_base else self.sets
        inputs = {"documents": documents, "tokenizer": self.tokenizer}
        return Stage(kind="index", label=name, recipe=recipe, inputs=inputs)

    def pack(self, tuning: Tuning, knobs: SftKnobs, *, label: str, seed: int) -> Stage:
        recipe = pack_recipe(tuning, knobs, over_long=self.raw.over_long, seed=seed)
        recipe = replace(recipe, source=tuning.mix)
        return self.pack_documents(self.documents(tuning.mix, seed=seed), recipe, label=label)

    def _make_prompts(self) -> Stage:
        assert self.recipe.rl is not None
        recipe = schema.CrossThink(
            general_to_math=self.raw.general_to_math,
            prompt_tokens=self.recipe.rl.prompt_tokens,
            validation_prompts=self.raw.validation_prompts,
            seed=self.raw.seed,
        )
        inputs = {"raw": self.corpus, "tokenizer": self.tokenizer}
        return Stage(kind="crossthink", label="rl", recipe=recipe, inputs=inputs)


def _drawn(name: str, draw: int) -> str:
    """The label of a set of a draw."""
    return f"{name}-draw{draw + 1}" if draw else name
