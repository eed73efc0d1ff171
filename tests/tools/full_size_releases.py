"""Full-size weights as the authors release them become model folders without a config, and the outputs stay equal.

python tests/tools/full_size_releases.py
python tests/tools/full_size_releases.py soc-b

For each release (SgMg and SOC, each with Video-Swin-T, S and B) it writes seeded random weights with the release's
names, runs `python -m sgmg_jax.convert from-official` without a config, opens the folder, and compares its scores and
mask logits, of 2 frames of 144x192, with those of the experiment in configs/ that starts from the same file. Each
release is a process of its own, for two or three minutes and 3.4 GiB of memory. It ends with status 1 if any differs.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from safetensors.numpy import save_file

sys.path.append(str(pathlib.Path(__file__).parents[1]))
import golden_cases

from configs import ytvos, ytvos_soc
from sgmg_jax import Predictor
from sgmg_jax.convert import __main__ as convert
from sgmg_jax.convert import folder
from sgmg_jax.data import text
from sgmg_jax.inference import models
from sgmg_jax.parity import cases

SENTENCES = ['the red star', 'the circle moving left']
RELEASES = [f'{system}-{size}' for system in ('sgmg', 'soc') for size in 'tsb']
MANIFESTS = {'sgmg': 'manifest_sgmg_video_swin_', 'soc': 'soc/manifest_soc_video_swin_'}
BACKBONES = {'t': 'tiny', 's': 'small', 'b': 'base'}


def write_weights(system: str, size: str, path: pathlib.Path) -> None:
    spreads = cases.SOC_SPREADS if system == 'soc' else cases.SPREADS
    shapes = golden_cases.official_shapes(MANIFESTS[system] + size)
    save_file({name: cases.fill(name, shape, spreads=spreads) for name, shape in shapes.items()}, path)


def answers(predictor: Predictor, frames: np.ndarray) -> dict[str, np.ndarray]:
    predictor.short_side = frames.shape[1]  # instead of 360, to save time
    _, ask = next(predictor.windows(lambda window: frames, len(frames)))
    given = list(ask(SENTENCES))
    return {'scores': np.stack([x.scores for x in given]), 'mask logits': np.stack([x.logits for x in given])}


def check(release: str, temporary: pathlib.Path) -> bool:
    """Prints what was found and the largest differences; returns whether all is equal."""
    system, size = release.split('-')
    official, tokenizer, out = temporary / 'official.safetensors', temporary / 'roberta-base', temporary / 'model'
    write_weights(system, size, official)
    text.save_tokenizer(text.train_tokenizer(SENTENCES, 300), tokenizer)
    if convert.main(['from-official', str(official), f'--tokenizer={tokenizer}', f'--out={out}']):
        return False
    config = {'sgmg': ytvos, 'soc': ytvos_soc}[system].get_config()
    config.model.backbone = BACKBONES[size]
    config.init, config.data.tokenizer = (str(official),), str(tokenizer)
    frames = np.random.default_rng(0).integers(0, 256, (2, 144, 192, 3), np.uint8)
    found = answers(models.open_model(out), frames)
    released = answers(Predictor.from_weights(config), frames)
    stored = folder.read(out).config
    equal = stored.model == config.model
    print(f'config.model {"as" if equal else "not as"} in configs/, {folder.summary(stored)}')
    for name, values in released.items():
        difference = float(np.abs(found[name] - values).max())
        equal &= difference == 0  # also if it is NaN
        print(f'{name}: largest difference {difference:g}, of values from {values.min():.4g} to {values.max():.4g}')
    return equal


def main(releases: list[str]) -> int:
    status = 0
    for release in releases or RELEASES:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as temporary:
            process = subprocess.Popen(
                [sys.executable, __file__, release, temporary], stdout=subprocess.PIPE, text=True
            )
            printed = process.stdout.read().splitlines()
            _, ended, usage = os.wait4(process.pid, 0)
        status |= bool(ended)
        print(f'{release}: {"FAILED" if ended else "equal"}; {"; ".join(printed[-3:])}; ', end='')
        print(f'{time.monotonic() - begun:.0f} s, {usage.ru_maxrss / 2**20:.1f} GiB', flush=True)
    return status


if __name__ == '__main__':
    if len(sys.argv) == 3 and pathlib.Path(sys.argv[2]).is_dir():
        sys.exit(not check(sys.argv[1], pathlib.Path(sys.argv[2])))
    sys.exit(main(sys.argv[1:]))
