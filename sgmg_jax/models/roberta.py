"""RoBERTa (Liu et al., 2019), the text encoder. Axis letters: N sentences, L tokens, C channels."""

import dataclasses
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from sgmg_jax.types import Text

PADDING_ID = 1


@dataclasses.dataclass(frozen=True)
class Size:
    """Sizes as in Hugging Face's configuration; `positions` includes the two that precede the first token's."""

    vocabulary: int
    channels: int
    layers: int
    heads: int
    mlp: int
    positions: int
    epsilon: float = 1e-5


SIZES = {
    'base': Size(vocabulary=50265, channels=768, layers=12, heads=12, mlp=3072, positions=514),
    'demo': Size(vocabulary=512, channels=64, layers=2, heads=4, mlp=128, positions=42),
}


class Roberta(nn.Module):
    """Tokens -> word features (last hidden state) and sentence feature (the pooler's).

    Attributes:
      size: widths and depths.
      dropout: of embeddings, attention and every layer. The authors keep it on in training
        although the encoder is frozen.
      dtype: of the activations.
    """

    size: Size
    dropout: float = 0.1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, text: Text, train: bool = False) -> tuple[Float[Array, 'N L C'], Float[Array, 'N C']]:
        size = self.size
        dropout = nn.Dropout(self.dropout, deterministic=not train)
        length = text.tokens.shape[-1]
        if length + PADDING_ID + 1 > size.positions:
            raise ValueError(
                f'{length} tokens per sentence need {length + PADDING_ID + 1} positions; this text '
                f'encoder has {size.positions}. Lower text_length or enlarge positions.'
            )
        x = self._embed(text.tokens, text.valid)
        x = dropout(self._norm('embedding_norm')(x))
        mask = text.valid[:, None, None, :]
        for i in range(size.layers):
            attended = nn.MultiHeadDotProductAttention(
                size.heads,
                dtype=self.dtype,
                dropout_rate=self.dropout,
                broadcast_dropout=False,
                deterministic=not train,
                force_fp32_for_softmax=True,
                name=f'layer{i}_attention',
            )(x, mask=mask)
            x = self._norm(f'layer{i}_attention_norm')(x + dropout(attended))
            y = nn.Dense(size.mlp, dtype=self.dtype, name=f'layer{i}_mlp_in')(x)
            y = nn.Dense(size.channels, dtype=self.dtype, name=f'layer{i}_mlp_out')(nn.gelu(y, approximate=False))
            x = self._norm(f'layer{i}_mlp_norm')(x + dropout(y))
        # Initialised as by Hugging Face, as in the authors' code: files of the masked-language model have no pooler.
        sentence = nn.Dense(size.channels, dtype=self.dtype, kernel_init=nn.initializers.normal(0.02), name='pooler')(
            x[:, 0]
        )
        return x, jnp.tanh(sentence)

    def _norm(self, name):
        return nn.LayerNorm(epsilon=self.size.epsilon, dtype=self.dtype, name=name)

    def _embed(self, tokens, valid):
        size = self.size

        # Trained from scratch, a token's embedding is at first mostly its word's: positions are small, kinds zero.
        def table(rows, name, scale):
            return nn.Embed(
                rows, size.channels, embedding_init=nn.initializers.normal(scale), dtype=self.dtype, name=name
            )

        # Positions of real tokens start at 2; padding has the padding id's.
        positions = jnp.where(valid, jnp.cumsum(valid, axis=-1) + PADDING_ID, PADDING_ID)
        kinds = jnp.zeros_like(tokens)
        return (
            table(size.vocabulary, 'words', 1.0)(tokens)
            + table(1, 'kinds', 0.0)(kinds)
            + table(size.positions, 'positions', 0.1)(positions)
        )
