"""The examples and the notebook, run from top to bottom as a newcomer would run them."""

import json
import pathlib
import runpy
import shutil
import sys

import numpy as np
from PIL import Image
import pytest
from safetensors.numpy import save_file

from sgmg_jax import Predictor, video
from sgmg_jax.convert import folder, weights
from sgmg_jax.data import records, text
from sgmg_jax.inference import pretrained
from sgmg_jax.synthetic import make_video

EXAMPLES = pathlib.Path(__file__).parent.parent / 'examples'


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs an example in a folder with a film of four frames and returns what it defines."""
    monkeypatch.chdir(tmp_path)
    video.write('film.mp4', make_video(1, size=(112, 112)).frames[:4], rate=4)

    def run_example(name, *arguments):
        monkeypatch.setattr(sys, 'argv', [name, *arguments])
        return runpy.run_path(str(EXAMPLES / name), run_name='__main__')

    return run_example


def test_all_examples_are_tested_and_short():
    tested = {'own_film.py', 'many_sentences.py', 'authors_weights.py', 'own_data_set.py', 'first_steps.ipynb'}
    assert {path.name for path in EXAMPLES.iterdir()} - {'__pycache__'} == tested
    for path in EXAMPLES.glob('*.py'):
        code = path.read_text().split('"""', 2)[2]
        assert len([line for line in code.splitlines() if line]) <= 20, path


def test_own_film(run, capsys):
    run('own_film.py', 'film.mp4', 'the purple circle', 'the cyan circle')
    assert capsys.readouterr().out.splitlines()[-1] == 'Look at result/overlay.mp4'
    assert len(video.read('result/overlay.mp4')) == 4
    assert np.asarray(Image.open('result/objects/00003.png')).shape == (112, 112)


def test_many_sentences(run, capsys):
    pathlib.Path('sentences.txt').write_text('the purple circle\nthe cyan circle\n')
    run('many_sentences.py', 'film.mp4', 'sentences.txt')
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith('from frame 0: ') and second.endswith(': the cyan circle')


def test_authors_weights(run, capsys):
    """With the demo's weights by the names of the release. Heads are taken as released, so its masks are others."""
    stored = folder.read(pretrained.find('demo'))
    save_file(weights.released(stored.parameters), 'official.pth')
    text.save_tokenizer(stored.tokenizer, 'roberta')
    run('authors_weights.py', 'official.pth', 'roberta', 'film.mp4', 'the purple circle')
    assert 'of 4 frames show it' in capsys.readouterr().out
    assert Predictor.from_pretrained('model').config.model.queries == stored.config.model.queries


def test_own_data_set(run):
    from datasets import build

    run('own_data_set.py', 'mine')
    built = records.open_records(build.build('ref_youtube_vos', pathlib.Path('mine'), pathlib.Path('records')), 'train')
    assert [video.name for video in built.videos] == ['film0', 'film1', 'film2']
    film = make_video(0)
    assert [e.text for e in built.videos[0].expressions] == [e.text for e in film.expressions]
    np.testing.assert_array_equal(built[0].decode_masks(), film.masks)
    shutil.rmtree('mine')


def test_the_notebook(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((EXAMPLES / 'first_steps.ipynb').read_text())
    values, names = [], {}
    for cell in notebook['cells']:
        if cell['cell_type'] == 'code':
            assert not cell['outputs'] and cell['execution_count'] is None  # Nobody's results are stored.
            *lines, last = ''.join(cell['source']).splitlines()
            try:
                compile(last, 'cell', 'eval')
            except SyntaxError:  # An indented line: the cell has no value.
                exec(''.join(cell['source']), names)
            else:
                exec('\n'.join(lines), names)
                values.append(eval(last, names))
    sentences, (shape, dtype), picture, same = [value for value in values if value is not None]
    assert 'the purple circle' in sentences and shape == (2, 8, 112, 112) and dtype == np.dtype(bool) and same
    assert picture.size == (448, 448)
    assert len(video.read('result/overlay.mp4')) == 8
    assert 'frames 8 to 15' in capsys.readouterr().out
