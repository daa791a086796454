"""The losses of fine-tuning by name, and what must hold in their numbers. No torch."""

from dataclasses import dataclass, field

from frontload.recipes.errors import RecipeError

NLL, DFT, IW_TOKEN, IW_SEQUENCE = "nll", "dft", "iw_token", "iw_sequence"
TOKEN_LOSSES = {
    NLL: "minus the log-probability of each answer token",
    DFT: "the same times the token's probability (arXiv 2508.05629, eq. 9)",
    IW_TOKEN: "times the token's probability over that under the start model, clipped",
    IW_SEQUENCE: "times exp(exponent x mean log ratio to the start model) of its conversation, "
    "clipped (arXiv 2507.12856)",
}


@dataclass(frozen=True, kw_only=True)
class TokenLoss:
    """What the loss of a token of SFT is multiplied with; no gradient flows through the weight."""

    kind: str  # a name of TOKEN_LOSSES
    # of the importance weights, which are clipped to these ends; 0.0 for the other kinds
    least_weight: float = field(default=0.0, metadata={"neutral": 0.0})
    most_weight: float = field(default=0.0, metadata={"neutral": 0.0})
    # iw_sequence: factor of the mean log ratio of a conversation
    exponent: float = field(default=1.0, metadata={"neutral": 1.0})


PLAIN_LOSS = TokenLoss(kind=NLL)


def needs_start_model(loss: TokenLoss) -> bool:
    """Whether its weights compare with the model that fine-tuning began from."""
    return loss.kind in (IW_TOKEN, IW_SEQUENCE)


def check_token_loss(loss: TokenLoss, *, precision: str, is_fp8: bool) -> None:
    """Refuses a loss that is none, or numbers that it does not use.

    Raises: RecipeError whose `asked` is the field of the loss, e.g. `most_weight`.
    """
    if loss.kind not in TOKEN_LOSSES:
        raise RecipeError(
            "kind",
            found=f"'{loss.kind}' is not known",
            rule="a loss of fine-tuning is one of " + ", ".join(TOKEN_LOSSES),
            do="write nll for plain fine-tuning",
        )
    if loss.exponent <= 0.0 or (loss.kind != IW_SEQUENCE and loss.exponent != 1.0):
        raise RecipeError(
            "exponent",
            found=f"is {loss.exponent:g} with {loss.kind}",
            rule="it is above 0, and only iw_sequence has one",
            do="write 1.0",
        )
    if not needs_start_model(loss):
        if loss.least_weight or loss.most_weight:
            raise RecipeError(
                "least_weight" if loss.least_weight else "most_weight",
                found=f"is set with {loss.kind}",
                rule="only iw_token and iw_sequence clip their weights",
                do="leave it out",
            )
        return
    if not 0.0 <= loss.least_weight <= 1.0 <= loss.most_weight < float("inf"):
        raise RecipeError(
            "most_weight" if loss.most_weight < 1.0 else "least_weight",
            found=f"weights are clipped to {loss.least_weight:g} and {loss.most_weight:g}",
            rule="1 lies between the ends: at its first step the loss is plain fine-tuning's",
            do="write e.g. 0.2 and 1.8 for iw_token, 0.0 and 16.0 for iw_sequence",
        )
    if is_fp8:
        raise RecipeError(
            "kind",
            found=f"'{loss.kind}' with precision {precision}",
            rule="FP8 keeps copies of weights, which would outlive the change to the start model's",
            do="write precision: bf16, or another loss",
        )
