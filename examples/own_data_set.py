"""Write films of your own as a data set: python examples/own_data_set.py mine
Then build it: python -m datasets.build ref_youtube_vos --raw=mine --out=records"""

import json
import pathlib
import sys

from PIL import Image

from sgmg_jax.synthetic import make_video

root, listed = pathlib.Path(sys.argv[1]), {}
for name in ('film0', 'film1', 'film2'):
    film = make_video(len(listed))  # Put your frames, masks (0 is background, k is object k) and sentences here.
    for t, pictures in enumerate(zip(film.frames, film.masks)):
        for kind, picture in zip((f'JPEGImages/{name}/{t:05d}.jpg', f'Annotations/{name}/{t:05d}.png'), pictures):
            (root / 'train' / kind).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(root / 'train' / kind)
    texts = {str(i): {'exp': e.text, 'obj_id': e.object_id} for i, e in enumerate(film.expressions)}
    listed[name] = {'frames': [f'{t:05d}' for t in range(len(film.frames))], 'expressions': texts}
(root / 'meta_expressions/train').mkdir(parents=True)
(root / 'meta_expressions/train/meta_expressions.json').write_text(json.dumps({'videos': listed}))
