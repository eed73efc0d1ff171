"""Fast SgMg: all sentences asked of a clip in one pass (SgMg, section 3.5).

From the paper: multi-instance fusion (eq. 4 and 5: spectrum augmentation, attention to each sentence's words, the sum
of the answers, Hadamard product, spectrum augmentation), one encoder pass for all sentences, multi-instance decoupling
by cross-attention between the encoded features and each sentence's words, and then, for each sentence by itself,
instance queries, decoder, conditional patch kernels and optimizer.

The paper is silent on the form of the decoupling, and its authors never released the code. Ours are: that form
(DECOUPLINGS; the README has the scores that chose the default), words' positions in the keys alone, queries that see
only those of their own sentence, and how sentences are drawn in training (data/pipeline.py).

Axis letters: as in sgmg.py.
"""
import typing
from typing import Any, Literal

from flax import linen as nn
import jax.numpy as jnp

from sgmg_jax.models import features
from sgmg_jax.models.layers import xavier
from sgmg_jax.models.sgmg import SgMg
from sgmg_jax.models.spectral_fusion import WordAttention

Form = Literal['residual', 'product', 'words', 'queries', 'none']
DECOUPLINGS = typing.get_args(Form)


class FastSgMg(SgMg):
    """As SgMg, whose weights fit, with a decoupling between the transformer's encoder and its decoder.

    The masks of a sentence depend on the other sentences through the memory that all share, and only so.

    Attributes:
      decoupling: what makes the shared memory a sentence's own, M being the memory and A what each of its pixels reads
        from the sentence's words: 'residual', M (1 + A); 'product', M A, the fusion's own form. Or what tells the
        queries their sentence, the memory being the same for all: 'words', each word reads from the memory of a frame,
        and the mean of what they read joins the queries' content; 'queries', each query does, asking with its
        sentence; 'none', nothing but the sentence feature that SgMg's queries have, too.
    """
    decoupling: Form = 'residual'

    def setup(self):
        super().setup()
        if self.decoupling not in DECOUPLINGS:
            raise ValueError(f'decoupling = {self.decoupling!r}: there is only {", ".join(DECOUPLINGS)}.')
        self.decouple = Decoupling(self.decoupling, self.heads, self.dtype)

    def segment(self, video, text, train=False):
        """As SgMg.segment; a sentence without valid tokens takes no part."""
        words = features.words_of_clips(text, len(video.size))
        shared = self.fuse(video, words, train)
        memory, content = self.decouple(shared, video.valid, words, self.query_content(text, shared),
                                        self.query_embedding)
        return self.propose(memory, features.repeat_for_sentences(video, text), content, train)


class Decoupling(nn.Module):
    """See FastSgMg.decoupling."""
    form: Form
    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, memory, valid, words, content, query_embedding):
        """memory [B T h w C] of each level, their masks [B T h w], spectral_fusion.Words, the queries' content
        [N T Q C] and embedding [Q C] -> memory [N T h w C] of each level, content [N T Q C]."""
        clips, sentences = words.valid.shape[:2]
        if self.form in ('residual', 'product'):
            attention = WordAttention(self.heads, self.dtype, name='attention')
            own = [attention(x, words) for x in memory]  # B E T h w C
            if self.form == 'residual':
                own = [1 + x for x in own]
            memory = [(x[:, None] * y).reshape(-1, *x.shape[1:]) for x, y in zip(memory, own)]
            return memory, content

        if self.form != 'none':
            attention = nn.MultiHeadDotProductAttention(
                self.heads, dtype=self.dtype, kernel_init=xavier, force_fp32_for_softmax=True,
                name='attention')
            flat, flat_valid = (jnp.concatenate([x.reshape(*x.shape[:2], -1, *x.shape[4:]) for x in maps], axis=2)
                                for maps in (memory, valid))  # B T S C
            frames = flat.shape[1]
            if self.form == 'words':
                asking = jnp.broadcast_to((words.features + words.positions)[:, None],
                                          (clips, frames, *words.features.shape[1:]))  # B T E L C
            else:
                asking = content + query_embedding
                asking = asking.reshape(clips, sentences, *content.shape[1:]).swapaxes(1, 2)  # B T E Q C
            read = attention(asking.reshape(clips, frames, -1, asking.shape[-1]), flat,
                             mask=flat_valid[:, :, None, None]).reshape(asking.shape).swapaxes(1, 2)
            if self.form == 'words':
                real = words.valid[:, :, None, :, None]  # B E 1 L 1
                read = (read * real).sum(3, keepdims=True) / real.sum(3, keepdims=True).clip(1)
            content = content + read.reshape(-1, *read.shape[2:])
        return [jnp.repeat(x, sentences, axis=0) for x in memory], content
