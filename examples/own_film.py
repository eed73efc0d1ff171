"""Segment a film of your own.

python examples/own_film.py film.mp4 "the dog on the left" "the red ball"
"""

import sys

from sgmg_jax import Predictor, segment_film, video

film, *sentences = sys.argv[1:]
predictor = Predictor.from_pretrained('demo')  # or your model folder: 'demo' knows only coloured shapes
result = segment_film(predictor, video.open_source(film), sentences, out='result')
for row in result['sentences']:
    print(f'{row["score"]:.2f} {row["text"]}')
print('Look at result/overlay.mp4')
