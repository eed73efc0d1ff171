"""Several videos at a time, on all devices of a process."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent import futures
import queue
from typing import TypeVar

import jax
import tqdm

from sgmg_jax import hosts
from sgmg_jax.inference.predictor import Predictor

VIDEOS_PER_DEVICE = 6  # at a time, of an accelerator; the features of a window of 36 frames take 0.5 GiB of it
T = TypeVar('T')
P = TypeVar('P')


def on_all_devices(predictor: Predictor) -> list[Predictor]:
    """The model on every device of this process, once for each video that the device has at a time."""
    devices = jax.local_devices()
    each = 1 if devices[0].platform == 'cpu' else VIDEOS_PER_DEVICE
    return [model for device in devices for model in [predictor.on(device)] * each]


def rows_of_videos(
    predictor: Predictor,
    split: Sized,
    of_video: Callable[[Predictor, int], list[T]],
    progress: bool = True,
    stopped: Callable[[], bool] = lambda: False,
) -> list[T] | None:
    """The rows of all videos of a split, in their order, the same in all processes, which share the videos.

    Args:
        of_video: function(predictor, index) -> rows that hosts.encode allows; called in several threads.
        stopped: a collective, called before every video: every process must call it the same number of times, and all
          get the same answer.

    Returns:
        None if it was stopped.
    """
    mine: range = hosts.share(split)
    was_stopped = False

    def next_videos() -> Iterator[int]:
        nonlocal was_stopped
        for turn in range(-(-len(split) // jax.process_count())):  # In the last turn some processes are idle.
            was_stopped = stopped()
            if was_stopped:
                return
            yield from mine[turn : turn + 1]

    done = each_video(on_all_devices(predictor), next_videos(), of_video)
    found = dict(tqdm.tqdm(done, total=len(mine), desc='scoring', unit='video', leave=False, disable=not progress))
    return None if was_stopped else [row for rows in hosts.gather(found) for row in rows]


def each_video(
    predictors: Sequence[P], numbers: Iterable[int], of_video: Callable[[P, int], T]
) -> Iterator[tuple[int, T]]:
    """Calls of_video(predictor, number) in as many threads as there are predictors: while a device works for one, the
    others read, resize and write. A single one works in this thread. `numbers` is asked in this thread, for the next
    number as soon as a predictor is free.

    Yields:
        (number, result), in the order in which they are done.

    Raises:
        what `of_video` raises, once the videos that have begun are done.
    """
    if len(predictors) == 1:
        for number in numbers:
            yield number, of_video(predictors[0], number)
        return
    free: queue.SimpleQueue[P] = queue.SimpleQueue()
    for predictor in predictors:
        free.put(predictor)

    def run(number: int) -> tuple[int, T]:
        predictor = free.get()
        try:
            return number, of_video(predictor, number)
        finally:
            free.put(predictor)

    running: set[futures.Future[tuple[int, T]]] = set()
    with futures.ThreadPoolExecutor(len(predictors)) as pool:
        for number in numbers:
            running.add(pool.submit(run, number))
            if len(running) == len(predictors):
                done, running = futures.wait(running, return_when=futures.FIRST_COMPLETED)
                yield from (future.result() for future in done)
        yield from (future.result() for future in futures.as_completed(running))
