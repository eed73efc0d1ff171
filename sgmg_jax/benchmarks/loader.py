"""Throughput of data loading: clips/s that one core reads, decodes and augments, and that worker processes load.

    python -m sgmg_jax.benchmarks.loader --workers 1 2 [--records=<built data set> --split=train]

A device does not wait for data if the workers (config.data.workers) load more clips/s than it trains on
(`python -m sgmg_jax.benchmarks.step`). Without --records, run it from the repository root: it generates a few videos of
640x360 pixels and builds them with `datasets.build` in a temporary folder.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import typing

from absl import flags
from jaxtyping import UInt8
import numpy as np

from sgmg_jax import commands
from sgmg_jax.benchmarks import machine

if typing.TYPE_CHECKING:
    import tokenizers

    from sgmg_jax import types
    from sgmg_jax.data import records

NUM_FRAMES = 5
FRAME_SIZE = 360, 640
PACKAGES = ('grain', 'tensorflow-datasets', 'array_record', 'opencv-python-headless', 'numpy')


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = commands.make_parser('python -m sgmg_jax.benchmarks.loader', __doc__)
    count = commands.whole(1, 10**6)
    parser.add_argument('--records', metavar='FOLDER', help='built data set (default: generated)')
    parser.add_argument('--split', default='train', help='default: %(default)s')
    parser.add_argument('--clips', type=count, default=40, metavar='N', help='clips per run (default: %(default)s)')
    parser.add_argument(
        '--runs', type=count, default=5, metavar='N', help='runs, whose median is reported (default: %(default)s)'
    )
    parser.add_argument(
        '--workers',
        type=commands.whole(0, 1000),
        nargs='*',
        default=(),
        metavar='N',
        help='numbers of worker processes to measure too',
    )
    return commands.exit_with(_work, parser, argv)


def _work(options: argparse.Namespace) -> None:
    from sgmg_jax.data import records

    flags.FLAGS.mark_as_parsed()  # required by grain's worker processes
    with tempfile.TemporaryDirectory() as folder:
        where = make_records(pathlib.Path(folder)) if options.records is None else options.records
        with one_core() as cores:
            source = records.open_records(where, options.split)
            measure(source, options.clips, options.runs, cores)
        measure_workers(source, options.clips, options.runs, options.workers)


@contextlib.contextmanager
def one_core() -> Iterator[str]:
    """Restricts this process to one core if the system can; yields a description of the cores it uses."""
    if not hasattr(os, 'sched_setaffinity'):
        yield f'up to {os.cpu_count()} cores (this system cannot restrict a process to one)'
        return
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(every)})
    try:
        yield 'one core'
    finally:
        os.sched_setaffinity(0, every)


def measure(source: 'records.Records', num_clips: int, runs: int, cores: str) -> None:
    """Prints the machine, the data and the medians.

    Raises:
        ValueError: the split has no training clips, or no ground truth.
    """
    import cv2

    from sgmg_jax.data import augment, clips, pipeline

    cv2.setNumThreads(1)
    tokenizer = tokenizer_of(source)
    index = clips.training_index(source.videos, NUM_FRAMES)
    if not len(index):
        raise ValueError(f'{source.directory}: split {source.split!r} has no training clips. Name another --split.')
    order = np.random.default_rng(0).integers(len(index), size=num_clips).tolist()
    chosen = [(source[index[row, 0]], *index[row].tolist()) for row in order]
    load = pipeline.LoadClip(
        source,
        index,
        tokenizer,
        num_frames=NUM_FRAMES,
        frame_size=FRAME_SIZE,
        text_length=64,
        sentences=1,
        augmentation=augment.Augmentation(),
        reverse_probability=0.3,
        consecutive=False,
        on_bad_clip='raise',
    )
    stored = sum(len(part) for record, *_ in chosen for part in (*record.frames, record.film or b''))
    frames = sum(len(record.video.frame_names) for record, *_ in chosen)
    sizes = sorted({(record.video.width, record.video.height) for record, *_ in chosen})

    def read() -> None:
        for row in order:
            source[index[row, 0]]

    def decode() -> None:
        rng = np.random.default_rng(0)
        for record, _, position, centre in chosen:
            indices = clips.sample_frames(rng, len(record.video.frame_names), centre, NUM_FRAMES)
            pipeline.load_sample(record, [record.video.expressions[position]], indices, centre)

    def whole_clip() -> None:
        rng = np.random.default_rng(0)
        for row in order:
            load.random_map(row, rng)

    def loader() -> None:
        batches = open_batches(source, tokenizer)
        with contextlib.closing(batches):  # type: ignore[type-var]  # it has close()
            for _ in range(num_clips):
                next(batches)

    print(f'machine   {machine.describe(PACKAGES)}; using {cores}')
    print(
        f'data      {source.directory}, {len(source)} videos of '
        f'{", ".join(f"{width}x{height}" for width, height in sizes)}, '
        f'{stored / frames / 1024:.0f} KB per frame, {frames / len(chosen):.0f} frames per video'
    )
    print(
        f'clips     {NUM_FRAMES} frames into {FRAME_SIZE[1]}x{FRAME_SIZE[0]}; median of {runs} runs of '
        f'{num_clips} clips'
    )
    for name, function in (
        ('read a video', read),
        ('decode', decode),
        ('read, decode, augment', whole_clip),
        ('loader, batches of 1', loader),
    ):
        print_row(name, median_seconds(function, runs) / num_clips)


def measure_workers(source: 'records.Records', num_clips: int, runs: int, workers: Sequence[int]) -> None:
    """Prints the median for each number of worker processes, after they have started."""
    tokenizer = tokenizer_of(source)
    for count in workers:
        batches = open_batches(source, tokenizer, count)
        with contextlib.closing(batches):  # type: ignore[type-var]  # it has close()

            def load(batches: 'Iterator[types.Example]' = batches) -> None:
                for _ in range(num_clips):
                    next(batches)

            print_row(f'loader, {count} worker(s)', median_seconds(load, runs) / num_clips)


def open_batches(
    source: 'records.Records', tokenizer: 'tokenizers.Tokenizer', workers: int = 0
) -> 'Iterator[types.Example]':
    """Training batches of one clip."""
    from sgmg_jax.data import augment, pipeline

    return pipeline.train_batches(
        source,
        tokenizer,
        num_frames=NUM_FRAMES,
        frame_size=FRAME_SIZE,
        text_length=64,
        batch_size=1,
        augmentation=augment.Augmentation(),
        seed=0,
        num_workers=workers,
    )


def tokenizer_of(source: 'records.Records') -> 'tokenizers.Tokenizer':
    """A small tokenizer trained on the sentences of a split."""
    from sgmg_jax.data import text

    return text.train_tokenizer([e.text for video in source.videos for e in video.expressions], 1000)


def print_row(name: str, seconds: float) -> None:
    """Prints a row of the table, given the seconds per clip."""
    print(f'{name:22} {1000 * seconds:7.1f} ms/clip {1 / seconds:8.1f} clips/s', flush=True)


def median_seconds(function: Callable[[], None], runs: int) -> float:
    """Median wall time of `function`, after one warm-up run."""
    function()
    return statistics.median(machine.seconds(function, runs))


def make_records(folder: pathlib.Path, num_videos: int = 6, num_frames: int = 30) -> pathlib.Path:
    """Generates videos of a disc moving over drifting texture, builds them, and returns the folder of the records.

    Raises:
        FileNotFoundError: the builder is not in the current folder.
        ChildProcessError: the builder failed; has its last message.
    """
    import cv2

    check_builder('--records')
    rng = np.random.default_rng(0)
    raw, listed = folder / 'raw', {}
    names = [f'{5 * frame:05d}' for frame in range(num_frames)]
    for number in range(num_videos):
        video = f'video{number}'
        frames, masks = (raw / 'train' / kind / video for kind in ('JPEGImages', 'Annotations'))
        frames.mkdir(parents=True)
        masks.mkdir(parents=True)
        scene = texture(rng, 720, 1280)
        for step, name in enumerate(names):
            image = scene[2 * step : 2 * step + 360, 4 * step : 4 * step + 640].copy()
            centre = (60 + 15 * step, 180)
            cv2.circle(image, centre, 50, (40, 60, 200), -1)
            mask = cv2.circle(np.zeros((360, 640), np.uint8), centre, 50, 1, -1)
            cv2.imwrite(os.fspath(frames / f'{name}.jpg'), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
            cv2.imwrite(os.fspath(masks / f'{name}.png'), mask)
        listed[video] = {
            'expressions': {'0': {'exp': 'the red disc moving to the right', 'obj_id': '1'}},
            'frames': names,
        }
    file = raw / 'meta_expressions' / 'train' / 'meta_expressions.json'
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({'videos': listed}))
    build(raw, folder / 'tfds')
    return folder / 'tfds'


def check_builder(option: str) -> None:
    """Raises FileNotFoundError if the builder is not in the current folder. option: with which it is not needed."""
    if not pathlib.Path('datasets/build.py').exists():
        raise FileNotFoundError(f'datasets/build.py: not found. Run from the root of the repository, or give {option}.')


def texture(rng: np.random.Generator, height: int, width: int) -> UInt8[np.ndarray, 'H W 3']:
    """Detail at several scales, which makes a JPEG about as large as that of a real scene."""
    import cv2

    scales = [
        cv2.resize(rng.normal(0, 9, (height // scale, width // scale, 3)), (width, height)) for scale in (3, 8, 40)
    ]
    return np.clip(128 + np.sum(scales, axis=0), 0, 255).astype(np.uint8)


def build(raw: pathlib.Path, out: pathlib.Path) -> None:
    """Builds raw data in the layout of Ref-YouTube-VOS. Raises ChildProcessError with the builder's last message."""
    built = subprocess.run(
        [sys.executable, '-m', 'datasets.build', 'ref_youtube_vos', f'--raw={raw}', f'--out={out}'],
        capture_output=True,
        text=True,
    )
    if built.returncode:
        raise ChildProcessError(f'datasets.build: {built.stderr.strip().rpartition(chr(10))[2]}')


if __name__ == '__main__':
    sys.exit(main())
