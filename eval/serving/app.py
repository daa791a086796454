"""The routes of the OpenAI protocol, who may call them, and the server that runs them."""

import asyncio
import hmac
import socket
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from frontload.data_tools.text.chat import ChatTemplate, load_template
from frontload.data_tools.text.end_tokens import end_tokens
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.eval.serving.answers import Answers
from frontload.eval.serving.bodies import ChatBody, CompletionBody, RequestError
from frontload.eval.serving.engine import ServedModel, ServingEngine
from frontload.eval.serving.texts import ServedTexts
from frontload.megatron_ext.hf.transformers_decoder import load_transformers
from frontload.megatron_ext.inference.language_model import LanguageModel
from frontload.recipes.errors import FrontloadError, RecipeError, StageError

LOOPBACK = ("127.0.0.1", "::1", "localhost")
OPEN_ROUTES = ("/health",)
LOOK_SECONDS = 1.0  # between two looks whether the client is still there
WAITING_CLIENTS = 2_048  # connections that were not taken up yet
GRACE_SECONDS = 5  # for the last answers to leave


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a server listens, and the key that it asks for."""

    host: str
    port: int  # 0 = any free one
    api_key: str | None = None

    def check(self) -> None:
        """Other machines may call a server with a key only.

        Raises: RecipeError.
        """
        if self.host not in LOOPBACK and not self.api_key:
            raise RecipeError(
                f"serve --host {self.host}",
                found="no key",
                rule="a server that other machines reach asks for a key",
                do="name the environment variable that holds one with --api-key-env, or "
                "listen on 127.0.0.1",
            )


def make_app(answers: Answers, *, api_key: str | None = None) -> FastAPI:
    """The routes over one model."""

    def admit(request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        is_open = api_key is None or request.url.path in OPEN_ROUTES
        if not is_open and not hmac.compare_digest(given.encode(), (api_key or "").encode()):
            raise RequestError(
                "authorization",
                found="another key" if given else "no key",
                rule="this server answers who sends its key",
                do="send it as `Authorization: Bearer KEY`",
                status=401,
            )

    app = FastAPI(
        title="frontload serve",
        dependencies=[Depends(admit)],
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Alive, and what was done so far."""
        engine = answers.engine
        return {"status": "ok", "answered": answers.num_answered, "passes": engine.num_passes,
                "most_rows": engine.most_rows}  # fmt: skip

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return answers.models()

    @app.post("/v1/completions")
    async def completions(body: CompletionBody, request: Request) -> Response:
        return await _while_connected(request, answers.complete(body))

    @app.post("/v1/chat/completions")
    async def chats(body: ChatBody, request: Request) -> Response:
        return await _while_connected(request, answers.chat(body))

    app.add_exception_handler(FrontloadError, _on_refusal)
    app.add_exception_handler(RequestValidationError, _on_wrong_type)
    app.add_exception_handler(HTTPException, _on_wrong_route)
    return app


class Server(uvicorn.Server):
    """uvicorn around one app; a signal ends what the engine has under way, then the server."""

    def __init__(self, answers: Answers, address: Address) -> None:
        address.check()
        self.answers = answers
        self.listener = _listen(address)
        app = make_app(answers, api_key=address.api_key)
        config = uvicorn.Config(app, log_level="warning", access_log=False,
                                timeout_graceful_shutdown=GRACE_SECONDS)  # fmt: skip
        super().__init__(config)

    @property
    def url(self) -> str:
        """The base that clients are given."""
        host, port = self.listener.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"

    def serve_until_stopped(self) -> None:
        """Serves until a signal, or until the engine fails.

        Raises: StageError for the latter.
        """
        engine = self.answers.engine
        engine.start()
        try:
            self.run(sockets=[self.listener])
        finally:
            engine.stop()
            engine.join()
        if engine.error is not None:
            raise StageError(
                f"serve {self.answers.name}",
                found=f"the model failed ({engine.error!r})",
                rule="a server whose model failed ends",
                do="start it again; ask for less at once with --max-rows if memory ran out",
            ) from engine.error

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """As uvicorn has it; first what waits for the model is told that the server stops."""
        self.answers.engine.stop()
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """As uvicorn has it; a model that failed ends the server too."""
        return await super().on_tick(counter) or self.answers.engine.error is not None


def make_answers(
    model: ServedModel,
    tokenizer: TextTokenizer,
    *,
    name: str,
    template: ChatTemplate | None,
    max_rows: int,
) -> Answers:
    """Everything behind the routes of one model."""
    texts = ServedTexts(tokenizer=tokenizer, template=template, end_tokens=end_tokens(tokenizer))
    return Answers(ServingEngine(model, max_rows=max_rows), texts, name=name)


@dataclass(frozen=True, kw_only=True)
class CheckpointToServe:
    """What one server has."""

    folder: Path  # a checkpoint of this project
    is_transformers: bool  # or the Hugging Face folder of a stranger
    tokenizer: Path
    template: Path | None  # None = the tokenizer's own
    name: str


def serve_checkpoint(served: CheckpointToServe, address: Address, *, max_rows: int) -> None:
    """Serves a model until a signal."""
    tokenizer = TextTokenizer.load(served.tokenizer)
    template = load_template(served.template, tokenizer)
    load = load_transformers if served.is_transformers else LanguageModel.load
    model = load(served.folder)
    answers = make_answers(model, tokenizer, name=served.name, template=template, max_rows=max_rows)
    server = Server(answers, address)
    print(f"{server.url}: {served.name}, context {model.max_sequence_tokens} tokens", flush=True)
    try:
        server.serve_until_stopped()
    finally:
        engine = answers.engine
        print(
            f"{answers.num_answered} requests answered in {engine.num_passes} passes of the model, "
            f"at most {engine.most_rows} rows side by side"
        )


def _listen(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.host, address.port))
        listener.listen(WAITING_CLIENTS)  # whoever reads the URL may connect at once
    except (OSError, OverflowError) as error:
        listener.close()
        raise RecipeError(
            f"serve --host {address.host} --port {address.port}",
            found=f"it cannot be listened on ({error})",
            rule="a server needs a free port of an address of this machine",
            do="name another, or --port 0 for any free one",
        ) from error
    return listener


async def _while_connected(request: Request, answer: Awaitable[dict[str, Any]]) -> Response:
    """The answer; it is given up when the client has gone."""
    task = asyncio.ensure_future(answer)
    while True:
        await asyncio.wait([task], timeout=LOOK_SECONDS)
        if task.done():
            return JSONResponse(task.result())
        if await request.is_disconnected():
            task.cancel()
            return Response(status_code=499)


def _error(message: str, status: int, *, param: str | None = None) -> JSONResponse:
    kinds = {401: "authentication_error", 404: "not_found_error", 503: "server_error"}
    kind = kinds.get(status, "invalid_request_error")
    error = {"message": message, "type": kind, "param": param, "code": status}
    return JSONResponse({"error": error}, status_code=status)


async def _on_refusal(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, RequestError):
        return _error(str(error), error.status, param=error.asked)
    if isinstance(error, RecipeError):
        return _error(str(error), 400, param=error.asked)
    return _error(str(error), 503)


async def _on_wrong_type(request: Request, error: Exception) -> JSONResponse:
    """One message for what is first found wrong of a body."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or "body"
    do = "correct it" if field != "body" else "send JSON, with Content-Type: application/json"
    return _error(f"{field}: {first['msg']}; see the OpenAI protocol; {do}", 400, param=field)


async def _on_wrong_route(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path}"
    return _error(f"{where}: {error.detail}; routes are /v1/models, /v1/completions and "
                  "/v1/chat/completions; correct the base URL", error.status_code)  # fmt: skip
