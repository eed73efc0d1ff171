"""The scores at each threshold are those of the files that an evaluation with this threshold writes."""

import zlib

import numpy as np
import pytest
import raw_mevis

from configs import synthetic_mevis
from datasets import build
from sgmg_jax import score
from sgmg_jax.data import records
from sgmg_jax.inference import parallel, protocols, thresholds
from sgmg_jax.inference.predictor import Answer, Predictor
from sgmg_jax.score import submission

WINDOW = 2


class Guesser(Predictor):
    """Gives every window a score of its own; masks of some are empty."""

    def __init__(self):
        self.threshold = 0.0

    def windows(self, read, length):
        for start in range(0, length, WINDOW):
            frames = read(range(start, min(start + WINDOW, length)))

            def ask(sentences, frames=frames):
                for sentence in sentences:
                    rng = np.random.default_rng(zlib.crc32(frames.tobytes() + sentence.encode()))
                    masks = rng.random(frames.shape[:3]) < (0.6 if rng.random() < 0.9 else 0)
                    scores = np.float32(rng.choice([0.05, 0.2, 0.35, 0.7, 0.95])) * np.ones(len(frames), np.float32)
                    yield Answer(scores, lambda binary, masks=masks: masks)

            yield start, ask


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('mevis')
    return build.build('mevis', raw_mevis.write(root / 'raw'), root / 'tfds')


def test_scores_are_those_of_the_files(folder, tmp_path, monkeypatch):
    predictor, split = Guesser(), records.open_records(folder, 'valid_u')
    assert any(len(video.frame_names) > WINDOW for video in split.videos)
    monkeypatch.setattr(parallel, 'on_all_devices', lambda predictor: [predictor])
    found = thresholds.score_thresholds(predictor, split, progress=False)
    assert len({str(summary) for summary in found.values()}) > 3
    for threshold in (0.0, 0.05, 0.2, 0.25, 0.7, 0.95):
        predictor.threshold = threshold
        pred = tmp_path / str(threshold)
        for record in split:
            protocols.write_expressions(predictor, record, pred)
        summary = score.score_submission('mevis', pred / submission.TOP, split, progress=False)
        assert found[threshold] == summary, threshold


def test_those_that_one_may_choose():
    rows = {0.0: (5, 20, 99), 0.1: (9, 30, 95), 0.2: (9, 60, 90), 0.3: (8, 60, 90), 0.4: (7, 80, 89)}
    found = {
        threshold: {'Final': final, 'J&F': 1.0, 'N-acc': of_none, 'T-acc': of_others}
        for threshold, (final, of_none, of_others) in rows.items()
    }
    assert thresholds.best(found) == 0.1 and thresholds.strictest(found) == 0.2
    text = thresholds.format_thresholds(found)
    assert 'highest Final: --config.evaluation.threshold=0.1\n' in text
    assert text.endswith('highest N-acc with a T-acc of at least 90: --config.evaluation.threshold=0.2')
    assert [line.split()[0] for line in text.split('\n')[2:5]] == ['0.00', '0.10', '0.20']  # and no others
    assert text.split('\n')[5] == ''
    missing = {0.4: found[0.4]}
    assert thresholds.strictest(missing) is None and thresholds.format_thresholds(missing).endswith('90: none')


def test_where_no_threshold_can_be_chosen(folder, tmp_path):
    config = synthetic_mevis.get_config('smoke')
    config.evaluation.update(records=(str(folder),), protocol='ytvos')
    with pytest.raises(ValueError, match='only that of MeViS'):
        thresholds.try_thresholds(config, tmp_path)
    config.evaluation.update(protocol='mevis', split='valid')  # without ground truth
    with pytest.raises(ValueError, match="split 'valid': a threshold can be chosen only where"):
        thresholds.try_thresholds(config, tmp_path)
    assert not any(tmp_path.iterdir())
