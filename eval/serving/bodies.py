"""What a client may ask, as typed bodies; what cannot be done is refused by its name."""

import secrets
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from frontload.recipes.errors import RecipeError

MOST_SAMPLES, MOST_TOP, DEFAULT_NEW_TOKENS = 128, 20, 16
NEUTRAL: dict[str, tuple[object, ...]] = {
    "best_of": (1,),
    "frequency_penalty": (0,),
    "length_penalty": (1,),
    "logit_bias": ({},),
    "min_p": (0,),
    "parallel_tool_calls": (True, False),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "spaces_between_special_tokens": (False, True),
    "stream": (False,),
    "stream_options": (),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_k": (0, -1),
}
"""Options of the protocol that are not done here, with the values that mean nothing."""
SAID_ONLY = ("user", "metadata", "store", "request_id")
"""Fields that change no answer anywhere."""


class RequestError(RecipeError):
    """A request that cannot be answered, with the field that is at fault and its HTTP status."""

    def __init__(self, asked: str, *, found: str, rule: str, do: str, status: int = 400) -> None:
        super().__init__(asked, found=found, rule=rule, do=do)
        self.status = status


class Body(BaseModel):
    """What completions and chats have in common. Other fields stand in `model_extra`."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    temperature: float = Field(default=1.0, ge=0.0, le=100.0, allow_inf_nan=False)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    n: int = Field(default=1, ge=1, le=MOST_SAMPLES)
    seed: int | None = None
    stop: str | list[str] | None = None
    skip_special_tokens: bool = True

    @model_validator(mode="before")
    @classmethod
    def _drop_null(cls, found: Any) -> Any:
        """A field of null is a field that was not given."""
        if isinstance(found, dict):
            return {name: value for name, value in found.items() if value is not None}
        return found

    @model_validator(mode="after")
    def _draw_seed(self) -> Self:
        """Without a seed each request draws its own: equal questions get unlike answers."""
        if self.seed is None:
            self.seed = secrets.randbits(31)
        return self

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """The texts before which an answer ends."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def check(self, *, served: str) -> None:
        """Refuses another model's name, and what is not done here.

        Raises: RequestError.
        """
        if self.model not in (None, served):
            raise RequestError(
                "model",
                found=f"'{self.model}'",
                rule=f"this server has '{served}'",
                do="name it, or ask the server of that model",
                status=404,
            )
        if "" in self.stop_texts:
            raise RequestError(
                "stop", found="an empty text", rule="a stop text has letters", do="leave it out"
            )
        for name, value in (self.model_extra or {}).items():
            if name in SAID_ONLY or value in NEUTRAL.get(name, ()):
                continue
            known = name in NEUTRAL
            raise RequestError(
                name,
                found=f"{value!r}"[:80],
                rule="this server does not do it, and drops no option in silence"
                if known
                else "no option of this server has that name",
                do="leave it out",
            )


class CompletionBody(Body):
    """`/v1/completions`."""

    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int = Field(default=DEFAULT_NEW_TOKENS, ge=0)
    logprobs: int | None = Field(default=None, ge=0, le=MOST_TOP)
    echo: bool = False

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """The prompts, each a text or its ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if all(isinstance(one, int) for one in self.prompt):
            return [[one for one in self.prompt if isinstance(one, int)]]
        return self.prompt  # pyright: ignore[reportReturnType]


class ChatMessage(BaseModel):
    """One message; its content may come in parts of text."""

    model_config = ConfigDict(extra="allow")

    role: str
    content: str | list[dict[str, Any]] | None = None
    reasoning_content: str | None = None


class ChatBody(Body):
    """`/v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=MOST_TOP)

    @property
    def turns(self) -> list[dict[str, str]]:
        """The messages as a chat template reads them.

        Raises: RequestError for a part that is no text.
        """
        return [_turn(number, message) for number, message in enumerate(self.messages)]


def _turn(number: int, message: ChatMessage) -> dict[str, str]:
    content = message.content
    parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    if any(set(part) != {"type", "text"} or part["type"] != "text" for part in parts):
        raise RequestError(
            f"messages[{number}].content",
            found="a part that is no text",
            rule="the model reads text: parts are {type: text, text: ...}",
            do="leave it out",
        )
    turn = {"role": message.role, "content": "".join(part["text"] for part in parts)}
    if message.reasoning_content:
        turn["reasoning_content"] = message.reasoning_content
    extra = set(message.model_extra or {}) - {"type", "name"}
    if extra and any((message.model_extra or {})[name] for name in extra):
        raise RequestError(
            f"messages[{number}]",
            found=f"the field {sorted(extra)[0]}",
            rule="a message has a role, content and reasoning_content",
            do="leave it out",
        )
    return turn
