"""Write films of your own as a data set: python examples/own_data_set.py my_data
Then build it: python -m datasets.build ref_youtube_vos --raw=my_data --out=my_records"""

import json
import pathlib
import sys

from PIL import Image

from sgmg_jax.synthetic import make_video

root, listed = pathlib.Path(sys.argv[1]) / 'train', {}
for film in (make_video(seed) for seed in range(3)):  # put your frames, masks (k is object k) and sentences here
    name = f'film{len(listed)}'
    for kind, suffix, images in (('JPEGImages', 'jpg', film.frames), ('Annotations', 'png', film.masks)):
        (root / kind / name).mkdir(parents=True)
        for t, image in enumerate(images):
            Image.fromarray(image).save(root / kind / name / f'{t:05d}.{suffix}')
    texts = {str(i): {'exp': e.text, 'obj_id': e.object_id} for i, e in enumerate(film.expressions)}
    listed[name] = {'frames': [f'{t:05d}' for t in range(len(film.frames))], 'expressions': texts}
lists = root.parent / 'meta_expressions' / 'train'
lists.mkdir(parents=True)
(lists / 'meta_expressions.json').write_text(json.dumps({'videos': listed}))
