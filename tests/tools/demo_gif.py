"""Draws the moving picture of the README: the model `demo` on clips that it has never seen.

python tests/tools/demo_gif.py docs/demo.gif
"""

import sys

import numpy as np
from PIL import Image

from sgmg_jax import Predictor, visualize
from sgmg_jax.synthetic import make_video

# Seeds and sentences: attributes, motion, relation, a combination of colour and shape that no training clip shows.
CLIPS = (
    (2, False, ('the red ring', 'the blue star')),
    (1, False, ('the cyan circle that moves right', 'the small striped circle that does not move')),
    (4, False, ('the cyan ring placed above the blue cross', 'a blue cross')),
    (3, True, ('the red triangle', 'the blue star')),
)
SIDE, GAP = 224, 8


def main(path: str) -> None:
    predictor = Predictor.from_pretrained('demo')
    columns = []
    for seed, unseen, sentences in CLIPS:
        clip = make_video(seed, size=(112, 112), unseen=unseen)
        masks = predictor(clip.frames, sentences)
        large = visualize.resized(clip.frames, masks, (SIDE, SIDE))
        strip = visualize.legend(sentences, SIDE, SIDE)
        columns.append([np.concatenate([x, strip]) for x in visualize.overlay(*large)])
    height = max(len(column[0]) for column in columns)
    frames = []
    for t in range(len(columns[0])):
        canvas = np.full((height, len(columns) * (SIDE + GAP) - GAP, 3), visualize.INK, np.uint8)
        for number, column in enumerate(columns):
            x = number * (SIDE + GAP)
            canvas[: len(column[t]), x : x + SIDE] = column[t]
        frames.append(Image.fromarray(canvas).quantize(128))
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=300, loop=0, optimize=True)


if __name__ == '__main__':
    main(sys.argv[1])
