"""A server of the OpenAI protocol whose chat replies a test decides, by what it is asked."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

ChatReply = Callable[[str], Response]


def chat(text: str, finish: str = "stop") -> JSONResponse:
    """A whole reply of the protocol."""
    message = {"role": "assistant", "content": text}
    used = max(1, len(text.split()))
    return JSONResponse(
        {
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": {"prompt_tokens": 1, "completion_tokens": used, "total_tokens": 1 + used},
        }
    )


class Backend:
    """What a running backend was asked, in order of arrival."""

    def __init__(self) -> None:
        self.url = ""
        self.bodies: list[dict[str, Any]] = []

    @property
    def prompts(self) -> list[str]:
        """The last message of each request."""
        return [body["messages"][-1]["content"] for body in self.bodies]


@contextmanager
def backend(reply: ChatReply) -> Iterator[Backend]:
    """A server on a free port of this machine, until the block ends."""
    app, found = FastAPI(), Backend()

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": "writer", "object": "model"}]}

    @app.post("/v1/chat/completions")
    def completions(body: dict[str, Any]) -> Response:
        found.bodies.append(body)
        return reply(body["messages"][-1]["content"])

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        found.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
        yield found
    finally:
        server.should_exit = True
        thread.join()
