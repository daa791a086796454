"""What is recorded of a stage beside its artifact: when, where, how long, on what."""

import platform
import socket
import time
from dataclasses import asdict

from frontload.launch.origins.machine_kind import FIELD, num_cores
from frontload.launch.origins.version import find_commit
from frontload.launch.stage.jobs import Finished
from frontload.launch.store import Store, Ticket
from frontload.recipes.artifact import write_json
from frontload.recipes.machines.placement import Placement


def write_provenance(
    store: Store, ticket: Ticket, *, end: Finished, placement: Placement, work: float
) -> None:
    """Records when and where a stage was made, beside the artifact and never in it."""
    path = store.provenance_file(ticket)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        path,
        {
            "key": ticket.key,
            "label": ticket.label,
            "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "work": work,
            "cpu_seconds": round(end.cpu_seconds, 3),
            "uncounted_ranks": end.uncounted_ranks,
            "wall_seconds": round(end.wall_seconds, 3),
            "host": socket.gethostname(),
            "cores": num_cores(),
            "python": platform.python_version(),
            FIELD: asdict(end.made_on),
            "commit": find_commit(),
            "placement": asdict(placement),
        },
        is_synced=True,
    )
