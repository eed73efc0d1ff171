"""How every command begins and ends: --help at once, mistakes in one line, Ctrl-C."""
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from sgmg_jax import commands

ROOT = pathlib.Path(__file__).parent.parent
MODULES = sorted(
    '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__main__')
    for folder in ('sgmg_jax', 'datasets') for path in (ROOT / folder).rglob('*.py')
    if "if __name__ == '__main__':" in path.read_text())
SUBCOMMANDS = [('sgmg_jax.score', name) for name in ('davis', 'ytvos', 'a2d', 'jhmdb', 'refcoco')] + [
    ('sgmg_jax.convert', name) for name in ('from-official', 'to-official', 'parity')]
# What takes seconds to import, and what --help must not wait for.
HEAVY = 'jax', 'flax', 'orbax', 'tensorflow_datasets', 'av', 'scipy', 'pycocotools', 'grain', 'matplotlib'


def run(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, **options)


@pytest.mark.parametrize('arguments', [
    ('train.py',), ('evaluate.py',), *(('-m', module) for module in MODULES),
    *(('-m', *both) for both in SUBCOMMANDS)], ids=lambda arguments: ' '.join(arguments).removeprefix('-m '))
def test_help_appears_at_once(arguments):
    """Without a verdict by the clock: nothing is imported that takes long."""
    result = run('-X', 'importtime', *arguments, '--help')
    assert result.returncode == 0, result.stderr[-2000:]
    lines = [line for line in result.stderr.splitlines() if line.startswith('import time')]
    assert not set(HEAVY) & {line.rpartition('|')[2].strip() for line in lines}
    assert len(lines) > 50 and len(result.stdout.splitlines()) > 5


@pytest.mark.parametrize('former, new, arguments', [
    ('sgmg_jax.data.synthetic', 'sgmg_jax.synthetic', ['--out={tmp}/world', '--train=1', '--valid=0', '--frames=5']),
    ('sgmg_jax.convert parity', 'sgmg_jax.parity', ['tests/goldens/comp_posenc.npz'])])
def test_former_names_work_and_name_the_new_one(former, new, arguments, tmp_path):
    results = [run('-m', *name.split(), *(word.format(tmp=tmp_path / str(i)) for word in arguments))
               for i, name in enumerate((former, new))]
    assert [result.returncode for result in results] == [0, 0]
    assert results[0].stderr.startswith(f'`python -m {former}` is now `python -m {new}`;')
    assert 'is now' not in results[1].stderr
    wrong = run('-m', *former.split(), *(['--size=1', f'--out={tmp_path}/x'] if 'syn' in former else ['nowhere']))
    assert wrong.returncode == 2 and wrong.stderr.splitlines()[1].startswith('error: ')


def test_help_of_the_scripts_has_every_flag():
    for script, names in (('train.py', ()), ('evaluate.py', ('checkpoint', '[no]shuffle_sentences'))):
        said = run(script, '--help').stdout
        for name in ('config', 'workdir', '[no]debug', '[no]distributed', 'coordinator', 'process_count',
                     'process_index', *names):
            assert f'--{name} ' in said, name
        assert 'python ' + script in said


@pytest.mark.parametrize('flags, message', [
    ([], '--config is missing'),
    (['--config=configs/ytvos.py'], '--workdir is missing'),
    (['--config=nowhere.py', '--workdir={tmp}'], '--config=nowhere.py: there is no such file'),
    (['--config', 'nowhere.py'], '--config=nowhere.py: there is no such file'),
    (['--config=configs/ytvos.py:huge', '--workdir={tmp}'], "there is no mode 'huge', only full, base, smoke"),
    (['--config={tmp}/broken.py', '--workdir={tmp}'], 'broken.py: cannot be read as a config (ZeroDivisionError: '),
    (['--config={tmp}/empty.py', '--workdir={tmp}'], 'empty.py: cannot be read as a config (AttributeError: '),
    (['--config=README.md', '--workdir={tmp}'], 'README.md: cannot be read as a config (SyntaxError'),
    (['--config=configs/ytvos.py', '--workdir={tmp}', '--config.data.batchsize=4'],
     'config.data.batchsize: there is no such field; configs/common.py has them all. Did you mean data.batch_size?'),
    (['--config=configs/ytvos.py', '--workdir={tmp}', '--config.seed=a'], '--config.seed=a'),
    (['--config=configs/ytvos.py', '--workdir={tmp}', '--config.log_every=0'], 'config.log_every = 0: must be'),
    (['--config=configs/ytvos.py', '--workdir={tmp}', '--speed=3'], "Unknown command line flag 'speed'"),
    (['--config=configs/ytvos.py', '--workdir={tmp}', 'more'], "unknown argument 'more'"),
    (['--config=configs/ytvos.py', '--workdir={tmp}', '--process_index=0'], 'give all three'),
    (['--config=configs/ytvos.py', '--workdir={tmp}', '--config.data.records={tmp}/no'], '/no: no such folder'),
    (['--config=configs/ytvos.py', '--workdir={tmp}', '--distributed', '--process_count=2'], 'Leave out --coord')])
def test_a_mistake_is_one_line(tmp_path, flags, message):
    (tmp_path / 'broken.py').write_text('def get_config():\n    return 1 / 0\n')
    (tmp_path / 'empty.py').write_text('')
    result = run('train.py', *(flag.format(tmp=tmp_path) for flag in flags))
    said = [line for line in result.stderr.splitlines() if not re.match('[IW][0-9]{4} ', line)]
    assert result.returncode == 2 and len(said) == 1, result.stderr[-2000:]
    assert said[0].startswith('error: ') and message in said[0]
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != '.pyc' and path.name != '__pycache__'
                  ) == ['broken.py', 'empty.py']  # nothing is begun


def test_debug_shows_where():
    result = run('train.py', '--debug', '--config=configs/ytvos.py', '--workdir=runs/x', '--config.log_every=0')
    assert result.returncode == 2 and 'Traceback' in result.stderr and 'error: config.log_every' in result.stderr


def test_devices_that_are_not_there_are_named(tmp_path):
    result = run('evaluate.py', '--config=configs/ytvos.py', f'--workdir={tmp_path}',
                 env=os.environ | {'JAX_PLATFORMS': 'cuda'})
    assert result.returncode == 2
    assert 'error: JAX_PLATFORMS=cuda: JAX finds no such device here' in result.stderr.splitlines()[-1]


def failing(error):
    def work():
        raise error
    return work


@pytest.mark.parametrize('error, status, said', [
    (ValueError('a.png: is broken. Copy it again.'), 2, 'error: a.png: is broken. Copy it again.\n'),
    (OSError(28, 'No space left on device', 'out/a.png'), 2, 'error: out/a.png: No space left on device\n'),
    (FloatingPointError('not finite'), 2, 'error: not finite\n'),
    (ValueError('\x1b[2Ja\u202e\ud800'), 2, 'error: \\x1b[2Ja\\u202e\\ud800\n'),
    (KeyboardInterrupt(), 130, '\ninterrupted\n')])
def test_errors_of_the_user_end_a_command(capsys, error, status, said):
    assert commands.run(failing(error)) == status
    assert capsys.readouterr().err == said


def test_faults_of_ours_keep_their_traceback():
    with pytest.raises(KeyError):
        commands.run(failing(KeyError('ours')))
    assert commands.run(lambda: 3) == 3 and commands.run(lambda: None) == 0


SLEEPY = '''
import signal, sys, time
from sgmg_jax import commands
signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background of a shell ignores it
def work():
    print('begun', flush=True)
    time.sleep(60)
sys.exit(commands.run(work))
'''


def test_ctrl_c_is_no_traceback():
    process = subprocess.Popen([sys.executable, '-c', SLEEPY], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b'begun\n'
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130 and said.strip() == b'interrupted'


def test_devices_that_jax_does_not_find_are_not_alarming():
    """From the first message on; its warnings come through, and our messages."""
    program = (
        'import logging, sys; from absl import logging as ours; from sgmg_jax import commands\n'
        'def work(values):\n'
        '    logging.getLogger("jax._src.xla_bridge").info("Unable to initialize backend %r", "tpu")\n'
        '    logging.getLogger("jax._src.other").warning("a warning"); ours.info("a message")\n'
        'argv = ["x", "--config=configs/ytvos.py", "--workdir=x"]\n'
        'sys.exit(commands.run_experiment(work, "", "", argv=argv))')
    result = run('-c', program)
    assert result.returncode == 0 and 'initialize backend' not in result.stderr
    assert 'a warning' in result.stderr and 'a message' in result.stderr
