"""Shared by all commands: argument parsing, error messages and exit statuses.

A command parses its arguments before it imports heavy modules, so that --help appears at once. A user error ends it
with one message on stderr and exit status 2; --debug also shows the traceback.
"""

import argparse
from collections.abc import Callable, Sequence
import importlib
from logging import Formatter, getLogger
import math
import os
import re
import runpy
import signal
import sys
import textwrap
import traceback
from typing import Any, NoReturn

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from sgmg_jax import config as configs
from sgmg_jax.files import check_regular, printable

INTERRUPTED = 128 + signal.SIGINT  # the exit status a shell reports after Ctrl-C
# The package raises these for wrong input, with a message for the user.
USER_ERRORS = OSError, ValueError, FloatingPointError
# Packages that only some commands need -> the extra of setup.py that installs them.
EXTRAS = {
    **dict.fromkeys(('array_record', 'tensorflow_datasets', 'google'), 'data'),
    **dict.fromkeys(('clu', 'grain', 'matplotlib', 'tensorboardX'), 'train'),
    'gradio': 'app',
    'openTSNE': 'studies',
}
# Old flags of train.py and evaluate.py -> new ones; the old ones work until the next version.
RENAMED_FLAGS = {
    'shuffle_sentences': 'score_another_object',
    **{f'config.{field.old}': f'config.{field.new}' for field in configs.RENAMED},
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Prints one line, without argparse's usage before it."""
        self.exit(2, f'error: {printable(message)}. See --help.\n')


def make_parser(prog: str, description: str, **options: Any) -> argparse.ArgumentParser:
    """An argument parser with --debug, which keeps the line breaks of its description and epilog."""
    parser = _Parser(prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter, **options)
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    return parser


def whole(low: int, high: int) -> Callable[[str], int]:
    """The `type` of an argument: an integer from `low` to `high`."""

    def parse(word: str) -> int:
        try:
            number = int(word)
            if low <= number <= high:
                return number
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f'{word[:80]!r}: must be a whole number from {low:,} to {high:,}')

    return parse


def number(low: float | int, high: float | int = math.inf) -> Callable[[str], float]:
    """The `type` of an argument: a number from `low` to `high`; infinity is not one."""

    def parse(word: str) -> float:
        try:
            value = float(word)
            if low <= value <= high and value < math.inf:
                return value
        except ValueError:
            pass
        most = f' to {high:g}' if high < math.inf else ' on'
        raise argparse.ArgumentTypeError(f'{word[:80]!r}: must be a number from {low:g}{most}')

    return parse


def log_plainly() -> None:
    """Shows only warnings of this package, as plain lines on stderr, and nothing of JAX's search for devices."""
    flags.FLAGS.mark_as_parsed()  # absl would complain about logging before its flags are parsed
    logging.use_absl_handler()
    logging.set_verbosity(logging.WARNING)
    logging.get_absl_handler().setFormatter(Formatter('warning: %(message)s'))
    getLogger('jax').setLevel('ERROR')


def run(work: Callable[[], int | None], debug: bool = False) -> int:
    """Runs `work` and returns the exit status: the result of `work`, or 0 for None; 2 after a user error, whose message
    goes to stderr; 130 after Ctrl-C.

    Any other exception propagates with its traceback: it is a bug in this package.

    Args:
        debug: also show the traceback of a user error.
    """
    if not debug:
        # XLA's C++ code logs every compilation above two minutes as a bug. Real failures also raise exceptions here.
        os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, 'reconfigure'):  # File names may hold bytes that are not valid text.
            stream.reconfigure(errors='backslashreplace')
    try:
        status = work() or 0
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # e.g. `| head` has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (*USER_ERRORS, ModuleNotFoundError) as error:
        if isinstance(error, ModuleNotFoundError) and _extra_of(error) is None:
            raise
        if debug:
            traceback.print_exc()
        print(f'error: {message(error)}', file=sys.stderr)
        return 2


def message(error: BaseException) -> str:
    """The text of an exception, safe to print; for an OSError the file comes first."""
    text = str(error)
    if isinstance(error, ModuleNotFoundError) and _extra_of(error):
        text = f"{error.name} is not installed, and this command needs it: pip install 'sgmg_jax[{_extra_of(error)}]'."
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f'{error.filename}: {error.strerror}'
    return printable(text or type(error).__name__)


def _extra_of(error: ModuleNotFoundError) -> str | None:
    return EXTRAS.get(str(error.name).partition('.')[0])


def exit_with(
    work: Callable[[argparse.Namespace], int | None], parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> int:
    """Parses `argv` (default: the command line) and runs `work` with the options; see `run`."""
    options = parser.parse_args(argv)
    return run(lambda: work(options), options.debug)


def run_moved(old: str, new: str, argv: Sequence[str] | None = None) -> int:
    """Runs `python -m new` for a call of its former name `old`: prints the new name and returns the exit status."""
    print(f'`python -m {old}` is now `python -m {new}`; the old name goes with the next version.', file=sys.stderr)
    return importlib.import_module(f'{new}.__main__').main(argv)


def find_config(spec: str) -> str:
    """The path:mode of a config given by path or, from sgmg_jax.configs, by name: ytvos:base. Other words are returned
    as they are."""
    name, colon, mode = spec.partition(':')
    if re.fullmatch(r'\w+', name) and not os.path.isfile(name):
        for folder in importlib.import_module('sgmg_jax.configs').__path__:
            path = os.path.join(folder, f'{name}.py')
            if os.path.isfile(path):
                return f'{path}{colon}{mode}'
    return spec


def load_config(spec: str) -> ConfigDict:
    """The config of --config=path:mode, as train.py reads it: get_config(mode), or get_config() without a colon.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming the file: its code fails, get_config is missing, or the config is invalid.
    """
    path, colon, mode = find_config(spec).partition(':')
    try:
        check_regular(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{path}: no such file. Give a config file such as configs/ytvos.py.') from error
    try:
        get_config = runpy.run_path(path).get('get_config')
        if not callable(get_config):
            raise ValueError('it has no get_config()')
        found = get_config(*[mode] * bool(colon))
        if not isinstance(found, ConfigDict):
            raise ValueError(f'its get_config returns a {type(found).__name__}, not a ConfigDict')
        configs.check(found)
    except (Exception, SystemExit) as error:  # The file's code may raise anything.
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        kind = '' if isinstance(error, ValueError) else f'{type(error).__name__}: '
        line = f', line {lines[-1]}' if lines else ''
        raise ValueError(f'{spec}: cannot be read as a config{line}: {kind}{error!s:.500}') from error
    return found


def _define_experiment_flags(workdir_help: str, argv: list[str], values: flags.FlagValues) -> None:
    """The flags that train.py and evaluate.py share."""
    config_flags.DEFINE_config_file(
        'config',
        None,
        'Experiment: a file in configs/, optionally with a mode after a '
        'colon. Any of its fields can be set: --config.data.batch_size=4',
        values,
        lock_config=True,
        sys_argv=argv,
    )
    flags.DEFINE_string('workdir', None, workdir_help, values)
    flags.DEFINE_bool('debug', False, 'Show the traceback of an error.', values)
    flags.DEFINE_bool(
        'distributed',
        False,
        'Join the other processes of this TPU pod slice, or of this Slurm job with one process per GPU.',
        values,
    )
    flags.DEFINE_string('coordinator', None, 'Elsewhere: host:port of the process with --process_index=0.', values)
    flags.DEFINE_integer('process_count', None, 'The number of processes, the same in each.', 1, None, values)
    flags.DEFINE_integer('process_index', None, 'The number of this process, from 0.', 0, None, values)


def _rename_flags(argv: Sequence[str]) -> list[str]:
    """`argv` with the new names of RENAMED_FLAGS; prints a line for each old one."""
    renamed = []
    for word in argv:
        match = re.fullmatch(r'(--?(?:no)?)([^=]+)(=.*)?', word, re.DOTALL)
        new = match and RENAMED_FLAGS.get(match[2])
        if match and new:
            print(
                f'{match[1]}{match[2]} is now {match[1]}{new}; the old name goes with the next version.',
                file=sys.stderr,
            )
            word = f'{match[1]}{new}{match[3] or ""}'
        renamed.append(word)
    return renamed


def run_experiment(
    work: Callable[[flags.FlagValues], int | None],
    script: str,
    workdir_help: str,
    define: Callable[[flags.FlagValues], None] = lambda values: None,
    argv: Sequence[str] | None = None,
    values: flags.FlagValues = flags.FLAGS,
) -> int:
    """Parses the flags of train.py or evaluate.py and runs `work`; see `run`.

    Args:
        work: a function of the parsed flags.
        script: the script's docstring, shown by --help.
        workdir_help: the help text of --workdir.
        define: defines the flags that only this script has.
        argv: default: the command line.
        values: where the flags are defined; default: absl's global flags.

    Returns:
        the exit status of `work`; 0 for --help; 2 for a user error.
    """
    argv = _rename_flags(sys.argv if argv is None else argv)
    argv, named = _resolve_config(argv)
    _define_experiment_flags(workdir_help, argv, values)
    define(values)
    if {'-h', '--help', '-help', '--helpfull', '--helpshort'} & set(argv):
        return run(lambda: print(_experiment_help(script, values)))
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    getLogger('jax').setLevel('WARNING')  # JAX logs every kind of device that it does not find.

    def parse_and_work():
        for word in argv[1:]:
            override = re.match(r'--?(?:no)?config\.([^=]+)', word)
            if override:
                configs.check_field(override[1])
        if named and not os.path.isfile(named.split(':')[0]):
            raise ValueError(
                f'--config={named}: there is no such file. Give a file in configs/, such as '
                'configs/ytvos.py, or its name, such as ytvos.'
            )
        try:
            rest = values(argv)[1:]
            config = values.config  # With no field set on the command line, the file is read only now.
        except flags.Error as error:
            reason = re.sub(r'^\w+: ', '', str(error).strip().splitlines()[-1])
            raise ValueError(f'{reason.rstrip(".")}. See --help.') from error
        except Exception as error:  # The config's own code may raise anything.
            reason = next(iter(str(error).splitlines()), '')
            raise ValueError(
                f'{named}: cannot be read as a config ({type(error).__name__}: {reason}). Give '
                'a file in configs/, such as configs/ytvos.py, or configs/ytvos.py:smoke.'
            ) from error
        if rest:
            raise ValueError(f'unknown argument {rest[0]!r}. See --help.')
        for name, value in (('config', config), ('workdir', values.workdir)):
            if not value:
                raise ValueError(f'--{name} is missing. See --help.')
        configs.check(config)
        return work(values)

    return run(parse_and_work, debug='--debug' in argv)


def _resolve_config(argv: Sequence[str]) -> tuple[list[str], str]:
    """`argv` with the path of a config that --config gives by name; and that path:mode, '' without --config."""
    words, named = list(argv), ''
    for number, word in enumerate(argv):
        flag, equals, value = word.partition('=')
        if flag in ('--config', '-config') and (equals or number + 1 < len(argv)):
            found = find_config(value if equals else argv[number + 1])
            words[number + (not equals)] = f'{flag}={found}' if equals else found
            named = named or found
    return words, named


def _experiment_help(script: str, values: flags.FlagValues) -> str:
    lines = [script.strip(), '', 'flags:']
    ours = [
        flag
        for module, defined in values.flags_by_module_dict().items()
        for flag in defined
        if not module.startswith('absl')
    ]
    for flag in sorted(ours, key=lambda flag: flag.name not in ('config', 'workdir')):
        sign = f'--{"[no]" * flag.boolean}{flag.name}'
        default = '' if flag.value in (None, False) else f' (default: {flag.value})'
        lines += textwrap.wrap(
            flag.help.replace('\n', ' ') + default, 88, initial_indent=f'  {sign:24} ', subsequent_indent=' ' * 27
        )
    return '\n'.join(lines)
