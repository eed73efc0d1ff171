"""All commands: --help without heavy imports, one-line errors, Ctrl-C."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

from absl import flags
import pytest

from sgmg_jax import commands

ROOT = pathlib.Path(__file__).parent.parent
MODULES = sorted(
    '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__main__')
    for folder in ('sgmg_jax', 'datasets')
    for path in (ROOT / folder).rglob('*.py')
    if "if __name__ == '__main__':" in path.read_text()
)
SUBCOMMANDS = [('sgmg_jax.score', name) for name in ('davis', 'ytvos', 'a2d', 'jhmdb', 'refcoco')] + [
    ('sgmg_jax.convert', name) for name in ('from-official', 'to-official', 'parity')
]
# These take seconds to import; --help must not wait for them.
HEAVY = 'jax', 'flax', 'orbax', 'tensorflow_datasets', 'av', 'scipy', 'pycocotools', 'grain', 'matplotlib'


def run(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, **options)


@pytest.mark.parametrize(
    'arguments',
    [
        ('train.py',),
        ('evaluate.py',),
        *(('-m', module) for module in MODULES),
        *(('-m', *both) for both in SUBCOMMANDS),
    ],
    ids=lambda arguments: ' '.join(arguments).removeprefix('-m '),
)
def test_help_appears_at_once(arguments):
    """Checks imports, not time."""
    result = run('-X', 'importtime', *arguments, '--help')
    assert result.returncode == 0, result.stderr[-2000:]
    lines = [line for line in result.stderr.splitlines() if line.startswith('import time')]
    assert not set(HEAVY) & {line.rpartition('|')[2].strip() for line in lines}
    assert len(lines) > 50 and len(result.stdout.splitlines()) > 5


@pytest.mark.parametrize(
    'former, new, arguments',
    [
        (
            'sgmg_jax.data.synthetic',
            'sgmg_jax.synthetic',
            ['--out={tmp}/world', '--train=1', '--valid=0', '--frames=5'],
        ),
        ('sgmg_jax.convert parity', 'sgmg_jax.parity', ['tests/goldens/comp_posenc.npz']),
    ],
)
def test_moved_commands_run_and_print_their_new_name(former, new, arguments, tmp_path):
    results = [
        run('-m', *name.split(), *(word.format(tmp=tmp_path / str(i)) for word in arguments))
        for i, name in enumerate((former, new))
    ]
    assert [result.returncode for result in results] == [0, 0]
    assert results[0].stderr.startswith(f'`python -m {former}` is now `python -m {new}`;')
    assert 'is now' not in results[1].stderr
    wrong = run('-m', *former.split(), *(['--size=1', f'--out={tmp_path}/x'] if 'syn' in former else ['nowhere']))
    assert wrong.returncode == 2 and wrong.stderr.splitlines()[1].startswith('error: ')


@pytest.mark.parametrize('script', ['train.py', 'evaluate.py'])
def test_help_into_a_closed_pipe_prints_no_traceback(script):
    """As in `train.py --help | head`."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, 'w') as pipe:
        result = subprocess.run([sys.executable, script, '--help'], cwd=ROOT, stdout=pipe, stderr=subprocess.PIPE)
    assert result.returncode == 128 + signal.SIGPIPE and not result.stderr


def test_help_lists_every_flag():
    of_evaluation = 'checkpoint', '[no]score_another_object', '[no]try_thresholds'
    for script, names in (('train.py', ()), ('evaluate.py', of_evaluation)):
        said = run(script, '--help').stdout
        for name in (
            'config',
            'workdir',
            '[no]debug',
            '[no]distributed',
            'coordinator',
            'process_count',
            'process_index',
            *names,
        ):
            assert f'--{name} ' in said, name
        assert 'python ' + script in said and '\nflags:\n' in said


@pytest.mark.parametrize(
    'old, new',
    [
        (['--config.fsdp=8'], ['--config.storage_shards=8']),
        (['-config.fsdp', '8'], ['-config.storage_shards', '8']),
        (['--shuffle_sentences'], ['--score_another_object']),
        (['--noshuffle_sentences'], ['--noscore_another_object']),
        (['--shuffle_sentences=true'], ['--score_another_object=true']),
    ],
)
def test_renamed_flags_are_read_and_print_their_new_name(capsys, old, new):
    found = []

    def run_with(words):
        argv = ['evaluate.py', '--config=configs/ytvos.py', '--workdir=x', *words]
        status = commands.run_experiment(
            lambda values: found.append((values.config.storage_shards, values.score_another_object)),
            '',
            '',
            lambda values: flags.DEFINE_bool('score_another_object', False, 'help', values),
            argv,
            flags.FlagValues(),
        )
        assert status == 0
        return capsys.readouterr().err

    assert 'is now' not in run_with(new)
    names = (words[0].partition('=')[0] for words in (old, new))
    assert '{} is now {}; the old name goes with the next version.\n'.format(*names) in run_with(old)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    'words, message',
    [
        ([], '--config is missing'),
        (['--config=configs/ytvos.py'], '--workdir is missing'),
        (['--config=nowhere.py', '--workdir={tmp}'], '--config=nowhere.py: there is no such file'),
        (['--config', 'nowhere.py'], '--config=nowhere.py: there is no such file'),
        (
            ['--config=configs/ytvos.py:huge', '--workdir={tmp}'],
            "there is no mode 'huge'; use one of full, base, smoke",
        ),
        (['--config={tmp}/broken.py', '--workdir={tmp}'], 'broken.py: cannot be read as a config (ZeroDivisionError: '),
        (['--config={tmp}/empty.py', '--workdir={tmp}'], 'empty.py: cannot be read as a config (AttributeError: '),
        (['--config=README.md', '--workdir={tmp}'], 'README.md: cannot be read as a config (SyntaxError'),
        (
            ['--config=configs/ytvos.py', '--workdir={tmp}', '--config.data.batchsize=4'],
            'config.data.batchsize: there is no such field. See configs/common.py for all fields. Did you mean data.b',
        ),
        (['--config=configs/ytvos.py', '--workdir={tmp}', '--config.seed=a'], '--config.seed=a'),
        (['--config=configs/ytvos.py', '--workdir={tmp}', '--config.log_every=0'], 'config.log_every = 0: must be'),
        (['--config=configs/ytvos.py', '--workdir={tmp}', '--speed=3'], "Unknown command line flag 'speed'"),
        (['--config=configs/ytvos.py', '--workdir={tmp}', 'more'], "unknown argument 'more'"),
        (['--config=configs/ytvos.py', '--workdir={tmp}', '--process_index=0'], 'give all three'),
        (['--config=configs/ytvos.py', '--workdir={tmp}', '--config.data.records={tmp}/no'], '/no: no such folder'),
        (['--config=configs/ytvos.py', '--workdir={tmp}', '--distributed', '--process_count=2'], 'Leave out --coord'),
    ],
)
def test_user_errors_are_one_line(tmp_path, words, message):
    (tmp_path / 'broken.py').write_text('def get_config():\n    return 1 / 0\n')
    (tmp_path / 'empty.py').write_text('')
    result = run('train.py', *(word.format(tmp=tmp_path) for word in words))
    said = [line for line in result.stderr.splitlines() if not re.match('[IW][0-9]{4} ', line)]
    assert result.returncode == 2 and len(said) == 1, result.stderr[-2000:]
    assert said[0].startswith('error: ') and message in said[0]
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != '.pyc' and path.name != '__pycache__') == [
        'broken.py',
        'empty.py',
    ]  # Nothing else was written.


def test_debug_shows_the_traceback():
    result = run('train.py', '--debug', '--config=configs/ytvos.py', '--workdir=runs/x', '--config.log_every=0')
    assert result.returncode == 2 and 'Traceback' in result.stderr and 'error: config.log_every' in result.stderr


def test_missing_devices_are_named(tmp_path):
    result = run(
        'evaluate.py', '--config=configs/ytvos.py', f'--workdir={tmp_path}', env=os.environ | {'JAX_PLATFORMS': 'cuda'}
    )
    assert result.returncode == 2
    assert 'error: JAX_PLATFORMS=cuda: JAX finds no such device here' in result.stderr.splitlines()[-1]


def failing(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    'error, status, said',
    [
        (ValueError('a.png: is broken. Copy it again.'), 2, 'error: a.png: is broken. Copy it again.\n'),
        (OSError(28, 'No space left on device', 'out/a.png'), 2, 'error: out/a.png: No space left on device\n'),
        (FloatingPointError('not finite'), 2, 'error: not finite\n'),
        (ValueError('\x1b[2Ja\u202e\ud800'), 2, 'error: \\x1b[2Ja\\u202e\\ud800\n'),
        (KeyboardInterrupt(), 130, '\ninterrupted\n'),
    ],
)
def test_user_errors_end_a_command_with_status_2(capsys, error, status, said):
    assert commands.run(failing(error)) == status
    assert capsys.readouterr().err == said


def test_bugs_keep_their_traceback():
    with pytest.raises(KeyError):
        commands.run(failing(KeyError('ours')))
    assert commands.run(lambda: 3) == 3 and commands.run(lambda: None) == 0


SLEEPY = """
import signal, sys, time
from sgmg_jax import commands
signal.signal(signal.SIGINT, signal.default_int_handler)  # background processes of a shell ignore it
def work():
    print('begun', flush=True)
    time.sleep(60)
sys.exit(commands.run(work))
"""


def test_ctrl_c_prints_no_traceback():
    process = subprocess.Popen([sys.executable, '-c', SLEEPY], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b'begun\n'
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130 and said.strip() == b'interrupted'


def test_jax_messages_about_missing_devices_are_hidden():
    """Its warnings and our own messages are still printed."""
    program = (
        'import logging, sys; from absl import logging as ours; from sgmg_jax import commands\n'
        'def work(values):\n'
        '    logging.getLogger("jax._src.xla_bridge").info("Unable to initialize backend %r", "tpu")\n'
        '    logging.getLogger("jax._src.other").warning("a warning"); ours.info("a message")\n'
        'argv = ["x", "--config=configs/ytvos.py", "--workdir=x"]\n'
        'sys.exit(commands.run_experiment(work, "", "", argv=argv))'
    )
    result = run('-c', program)
    assert result.returncode == 0 and 'initialize backend' not in result.stderr
    assert 'a warning' in result.stderr and 'a message' in result.stderr
