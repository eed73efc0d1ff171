"""What all commands have in common: how they begin, and how they end when something is wrong.

A command parses its arguments first and imports what it works with after, so that --help appears at once. A mistake of
the user's ends it with one message on stderr and exit status 2; --debug shows the traceback too.
"""
import argparse
from collections.abc import Callable, Sequence
import importlib
from logging import getLogger
import os
import re
import runpy
import signal
import sys
import textwrap
import traceback

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from sgmg_jax import config as configs
from sgmg_jax.files import check_regular, printable

INTERRUPTED = 128 + signal.SIGINT  # as a shell reports a process that Ctrl-C ended
# What the package raises for wrong input, in words for the user.
USER_ERRORS = OSError, ValueError, FloatingPointError


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        """Of a mistake says one line, where argparse repeats the usage before it."""
        self.exit(2, f'error: {printable(message)}. See --help.\n')


def make_parser(prog: str, description: str, **options) -> argparse.ArgumentParser:
    """A parser of arguments whose description and epilog keep their lines; with --debug."""
    parser = _Parser(prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter, **options)
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    return parser


def whole(low: int, high: int) -> Callable[[str], int]:
    """For the `type` of an argument: a whole number from `low` to `high`."""
    def parse(word):
        try:
            number = int(word)
        except ValueError:
            number = None
        if number is None or not low <= number <= high:
            raise argparse.ArgumentTypeError(f'{word[:80]!r}: must be a whole number from {low:,} to {high:,}')
        return number
    return parse


def run(work: Callable[[], int | None], debug: bool = False) -> int:
    """Does the work of a command and returns its exit status: what `work` returns, 0 for None; 2 after an error of
    the user's, whose message goes to stderr; 130 after Ctrl-C.

    Any other exception comes through with its traceback: it is a fault of this package.

    Args:
        debug: show the traceback of a user's error too.
    """
    if not debug:
        # XLA's C++ calls every compilation of two minutes a bug; what fails there is an exception here, too.
        os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, 'reconfigure'):  # File names may hold bytes that are no text.
            stream.reconfigure(errors='backslashreplace')
    try:
        status = work() or 0
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except USER_ERRORS as error:
        if debug:
            traceback.print_exc()
        print(f'error: {message(error)}', file=sys.stderr)
        return 2


def message(error: BaseException) -> str:
    """What an exception says, for a terminal; of an OSError the file first."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f'{error.filename}: {error.strerror}'
    return printable(text or type(error).__name__)


def exit_with(work: Callable[[argparse.Namespace], int | None], parser: argparse.ArgumentParser,
              argv: Sequence[str] | None = None) -> int:
    """Parses `argv` (by default the command line), and runs `work` with the options as `run` does."""
    options = parser.parse_args(argv)
    return run(lambda: work(options), options.debug)


def run_moved(old: str, new: str, argv: Sequence[str] | None = None) -> int:
    """Runs the command `python -m new`, called by its former name `old`, and returns its exit status; says so first."""
    print(f'`python -m {old}` is now `python -m {new}`; the old name goes with the next version.', file=sys.stderr)
    return importlib.import_module(f'{new}.__main__').main(argv)


def load_config(spec: str) -> ConfigDict:
    """The config of --config=path:mode, by the rule of train.py: what its get_config(mode) gives, or get_config()
    without a colon.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming the file: its code fails, it has no get_config, or gives no config that could be one.
    """
    path, colon, mode = spec.partition(':')
    try:
        check_regular(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{path}: no such file. Give that of a config, such as configs/ytvos.py.') from error
    try:
        get_config = runpy.run_path(path).get('get_config')
        if not callable(get_config):
            raise ValueError('it has no get_config()')
        found = get_config(*[mode] * bool(colon))
        if not isinstance(found, ConfigDict):
            raise ValueError(f'its get_config gives a {type(found).__name__}, not a ConfigDict')
        configs.check(found)
    except (Exception, SystemExit) as error:  # whatever code may raise
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        kind = '' if isinstance(error, ValueError) else f'{type(error).__name__}: '
        raise ValueError(f'{spec}: gives no config{f", line {lines[-1]}" if lines else ""}: {kind}{error!s:.500}'
                         ) from error
    return found


def _define_experiment_flags(workdir_help: str, argv: list[str], values: flags.FlagValues) -> None:
    """The flags that train.py and evaluate.py have in common."""
    config_flags.DEFINE_config_file('config', None, 'Experiment: a file of configs/, and a mode after a colon. Each of '
                                    'its fields can be set: --config.data.batch_size=4', values,
                                    lock_config=True, sys_argv=argv)
    flags.DEFINE_string('workdir', None, workdir_help, values)
    flags.DEFINE_bool('debug', False, 'Show the traceback of an error.', values)
    flags.DEFINE_bool('distributed', False, 'Join the other processes of this TPU pod slice, or of this Slurm job, '
                                            'which has one for each GPU.', values)
    flags.DEFINE_string('coordinator', None, 'Elsewhere: host:port of the process that has --process_index=0.', values)
    flags.DEFINE_integer('process_count', None, 'How many processes there are, the same for all.', 1, None, values)
    flags.DEFINE_integer('process_index', None, 'Which of them this is.', 0, None, values)


def run_experiment(work: Callable[[flags.FlagValues], int | None], script: str, workdir_help: str,
                   define: Callable[[flags.FlagValues], None] = lambda values: None,
                   argv: Sequence[str] | None = None, values: flags.FlagValues = flags.FLAGS) -> int:
    """Parses the flags of train.py or evaluate.py, and does the work, as `run` does.

    Args:
        work: a function of the parsed flags.
        script: the script's docstring, which --help shows.
        workdir_help: what --help says of --workdir.
        define: defines the flags that only this script has.
        argv: by default the command line.
        values: where the flags are defined; absl's own by default.

    Returns:
        the exit status: of `work`; 0 for --help; 2 for a mistake of the user's.
    """
    argv = list(sys.argv if argv is None else argv)
    _define_experiment_flags(workdir_help, argv, values)
    define(values)
    if {'-h', '--help', '-help', '--helpfull', '--helpshort'} & set(argv):
        print(_experiment_help(script, values))
        return 0
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    getLogger('jax').setLevel('WARNING')  # At its start it says which of all kinds of devices it did not find.

    def parsed():
        for word in argv[1:]:
            override = re.match(r'--?(?:no)?config\.([^=]+)', word)
            if override:
                configs.check_field(override[1])
        named = _config_of(argv)
        if named and not os.path.isfile(named.split(':')[0]):
            raise ValueError(f'--config={named}: there is no such file. Give one of configs/, such as '
                             'configs/ytvos.py.')
        try:
            rest = values(argv)[1:]
            config = values.config  # read only now, where nothing of it is set on the command line
        except flags.Error as error:
            reason = re.sub(r'^\w+: ', '', str(error).strip().splitlines()[-1])
            raise ValueError(f'{reason.rstrip(".")}. See --help.') from error
        except Exception as error:  # whatever a config's own code raises
            reason = next(iter(str(error).splitlines()), '')
            raise ValueError(f'{named}: cannot be read as a config ({type(error).__name__}: {reason}). Give '
                             'a file of configs/, such as configs/ytvos.py, or configs/ytvos.py:smoke.') from error
        if rest:
            raise ValueError(f'unknown argument {rest[0]!r}. See --help.')
        for name, value in (('config', config), ('workdir', values.workdir)):
            if not value:
                raise ValueError(f'--{name} is missing. See --help.')
        configs.check(config)
        return work(values)

    return run(parsed, debug='--debug' in argv)


def _config_of(argv: Sequence[str]) -> str:
    """What --config is given, '' for nothing."""
    for word, following in zip(argv[1:], [*argv[2:], '']):
        if re.fullmatch(r'--?config', word):
            return following
        if re.match(r'--?config=', word):
            return word.split('=', 1)[1]
    return ''


def _experiment_help(script: str, values: flags.FlagValues) -> str:
    lines = [script.strip(), '', 'flags:']
    ours = [flag for module, defined in values.flags_by_module_dict().items() for flag in defined
            if not module.startswith('absl')]
    for flag in sorted(ours, key=lambda flag: flag.name not in ('config', 'workdir')):
        sign = f'--{"[no]" * flag.boolean}{flag.name}'
        default = '' if flag.value in (None, False) else f' (default: {flag.value})'
        lines += textwrap.wrap(flag.help.replace('\n', ' ') + default, 88, initial_indent=f'  {sign:24} ',
                               subsequent_indent=' ' * 27)
    return '\n'.join(lines)
