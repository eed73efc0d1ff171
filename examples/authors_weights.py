"""Use the authors' weights. Nothing but the file and RoBERTa's tokenizer is needed; the sizes are found in the file.

python examples/authors_weights.py ytvos_swin_b.pth roberta-base film.mp4 "the dog on the left"
"""

import sys

from sgmg_jax import video
from sgmg_jax.inference.models import open_model

weights, tokenizer, film, sentence = sys.argv[1:]
predictor = open_model(weights, tokenizer)
predictor.save_pretrained('model', licence='cc-by-nc-4.0')  # next time: Predictor.from_pretrained('model')
(masks,) = predictor(video.read(film), [sentence])
print(f'{masks.any(axis=(1, 2)).sum()} of {len(masks)} frames show it')
