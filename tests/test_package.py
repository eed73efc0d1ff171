"""The package as pip installs it, without the checkout around it."""

import pathlib
import subprocess
import sys
import zipfile

import pytest
import raw_tree

import sgmg_jax

ROOT = pathlib.Path(__file__).parent.parent
TOP = 'setup.py', 'README.md', 'LICENSE', 'sgmg_jax', 'configs', 'datasets'
# What the extras bring: Predictor does without.
EXTRAS = 'array_record', 'clu', 'gradio', 'grain', 'matplotlib', 'tensorboardX', 'tensorflow_datasets'
BLOCKED = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {EXTRAS}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """Path of the wheel, built from copies of the files that git knows or could know."""
    folder = tmp_path_factory.mktemp('checkout')
    for top in TOP:
        for path in [ROOT / top, *(ROOT / top).rglob('*')]:
            if path.is_file() and '__pycache__' not in path.parts:
                copy = folder / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
    subprocess.run([sys.executable, 'setup.py', '--quiet', 'bdist_wheel'], cwd=folder, check=True, capture_output=True)
    (path,) = (folder / 'dist').glob('*.whl')
    return path


@pytest.fixture(scope='module')
def run(wheel, tmp_path_factory):
    """function(words of a command) runs Python with the unpacked wheel, in a folder that is no checkout."""
    site, elsewhere = tmp_path_factory.mktemp('site'), tmp_path_factory.mktemp('elsewhere')
    zipfile.ZipFile(wheel).extractall(site)

    def run(*words):
        # -I keeps the checkout away, which an editable installation would bring.
        code = f'import sys; sys.path.insert(0, {str(site)!r}); ' + words[0]
        return subprocess.run(
            [sys.executable, '-I', '-c', code, *words[1:]], cwd=elsewhere, capture_output=True, text=True
        )

    return run


def test_a_wheel_has_builders_experiments_and_types(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        'sgmg_jax/py.typed',
        'sgmg_jax/configs/ytvos.py',
        'sgmg_jax/datasets/build.py',
        'sgmg_jax/datasets/refcoco/refcoco.py',
    } <= names
    for folder in ('configs', 'datasets'):
        wanted = {f'sgmg_jax/{path.relative_to(ROOT)}' for path in (ROOT / folder).rglob('*.py')}
        assert wanted == {name for name in names if name.startswith(f'sgmg_jax/{folder}/')}
    tops = {name.split('/')[0] for name in names}
    assert tops == {'sgmg_jax', f'sgmg_jax-{sgmg_jax.__version__}.dist-info'}
    (entry,) = (name for name in names if name.endswith('entry_points.txt'))
    assert b'sgmg-jax = sgmg_jax.__main__:main' in zipfile.ZipFile(wheel).read(entry)


def test_the_console_command_has_every_command(run):
    main = 'from sgmg_jax.__main__ import COMMANDS, main; '
    result = run(main + 'print(main.__module__, *COMMANDS); sys.exit(main())', '--help')
    assert result.returncode == 0, result.stderr
    for name in result.stdout.splitlines()[0].split()[1:]:
        assert f'\n  {name} ' in result.stdout
        described = run(main + 'sys.exit(main())', name, '--help')
        assert described.returncode == 0 and len(described.stdout.splitlines()) > 5, described.stderr
    unknown = run(main + 'sys.exit(main())', 'nothing')
    assert unknown.returncode == 2 and len(unknown.stderr.splitlines()) == 1
    version = run(main + 'sys.exit(main())', '--version')
    assert version.stdout == f'sgmg_jax {sgmg_jax.__version__}\n'


def test_an_experiment_is_found_by_name(run):
    train = 'from sgmg_jax.__main__ import main; sys.exit(main())'
    result = run(train, 'train', '--config=ytvos:smoke', '--workdir=run')
    assert result.returncode == 2 and 'data/tfds/ref_youtube_vos: no such folder' in result.stderr, result.stderr
    result = run(train, 'train', '--config=ytvoss', '--workdir=run')
    assert result.returncode == 2 and '--config=ytvoss: there is no such file' in result.stderr


def test_predictor_needs_no_extra(run):
    result = run(BLOCKED + 'from sgmg_jax import Predictor; import sgmg_jax.video; print(Predictor.__name__)')
    assert result.returncode == 0 and result.stdout == 'Predictor\n', result.stderr


def test_commands_without_the_extras(run, tmp_path):
    """Segmenting, checking, scoring and converting work; what does not says how to install the rest."""
    main = BLOCKED + 'from sgmg_jax.__main__ import main; sys.exit(main())'
    film, raw = tmp_path / 'a.mp4', raw_tree.write(tmp_path / 'raw')
    assert run(main, 'synthetic', f'--film={film}', '--size=112').returncode == 0
    result = run(main, 'predict', str(film), 'the star', f'--out={tmp_path / "out"}')
    assert result.returncode == 0 and (tmp_path / 'out/overlay.mp4').exists(), result.stderr
    checked = run(main, 'doctor', str(raw))
    assert checked.returncode in (0, 1) and 'Ref-YouTube-VOS' in checked.stdout, checked.stderr
    world = tmp_path / 'world'  # with published ground truth
    assert run(main, 'synthetic', f'--out={world}', '--train=0', '--valid=1', '--size=80').returncode == 0
    scored = run(main, 'score', 'ytvos', f'--gt={world / "valid"}', f'--pred={tmp_path / "nothing.zip"}')
    assert scored.returncode == 2 and 'nothing.zip' in scored.stderr, scored.stderr
    assert run(main, 'convert', 'from-run', 'nowhere', '--out=x').returncode == 2
    for words, extra in (
        (('build', 'ref_youtube_vos', f'--raw={raw}', f'--out={tmp_path / "records"}'), 'data'),
        (('train', '--config=ytvos', '--workdir=x'), 'train|data'),
        (('app',), 'app'),
    ):
        result = run(main, *words)
        (line,) = (line for line in result.stderr.splitlines() if 'error' in line)
        assert result.returncode == 2 and any(f"pip install 'sgmg_jax[{name}]'" in line for name in extra.split('|'))
