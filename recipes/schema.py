"""Every hashed knob of every stage: frozen, keyword-only dataclasses without defaults.

A field added after a release declares `metadata={"neutral": value}` and is left out of the key when
it equals that value, so old keys survive. Units stand in the comment of each field.
"""

from dataclasses import dataclass, field

from frontload.recipes.token_losses import PLAIN_LOSS, TokenLoss

# ---------------------------------------------------------------- data


@dataclass(frozen=True, kw_only=True)
class ReasoningWriter:
    """How one synthetic reasoning set is written."""

    families: dict[str, float]  # family name -> share of tokens; sums to 1
    long_share: float  # share of answers with the full step-by-step trace
    short_share: float  # share with about half of the bare states; the rest has no trace
    wrong_share: float  # share of documents whose final answer is wrong (label noise)
    level_low: float  # lowest difficulty, 0 to 1 of the family's range of operations
    level_high: float  # highest difficulty, 0 to 1
    tokens: int  # size of the set in word tokens, questions included


@dataclass(frozen=True, kw_only=True)
class Synthesis:
    """Stage `synthesize`: the procedural corpus and its held-out evaluation items."""

    seed: int
    base_tokens: int  # word tokens of base text
    ldq: ReasoningWriter
    shq: ReasoningWriter
    items_per_family: int  # evaluation questions a family, over all its levels
    hard_items_per_family: int  # extra questions at the top level (the AIME analogue)
    choice_items: int  # multiple-choice items a base-stage benchmark
    heldout_documents_per_family: int  # held-out gold traces for the trace loss


@dataclass(frozen=True, kw_only=True)
class OwnData:
    """Stage `import_own`: a user's own files, read into the same form as the synthetic corpus."""

    seed: int  # draws the held-out questions
    base_files: tuple[str, ...]  # JSONL with `base_text_field`, or plain text; globs allowed
    base_text_field: str
    revision: str  # of the files, as you call it: another one reads files of the same sizes anew
    reasoning_files: tuple[str, ...]  # JSONL, one question and its worked answer a row
    heldout_files: tuple[str, ...]  # test split; () = hold out `heldout_rows` of reasoning_files
    question_field: str
    answer_field: str
    final_answer_separator: str  # text between the steps and the final answer, e.g. "####"
    heldout_rows: int  # rows used for evaluation
    files: dict[str, int] = field(default_factory=dict, metadata={"neutral": {}})
    """name -> bytes of every file, filled in when a study is planned: another size, another key"""


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """Stage `tokenizer`: trained with the `tokenizers` library on the corpus's training text."""

    kind: str  # "word" (whitespace words, closed vocabulary) or "byte_bpe" (byte-level BPE)
    vocab_size: int  # upper bound; the trained size is in the artifact


@dataclass(frozen=True, kw_only=True)
class RawFiles:
    """Stage `import_raw`: names and sizes of raw files of any size, which stay where they are."""

    revision: str  # of the files, in the user's words: another one makes everything anew
    groups: dict[str, tuple[str, ...]]  # use -> names or globs, seen from the command's folder


@dataclass(frozen=True, kw_only=True)
class GivenTokenizer:
    """Stage `import_tokenizer`: a tokenizer.json, or a folder with one and its chat template."""

    file: str
    revision: str


FAMILY, ANSWER_TOKENS = "family", "answer_tokens"


@dataclass(frozen=True, kw_only=True)
class RowWeights:
    """How often each row stands in a set that has as many rows as before: in proportion."""

    field: str  # FAMILY, or ANSWER_TOKENS: the length of steps and answer, which is the weight
    weights: dict[str, int]  # of FAMILY: each family of the set -> its whole weight; else {}


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Stage `curate`: one named data set, made of members of the corpus."""

    name: str  # base, ldq, shq, lmq, alf, alf_prime or own
    members: tuple[str, ...]  # corpus sets whose plain union this is
    min_answer_tokens: int  # keep answers of ldq strictly longer than this; 0 = keep all
    share_of_member: dict[str, float]  # member -> share kept by a seeded draw; absent = 1.0
    seed: int
    # member -> [from, to): a part of its seeded order, so that two parts share no row
    part_of_member: dict[str, tuple[float, ...]] = field(
        default_factory=dict, metadata={"neutral": {}}
    )
    row_weights: RowWeights | None = field(default=None, metadata={"neutral": None})


@dataclass(frozen=True, kw_only=True)
class Index:
    """Stage `index`: documents to Megatron .bin/.idx, each rendered by the chat template + EOD."""

    append_eod: bool
    # of raw files or curated sets: the group or the set, and the field that holds its text
    source: str = field(default="", metadata={"neutral": ""})
    text_field: str = field(default="", metadata={"neutral": ""})


@dataclass(frozen=True, kw_only=True)
class Window:
    """A run of tokens of one source's shuffled, repeated document stream."""

    source: str
    start_tokens: int  # where the window starts in the stream: what earlier phases consumed
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Blend:
    """Stage `blend`: one phase of pretraining as exact windows and an exact order of samples."""

    phase: str
    windows: tuple[Window, ...]
    sequence_tokens: int
    max_epochs: dict[str, float]  # source -> most epochs allowed, over all phases up to this one
    seed: int


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Stage `pack`: whole conversations packed into rows for SFT, loss on answers only."""

    sequence_tokens: int
    tokens: int  # budget, in the unit below
    over_long: str  # "drop" (counted), or "split_at_turn": dialogues are cut before a user's turn
    seed: int
    source: str = field(default="", metadata={"neutral": ""})  # set of a curation
    max_epochs: float = field(default=0.0, metadata={"neutral": 0.0})  # most passes; 0 = any number
    # rows: rows x sequence_tokens, padding included; read: real tokens; loss: those with loss
    unit: str = field(default="rows", metadata={"neutral": "rows"})
    steps: int = field(default=0, metadata={"neutral": 0})  # over which read or loss is spread
    batch_rows: int = field(default=0, metadata={"neutral": 0})  # most rows of one of them


@dataclass(frozen=True, kw_only=True)
class RlPrompts:
    """Stage `rl_prompts`: questions with gold answers for RL, each asked once."""

    families: dict[str, float]  # share of prompts
    level_low: float  # levels from this share of a family's range ...
    level_high: float  # ... to this one
    num_prompts: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class CrossThink:
    """Stage `crossthink`: the released rows of Nemotron-CrossThink as prompts for veRL."""

    general_to_math: str  # whole parts, as 2:1
    prompt_tokens: int  # longest prompt, chat template included
    validation_prompts: int  # kept out of training
    seed: int


# ---------------------------------------------------------------- training


@dataclass(frozen=True, kw_only=True)
class Model:
    """A hybrid of Mamba-2 (M), attention (*) and MLP (-) layers, in Megatron's letters."""

    pattern: str  # one letter a layer, e.g. "M-M*-"
    hidden_size: int
    ffn_hidden_size: int
    num_attention_heads: int
    num_query_groups: int  # key/value heads
    kv_channels: int  # width of an attention head
    mamba_num_heads: int
    mamba_head_dim: int
    mamba_state_dim: int
    mamba_num_groups: int
    mamba_chunk_tokens: int  # chunk of the SSD algorithm
    vocab_size: int  # rows of the embedding, padding rows included
    max_sequence_tokens: int
    tie_embeddings: bool
    norm_epsilon: float
    init_std: float
    embedding_init_std: float


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """AdamW in Megatron's terms."""

    learning_rate: float  # peak
    min_learning_rate: float
    adam_beta1: float
    adam_beta2: float
    adam_epsilon: float
    weight_decay: float  # not applied to norms, biases and 1-d parameters (Megatron's rule)
    clip_grad: float  # global norm


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rate by sample: linear warm-up, then cosine, WSD, constant, or the plateau of WSD.

    A plateau has no length (0 samples), so that runs of any length go on from it.
    """

    kind: str  # "cosine", "wsd", "constant" or "plateau"
    warmup_share: float  # of total_samples
    decay_share: float  # wsd: share of total_samples in the final decay; else ignored, write 0.0
    total_samples: int  # of the whole schedule, which several stages may share (trunk, branch)
    warmup_samples: int = field(default=0, metadata={"neutral": 0})  # of a plateau; else 0


@dataclass(frozen=True, kw_only=True)
class Training:
    """What pretraining and SFT share."""

    sequence_tokens: int
    global_batch_sequences: int
    optimizer: Optimizer
    schedule: Schedule
    precision: str  # a name of precision.py; FP8 needs CUDA
    reset_at_document_boundaries: bool  # conv, SSM state and attention see one document only
    seed: int  # of the initial weights; data order has its own seed in Blend and Pack


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Stage `pretrain`: one phase. Starts from scratch or from the checkpoint input `start`."""

    model: Model
    training: Training
    start_sample: int  # position in the schedule where this phase begins (0 for the first)
    num_samples: int
    # share of the weights of each matrix of each layer that stay 0; drawn by training.seed
    sparsity: float = field(default=0.0, metadata={"neutral": 0.0})


@dataclass(frozen=True, kw_only=True)
class Sft:
    """Stage `sft`: fine-tunes the checkpoint input `start` on a pack; optimizer state is fresh."""

    model: Model
    training: Training
    num_samples: int
    loss: TokenLoss = field(default=PLAIN_LOSS, metadata={"neutral": PLAIN_LOSS})


@dataclass(frozen=True, kw_only=True)
class Export:
    """Stage `convert`: a checkpoint as a Hugging Face folder with its tokenizer."""

    form: str  # "nemotron_h"


# ---------------------------------------------------------------- evaluation


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Stage `evaluate`: scores of one checkpoint, per item."""

    suite: str  # "base" (log-likelihood choices, few-shot) or "sft" (chat generation)
    num_samples: int  # generations an item; pass@1 is their mean (avg@n)
    num_hard_samples: int  # the same for the hard benchmarks (the paper: 16 for AIME, 4 else)
    temperature: float  # 0 = greedy (then both counts must be 1)
    max_new_tokens: int
    num_shots: int  # exemplars of the few-shot benchmarks of the base suite
    seed: int
    # the first questions of each benchmark; 0 = all of them
    items_per_benchmark: int = field(default=0, metadata={"neutral": 0})


@dataclass(frozen=True, kw_only=True)
class OwnSamples:
    """Stage `own_samples`: right answers that a model gave to questions of a training set."""

    num_questions: int  # different ones, in seeded order; all of a smaller set
    num_samples: int  # answers to each
    most_kept: int  # of the right answers to a question, the first ones
    temperature: float
    max_new_tokens: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class SetLossRecipe:
    """Stage `set_loss`: the loss of a pretrained model on the conversations of a pack."""

    num_conversations: int  # that lie evenly over the pack


@dataclass(frozen=True, kw_only=True)
class CellReading:
    """Where the ledger of a cell is read: roles of inputs, of the first seed of its models."""

    blends: tuple[str, ...]  # one a phase of pretraining, oldest first
    pack: str  # "" of a model that was not fine-tuned
    pretraining_flops: float
    sft_flops_per_token: float  # read, padding left out; 0.0 of a model without SFT
    # of pretraining without the products of weights that stay 0; 0.0 where there are none
    sparse_flops: float = field(default=0.0, metadata={"neutral": 0.0})


@dataclass(frozen=True, kw_only=True)
class Tabulate:
    """Stage `tabulate`: scores of all cells and seeds to tables and verdicts."""

    cells: dict[str, tuple[str, ...]]  # cell id of claims.json -> roles of its evaluations, by seed
    min_effect: float  # eps of the hypotheses, percentage points
    ledger: dict[str, CellReading]  # cell -> what it has read, stated above the verdicts
    draws_data_per_seed: bool = field(default=False, metadata={"neutral": False})
    seed_spreads: dict[str, float] = field(default_factory=dict, metadata={"neutral": {}})
    """`stage/metric` -> sd of one cell over seeds, points; says how many seeds one seed lacks."""
    proxies: dict[str, tuple[str, ...]] = field(default_factory=dict, metadata={"neutral": {}})
    """cell after SFT -> roles of evaluations with many answers a question, by seed"""
    set_losses: dict[str, dict[str, tuple[str, ...]]] = field(
        default_factory=dict, metadata={"neutral": {}}
    )
    """pretrained cell -> SFT set -> roles of its losses, by seed"""
