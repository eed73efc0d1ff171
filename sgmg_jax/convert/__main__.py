"""Weights between PyTorch and here, and the proof that both compute the same. No torch needed.

    python -m sgmg_jax.convert from-official ytvos_swin_t.pth --config=configs/ytvos.py --out=weights/ytvos.safetensors
    python -m sgmg_jax.convert from-official swin_kinetics.pth roberta.safetensors --config=... --out=weights/start
    python -m sgmg_jax.convert to-official runs/ytvos --out=ytvos_official.safetensors
    python -m sgmg_jax.convert parity golden/

`train.py` and `evaluate.py` take the same files directly: --config.init=ytvos_swin_t.pth
"""
import argparse
import pathlib
import runpy
import sys

from flax import traverse_util

from sgmg_jax import systems
from sgmg_jax.convert import parity, weights


def from_official(options):
    config = runpy.run_path(options.config)['get_config']()
    shapes = systems.parameter_shapes(systems.build_model(config.model))
    found, report = weights.load(options.paths, shapes, options.skip)
    weights.save(found, options.out)
    missing = sorted(set(traverse_util.flatten_dict(shapes, sep='/')) - set(found))
    for line in report:
        print(line)
    if missing:
        print(f'not in them: {len(missing)} parameters of {", ".join(sorted({m.split("/")[0] for m in missing}))}')
    print(f'written: {options.out}')


def to_official(options):
    if pathlib.Path(options.out).suffix != '.safetensors':
        raise ValueError(f'{options.out}: give a .safetensors; torch reads it with safetensors.torch.load_file.')
    tensors = weights.released(weights.read_ours(options.path))
    weights.save(tensors, options.out)
    print(f'written: {options.out}, {len(tensors)} tensors')


def main(argv=None):
    parser = argparse.ArgumentParser(prog='python -m sgmg_jax.convert', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar='command')
    command = commands.add_parser('from-official', help="PyTorch's or Hugging Face's weights to ours")
    command.add_argument('paths', nargs='+', help='.pth or .safetensors: SgMg or SOC; or Video Swin, Swin, RoBERTa')
    command.add_argument('--config', required=True, help='of the experiment, a file of configs/')
    command.add_argument('--out', required=True, help='.safetensors, or no suffix for an Orbax checkpoint')
    command.add_argument('--skip', default='', help="parameters to leave out, such as 'class_heads_.*'")
    command.set_defaults(run=from_official)
    command = commands.add_parser('to-official', help="ours to a state dict with the released SgMg's, or SOC's, names")
    command.add_argument('path', help='a --workdir, or what from-official wrote')
    command.add_argument('--out', required=True, help='.safetensors')
    command.set_defaults(run=to_official)
    command = commands.add_parser('parity', help='compare with the numbers of the release on golden cases')
    command.add_argument('paths', nargs='+', help='folders or .npz files')
    command.set_defaults(run=lambda options: parity.run(options.paths))
    options = parser.parse_args(argv)
    try:
        return 1 if options.run(options) is False else 0
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main())
