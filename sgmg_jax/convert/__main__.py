"""Converts weights between PyTorch and this package. No torch needed.

    python -m sgmg_jax.convert from-official ytvos_swin_t.pth --config=configs/ytvos.py --out=weights/ytvos.safetensors
    python -m sgmg_jax.convert from-official swin_kinetics.pth roberta-base/model.safetensors --config=... --out=start
    python -m sgmg_jax.convert to-official runs/ytvos --out=ytvos_official.safetensors

`train.py` and `evaluate.py` also read these files directly: --config.init=ytvos_swin_t.pth
"""

import argparse
from collections.abc import Callable, Sequence
import os
import sys

from sgmg_jax import commands, files


def from_official(options: argparse.Namespace) -> None:
    """PyTorch's or Hugging Face's weights to ours."""
    files.check_new(options.out, ('', '.safetensors'))
    for path in options.paths:
        if not os.path.exists(path):
            raise FileNotFoundError(f'{path}: no such file. Give a .pth or a .safetensors with weights.')
    config = commands.load_config(options.config)

    from flax import traverse_util

    from sgmg_jax import systems
    from sgmg_jax.convert import weights

    shapes = systems.parameter_shapes(systems.build_model(config.model))
    found, report = weights.load(options.paths, shapes, options.skip)
    weights.save(found, options.out)
    missing = sorted(set(traverse_util.flatten_dict(shapes, sep='/')) - set(found))
    for line in report:
        print(line)
    if missing:
        print(f'missing: {len(missing)} parameters of {", ".join(sorted({m.split("/")[0] for m in missing}))}')
    print(f'written: {options.out}')


def to_official(options: argparse.Namespace) -> None:
    """Ours to a state dict with the released names."""
    files.check_new(options.out, ['.safetensors'])  # torch reads it with safetensors.torch.load_file

    from sgmg_jax.convert import weights

    parameters = weights.read_ours(options.path)
    try:
        tensors = weights.released(parameters)
    except ValueError as error:
        raise ValueError(f'{options.path}: {error}') from error
    weights.save(tensors, options.out)
    print(f'written: {options.out}, {len(tensors)} tensors')


def parity(options: argparse.Namespace) -> int:
    """The former name of `python -m sgmg_jax.parity`."""
    return commands.run_moved(
        'sgmg_jax.convert parity', 'sgmg_jax.parity', [*options.paths, *['--debug'] * options.debug]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = commands.make_parser('python -m sgmg_jax.convert', __doc__)
    subcommands = parser.add_subparsers(required=True, metavar='command')

    def add(name: str, run: Callable[[argparse.Namespace], int | None], help: str) -> argparse.ArgumentParser:
        command = subcommands.add_parser(name, help=help)
        # --debug also works after the command's name; a default here would override a --debug before it.
        command.add_argument(
            '--debug', action='store_true', default=argparse.SUPPRESS, help='show the traceback of an error'
        )
        command.set_defaults(run=run)
        return command

    command = add('from-official', from_official, "PyTorch's or Hugging Face's weights to ours")
    command.add_argument('paths', nargs='+', help='.pth, .bin or .safetensors: SgMg, SOC, Video Swin, Swin, RoBERTa')
    command.add_argument('--config', required=True, help='the experiment, as for train.py: configs/ytvos.py:base')
    command.add_argument('--out', required=True, help='.safetensors, or no suffix for an Orbax checkpoint')
    command.add_argument(
        '--skip',
        default='',
        help="parameters to leave out: a regular expression for whole names, such as 'class_heads_.*'",
    )
    command = add('to-official', to_official, "ours to a state dict with the released SgMg's, or SOC's, names")
    command.add_argument('path', help='a --workdir, or what from-official wrote')
    command.add_argument('--out', required=True, help='.safetensors')
    command = add('parity', parity, 'is now python -m sgmg_jax.parity')
    command.add_argument('paths', nargs='+', help='folders or .npz files')
    return commands.exit_with(lambda options: options.run(options), parser, argv)


if __name__ == '__main__':
    sys.exit(main())
