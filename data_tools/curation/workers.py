"""A function over tasks in this process or in many, results in the order of the tasks.

Few tasks are under way at a time, so a corpus of any size passes through.
"""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from frontload.recipes.errors import StageError

TASKS_A_WORKER = 3  # ours: one under way, two waiting


class Workers:
    """Runs module-level functions; `start` is called once in each process that does."""

    def __init__(self, count: int, pool: ProcessPoolExecutor | None) -> None:
        self._count, self._pool = count, pool

    def map[Task, Result](
        self, function: Callable[[Task], Result], tasks: Iterable[Task]
    ) -> Iterator[Result]:
        """Yields the result of each task, in order.

        Raises: StageError when a process died.
        """
        if self._pool is None:
            yield from map(function, tasks)
            return
        waiting: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                waiting.append(self._pool.submit(function, task))
                if len(waiting) >= TASKS_A_WORKER * self._count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise StageError(
                f"--workers {self._count}",
                found="a worker process died (killed, or out of memory)",
                rule="every row is read before anything is published",
                do="run the same command again, with fewer workers if memory is short",
            ) from error
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def started_workers[Argument](
    count: int, start: Callable[[Argument], None], argument: Argument
) -> Iterator[Workers]:
    """Workers that have called `start(argument)`; one worker is this process."""
    if count == 1:
        start(argument)
        yield Workers(1, None)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        count, mp_context=context, initializer=start, initargs=(argument,)
    ) as pool:
        yield Workers(count, pool)
