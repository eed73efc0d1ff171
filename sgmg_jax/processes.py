"""Work on many videos by several processes: each opens the files once and keeps the function that works on one."""
from collections.abc import Callable
import concurrent.futures
import contextlib
import multiprocessing

import cv2
import tqdm

_work = None


def for_each(opened: Callable, arguments: tuple, count: int, processes: int, desc: str, progress: bool) -> list:
    """[work(0), .. work(count - 1)], where `opened(*arguments)` is a context manager that gives `work`.

    Args:
        opened: a function of a module, and `arguments` what can be pickled, if there are several processes.
        processes: at most so many; with one, everything is done here.
        desc: of the progress bar on stderr, which `progress` shows.

    Raises:
        OSError: if a process dies. What `work` raises comes through.
    """
    bar = dict(total=count, desc=desc, unit='video', disable=not progress)
    processes = min(processes, count)
    if processes <= 1:
        with opened(*arguments) as work:
            return [work(index) for index in tqdm.tqdm(range(count), **bar)]
    # Never a fork: the caller may be running JAX, whose threads a fork does not survive.
    try:
        with concurrent.futures.ProcessPoolExecutor(processes, multiprocessing.get_context('spawn'), _start,
                                                    (opened, arguments)) as pool:
            return list(tqdm.tqdm(pool.map(_run, range(count)), **bar))
    except concurrent.futures.process.BrokenProcessPool as error:
        raise OSError(f'a process died, perhaps for want of memory: try fewer than {processes}') from error


def _start(opened, arguments):
    global _work
    cv2.setNumThreads(1)
    stack = contextlib.ExitStack()  # Open as long as the process lives.
    _work = stack.enter_context(opened(*arguments)), stack


def _run(index: int):
    return _work[0](index)
