"""How long a model waits in a whole evaluation: reading, resizing and writing, around a stand-in of a given speed.

    python -m sgmg_jax.benchmarks.evaluate runs/made_up [--videos=20] [--window_ms=75]

The data are made up once, in the folder that is given, and have the size of Ref-YouTube-VOS's validation split: 202
videos of 1280x720 pixels, 834 sentences, 22,046 masks. The stand-in sleeps as an accelerator computes: one program at a
time, `window_ms` for a window of up to 36 frames and one sentence. All around it is what evaluate.py does, and the
masks are as large as real ones. Run it from the root of the repository, whose builder it needs.

Three runs: the host's part alone, on one core; with the model, one video at a time; and as evaluate.py does it on one
accelerator. `waits` is the share of the time in which the model does not work.
"""

import argparse
from collections.abc import Sequence
import functools
import json
import os
import pathlib
import shutil
import sys
import tempfile
import threading
import time
import typing

from jaxtyping import Bool
import numpy as np

from sgmg_jax import commands
from sgmg_jax.benchmarks import loader, machine

if typing.TYPE_CHECKING:
    from sgmg_jax.data import records
    from sgmg_jax.inference import segment
    from sgmg_jax.inference.predictor import Predictor

HEIGHT, WIDTH = 720, 1280
CLIP_FRAMES = 36  # of a window
VIDEOS = 202
# (videos, sentences of each, frames of all): 834 sentences, 22,046 masks.
PARTS = (26, 5, 686), (176, 4, 4654)
SPREAD = 8  # frames more or less than the mean
PACKAGES = 'jax', 'numpy', 'opencv-python-headless', 'pillow'


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = commands.make_parser('python -m sgmg_jax.benchmarks.evaluate', __doc__)
    parser.add_argument('folder', metavar='FOLDER', help='of the data; made up if it is new')
    parser.add_argument(
        '--videos', type=commands.whole(1, VIDEOS), default=VIDEOS, metavar='N', help='the first N (default: all)'
    )
    parser.add_argument(
        '--window_ms',
        type=commands.whole(1, 10**6),
        default=75,
        metavar='MS',
        help='of the model, for a window and a sentence (default: %(default)s)',
    )
    return commands.exit_with(_work, parser, argv)


def _work(options: argparse.Namespace) -> None:
    from sgmg_jax.data import records
    from sgmg_jax.inference import parallel

    folder = pathlib.Path(options.folder)
    if not (folder / 'records').is_dir():
        make_records(folder)
    split = records.open_records(folder / 'records', f'valid[:{options.videos}]')
    sentences = sum(len(video.expressions) for video in split.videos)
    masks = sum(len(video.expressions) * len(video.frame_names) for video in split.videos)
    print(machine.describe(PACKAGES))
    print(
        f'{len(split)} videos of {WIDTH}x{HEIGHT}, {sum(len(video.frame_names) for video in split.videos)} frames, '
        f'{sentences} sentences, {masks} masks'
    )
    print(f'{"":44}{"predict":>10}{"CPU":>10}{"model":>10}{"waits":>8}{"zip, check":>12}')
    with loader.one_core() as cores:
        measure(split, folder, 0, 1, f'without the model, {cores}')
    seconds = options.window_ms / 1000
    for videos in (1, parallel.VIDEOS_PER_DEVICE):
        measure(split, folder, seconds, videos, f'{options.window_ms} ms a window, {videos} video(s) at a time')


def measure(split: 'records.Records', folder: pathlib.Path, seconds: float | int, videos: int, name: str) -> None:
    """Evaluates with a stand-in model, and prints a row of the table."""
    from sgmg_jax.inference import evaluate, protocols

    device = StandIn(seconds)
    predictors = [make_predictor(split, device)] * videos
    protocol = protocols.choose('ytvos')
    moving_blob(HEIGHT, WIDTH)  # once, before the time begins
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for part in ('files', 'done'):
            (pathlib.Path(scratch) / part).mkdir()
        begun, begun_cpu = time.perf_counter(), time.process_time()
        evaluate.write_predictions(predictors, split, protocol, pathlib.Path(scratch), progress=False)
        predicted, cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
        protocol.finish(pathlib.Path(scratch) / 'files', split.videos)
        finished = time.perf_counter() - begun - predicted
    waits = f'{1 - device.worked / predicted:8.1%}' if seconds else f'{"":>8}'
    print(f'{name:44}{predicted:8.1f} s{cpu:8.1f} s{device.worked:8.1f} s{waits}{finished:10.1f} s', flush=True)


class StandIn:
    """Sleeps as an accelerator computes, one program at a time. `worked`: seconds."""

    def __init__(self, seconds: float | int) -> None:
        self.worked, self._seconds, self._busy = 0.0, seconds, threading.Lock()

    def replace(self, programs: 'segment.Programs') -> 'segment.Programs':
        """The programs of a Predictor with those replaced that masks of the best queries need."""
        from sgmg_jax.models import features

        def encode(parameters, clip):
            empty = np.zeros((*clip.valid.shape[:2], 1, 1, 1), np.float32)
            return features.VideoFeatures((), (), empty, empty, clip.size)

        def best_masks(parameters, video, tokens, real_frames):
            with self._busy:
                begun = time.perf_counter()
                time.sleep(self._seconds)
                self.worked += time.perf_counter() - begun
            scores = np.ones((len(tokens.tokens), real_frames.shape[1]), np.float32)
            return scores, np.zeros((*scores.shape, 1, 1), np.float32)

        return programs._replace(
            encode=encode,
            best_masks=best_masks,
            original_size=lambda logits, crop, size: moving_blob(*size)[: len(logits)],
            above_zero=lambda masks: (masks.copy(), True),  # a copy, as from the device
        )


@functools.lru_cache(maxsize=1)
def moving_blob(height: int, width: int) -> Bool[np.ndarray, 'T H W']:
    """Masks of a blob with a wavy outline, which covers about a sixth of each of CLIP_FRAMES frames."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    waves = 0.1 * np.sin(x / 17) + 0.1 * np.cos(y / 13)
    centres = np.linspace(0.35, 0.65, CLIP_FRAMES) * width
    return np.stack(
        [((y / height - 0.5) / 0.25) ** 2 + ((x - centre) / width / 0.22) ** 2 + waves < 1 for centre in centres]
    )


def make_predictor(split: 'records.Records', device: StandIn) -> 'Predictor':
    """A Predictor whose programs are the stand-in's."""
    from sgmg_jax.inference.predictor import Predictor
    from sgmg_jax.models import sgmg

    predictor = Predictor(
        sgmg.SgMg(),
        {},
        loader.tokenizer_of(split),
        short_side=360,
        max_side=None,
        clip_frames=CLIP_FRAMES,
        text_length=64,
    )
    predictor.programs = device.replace(predictor.programs)
    return predictor


def lengths() -> list[tuple[int, int]]:
    """The frames and the sentences of each video."""
    found = []
    for videos, sentences, frames in PARTS:
        each = frames // videos + np.resize(np.arange(-SPREAD, SPREAD + 1), videos)
        each += (frames - each.sum()) // videos
        each[: frames - each.sum()] += 1
        found += [(int(count), sentences) for count in each]
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))]


def make_records(folder: pathlib.Path) -> None:
    """Makes up the videos, and builds them in <folder>/records, which appears whole or not at all.

    Raises:
        FileNotFoundError: the builder is not in the current folder.
        ChildProcessError: the builder failed; has its last message.
    """
    import cv2
    import tqdm

    loader.check_builder('a FOLDER that has its data')
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    scenes = [loader.texture(rng, HEIGHT + 80, WIDTH + 160) for _ in range(4)]
    listed = {}
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        raw = pathlib.Path(scratch, 'raw')
        for number, (frames, sentences) in enumerate(tqdm.tqdm(lengths(), desc='making up', unit='video')):
            video = f'video{number:03d}'
            names = [f'{5 * frame:05d}' for frame in range(frames)]
            (raw / 'valid' / 'JPEGImages' / video).mkdir(parents=True)
            for step, name in enumerate(names):
                image = scenes[number % len(scenes)][2 * step : 2 * step + HEIGHT, 4 * step : 4 * step + WIDTH]
                path = raw / 'valid' / 'JPEGImages' / video / f'{name}.jpg'
                cv2.imwrite(os.fspath(path), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
            listed[video] = {
                'expressions': {str(i): {'exp': f'the person number {i} on the left'} for i in range(sentences)},
                'frames': names,
            }
        file = raw / 'meta_expressions' / 'valid' / 'meta_expressions.json'
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({'videos': listed}))
        loader.build(raw, pathlib.Path(scratch, 'records'))
        shutil.move(pathlib.Path(scratch, 'records'), folder / 'records')


if __name__ == '__main__':
    sys.exit(main())
