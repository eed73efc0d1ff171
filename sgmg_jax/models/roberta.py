"""RoBERTa (Liu et al., 2019), the text encoder. Axis letters: N sentences, L tokens, C channels."""

import dataclasses
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from sgmg_jax.models.in_turn import in_turn
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

        def one_layer(modules, x, _):
            attention, attention_dropout, attention_norm, mlp_in, mlp_out, mlp_dropout, mlp_norm = modules
            x = attention_norm(x + attention_dropout(attention(x, mask=mask)))
            y = mlp_out(nn.gelu(mlp_in(x), approximate=False))
            return mlp_norm(x + mlp_dropout(y)), None

        x, _ = in_turn(self, one_layer, [self._layer(f'layer{i}', train) for i in range(size.layers)], x)
        # Initialised as by Hugging Face, as in the authors' code: files of the masked-language model have no pooler.
        sentence = nn.Dense(size.channels, dtype=self.dtype, kernel_init=nn.initializers.normal(0.02), name='pooler')(
            x[:, 0]
        )
        return x, jnp.tanh(sentence)

    def _layer(self, name, train):
        size = self.size
        attention = nn.MultiHeadDotProductAttention(
            size.heads,
            dtype=self.dtype,
            dropout_rate=self.dropout,
            broadcast_dropout=False,
            deterministic=not train,
            force_fp32_for_softmax=True,
            name=f'{name}_attention',
        )
        return (
            attention,
            nn.Dropout(self.dropout, deterministic=not train),
            self._norm(f'{name}_attention_norm'),
            nn.Dense(size.mlp, dtype=self.dtype, name=f'{name}_mlp_in'),
            nn.Dense(size.channels, dtype=self.dtype, name=f'{name}_mlp_out'),
            nn.Dropout(self.dropout, deterministic=not train),
            self._norm(f'{name}_mlp_norm'),
        )

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
