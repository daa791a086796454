"""veRL's router where there is one server: its process imports nothing of veRL or torch."""

from typing import Any

ROUTER_SETTINGS = "router_class: frontload.rl.plugins.router.OneServer\n"
"""What veRL's `rollout.router_config_path` names: a YAML file with the class."""


class OneServer:
    """Knows the one server's pickled handle and gives it to whoever asks; nothing is counted."""

    def __init__(self, servers: dict[str, Any], settings: dict[str, Any]) -> None:
        del settings
        ((self._name, self._server),) = servers.items()

    def require_acquire_fields(self) -> list[str]:
        return []

    def require_release_fields(self) -> list[str]:
        return []

    def acquire_server(self, request_id: str, **_: Any) -> tuple[str, Any]:
        """The server's name and pickled handle."""
        del request_id
        return self._name, self._server

    def release_server(self, server_id: str, **_: Any) -> None:
        """Nothing was counted."""
