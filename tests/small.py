"""A model and data small enough for the tests."""

import io

import numpy as np
from PIL import Image

from configs import synthetic
from sgmg_jax.data import metadata, records


def small_config(folder):
    """The demo's config, shrunk: two steps of a model with one block per stage."""
    config = synthetic.get_config('smoke')
    config.model.update(hidden=32, heads=2, points=2, encoder_layers=1, decoder_layers=2, mlp=32, queries=3)
    config.data.update(records=(str(folder),), num_frames=2, frame_size=(80, 80))
    config.data.augmentation.update(scales=(80,), max_size=80)
    config.evaluation.update(short_side=80)
    return config


def flags(config):
    """Command-line flags that turn --config=configs/synthetic.py:smoke into this config."""

    def fields(config, prefix=''):
        for name, value in config.items():
            path = f'{prefix}.{name}'
            if hasattr(value, 'items'):
                yield from fields(value, path)
            else:
                yield path, value

    usual = dict(fields(synthetic.get_config('smoke'), '--config'))
    return [
        '--config=configs/synthetic.py:smoke',
        *(f'{path}={value}' for path, value in fields(config, '--config') if value != usual[path]),
    ]


def encoded(array, kind):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    return stream.getvalue()


def made_up(videos):
    """In-memory records of these videos, each mask showing the same object."""
    examples = []
    for video in videos:
        mask = np.zeros((video.height, video.width), np.uint8)
        mask[8:30, 10:40] = 1
        examples.append(
            {
                'video': video.name.encode(),
                'masks': [encoded(mask, 'PNG')] * len(video.mask_places),
                'frames': [
                    encoded(np.full((video.height, video.width, 3), 20 * t, np.uint8), 'PNG')
                    for t in range(len(video.frame_names))
                ],
            }
        )
    return records.Records('memory', 'train', tuple(videos), (examples,))


def video_of(name, frames, places, tags=()):
    expressions = (metadata.Expression('0', 'the cat on the left', 1, ()), metadata.Expression('1', 'dogs', 2, tags))
    return metadata.Video(name, tuple(map(str, range(frames))), 54, 96, expressions, True, places)
