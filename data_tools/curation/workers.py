"""A function over tasks in this process or in many, results in the order of the tasks.

Few tasks are under way at a time, so a corpus of any size passes through. A process is started with
what this one has loaded, and ends by itself when this one is gone.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

from frontload.data_tools.preprocess.crew import (
    START,
    Member,
    end_members,
    portable,
    receive,
    start_member,
)

TASKS_A_WORKER = 3  # ours: one under way, two that wait for an earlier one


class Workers:
    """Runs module-level functions; each process has called `start` once."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members

    def map[Task, Result](
        self, function: Callable[[Task], Result], tasks: Iterable[Task]
    ) -> Iterator[Result]:
        """Yields the result of each task, in order.

        Raises: whatever a task raised; StageError when a process died.
        """
        if not self._members:
            yield from map(function, tasks)
            return
        numbered = enumerate(tasks)
        ready = next(numbered, None)  # read while the processes work
        idle = deque(self._members)
        busy: dict[Any, tuple[Member, int]] = {}
        done: dict[int, Result] = {}
        at = 0
        while busy or ready or done:
            while ready and idle and ready[0] - at < TASKS_A_WORKER * len(self._members):
                member = idle.popleft()
                member.pipe.send((function, ready[1]))
                busy[member.pipe] = member, ready[0]
                ready = next(numbered, None)
            for pipe in wait(list(busy)) if busy else ():
                member, number = busy.pop(pipe)
                kind, value = receive(member)
                if kind == "failed":
                    raise value
                done[number] = value
                idle.append(member)
            while at in done:
                yield done.pop(at)
                at += 1


@contextmanager
def started_workers[Argument](
    count: int, start: Callable[[Argument], None], argument: Argument
) -> Iterator[Workers]:
    """Workers that have called `start(argument)`, as this process has; one worker is this one."""
    start(argument)
    members: list[Member] = []
    try:
        for _ in range(count if count > 1 else 0):
            asked = (partial(start, argument) if START != "fork" else None,)
            members.append(start_member(_serve, asked, others=members))
        yield Workers(members)
    finally:
        end_members(members)


def _serve(pipe: Connection, start: Callable[[], None] | None) -> None:
    """What a process does: task by task until its pipe ends."""
    if start is not None:
        start()
    while True:
        function, task = pipe.recv()
        try:
            answer = ("done", function(task))
        except Exception as error:
            answer = ("failed", portable(error))
        pipe.send(answer)
