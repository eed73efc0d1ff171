"""The command that segments a film: from its arguments to its files, and what it says when something is wrong."""

import json
import os
import pathlib
import subprocess
import sys

from flax import traverse_util
import numpy as np
import pytest

from configs import synthetic
from sgmg_jax import Predictor, systems, video
from sgmg_jax.data import text
from sgmg_jax.predict import main

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """A model folder with seeded weights."""
    config = synthetic.get_config()
    config.model.update(hidden=32, heads=2, points=2, encoder_layers=1, decoder_layers=1, mlp=32)
    config.evaluation.update(short_side=80, clip_frames=4)
    module, rng = systems.build_model(config.model), np.random.default_rng(0)
    parameters = {
        path: 0.1 * rng.standard_normal(x.shape, dtype=np.float32) + np.float32(path.endswith('scale'))
        for path, x in traverse_util.flatten_dict(systems.parameter_shapes(module), sep='/').items()
    }
    tokenizer = text.train_tokenizer(['the red star', 'the blue circle'], 300)
    predictor = Predictor.from_config(config, module, traverse_util.unflatten_dict(parameters, sep='/'), tokenizer)
    folder = tmp_path_factory.mktemp('models') / 'small'
    predictor.save_pretrained(folder)
    return folder


@pytest.fixture
def film(tmp_path):
    frames = np.random.default_rng(1).integers(0, 256, (10, 64, 80, 3), dtype=np.uint8)
    video.write(tmp_path / 'a.mp4', frames, rate=10)
    return tmp_path / 'a.mp4'


def test_a_film_and_two_sentences(model, film, tmp_path, capsys):
    out = tmp_path / 'out'
    options = [f'--out={out}', f'--model={model}', '--every=2', '--start=0.2', '--max-side=70']
    assert main([str(film), 'the red star', 'the blue\ncircle', *options]) == 0
    printed = capsys.readouterr()
    result = json.loads((out / 'result.json').read_text())
    assert result['frames'] == ['00002', '00004', '00006', '00008'] and result['size'] == [56, 70]
    first, second, last = printed.out.splitlines()
    shown = sum(mask is not None for mask in result['sentences'][0]['masks'])
    assert first == f'score {result["sentences"][0]["score"]:.2f}, in {shown} of 4 frames: the red star'
    assert second.endswith(': the blue\\ncircle') and last == f'written: {out}'
    assert '4/4' in printed.err and 'coloured shapes' not in printed.err
    # The same as from Python.
    (window,) = Predictor.from_pretrained(model).stream(
        [f.image for f in video.stream(video.open_source(film), 2, 0.2, max_side=70)], ['the red star']
    )
    assert window.scores[0].mean() == pytest.approx(result['sentences'][0]['score'], abs=1e-3)
    assert shown == window.masks[0].any(axis=(1, 2)).sum()


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['{film}', 'a', '--out={film}'], 'a.mp4: exists already. Remove it or give another --out.'),
        (['{film}', 'a', '--out=x', '--start=2', '--end=1'], '--start=2: must be before --end=1.'),
        (['{film}', 'a', '--out=x', '--start=-1'], 'must be a number from 0 on'),
        (['{film}', 'a', '--out=x', '--threshold=nan'], "'nan': must be a number from 0 to 1"),
        (['{film}', 'a', '--out=x', '--every=0'], 'must be a whole number from 1'),
        (['{film}', '--out=x'], 'the following arguments are required: SENTENCE'),
        (['nowhere.mp4', 'a', '--out=x'], 'nowhere.mp4: no such file. Give a film'),
        (['{film}', 'a', '--out=x', '--model=nowhere'], 'nowhere: no such model folder'),
        (['{film}', 'a', '--out=x', '--model={film}'], 'these are weights without a tokenizer'),
        (['{film}', ' ', '--out=x', '--model={model}'], 'sentence 0 of 1 is empty'),
        (['{film}', 'a ' * 40, '--out=x', '--model={model}'], 'has 42 tokens|tokens with <s> and </s>'),
        (['{film}', 'a', '--out=x', '--model={model}', '--start=9'], 'has no frame from 9 s to inf s'),
    ],
)
def test_errors_are_one_line_and_leave_nothing(model, film, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    try:
        status = main([word.format(film=film, model=model) for word in arguments])
    except SystemExit as exit:  # from argparse
        status = exit.code
    lines = [line for line in capsys.readouterr().err.splitlines() if 'error' in line]
    assert status == 2 and len(lines) == 1
    assert any(words in lines[0] for words in message.split('|'))
    assert os.listdir(tmp_path) == ['a.mp4']


def test_help_appears_at_once():
    code = (
        'import sys; from sgmg_jax.predict import main\n'
        "try: main(['--help'])\n"
        'except SystemExit: pass\n'
        "assert not {'jax', 'av', 'cv2'} & set(sys.modules)"
    )
    assert (
        'overlay.mp4'
        in subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    )
