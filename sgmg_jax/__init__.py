"""sgmg_jax: referring video object segmentation in JAX.

from sgmg_jax import Predictor, video
predictor = Predictor.from_pretrained('demo')
masks = predictor(video.read('film.mp4'), ['the red star', 'the circle moving left'])
"""

__version__ = '0.2.0'


def __getattr__(name):
    # Late, so that the metrics, the loader and the scorer can be used without starting JAX.
    if name == 'Predictor':
        from sgmg_jax.inference.predictor import Predictor

        return Predictor
    if name == 'segment_film':
        from sgmg_jax.inference.film import segment_film

        return segment_film
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
