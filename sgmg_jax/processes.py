"""Processes many videos in parallel: each worker process opens the files once."""

from collections.abc import Callable, Iterable
import concurrent.futures
import contextlib
import errno
import multiprocessing
import multiprocessing.process
import pathlib
import shutil
import signal
from typing import Any

import tqdm

SHARED_MEMORY = pathlib.Path('/dev/shm')
LEAST_SHARED = 2**26  # bytes; the default of containers, which is too little
_work: tuple[Callable[[int], Any], contextlib.ExitStack]  # set by `_start` in a worker process


def for_each(opened: Callable, arguments: tuple, count: int, processes: int, desc: str, progress: bool) -> list:
    """[work(0), .. work(count - 1)], where `opened(*arguments)` is a context manager that yields `work`.

    Args:
        opened: if there are several processes, a module-level function; its arguments must be picklable.
        processes: maximum number; with one, this process does the work.
        desc: of the progress bar on stderr, which is shown if `progress`.

    Raises:
        OSError: a process died or none can be started; names it and the likely reason. Exceptions of `work`
            propagate.
    """
    bar = dict(total=count, desc=desc, unit='video', disable=not progress)
    processes = min(processes, count)
    if processes <= 1:
        with opened(*arguments) as work, tqdm.tqdm(range(count), **bar) as indices:
            return [work(index) for index in indices]
    started: dict[int, multiprocessing.process.BaseProcess] = {}
    try:
        # Not by fork: the caller may run JAX, whose threads do not survive one.
        with concurrent.futures.ProcessPoolExecutor(
            processes, multiprocessing.get_context('spawn'), _start, (opened, arguments)
        ) as pool:
            results = pool.map(_run, range(count))
            started |= pool._processes  # At its end the pool forgets them.
            return list(tqdm.tqdm(results, **bar))
    except concurrent.futures.process.BrokenProcessPool as error:
        raise OSError(f'{_first_dead(started.values())} died while {desc}. {advice(processes)}') from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EAGAIN) or error.filename:
            raise
        raise OSError(f'{processes} processes cannot be started ({error.strerror}). {advice(processes)}') from error


def advice(processes: int) -> str:
    """What to try when one of this many worker processes has died."""
    fewer = (
        f'Perhaps there is too little memory: try fewer than {processes} processes.'
        if processes > 1
        else 'Perhaps there is too little memory.'
    )
    try:
        shared = shutil.disk_usage(SHARED_MEMORY)
    except OSError:
        return f'{fewer} There is no {SHARED_MEMORY}, through which processes share memory.'
    if shared.total > LEAST_SHARED and shared.free > LEAST_SHARED:
        return fewer
    return (
        f'{SHARED_MEMORY}, through which processes share memory, is too small: it has '
        f'{shared.free / 2**20:.0f} MB free of {shared.total / 2**20:.0f} MB. Make it larger (docker run '
        f'--shm-size=2g), or try fewer than {processes} processes.'
    )


def _first_dead(started: Iterable) -> str:
    """The process that died first: the pool ends the others with SIGTERM."""
    for process in started:
        process.join(5)
        code = process.exitcode
        if code not in (None, 0, -signal.SIGTERM):
            how = f'signal {-code}, {signal.strsignal(-code)}' if code < 0 else f'exit status {code}'
            return f'process {process.pid} ({how})'
    return 'a process'


def _start(opened: Callable, arguments: tuple) -> None:
    import cv2

    global _work
    cv2.setNumThreads(1)
    stack = contextlib.ExitStack()  # stays open until the process ends
    _work = stack.enter_context(opened(*arguments)), stack


def _run(index: int) -> Any:
    return _work[0](index)
