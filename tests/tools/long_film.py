"""Peak memory and time of `python -m sgmg_jax.predict` on films of the procedural world, of several lengths.

python tests/tools/long_film.py 500 20000

Writes each film, of 160x288 pixels, segments two sentences with the model `demo` in a process of its own, and prints
a line. Only result.json, with the run lengths of all masks, may make memory grow. 20,000 frames need half a GB of disk
and, at the 35 frames a second of two idle CPU cores, ten minutes.
"""

import itertools
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from sgmg_jax import video
from sgmg_jax.synthetic import make_video

SIZE = (160, 288)
SHOT = 100  # frames of one clip; a film is many
SENTENCES = ('the circle', 'the small striped shape')


def frames():
    for seed in itertools.count():
        yield from make_video(seed, SHOT, SIZE).frames


def main(lengths: list[int]) -> None:
    for length in lengths:
        with tempfile.TemporaryDirectory() as folder:
            film, out = pathlib.Path(folder, 'film.mp4'), pathlib.Path(folder, 'out')
            video.write(film, itertools.islice(frames(), length))
            begun = time.monotonic()
            process = subprocess.Popen([sys.executable, '-m', 'sgmg_jax.predict', film, *SENTENCES, f'--out={out}'])
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                sys.exit(f'predict ended with status {os.waitstatus_to_exitcode(status)}')
            sizes = [path.stat().st_size for path in (out / 'result.json', out / 'overlay.mp4')]
            print(
                f'{length:,} frames: peak memory {usage.ru_maxrss / 2**10:.0f} MiB, '
                f'{time.monotonic() - begun:.0f} s; result.json {sizes[0] / 2**20:.1f} MiB, overlay.mp4 '
                f'{sizes[1] / 2**20:.1f} MiB',
                flush=True,
            )


if __name__ == '__main__':
    main([int(length) for length in sys.argv[1:]])
