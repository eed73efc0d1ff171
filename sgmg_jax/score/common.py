"""What scoring all benchmarks needs: problems, ground truth's files."""
from collections.abc import Sequence
import json
import pathlib

import numpy as np
from PIL import Image

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
