"""The model that comes with the package: its file, its card, and its scores on clips that it has never seen."""

import numpy as np
import pytest

from sgmg_jax import Predictor
from sgmg_jax.convert import folder
from sgmg_jax.evaluation import scoring
from sgmg_jax.inference import pretrained
from sgmg_jax.synthetic.dataset import seed_of_video
from sgmg_jax.synthetic.video import make_video

CLIPS = 8  # the first of the validation split of python -m sgmg_jax.synthetic --size=112
# J&F on them, measured on CPUs with jax 0.10.2.
SCORES = {'all': 85.2, 'attribute': 83.6, 'motion': 96.6, 'relation': 87.3}
MARGIN = 1.0  # of other machines and versions


def test_the_file_is_small_and_its_card_names_licence_and_scores():
    path = pretrained.find('demo')
    assert sum(file.stat().st_size for file in path.iterdir()) <= 8 * 10**6
    card = (path / folder.CARD).read_text()
    for words in ('license: apache-2.0', 'ref_youtube_vos_valid | J&F ', 'scored against another object', 'seed 0'):
        assert words in card


def test_its_scores_hold():
    predictor = Predictor.from_pretrained('demo')
    rows = []
    for index in range(CLIPS):
        clip = make_video(seed_of_video(0, 'valid', index), size=(112, 112), unseen=index % 2 == 1)
        found = predictor(clip.frames, [expression.text for expression in clip.expressions])
        for number, (expression, masks) in enumerate(zip(clip.expressions, found)):
            score = scoring.score_expression(clip.masks, expression.object_id, masks)
            rows.append(score | {'video': str(index), 'expression': str(number), 'tags': expression.tags})
    summary = scoring.summarise(rows)
    scores = {'all': summary['J&F']} | {tag: summary['tags'][tag]['J&F'] for tag in ('attribute', 'motion', 'relation')}
    assert scores == pytest.approx(SCORES, abs=MARGIN), scores
    assert np.isfinite(list(scores.values())).all()
