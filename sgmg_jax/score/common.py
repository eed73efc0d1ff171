"""Shared by all protocols: problems of predictions, files of ground truth.

Axis letters: T frames, H W pixels.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import os
import pathlib

from jaxtyping import UInt8
import numpy as np

from sgmg_jax import files, pictures
from sgmg_jax.data import metadata
from sgmg_jax.data.decoding import Record

EXAMPLES = 3  # shown per kind of problem
MOST_PIXELS = 2**30  # of all masks of a sequence or an expression

Found = dict[tuple[str, str], list[str]]  # (kind of problem, how to fix it) -> where it was found


@dataclasses.dataclass(frozen=True)
class Problem:
    """All problems of one kind.

    kind: what is wrong. count: how often. examples: the first few. fix: how to fix it.
    """

    kind: str
    count: int
    examples: tuple[str, ...]
    fix: str


def problems_of(found: Mapping[tuple[str, str], Sequence[str]]) -> list[Problem]:
    """One problem per kind, from (kind, how to fix it) -> where it was found."""
    return [Problem(kind, len(where), tuple(where[:EXAMPLES]), fix) for (kind, fix), where in found.items() if where]


def format_problems(problems: Iterable[Problem]) -> str:
    """The problems as text: kind and count, the first examples, how to fix it. Control characters are escaped."""
    lines = []
    for problem in problems:
        lines.append(f'{problem.kind}: {problem.count:,}')
        lines.extend(f'    {files.one_line(example)}' for example in problem.examples)
        if problem.count > len(problem.examples):
            lines.append(f'    ... and {problem.count - len(problem.examples):,} more')
        lines.append(f'    to fix: {files.one_line(problem.fix, 1000)}')
    return '\n'.join(lines)


class WrongPredictions(ValueError):
    """The predictions cannot be scored. problems: why."""

    def __init__(self, problems: Sequence[Problem]):
        super().__init__(format_problems(problems))
        self.problems = problems


def open_records(folder: str | os.PathLike, split: str) -> Sequence[Record]:
    """data.records.open_records, imported late: other ground truth is scored without the packages that it needs."""
    try:
        from sgmg_jax.data import records
    except ModuleNotFoundError:
        if not os.path.isdir(folder):  # Installing them would not help.
            raise FileNotFoundError(
                f'{folder}: no such folder. Give built records or the published ground truth.'
            ) from None
        raise
    return records.open_records(folder, split)


def videos_of(split: Sequence[Record]) -> Sequence[metadata.Video]:
    """The videos of a split; built records list them without being read."""
    # Records read no frame for it.
    return split.videos if hasattr(split, 'videos') else [record.video for record in split]


def check_folder(path: pathlib.Path) -> None:
    """Raises ValueError if the ground truth is a file and must be a folder."""
    if path.exists() and not path.is_dir():
        raise ValueError(
            f'{path}: is a file; the ground truth must be a folder, see --help. Are --gt and --pred swapped?'
        )


def listing(folder: pathlib.Path) -> tuple[list[str], list[str]]:
    """As `files.listing`; empty if this is not a folder."""
    return files.listing(folder) if folder.is_dir() else ([], [])


def read_pngs(paths: Sequence[pathlib.Path], modes: Sequence[str]) -> UInt8[np.ndarray, 'T H W']:
    """Masks or index maps of the ground truth.

    Args:
        modes: allowed Pillow modes.

    Raises:
        ValueError: a file is not a PNG, or has another mode or size, or all exceed MOST_PIXELS; names the file.
    """
    first, masks = None, []
    for path in paths:
        try:
            header = pictures.read_header(path, [pictures.PNG])
            if header.mode not in modes:
                raise ValueError(f'mode {header.mode}, must be {" or ".join(modes)}')
            size = header.height, header.width
            first = first or size
            if size == first and len(paths) * size[0] * size[1] <= MOST_PIXELS:
                masks.append(pictures.read_pixels(path, [pictures.PNG], size).astype(np.uint8))
        except (OSError, ValueError) as error:
            raise ValueError(f'{path}: cannot be read ({error}). Copy it again from the original archive.') from error
        if size != first:
            raise ValueError(
                f'{path}: is {size} (H, W), but {paths[0].name} in the same folder is {first}. Copy both '
                'again from the original archive.'
            )
        if not masks:
            raise ValueError(
                f'{path.parent}: {len(paths):,} masks of {size[1]}x{size[0]} pixels; must be at most '
                f'{MOST_PIXELS:,} pixels together. Scale them down.'
            )
    return np.stack(masks)
