"""What the page computes, without gradio: a film and sentences in; pictures, an overlay and a zip out.

Axis letters: H W pixels.
"""

from collections.abc import Callable, Collection
import os
import pathlib
import shutil
import tempfile
from typing import NamedTuple
import zipfile

from jaxtyping import UInt8
import numpy as np
from PIL import Image

from sgmg_jax import synthetic, video, visualize
from sgmg_jax.inference import film
from sgmg_jax.inference.predictor import Predictor

KEPT = 8  # answers; older ones are removed from the disk
MOST_PICTURES = 200  # frames per answer that one can choose from, evenly spaced
# Clips of the procedural world, one for each kind of sentence: attributes, motion, relations.
EXAMPLES = 2, 7, 4


class Answer(NamedTuple):
    """To one request: a folder with result/, as film.segment_film writes it, result.zip, and pictures/.

    scores: of the sentences, in [0, 1].
    frames: names of the frames in pictures/.
    """

    folder: pathlib.Path
    sentences: list[str]
    scores: list[float]
    frames: list[str]

    @property
    def overlay(self) -> pathlib.Path:
        return self.folder / 'result' / 'overlay.mp4'

    @property
    def archive(self) -> pathlib.Path:
        return self.folder / 'result.zip'


def answer(
    predictor: Predictor,
    path: str | os.PathLike | None,
    text: str,
    root: pathlib.Path,
    report: Callable[[int, int | None], None],
) -> Answer:
    """Segments a film for the page; removes all but the newest KEPT answers. Must not run twice at once.

    Args:
        path: of the film; None: none was chosen.
        text: one sentence per line.
        root: the folder that holds the answers.
        report: see film.segment_film.

    Raises:
        ValueError: no film or no sentence was given.
        OSError, ValueError, FloatingPointError: as film.segment_film.
    """
    if path is None:
        raise ValueError('there is no film. Upload one first.')
    sentences = [line.strip() for line in text.splitlines() if line.strip()]
    if not sentences:
        raise ValueError('there is no sentence. Write at least one, such as: the red ball')
    source = video.open_source(path)
    if not source.is_film:
        raise ValueError(f'{source.path}: is a picture. Upload a film.')
    for old in sorted(root.iterdir(), key=lambda folder: folder.stat().st_mtime_ns)[: 1 - KEPT]:
        shutil.rmtree(old)
    folder = pathlib.Path(tempfile.mkdtemp(dir=root))
    try:
        result = film.segment_film(predictor, source, sentences, folder / 'result', report=report)
        (folder / 'pictures').mkdir()
        frames = []
        for frame in video.stream(source, -(-len(result['frames']) // MOST_PICTURES)):
            Image.fromarray(frame.image).save(folder / 'pictures' / f'{frame.name}.jpg', quality=90)
            frames.append(frame.name)
        found = Answer(folder, sentences, [row['score'] for row in result['sentences']], frames)
        _archive(found)
    except BaseException:
        shutil.rmtree(folder)
        raise
    return found


def picture(found: Answer, number: int, shown: Collection[int]) -> UInt8[np.ndarray, 'H W 3']:
    """Draws one frame as in the overlay, with the masks of some sentences, and the legend of all.

    Args:
        number: of the frame, in found.frames.
        shown: numbers of the sentences.

    Raises:
        ValueError: the answer was removed.
    """
    name = found.frames[number]
    try:
        image = np.asarray(Image.open(found.folder / 'pictures' / f'{name}.jpg'))
        masks = np.zeros((len(found.sentences), 1, *image.shape[:2]), bool)
        for sentence in shown:
            masks[sentence] = np.asarray(Image.open(found.folder / 'result/masks' / str(sentence) / f'{name}.png'))
    except FileNotFoundError as error:
        raise ValueError('these masks were removed, since others were asked for. Press the button again.') from error
    return np.concatenate(
        [visualize.overlay(image[None], masks)[0], visualize.legend(found.sentences, *image.shape[1::-1])]
    )


def make_examples(folder: pathlib.Path) -> list[tuple[str, str]]:
    """Writes films of coloured shapes, which the model 'demo' knows, to a folder.

    Returns:
        a path and sentences, one per line, for each.
    """
    examples = []
    for seed in EXAMPLES:
        clip = synthetic.make_video(seed, num_frames=24, size=(256, 256))
        path = folder / f'shapes_{seed}.mp4'
        video.write(path, clip.frames, rate=12)
        texts = {expression.object_id: expression.text for expression in clip.expressions}
        examples.append((str(path), '\n'.join(texts.values())))
    return examples


def _archive(found: Answer) -> None:
    """Packs masks, maps of objects and result.json; the overlay is downloaded from its player."""
    result = found.folder / 'result'
    with zipfile.ZipFile(found.archive, 'w') as archive:  # not compressed, as PNGs are
        for path in sorted(result.rglob('*')):
            if path != found.overlay:
                archive.write(path, path.relative_to(result))
