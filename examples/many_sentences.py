"""Ask many sentences of one film. The film is read and encoded once, window by window, however long it is.

python examples/many_sentences.py film.mp4 sentences.txt
"""

import pathlib
import sys

from sgmg_jax import Predictor, video

film, file = sys.argv[1:]
sentences = pathlib.Path(file).read_text().splitlines()
frames = (frame.image for frame in video.stream(video.open_source(film)))
for window in Predictor.from_pretrained('demo').stream(frames, sentences):
    for sentence, masks, scores in zip(sentences, window.masks, window.scores):
        print(f'from frame {window.start}: {masks.mean():6.2%} of the pixels, score {scores.mean():.2f}: {sentence}')
