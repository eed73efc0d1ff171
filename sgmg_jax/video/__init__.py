"""Reads and writes films."""

from sgmg_jax.video.reading import BrokenFilm as BrokenFilm
from sgmg_jax.video.reading import Frame as Frame
from sgmg_jax.video.reading import Source as Source
from sgmg_jax.video.reading import open_film as open_film
from sgmg_jax.video.reading import open_source as open_source
from sgmg_jax.video.reading import read as read
from sgmg_jax.video.reading import stream as stream
from sgmg_jax.video.writing import Append as Append
from sgmg_jax.video.writing import write as write
from sgmg_jax.video.writing import writer as writer
