"""Fast SgMg: all sentences of a clip in one pass (SgMg, section 3.5).

From the paper: multi-instance fusion (eq. 4 and 5: spectrum augmentation, attention to each sentence's words, the sum
of the results, Hadamard product, spectrum augmentation), one encoder pass for all sentences, multi-instance decoupling
by cross-attention between the encoded features and each sentence's words, and then, per sentence, instance queries,
decoder, conditional patch kernels and optimizer.

The paper does not specify the form of the decoupling, and its authors never released the code. These choices are
ours: that form (DECOUPLINGS; docs/results.md has the scores that chose the default), word positions in the keys only,
self-attention only between queries of one sentence, and how sentences are sampled in training (data/pipeline.py).

Axis letters: as in sgmg.py.
"""

from collections.abc import Sequence
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Bool, Float

from sgmg_jax import types
from sgmg_jax.models import features
from sgmg_jax.models.layers import xavier
from sgmg_jax.models.sgmg import SgMg
from sgmg_jax.models.spectral_fusion import WordAttention, Words
from sgmg_jax.types import ArrayLike

DECOUPLINGS = 'residual', 'product', 'words', 'queries', 'none'


class FastSgMg(SgMg):
    """SgMg with a decoupling between the transformer's encoder and its decoder; SgMg's weights fit.

    A sentence's masks depend on the other sentences only through the shared memory.

    Attributes:
      decoupling: how the shared memory M is adapted to each sentence. Per-sentence memories, with A = attention of
        each pixel of M to the sentence's words: 'residual', M (1 + A); 'product', M A, the fusion's own form. Or one
        memory for all, and per-sentence queries: 'words', each word attends to the memory of a frame, and the mean of
        the results is added to the queries' content; 'queries', each query attends to the memory, with its sentence;
        'none', only the sentence feature, as in SgMg.
    """

    decoupling: str = 'residual'

    def setup(self) -> None:
        super().setup()
        if self.decoupling not in DECOUPLINGS:
            raise ValueError(f'decoupling = {self.decoupling!r}: must be one of {", ".join(DECOUPLINGS)}.')
        self.decouple = Decoupling(self.decoupling, self.heads, self.dtype)

    def segment(
        self, video: features.VideoFeatures, text: features.TextFeatures, train: bool = False
    ) -> types.Proposals:
        """As SgMg.segment; sentences with no valid tokens are ignored."""
        words = features.words_of_clips(text, len(video.size))
        shared = self.encode(self.fuse(video, words), video, train)
        memory, content = self.decouple(
            shared, video.valid, words, self.query_content(text, shared), self.query_embedding
        )
        return self.propose(memory, features.repeat_for_sentences(video, text), content, train)


class Decoupling(nn.Module):
    """See FastSgMg.decoupling."""

    form: str
    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        memory: Sequence[Float[ArrayLike, 'B T _h _w C']],
        valid: Sequence[Bool[ArrayLike, 'B T _h _w']],
        words: Words,
        content: Float[ArrayLike, 'N T Q C'],
        query_embedding: Float[ArrayLike, 'Q C'],
    ) -> tuple[list[Float[ArrayLike, 'N T _h _w C']], Float[ArrayLike, 'N T Q C']]:
        """The shared memory's levels and the queries' content -> each sentence's own."""
        clips, sentences = words.valid.shape[:2]
        if self.form in ('residual', 'product'):
            word_attention = WordAttention(self.heads, self.dtype, name='attention')
            own = [word_attention(x, words) for x in memory]  # B E T h w C
            if self.form == 'residual':
                own = [1 + x for x in own]
            return [(x[:, None] * y).reshape(-1, *x.shape[1:]) for x, y in zip(memory, own)], content

        if self.form != 'none':
            attention = nn.MultiHeadDotProductAttention(
                self.heads, dtype=self.dtype, kernel_init=xavier, force_fp32_for_softmax=True, name='attention'
            )
            flat, flat_valid = (
                jnp.concatenate([x.reshape(*x.shape[:2], -1, *x.shape[4:]) for x in maps], axis=2)
                for maps in (memory, valid)
            )  # B T S C
            frames = flat.shape[1]
            if self.form == 'words':
                askers = jnp.broadcast_to(
                    (words.features + words.positions)[:, None], (clips, frames, *words.features.shape[1:])
                )  # B T E L C
            else:
                askers = jnp.add(content, query_embedding)
                askers = askers.reshape(clips, sentences, *content.shape[1:]).swapaxes(1, 2)  # B T E Q C
            read = (
                attention(askers.reshape(clips, frames, -1, askers.shape[-1]), flat, mask=flat_valid[:, :, None, None])
                .reshape(askers.shape)
                .swapaxes(1, 2)
            )
            if self.form == 'words':
                real = words.valid[:, :, None, :, None]  # B E 1 L 1
                read = (read * real).sum(3, keepdims=True) / real.sum(3, keepdims=True).clip(1)
            content = content + read.reshape(-1, *read.shape[2:])
        return [jnp.repeat(x, sentences, axis=0) for x in memory], content
