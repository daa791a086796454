"""Ray's own node with only what a run needs. Internals of Ray 2.60.0, each with its line.

A node is a control server, a raylet and its workers. The dashboard, its agent, the autoscaler's
monitor and the log monitor are Python processes more, each importing for seconds and listening.
"""

import os
from typing import Any

RAY_ENVIRONMENT = {
    # ray_constants.py:657: with "clusters" off Ray takes the loopback address for the node's own,
    # and servers of a node at 127.0.0.1 listen there and nowhere else
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_worker_register_timeout_seconds": "600",  # its 60 s are too few on a busy machine
    "RAY_agent_register_timeout_ms": "600000",
    "RAY_enable_metrics_collection": "0",
    # ray_config_def.h: else a worker a CPU is started before any is asked for, each for a second
    # of a core, in an environment that is not the one that veRL asks for
    "RAY_prestart_worker_first_driver": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
}

REAPS = "RAY_kill_child_processes_on_worker_exit_with_raylet_subreaper"
NODE_ENVIRONMENT = {REAPS: "1", "RAY_process_group_cleanup_enabled": "0"}
"""raylet/main.cc:567: a node waits for its workers instead of ignoring how they end, so that their
CPU time is added to its own. For the node alone: its workers would ignore their own children."""

WORKER_ENVIRONMENT = {REAPS: "0"}

STAND_IN = ["sh", "-c", "exec cat"]
"""For the dashboard's agent, without which the raylet ends: reads nothing until the raylet ends.
What follows it on the command line is not read."""


def start_lean_nodes() -> None:
    """Lets `ray.init` of this process start nodes without dashboard and monitors."""
    from ray._private import services, utils
    from ray._private.node import Node
    from ray._private.ray_constants import PROCESS_TYPE_DASHBOARD_AGENT

    # utils.py:1128, asked by services.py:1322 and :1909: agents come in their minimal form
    utils.get_dashboard_dependency_error = _without_dashboard
    build = services._build_python_executable_command_memory_profileable

    def build_without_agent(component: str, *arguments: Any, **options: Any) -> list[str]:
        if component == PROCESS_TYPE_DASHBOARD_AGENT:
            return STAND_IN
        return build(component, *arguments, **options)

    # services.py:1863 builds the agent's command, node_manager.cc ends with what it starts by it
    services._build_python_executable_command_memory_profileable = build_without_agent
    start_raylet = Node.start_raylet

    def start_raylet_at_once(self: Any, *arguments: Any, **options: Any) -> Any:
        _answer_for_agents(self)
        os.environ.update(NODE_ENVIRONMENT)
        try:
            return start_raylet(self, *arguments, **options)
        finally:
            for name in NODE_ENVIRONMENT:
                del os.environ[name]

    Node.start_raylet = start_raylet_at_once
    for name in (
        "start_api_server",  # node.py:1312
        "start_monitor",  # node.py:1540
        "start_log_monitor",  # node.py:1291
    ):
        setattr(Node, name, _start_nothing)


def _answer_for_agents(node: Any) -> None:
    """node_manager.cc:3576: the raylet dies if an agent has not named its ports after 15 s, which
    an import takes on a busy machine. What is known before is said before."""
    from ray._common.network_utils import find_free_port
    from ray._raylet import persist_port  # type: ignore

    for name in ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port"):
        persist_port(node._session_dir, node._node_id, name, -1)  # the agent's own answer
    node._ray_params.runtime_env_agent_port = find_free_port()


def _without_dashboard() -> ImportError:
    return ImportError("the dashboard is left out")


def _start_nothing(self: Any, **options: Any) -> None:
    del self, options
