"""What trained models make of a film inside: how far decoding moves features (SgMg, Figures 1 and I), and what fusion
with the sentence marks (Figure 7).

Axis letters: T frames, h w the map of stride 8, H W pixels of the film, C F channels, n = T h w tokens, K anchors.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import typing
from typing import Any, NamedTuple

from jaxtyping import Bool, Float, UInt8
import numpy as np

from sgmg_jax import compilation, types
from sgmg_jax.data import text
from sgmg_jax.inference.predictor import Predictor
from sgmg_jax.models import features
from sgmg_jax.ops import resize

if typing.TYPE_CHECKING:
    import matplotlib.figure

ANCHORS = 64  # tokens that the others are compared with
BEFORE, AFTER = '#2b7bba', '#d0006f'


class Maps(NamedTuple):
    """Of one film and sentence, at stride 8 and without padding.

    fused: after the fusion with the words.
    encoded: after the transformer's encoder; queries attend to it, and make their kernels of what they find.
    segmented: what the kernels are applied to. A decoder's map of stride 4 is averaged to stride 8.
    """

    fused: Float[np.ndarray, 'T h w C']
    encoded: Float[np.ndarray, 'T h w C']
    segmented: Float[np.ndarray, 'T h w F']


def read_maps(predictor: Predictor, frames: UInt8[np.ndarray, 'T H W 3'], sentence: str) -> Maps:
    """The maps of an SgMg, which see at most clip_frames frames together: the first ones."""
    frames = frames[: predictor.clip_frames]
    clip = predictor.prepare(frames)
    tokens = text.encode(predictor.tokenizer, [sentence], predictor.text_length)
    maps = _program(predictor.model)(predictor.parameters, clip, tokens)
    height, width = (-(-side // 8) for side in clip.size[0].tolist())
    return Maps(*(np.asarray(x, np.float32)[0, : len(frames), :height, :width] for x in maps))


@functools.lru_cache(maxsize=8)
def _program(model: Any) -> Callable[[Any, types.Clip, types.Text], tuple]:
    def call(module: Any, clip: types.Clip, tokens: types.Text) -> tuple:
        video = module.encode_video(clip)
        fused = module.fuse(video, features.words_of_clips(module.encode_text(tokens), 1))
        memory = module.encode(fused, video, False)
        segmented = features.fold(module.segmented_features(memory, video))
        segmented = features.unfold(resize.bilinear(segmented, memory[0].shape[2:4]), memory[0].shape[1])
        return fused[0], memory[0], segmented

    return compilation.jit(lambda parameters, *arguments: model.apply({'params': parameters}, *arguments, method=call))


def similarities(
    tokens: Float[np.ndarray, 'n C'], anchors: Sequence[int] | np.ndarray
) -> Float[np.ndarray, 'n {len(anchors)}']:
    """Cosine similarities of tokens with some of them, all less their mean.

    They describe tokens alike before and after a layer, whatever its number of channels, and do not change if a layer
    rotates or scales all of them (relative representations, Moschella et al., ICLR 2023).
    """
    centred = tokens - tokens.mean(0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True).clip(1e-12)
    return centred @ centred[anchors].T


def cosine_distance(before: Float[np.ndarray, 'n C'], after: Float[np.ndarray, 'n F']) -> float:
    """Mean over tokens of 1 - cosine of their `similarities` before and after, with the same anchors: 0 to 2."""
    anchors = spread(len(before))
    one, other = similarities(before, anchors), similarities(after, anchors)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(np.mean(1 - (one * other).sum(1) / norms.clip(1e-12)))


def linear_cka(before: Float[np.ndarray, 'n C'], after: Float[np.ndarray, 'n F']) -> float:
    """Linear centred kernel alignment (Kornblith et al., ICML 2019): 1 for the same tokens up to rotation and scale, 0
    for unrelated ones."""
    one, other = (x.astype(np.float64) - x.mean(0, dtype=np.float64) for x in (before, after))
    norms = np.linalg.norm(one.T @ one) * np.linalg.norm(other.T @ other)
    return float(np.square(one.T @ other).sum() / max(norms, 1e-300))


def spread(count: int) -> np.ndarray:
    """Indices of at most ANCHORS of `count` tokens, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(ANCHORS, count)).round().astype(int))


def drift(maps: Maps) -> dict[str, list[float]]:
    """'cosine distance' and 'CKA' between `encoded` and `segmented`, of each frame."""
    pairs = [
        (before.reshape(-1, before.shape[-1]), after.reshape(-1, after.shape[-1]))
        for before, after in zip(maps.encoded, maps.segmented)
    ]
    return {'cosine distance': [cosine_distance(*pair) for pair in pairs], 'CKA': [linear_cka(*pair) for pair in pairs]}


def embed(maps: Maps) -> tuple[Float[np.ndarray, 'n 2'], Float[np.ndarray, 'n 2']]:
    """t-SNE of the tokens before decoding, and the places of the tokens after it in the same map.

    Both are described by their `similarities`. The start is fixed: principal components, seed 0.

    Raises:
        ModuleNotFoundError: openTSNE is not installed.
    """
    import openTSNE

    one, other = (x.reshape(-1, x.shape[-1]) for x in (maps.encoded, maps.segmented))
    anchors = spread(len(one))
    before = openTSNE.TSNE(initialization='pca', random_state=0, n_jobs=1).fit(similarities(one, anchors))
    return np.asarray(before), np.asarray(before.transform(similarities(other, anchors)))


def plot_drift(
    places: Mapping[str, tuple[np.ndarray, np.ndarray]], numbers: Mapping[str, Mapping[str, Sequence[float]]]
) -> 'matplotlib.figure.Figure':
    """A map of tokens for each model, and a line for each over the frames.

    Args:
        places: name of the model -> result of `embed`.
        numbers: name of the model -> mean over films of what `drift` returns.
    """
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(3.6 * len(places) + 3.6, 3.6), layout='constrained')
    *maps, lines = figure.subplots(1, len(places) + 1)
    for axes, (name, (before, after)) in zip(maps, places.items()):
        axes.scatter(*before.T, s=2, color=BEFORE, label='encoded')
        axes.scatter(*after.T, s=2, color=AFTER, label='segmented')
        axes.set_title(name, fontsize=9)
        axes.set(xticks=[], yticks=[])
    maps[0].legend(fontsize=7, markerscale=4)
    for (name, of_model), style in zip(numbers.items(), ('-', '--', ':')):
        lines.plot(of_model['cosine distance'], style, color=AFTER, label=f'{name}, cosine distance')
        lines.plot(of_model['CKA'], style, color='#444444', label=f'{name}, CKA')
    lines.set(xlabel='frame', ylim=(-0.02, 1.3))
    lines.legend(fontsize=6)
    return figure


def strength(fused: Float[np.ndarray, 'T h w C']) -> Float[np.ndarray, 'T h w']:
    """How far each token is from the mean of the film's tokens, as a fraction of the farthest."""
    distance = np.linalg.norm(fused - fused.mean((0, 1, 2)), axis=-1)
    return distance / max(distance.max(), 1e-12)


def contrast(fused: Float[np.ndarray, 'T h w C'], truth: Bool[np.ndarray, 'T H W']) -> float | None:
    """The mean `strength` in the object over that outside; None if there is only one of them."""
    found = strength(fused)
    grid = [
        np.linspace(0, side - 1, cells).round().astype(int) for side, cells in zip(truth.shape[1:], found.shape[1:])
    ]
    inside = truth[: len(found)][:, grid[0][:, None], grid[1]]
    if inside.all() or not inside.any():
        return None
    return float(found[inside].mean() / max(found[~inside].mean(), 1e-12))


def plot_fusion(
    frames: UInt8[np.ndarray, 'T H W 3'],
    truth: Bool[np.ndarray, 'T H W'],
    fused: Mapping[str, Float[np.ndarray, 'T h w C']],
    sentence: str,
    columns: int = 4,
) -> 'matplotlib.figure.Figure':
    """A row of frames, and below it a row of `strength` for each model, with the object's contour."""
    import matplotlib.figure

    length = min(len(x) for x in fused.values())
    shown = np.unique(np.linspace(0, length - 1, columns).round().astype(int))
    height, width = frames.shape[1:3]
    figure = matplotlib.figure.Figure(
        figsize=(1.8 * len(shown) + 0.6, 1.8 * (1 + len(fused)) * height / width + 0.5), layout='constrained'
    )
    grid = figure.subplots(1 + len(fused), len(shown), squeeze=False)
    for row, (name, picture) in zip(grid, {'film': None, **fused}.items()):
        for axes, t in zip(row, shown):
            extent = -0.5, width - 0.5, height - 0.5, -0.5
            if picture is None:
                axes.imshow(frames[t], extent=extent)
            else:
                axes.imshow(strength(picture)[t], vmin=0, vmax=1, cmap='viridis', extent=extent)
            if truth[t].any() and not truth[t].all():
                axes.contour(truth[t], levels=[0.5], colors=['white'], linewidths=0.8)
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, fontsize=9)
    figure.suptitle(sentence, fontsize=9)
    return figure
