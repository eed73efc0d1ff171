"""What scoring all benchmarks needs: what is wrong with predictions, the files of ground truth."""
from collections.abc import Mapping, Sequence
import dataclasses
import pathlib

import numpy as np

from sgmg_jax import files, pictures

EXAMPLES = 3  # shown for each kind of problem
MOST_PIXELS = 2 ** 30  # of all masks of a sequence, or of an expression


@dataclasses.dataclass(frozen=True)
class Problem:
    """All faults of one kind.

    kind: what is wrong. count: how often. examples: the first few. mend: what to do about it.
    """
    kind: str
    count: int
    examples: tuple[str, ...]
    mend: str


def problems_of(found: Mapping[tuple[str, str], Sequence[str]]) -> list[Problem]:
    """Problems from (kind, how to mend it) -> where."""
    return [Problem(kind, len(where), tuple(where[:EXAMPLES]), mend) for (kind, mend), where in found.items() if where]


def format_problems(problems: Sequence[Problem]) -> str:
    """The problems for people: kind and count, the first examples, how to mend it; names are escaped for terminals."""
    lines = []
    for problem in problems:
        lines.append(f'{problem.kind}: {problem.count:,}')
        lines.extend(f'    {files.one_line(example)}' for example in problem.examples)
        if problem.count > len(problem.examples):
            lines.append(f'    ... and {problem.count - len(problem.examples):,} more')
        lines.append(f'    to mend: {files.one_line(problem.mend, 1000)}')
    return '\n'.join(lines)


class WrongPredictions(ValueError):
    """What was predicted cannot be scored. problems: list of Problem."""

    def __init__(self, problems: Sequence[Problem]):
        super().__init__(format_problems(problems))
        self.problems = problems


def check_folder(path: pathlib.Path):
    """Raises ValueError for ground truth that is a file where it must be a folder."""
    if path.exists() and not path.is_dir():
        raise ValueError(f'{path}: is a file; the ground truth is a folder, see --help. Are --gt and --pred swapped?')


def listing(folder: pathlib.Path) -> tuple[list[str], list[str]]:
    """As files.listing; nothing for what is no folder."""
    return files.listing(folder) if folder.is_dir() else ([], [])


def read_pngs(paths: Sequence[pathlib.Path], modes: Sequence[str]) -> np.ndarray:
    """Masks or index maps of the ground truth, uint8 [T H W].

    Args:
        modes: Pillow's, that they may have.

    Raises:
        ValueError: naming the file, if one is none, is of another mode or size, or all are larger than MOST_PIXELS.
    """
    first, masks = None, []
    for path in paths:
        try:
            header = pictures.read_header(path, [pictures.PNG])
            if header.mode not in modes:
                raise ValueError(f'mode {header.mode}, a mask has {" or ".join(modes)}')
            size = header.height, header.width
            first = first or size
            if size == first and len(paths) * size[0] * size[1] <= MOST_PIXELS:
                masks.append(pictures.read_pixels(path, [pictures.PNG], size).astype(np.uint8))
        except (OSError, ValueError) as error:
            raise ValueError(f'{path}: cannot read ({error}); take it from the original archive again') from error
        if size != first:
            raise ValueError(f'{path}: is {size} (H, W), but {paths[0].name} beside it {first}; take both from the '
                             'original archive again')
        if not masks:
            raise ValueError(f'{path.parent}: {len(paths):,} masks of {size[1]}x{size[0]} pixels, at most '
                             f'{MOST_PIXELS:,} pixels are read together. Scale them down.')
    return np.stack(masks)
