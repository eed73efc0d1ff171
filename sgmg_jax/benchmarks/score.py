"""Seconds to score a set of the size of Ref-DAVIS17: 30 sequences, 1,999 frames, 61 objects, one annotator.

    python -m sgmg_jax.benchmarks.score [--processes=N] [--annotators=1]

Generates ground truth and predictions in a temporary folder: moving blobs with changing, wavy outlines, and the same
with noise. Times the whole command `python -m sgmg_jax.score davis`, including start-up and reading.
"""

import argparse
from collections.abc import Iterable, Sequence
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from jaxtyping import Float64, UInt8
import numpy as np

from sgmg_jax import commands

HEIGHT = 480
# (sequence, frames, width, objects) of the validation set of DAVIS-2017.
SEQUENCES = (
    ('bike-packing', 69, 910, 2),
    ('blackswan', 50, 854, 1),
    ('bmx-trees', 80, 854, 2),
    ('breakdance', 84, 854, 1),
    ('camel', 90, 854, 1),
    ('car-roundabout', 75, 854, 1),
    ('car-shadow', 40, 854, 1),
    ('cows', 104, 854, 1),
    ('dance-twirl', 90, 854, 1),
    ('dog', 60, 854, 1),
    ('dogs-jump', 66, 854, 3),
    ('drift-chicane', 52, 854, 1),
    ('drift-straight', 50, 854, 1),
    ('goat', 90, 854, 1),
    ('gold-fish', 78, 854, 5),
    ('horsejump-high', 50, 854, 2),
    ('india', 81, 854, 3),
    ('judo', 34, 854, 2),
    ('kite-surf', 50, 854, 3),
    ('lab-coat', 47, 854, 5),
    ('libby', 49, 854, 1),
    ('loading', 50, 854, 3),
    ('mbike-trick', 79, 854, 2),
    ('motocross-jump', 40, 854, 2),
    ('paragliding-launch', 80, 854, 3),
    ('parkour', 100, 854, 1),
    ('pigs', 79, 854, 3),
    ('scooter-black', 43, 854, 2),
    ('shooting', 40, 1152, 3),
    ('soapbox', 99, 854, 3),
)
PACKAGES = 'numpy', 'opencv-python-headless', 'pillow', 'scipy'


def write_set(
    root: pathlib.Path, sequences: Iterable[tuple[str, int, int, int]] = SEQUENCES, annotators: int = 1
) -> None:
    """Writes index PNGs: <root>/DAVIS in the layout of the data set, and <root>/results for 1 or 4 annotators."""
    import tqdm

    rng = np.random.default_rng(0)
    truth = root / 'DAVIS/Annotations_unsupervised/480p'
    results = [root / 'results' / (f'anno_{number}' if annotators > 1 else '') for number in range(annotators)]
    for name, frames, width, objects in tqdm.tqdm(sequences, desc='writing', unit='video'):
        outlines = rng.normal(0, 0.05, (objects, 2, 12))
        start, step = rng.uniform(0.15, 0.85, (objects, 2)), rng.normal(0, 0.004, (objects, 2))
        radius = rng.uniform(0.08, 0.28, objects)
        for t in range(frames):
            centres = (start + t * step) * (width, HEIGHT)
            outlines += rng.normal(0, 0.005, outlines.shape)
            _save(truth / name / f'{t:05d}.png', _blobs(width, centres, radius, outlines))
            for folder in results:
                moved = centres + rng.normal(0, 3, centres.shape)
                _save(
                    folder / name / f'{t:05d}.png',
                    _blobs(width, moved, radius, outlines + rng.normal(0, 0.01, outlines.shape)),
                )
    lists = root / 'DAVIS/ImageSets/2017'
    lists.mkdir(parents=True)
    (lists / 'val.txt').write_text(''.join(f'{name}\n' for name, *_ in sequences))


def _blobs(
    width: int,
    centres: Float64[np.ndarray, 'N 2'],
    radius: Float64[np.ndarray, ' N'],
    outlines: Float64[np.ndarray, 'N 2 12'],
) -> UInt8[np.ndarray, 'H W']:
    import cv2

    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    waves = np.stack([np.sin(np.arange(1, 13)[:, None] * angle), np.cos(np.arange(1, 13)[:, None] * angle)])
    index_map = np.zeros((HEIGHT, width), np.uint8)
    for number, (centre, size, outline) in enumerate(zip(centres, radius, outlines), 1):
        reach = HEIGHT * size * (1 + np.einsum('ck,cka->a', outline, waves))
        points = centre + reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
        cv2.fillPoly(index_map, [np.round(points).astype(np.int32)], number)
    return index_map


def _save(path: pathlib.Path, index_map: UInt8[np.ndarray, 'H W']) -> None:
    from PIL import Image

    from sgmg_jax import pictures

    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(index_map)
    image.putpalette(pictures.PALETTE)
    image.save(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = commands.make_parser('python -m sgmg_jax.benchmarks.score', __doc__)
    parser.add_argument('--processes', type=int, default=os.cpu_count(), help='default: all cores, here %(default)s')
    parser.add_argument('--annotators', type=int, default=1, choices=[1, 4], help='default: %(default)s')
    parser.add_argument('--runs', type=int, default=3, help='number of timed runs (default: %(default)s)')
    return commands.exit_with(_work, parser, argv)


def _work(options: argparse.Namespace) -> None:
    if options.processes < 1 or options.runs < 1:
        raise ValueError('--processes and --runs must be at least 1')
    from sgmg_jax.benchmarks import machine

    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        write_set(root, annotators=options.annotators)
        command = [
            sys.executable,
            '-m',
            'sgmg_jax.score',
            'davis',
            f'--gt={root / "DAVIS"}',
            f'--pred={root / "results"}',
            f'--json={root / "scores.json"}',
            f'--processes={options.processes}',
        ]
        seconds = machine.seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL), options.runs)
        summary = json.loads((root / 'scores.json').read_text())
    print(f'machine   {machine.describe(PACKAGES)}; using {options.processes} processes')
    print(
        f'data      {len(SEQUENCES)} sequences, {sum(row[1] for row in SEQUENCES):,} frames, {summary["objects"]} '
        f'objects, {options.annotators} annotator(s); J&F {summary["J&F"]:.2f}'
    )
    print(f'seconds   {" ".join(f"{value:.1f}" for value in sorted(seconds))} (each run, fastest first)')


if __name__ == '__main__':
    sys.exit(main())
