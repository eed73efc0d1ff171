"""All commands of sgmg_jax by one name.

    sgmg-jax train --config=ytvos --workdir=runs/ytvos
    sgmg-jax score ytvos --gt=data/tfds/ref_youtube_vos --pred=submission.zip

`sgmg-jax COMMAND --help` shows the arguments of a command.
"""

from collections.abc import Sequence
import importlib
import sys

import sgmg_jax
from sgmg_jax import commands

COMMANDS = {  # name -> (module, what it does)
    'predict': ('sgmg_jax.predict', 'segment the objects that sentences describe in a film'),
    'app': ('sgmg_jax.app.__main__', 'serve a page that does this in a browser'),
    'train': ('sgmg_jax.training.__main__', 'train a model'),
    'evaluate': ('sgmg_jax.inference.__main__', 'evaluate a model on a split: leaderboard files, scores, pictures'),
    'score': ('sgmg_jax.score.__main__', "check and score any system's files"),
    'doctor': ('sgmg_jax.doctor.__main__', 'find what is missing or misplaced in a copy of a data set'),
    'build': ('sgmg_jax.datasets.build', 'write a data set as records'),
    'convert': ('sgmg_jax.convert.__main__', "convert weights from and to the authors' PyTorch releases"),
    'export': ('sgmg_jax.export.__main__', 'write a model as StableHLO, which runs without this package'),
    'parity': ('sgmg_jax.parity.__main__', 'compare the models with the releases, array by array'),
    'synthetic': ('sgmg_jax.synthetic.__main__', 'write the procedural world, a small data set'),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that `argv` (by default the command line) begins with; returns its exit status."""
    parser = commands.make_parser(
        'sgmg-jax',
        __doc__,
        epilog='commands:\n' + '\n'.join(f'  {name:10} {what}' for name, (_, what) in COMMANDS.items()),
    )
    parser.add_argument('--version', action='version', version=f'sgmg_jax {sgmg_jax.__version__}')
    parser.add_argument('command', choices=COMMANDS, metavar='COMMAND', help='one of those below')
    argv = list(sys.argv[1:] if argv is None else argv)
    options = parser.parse_args(argv[:1])  # The rest is the command's.
    return importlib.import_module(COMMANDS[options.command][0]).main(argv[1:])


if __name__ == '__main__':
    sys.exit(main())
