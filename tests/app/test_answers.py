"""What the page computes, without gradio and without a model."""

import json
import os
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
from PIL import Image
import pytest

from sgmg_jax import video, visualize
from sgmg_jax.app import answers
from sgmg_jax.inference.predictor import Predictor, Window

ROOT = pathlib.Path(__file__).parent.parent.parent
LEFT, DARK = (slice(None), slice(None, 30)), 40


class Known(Predictor):
    """A predictor without a model: every sentence gets the left half, except 'nothing'."""

    origin = 'known'

    def __init__(self):
        pass

    def stream(self, frames, sentences, threshold):
        frames = np.stack(list(frames))
        masks = np.zeros((len(sentences), *frames.shape[:3]), bool)
        for number, sentence in enumerate(sentences):
            masks[(number, slice(None), *LEFT)] = sentence != 'nothing'
        scores = np.full((len(sentences), len(frames)), 0.25, np.float32)
        yield Window(0, frames, masks, scores, masks[0].astype(np.uint8))


@pytest.fixture
def film(tmp_path):
    video.write(tmp_path / 'a.mp4', np.full((6, 48, 64, 3), DARK, np.uint8), rate=6)
    return tmp_path / 'a.mp4'


@pytest.fixture
def root(tmp_path):
    (tmp_path / 'answers').mkdir()
    return tmp_path / 'answers'


def answer(film, text, root, report=lambda done, expected: None):
    return answers.answer(Known(), film, text, root, report)


def test_an_answer_has_an_overlay_pictures_and_a_zip(film, root):
    reports = []
    found = answer(film, ' the left half \n\nnothing\n', root, lambda *done: reports.append(done))
    assert found.sentences == ['the left half', 'nothing'] and found.scores == [0.25, 0.25]
    assert found.frames == [f'{t:05d}' for t in range(6)] and reports == [(6, 6)]
    assert len(video.read(found.overlay)) == 6
    with zipfile.ZipFile(found.archive) as archive:
        names = archive.namelist()
        assert sorted({name.split('/')[0] for name in names}) == ['masks', 'objects', 'result.json']
        assert {f'masks/{number}/00005.png' for number in (0, 1)} < set(names)
        assert json.loads(archive.read('result.json'))['source'] == 'a.mp4'


def test_a_picture_shows_the_chosen_objects_in_their_colours(film, root):
    found = answer(film, 'one\nnothing\nthree', root)
    legend = visualize.legend(found.sentences, 64, 48)
    image = np.asarray(Image.open(found.folder / 'pictures' / '00002.jpg'))
    for shown, colour in (([], None), ([0], 0), ([2], 2), ([0, 1, 2], 2)):
        picture = answers.picture(found, 2, shown)
        np.testing.assert_array_equal(picture[48:], legend)
        assert abs(int(picture[5, 50].mean()) - visualize.DIM * DARK) < 5
        if colour is None:
            assert picture[:48].max() < DARK
        else:
            np.testing.assert_array_equal(picture[20, 29], visualize.colour_of(colour))
            np.testing.assert_array_equal(picture[20, 15], image[20, 15])


def test_long_films_have_evenly_spaced_pictures(film, root, monkeypatch):
    monkeypatch.setattr(answers, 'MOST_PICTURES', 4)
    assert answer(film, 'one', root).frames == ['00000', '00002', '00004']


def test_old_answers_are_removed(film, root, monkeypatch):
    monkeypatch.setattr(answers, 'KEPT', 2)
    found = []
    for number in range(3):
        found.append(answer(film, 'one', root))
        os.utime(found[-1].folder, (number, number))
    assert {path.name for path in root.iterdir()} == {kept.folder.name for kept in found[1:]}
    with pytest.raises(ValueError, match='were removed.*Press the button again'):
        answers.picture(found[0], 0, [0])


@pytest.mark.parametrize(
    'path, text, match',
    [
        (None, 'one', 'there is no film. Upload one'),
        ('a.mp4', ' \n ', 'there is no sentence'),
        ('a.png', 'one', 'a.png: is a picture. Upload a film'),
        ('a.txt', 'one', 'a.txt: cannot be read as a film'),
    ],
)
def test_errors_are_in_words_and_leave_nothing(film, root, path, text, match):
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(film.with_name('a.png'))
    film.with_name('a.txt').write_text('no film')
    with pytest.raises(ValueError, match=match):
        answer(path and film.with_name(path), text, root)
    assert not list(root.iterdir())


def test_an_interrupted_answer_is_removed(film, root):
    def interrupt(done, expected):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer(film, 'one', root, interrupt)
    assert not list(root.iterdir())


def test_examples_are_films_with_sentences(tmp_path):
    examples = answers.make_examples(tmp_path)
    assert len(examples) == len(answers.EXAMPLES)
    for path, text in examples:
        assert video.read(path).shape == (24, 256, 256, 3)
        assert len(set(text.splitlines())) >= 2 and all(' ' in line for line in text.splitlines())


def test_without_gradio_the_command_says_how_to_install_it():
    code = "import sys; sys.modules['gradio'] = None; from sgmg_jax.app.__main__ import main; sys.exit(main([]))"
    result = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == "error: gradio is not installed, and this command needs it: pip install 'sgmg_jax[app]'.\n"
