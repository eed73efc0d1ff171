"""What scoring all benchmarks needs: problems, ground truth's files, several processes."""
from collections.abc import Callable, Sequence
import concurrent.futures
import contextlib
import json
import multiprocessing
import pathlib

import cv2
import numpy as np
from PIL import Image
import tqdm

from sgmg_jax.inference import leaderboard


class WrongPredictions(ValueError):
    """What was predicted cannot be scored. problems: list of leaderboard.Problem."""

    def __init__(self, problems):
        super().__init__(leaderboard.format_problems(problems))
        self.problems = problems


def problems_of(found: dict[tuple[str, str], list[str]]) -> list[leaderboard.Problem]:
    """Problems from (kind, how to mend it) -> where."""
    return [leaderboard.Problem(kind, len(where), tuple(where[:leaderboard.EXAMPLES]), mend)
            for (kind, mend), where in found.items() if where]


def read_json(path: pathlib.Path):
    """What a file of the ground truth holds; ValueError, naming it, if it is not JSON."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f'{path}: not JSON ({error})') from error


def read_pngs(paths: Sequence[pathlib.Path]) -> np.ndarray:
    """Masks or index maps of the ground truth, uint8 [T H W]; ValueError, naming the file, if one is none or differs
    in size."""
    masks = [_read_png(path) for path in paths]
    for path, mask in zip(paths, masks):
        if mask.shape != masks[0].shape:
            raise ValueError(f'{path}: is {mask.shape} (H, W), but {paths[0].name} beside it {masks[0].shape}; take '
                             'both from the original archive again')
    return np.stack(masks)


def _read_png(path: pathlib.Path) -> np.ndarray:
    try:
        with Image.open(path, formats=['PNG']) as image:
            if image.mode not in ('P', 'L', '1'):
                raise ValueError(f'mode {image.mode}, a mask has one 8-bit channel')
            return np.asarray(image if image.mode == 'P' else image.convert('L'))
    except leaderboard.UNREADABLE as error:
        raise ValueError(f'{path}: cannot read ({error}); take it from the original archive again') from error


# Several processes: each opens the files once and keeps the function that works on one video.

_work = None


def for_each(opened: Callable, arguments: tuple, count: int, processes: int, desc: str, progress: bool) -> list:
    """work(0), .. work(count - 1), where `opened(*arguments)` is a context manager that gives `work`."""
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
