"""Segments a whole film and writes what was found, window by window, so that memory does not grow with its length.

Axis letters: E sentences, n frames of a window, H W pixels.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import json
import os
import pathlib
from typing import Any

from jaxtyping import UInt8
import numpy as np
from PIL import Image

import sgmg_jax
from sgmg_jax import files, video, visualize
from sgmg_jax.inference.predictor import Predictor, Window
from sgmg_jax.inference.results import to_rle
from sgmg_jax.score import submission


def segment_film(
    predictor: Predictor,
    source: video.Source,
    sentences: Sequence[str],
    out: str | os.PathLike,
    *,
    every: int = 1,
    start: float | int = 0.0,
    end: float | int = float('inf'),
    max_side: int | None = None,
    threshold: float | int = 0.0,
    report: Callable[[int, int | None], None] = lambda done, expected: None,
) -> dict[str, Any]:
    """Writes the folder `out`, which appears whole or not at all.

    overlay.mp4                   contours on a darker background, and a legend; overlay.png of a single picture
    masks/<sentence>/<frame>.png  0 and 255; sentences are numbered from 0
    objects/<frame>.png           0 for none, k + 1 for sentence k, in DAVIS's palette; see Window.owner
    result.json                   what this function returns

    Args:
        every, start, end, max_side: see video.stream.
        threshold: see Predictor.stream.
        report: called after each window with the number of finished frames, and the expected one if it is known.

    Returns:
        {'version', 'model', 'source', 'rate': of the selected frames, 'size': [H, W], 'threshold', 'frames': names,
        'times': seconds from the beginning of the source, 'sentences': [{'text', 'score': mean of 'scores', 'scores': a
        number in [0, 1] per frame, 'masks': COCO's run lengths per frame, None if empty}]}.

    Raises:
        FileExistsError: `out` exists.
        TypeError, ValueError: the film or a sentence cannot be used, or no frame is selected.
        FloatingPointError: the model's output is not finite.
        OSError: the folder cannot be written.
    """
    out = files.check_new(pathlib.Path(out).absolute())
    names: list[str] = []
    times: list[float] = []
    rate = source.rate / every
    expected = None
    if source.count:
        expected = max(1, round((min(end, source.count / source.rate) - start) * rate))

    def images() -> Iterator[UInt8[np.ndarray, 'H W 3']]:
        for frame in video.stream(source, every, start, end, max_side):
            names.append(frame.name)
            times.append(frame.time)
            yield frame.image

    found: list[dict[str, Any]] = [{'text': text, 'score': 0.0, 'scores': [], 'masks': []} for text in sentences]
    size: list[int] = []
    with files.new_folder(out) as partial:
        with _overlay(partial, source, rate, start) as append:
            for window in predictor.stream(images(), sentences, threshold):
                size = list(window.frames.shape[1:3])
                chosen = slice(window.start, window.start + len(window.frames))
                _write_masks(partial, window, names[chosen])
                if window.start == 0:
                    strip = visualize.legend(sentences, *reversed(size))
                for picture, time in zip(visualize.overlay(window.frames, window.masks), times[chosen]):
                    append(np.concatenate([picture, strip]), time - start)
                for row, scores, masks in zip(found, window.scores, window.masks):
                    row['scores'] += [round(float(score), 4) for score in scores]
                    row['masks'] += map(to_rle, masks)
                report(chosen.stop, expected)
            if not names:
                raise ValueError(f'{source.path}: has no frame from {start:g} s to {end:g} s. Select another part.')
        for row in found:
            row['score'] = round(float(np.mean(row['scores'])), 4)
        result = {
            'version': sgmg_jax.__version__,
            'model': predictor.origin,
            'source': source.path.name,
            'rate': rate,
            'size': size,
            'threshold': threshold,
            'frames': names,
            'times': [round(time, 4) for time in times],
            'sentences': found,
        }
        with open(partial / 'result.json', 'w', encoding='utf-8') as file:
            json.dump(result, file)  # piece by piece: the whole text of a long film would be its largest allocation
    return result


@contextlib.contextmanager
def _overlay(folder: pathlib.Path, source: video.Source, rate: float | int, start: float) -> Iterator[video.Append]:
    """Yields a function(picture, time) that appends to overlay.mp4, or writes overlay.png of a single picture."""
    if not source.is_film and len(source.files) == 1:
        yield lambda picture, time: Image.fromarray(picture).save(folder / 'overlay.png')
    else:
        with video.writer(folder / 'overlay.mp4', rate, source.path if source.is_film else None, start) as append:
            yield append


def _write_masks(folder: pathlib.Path, window: Window, names: Sequence[str]) -> None:
    submission.write_maps(folder, 'objects', names, window.owner)
    for number, masks in enumerate(window.masks):
        submission.write_pngs(folder, ('masks', str(number)), names, masks.view(np.uint8) * np.uint8(255))
