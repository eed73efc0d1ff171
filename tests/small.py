"""A model and data small enough for the tests."""
from configs import synthetic


def small_config(folder):
    """The demo's config, shrunk: two steps of a model of one block a stage."""
    config = synthetic.get_config('smoke')
    config.model.update(hidden=32, heads=2, points=2, encoder_layers=1, decoder_layers=2, mlp=32, queries=3)
    config.data.update(records=(str(folder),), num_frames=2, frame_size=(80, 80))
    config.data.augmentation.update(scales=(80,), max_size=80)
    config.evaluation.update(short_side=80)
    return config
