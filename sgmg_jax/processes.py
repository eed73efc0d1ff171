"""Work on many videos by several processes: each opens the files once and keeps the function that works on one."""
from collections.abc import Callable
import concurrent.futures
import contextlib
import errno
import multiprocessing
import pathlib
import shutil
import signal

import tqdm

SHARED_MEMORY = pathlib.Path('/dev/shm')
LEAST_SHARED = 2 ** 26  # bytes; containers have this much unless told otherwise, and it does not go far
_work = None


def for_each(opened: Callable, arguments: tuple, count: int, processes: int, desc: str, progress: bool) -> list:
    """[work(0), .. work(count - 1)], where `opened(*arguments)` is a context manager that gives `work`.

    Args:
        opened: a function of a module, and `arguments` what can be pickled, if there are several processes.
        processes: at most so many; with one, everything is done here.
        desc: of the progress bar on stderr, which `progress` shows.

    Raises:
        OSError: if a process dies, or none can be started; names it and says what may be the reason. What `work`
            raises comes through.
    """
    bar = dict(total=count, desc=desc, unit='video', disable=not progress)
    processes = min(processes, count)
    if processes <= 1:
        with opened(*arguments) as work, tqdm.tqdm(range(count), **bar) as indices:
            return [work(index) for index in indices]
    started = {}
    try:
        # Never a fork: the caller may be running JAX, whose threads a fork does not survive.
        with concurrent.futures.ProcessPoolExecutor(processes, multiprocessing.get_context('spawn'), _start,
                                                    (opened, arguments)) as pool:
            results = pool.map(_run, range(count))
            started |= pool._processes  # Of which one may die.
            return list(tqdm.tqdm(results, **bar))
    except concurrent.futures.process.BrokenProcessPool as error:
        raise OSError(f'{_the_dead(started.values())} died while {desc}. {advice(processes)}') from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EAGAIN) or error.filename:
            raise
        raise OSError(f'{processes} processes cannot be started ({error.strerror}). {advice(processes)}') from error


def advice(processes: int) -> str:
    """What to do when one of so many worker processes dies."""
    fewer = (f'Perhaps there is too little memory: try fewer than {processes} processes.' if processes > 1 else
             'Perhaps there is too little memory.')
    try:
        shared = shutil.disk_usage(SHARED_MEMORY)
    except OSError:
        return f'{fewer} There is no {SHARED_MEMORY}, by which processes share memory.'
    if shared.total > LEAST_SHARED and shared.free > LEAST_SHARED:
        return fewer
    return (f'{SHARED_MEMORY}, by which processes share memory, is too small: it has {shared.free / 2 ** 20:.0f} MB '
            f'free of {shared.total / 2 ** 20:.0f} MB. Make it larger (docker run --shm-size=2g), or try fewer than '
            f'{processes} processes.')


def _the_dead(started) -> str:
    """The process that died first: the pool ends the others by SIGTERM."""
    for process in started:
        process.join(5)
        if process.exitcode not in (None, 0, -signal.SIGTERM):
            code = process.exitcode
            how = f'signal {-code}, {signal.strsignal(-code)}' if code < 0 else f'exit status {code}'
            return f'process {process.pid} ({how})'
    return 'a process'


def _start(opened, arguments):
    import cv2

    global _work
    cv2.setNumThreads(1)
    stack = contextlib.ExitStack()  # Open as long as the process lives.
    _work = stack.enter_context(opened(*arguments)), stack


def _run(index: int):
    return _work[0](index)
