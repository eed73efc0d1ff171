"""Converts weights between PyTorch and this package, and makes model folders. No torch needed.

    python -m sgmg_jax.convert from-official ytvos_swin_b.pth --tokenizer=roberta-base --out=models/sgmg-b
    python -m sgmg_jax.convert from-run runs/ytvos --out=models/ytvos
    python -m sgmg_jax.convert from-official swin_kinetics.pth roberta-base/model.safetensors \\
        --config=configs/ytvos.py --out=start.safetensors
    python -m sgmg_jax.convert to-official runs/ytvos --out=ytvos_official.safetensors

A model folder is what `python -m sgmg_jax.predict --model=` and Predictor.from_pretrained take. `train.py` and
`evaluate.py` also read the authors' files directly: --config.init=ytvos_swin_t.pth
"""

import argparse
from collections.abc import Callable, Sequence
import os
import sys

from sgmg_jax import commands, files

LICENCES = {'sgmg': 'cc-by-nc-4.0', 'soc': ''}  # of the authors' weights; SOC's release has none


def from_official(options: argparse.Namespace) -> None:
    """PyTorch's or Hugging Face's weights to ours; with a tokenizer, to a model folder."""
    files.check_new(options.out, None if options.tokenizer else ('', '.safetensors'))
    for path in (*options.paths, *[options.tokenizer] * bool(options.tokenizer)):
        if not os.path.exists(path):
            raise FileNotFoundError(f'{path}: no such file. Give a .pth or a .safetensors with weights.')
    config = commands.load_config(options.config) if options.config else None

    from flax import traverse_util

    from sgmg_jax import systems
    from sgmg_jax.convert import folder, infer, weights
    from sgmg_jax.data import text

    tokenizer = text.load_tokenizer(options.tokenizer) if options.tokenizer else None
    config = config or infer.config_of_files(options.paths)
    shapes = systems.parameter_shapes(systems.build_model(config.model))
    found, report = weights.load(options.paths, shapes, options.skip)
    missing = sorted(set(traverse_util.flatten_dict(shapes, sep='/')) - set(found))
    parts = ', '.join(sorted({name.split('/')[0] for name in missing}))
    if tokenizer and missing:
        raise ValueError(
            f'{len(missing)} parameters of {parts} are missing: a model folder needs all. Leave out --tokenizer to '
            'write what is there as weights to start from.'
        )
    if tokenizer:
        origin = '; '.join(report)
        facts = {} if options.config else {'assumed': infer.ASSUMED}
        model = folder.Model(config, found, tokenizer, origin)
        folder.write(model, options.out, LICENCES.get(config.model.name, ''), facts)
    else:
        weights.save(found, options.out)
    for line in report:
        print(line)
    if not options.config:
        print(f'found: {folder.summary(config)}')
    if missing:
        print(f'missing: {len(missing)} parameters of {parts}')
    print(f'written: {options.out}')


def from_run(options: argparse.Namespace) -> None:
    """A checkpoint of a training run to a model folder."""
    files.check_new(options.out)

    from sgmg_jax.convert import folder

    model, facts = folder.of_run(options.workdir, options.checkpoint)
    if options.float16:
        model = folder.in_half_precision(model)
    folder.write(model, options.out, options.licence, facts)
    print(f'{model.origin}: {folder.summary(model.config)}')
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
    command.add_argument(
        '--config',
        help='the experiment, as for train.py: configs/ytvos.py:base. Not needed for a whole SgMg or SOC, whose sizes '
        'are found in the tensors',
    )
    command.add_argument(
        '--tokenizer',
        help='folder of roberta-base (vocab.json and merges.txt, or tokenizer.json): writes a model folder',
    )
    command.add_argument(
        '--out',
        required=True,
        help='a model folder; without --tokenizer .safetensors, or no suffix for an Orbax checkpoint',
    )
    command.add_argument(
        '--skip',
        default='',
        help="parameters to leave out: a regular expression for whole names, such as 'class_heads_.*'",
    )
    command = add('from-run', from_run, 'a checkpoint of a training run to a model folder')
    command.add_argument('workdir', help='the --workdir of train.py')
    command.add_argument('--out', required=True, help='the model folder to write')
    command.add_argument('--checkpoint', default='best', help="'best', 'latest' or a step (default: %(default)s)")
    command.add_argument(
        '--licence', default='', help="of the weights, for the model card, such as 'cc-by-nc-4.0'; default: not known"
    )
    command.add_argument('--float16', action='store_true', help='write half as many bytes; masks change by rounding')
    command = add('to-official', to_official, "ours to a state dict with the released SgMg's, or SOC's, names")
    command.add_argument('path', help='a --workdir, or what from-official wrote')
    command.add_argument('--out', required=True, help='.safetensors')
    command = add('parity', parity, 'is now python -m sgmg_jax.parity')
    command.add_argument('paths', nargs='+', help='folders or .npz files')
    return commands.exit_with(lambda options: options.run(options), parser, argv)


if __name__ == '__main__':
    sys.exit(main())
