"""Several videos at a time write and score what one after the other does."""

import os
import pathlib
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import small

from sgmg_jax.benchmarks import evaluate as benchmark
from sgmg_jax.inference import evaluate, parallel, protocols

ROOT = pathlib.Path(__file__).parents[2]
ONE_MEETS_FOUR = """
    import pathlib, sys
    import jax, numpy as np
    import small
    from flax import traverse_util
    from sgmg_jax import systems
    from sgmg_jax.data import records, text
    from sgmg_jax.inference import evaluate, parallel, protocols
    from sgmg_jax.inference.predictor import Predictor

    out, data = map(pathlib.Path, sys.argv[1:])
    config = small.small_config(data)
    config.model.update(encoder_layers=1, decoder_layers=1)
    split = records.open_records(data, 'train')
    tokenizer = text.train_tokenizer([e.text for video in split.videos for e in video.expressions], 300)
    model, rng = systems.build_model(config.model), np.random.default_rng(0)
    parameters = jax.tree.map(lambda x: np.float32(0.3 * rng.standard_normal(x.shape)), systems.parameter_shapes(model))
    predictor = Predictor.from_config(config, model, parameters, tokenizer)
    every = parallel.on_all_devices(predictor)
    where = [jax.tree.leaves(one.parameters)[0].devices() for one in every]
    assert where == [{device} for device in jax.local_devices()] and len(where) == 4
    for name, predictors in (('one', every[:1]), ('four', every)):
        for part in ('files', 'done'):
            (out / name / part).mkdir(parents=True)
        evaluate.write_predictions(predictors, split, protocols.choose('ytvos'), out / name, progress=False)
    scores = evaluate.score_videos(predictor, split, 'ytvos', progress=False)
    jax.local_devices = lambda: jax.devices()[:1]
    assert evaluate.score_videos(predictor, split, 'ytvos', progress=False) == scores
"""


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


def test_four_devices_write_and_score_what_one_does(world_records, tmp_path):
    flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count=4'
    paths = {'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests')]), 'JAX_PLATFORMS': 'cpu'}
    result = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(ONE_MEETS_FOUR), tmp_path, world_records],
        text=True,
        capture_output=True,
        env=os.environ | paths | {'XLA_FLAGS': flags},
    )
    assert result.returncode == 0, result.stderr[-4000:]
    one, four = contents(tmp_path / 'one'), contents(tmp_path / 'four')
    assert one == four and len({data for path, data in one.items() if path.suffix == '.png'}) > 1
    assert {path.name for path in one if path.parts[0] == 'done'} == {'0', '1', '2'}


def test_every_predictor_works_at_the_same_time():
    """Numbers are asked for no earlier than a predictor is free."""
    barrier, asked, at_work = threading.Barrier(3, timeout=60), [], []

    def numbers():
        for number in range(7):
            asked.append(number)
            assert len(asked) <= len(at_work) + 3
            yield number

    def of_video(predictor, number):
        if number < 3:
            barrier.wait()
        at_work.append(number)
        return predictor, 10 * number

    found = dict(parallel.each_video([*'abc'], numbers(), of_video))
    assert {number: value for number, (_, value) in found.items()} == {n: 10 * n for n in range(7)}
    assert {found[number][0] for number in range(3)} == {*'abc'}


@pytest.mark.parametrize('count', [1, 2])
def test_an_error_ends_it_after_the_videos_that_have_begun(count):
    begun, done = [], []

    def of_video(_, number):
        begun.append(number)
        if number == 2:
            raise ValueError('video 2, frame 5: broken')
        time.sleep(0.05)
        done.append(number)

    with pytest.raises(ValueError, match='video 2, frame 5'):
        list(parallel.each_video(['a'] * count, range(50), of_video))
    assert len(begun) < 8 and sorted([*done, 2]) == sorted(begun)


def made_up(broken=None):
    """Four videos of three frames; one of which may have a broken picture."""
    split = small.made_up([small.video_of(name, 3, ()) for name in 'abcd'])
    for example in split._sources[0]:
        if example['video'].decode() == broken:
            example['frames'][1] = example['frames'][1][:-20]
    return split


def folder(tmp_path, name):
    for part in ('files', 'done'):
        (tmp_path / name / part).mkdir(parents=True)
    return tmp_path / name


def test_what_one_video_lacks_is_named_and_the_others_are_whole(tmp_path):
    device = benchmark.StandIn(0.001)
    split, protocol = made_up(), protocols.choose('ytvos')
    predictors = [benchmark.make_predictor(split, device)] * 3
    evaluate.write_predictions(predictors[:1], split, protocol, folder(tmp_path, 'whole'), progress=False)
    assert device.worked >= 8 * 0.001  # a window of each of two sentences
    with pytest.raises(ValueError, match='video c, frame 1: the image is broken or truncated'):
        evaluate.write_predictions(predictors, made_up('c'), protocol, folder(tmp_path, 'broken'), progress=False)
    done = {path.name for path in (tmp_path / 'broken' / 'done').iterdir()}
    assert '2' not in done and done <= {'0', '1', '3'}
    left = contents(tmp_path / 'broken')
    assert not [path for path in left if path.name.startswith('.')]
    assert not [path for path in left if 'c' in path.parts]
    # The same command again goes on with what is missing.
    evaluate.write_predictions(predictors, split, protocol, tmp_path / 'broken', progress=False)
    assert contents(tmp_path / 'broken') == contents(tmp_path / 'whole')


def test_moving_blob_is_not_still():
    masks = benchmark.moving_blob(72, 128)
    assert masks.shape == (36, 72, 128) and 0.1 < masks.mean() < 0.3 and (masks[0] != masks[-1]).mean() > 0.05
