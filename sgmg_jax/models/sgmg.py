"""SgMg: Spectrum-guided Multi-granularity Referring Video Object Segmentation (Miao et al., ICCV 2023).

Axis letters: B clips, T frames, E sentences per clip, N = B E sentences, clip by clip, H W pixels, h w a feature map,
C channels, F of the segmented features, Q queries, L tokens, D decoder layers, K the last of them, whose chosen query
is optimised, P = 16 positions of a patch.
"""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sgmg_jax import types
from sgmg_jax.models import features, roberta, video_swin
from sgmg_jax.models.deformable_transformer import DeformableTransformer
from sgmg_jax.models.features import fold, unfold
from sgmg_jax.models.layers import dense, rare
from sgmg_jax.models.mask_features import FeaturePyramid
from sgmg_jax.models.mask_optimizer import MaskOptimizer
from sgmg_jax.models.patch_kernels import PatchKernels, mask_features
from sgmg_jax.models.spectral_fusion import AUGMENTATIONS, WordFusion, Words, augment, augmentations
from sgmg_jax.ops import dynamic_conv, positions, resize
from sgmg_jax.types import ArrayLike

SMALLEST_LEVEL = 3  # cells per side: the spectrum augmentation's 3x3 convolution is not padded


class SgMg(nn.Module):
    """Four steps, named as in the paper; `__call__` runs them in order.

    Attributes (the defaults are the released model's):
      backbone, text_encoder: sizes of the two encoders.
      hidden: channels of features and queries.
      queries: candidates per sentence.
      levels: 3 (strides 8, 16, 32) or 4 (and 64).
      heads, points, encoder_layers, decoder_layers, mlp, box_refinement: see DeformableTransformer.
      relative_coordinates: see PatchKernels.
      fusion: a key of models.spectral_fusion.AUGMENTATIONS: 'spectrum'; or without the spectrum, 'attention', plain
        cross-attention, or 'convolution' or 'linear' layers in the spectrum's place.
      labels: that each token of the mask features gets: 16, a patch, or 1, as with plain conditional kernels.
      optimizer: refine the masks (section 3.4). Without it, masks are resized to full resolution.
      feature_decoder: decode the features to stride 4 before they are segmented, by SOC's pyramid. Without optimizer.
      dropout: of the transformer and the text projections.
      text_dropout: of the text encoder.
      drop_path: of the backbone.
      remat: what the backward pass computes again, 'nothing', 'hidden' or 'blocks', see chunks.check_remat.
      dtype: of the activations; parameters, spectra and sampling locations stay float32.
    """

    conventions = features.Conventions(frames=video_swin.WINDOW[0], pixels=16)
    backbone: video_swin.Size = video_swin.SIZES['tiny']
    text_encoder: roberta.Size = roberta.SIZES['base']
    hidden: int = 256
    queries: int = 5
    levels: int = 4
    heads: int = 8
    points: int = 4
    encoder_layers: int = 4
    decoder_layers: int = 4
    mlp: int = 2048
    box_refinement: bool = True
    relative_coordinates: bool = True
    fusion: str = 'spectrum'
    labels: int = dynamic_conv.P
    optimizer: bool = True
    feature_decoder: bool = False
    dropout: float = 0.1
    text_dropout: float = 0.1
    drop_path: float = 0.2
    remat: str = 'hidden'
    dtype: Any = jnp.float32

    def setup(self) -> None:
        dtype = self.dtype
        self._check_switches()
        self.video_encoder = video_swin.VideoSwin(self.backbone, self.drop_path, self.remat, dtype)
        self.text_backbone = roberta.Roberta(self.text_encoder, self.text_dropout, dtype)
        self.word_projection = features.TextProjection(self.hidden, self.dropout, dtype)
        self.sentence_projection = features.TextProjection(self.hidden, self.dropout, dtype)

        self.projections, self.projection_norms = features.projection_layers(self.hidden, self.levels, dtype)
        self.augment_before = augmentations(self.fusion, self.levels, dtype)
        self.word_attention = WordFusion(self.heads, dtype)
        self.augment_after = augmentations(self.fusion, self.levels, dtype)

        self.query_embedding = self.param('query_embedding', nn.initializers.normal(1.0), (self.queries, self.hidden))
        self.transformer = DeformableTransformer(
            self.hidden,
            self.levels,
            self.mlp,
            self.heads,
            self.points,
            self.encoder_layers,
            self.decoder_layers,
            self.dropout,
            self.box_refinement,
            self.remat,
            dtype,
        )
        self.class_heads = [dense(1, self.hidden, bias_init=rare) for _ in range(self.decoder_layers)]
        stride, kernels = 4 if self.feature_decoder else dynamic_conv.STRIDE, (dynamic_conv.P, self.labels)
        if self.feature_decoder:
            self.feature_pyramid = FeaturePyramid(dtype=dtype)
        self.patch_kernels = PatchKernels(self.relative_coordinates, kernels, stride, dtype)
        if self.optimizer:
            self.mask_optimizer = MaskOptimizer(dtype)

    def __call__(
        self,
        clip: types.Clip,
        text: types.Text,
        select: Callable[[types.Proposals], Int[Array, 'K N']],
        train: bool = False,
    ) -> tuple[types.Proposals, Int[Array, 'K N'], types.Predictions]:
        """From clips and sentences to proposals, and the masks of the selected ones.

        Args:
          clip: H and W are multiples of 16 (of 32 in training).
          text: the same number of sentences for every clip.
          select: selects a query for each of the last K decoder layers: the best score at
            inference, the match to the target in training.
          train: dropout on; needs the random stream 'dropout'.

        Returns:
          all proposals; the indices of the selected queries; their predictions [K N T ...].
        """
        proposals, query, predictions = features.four_steps(self, clip, text, select, train)
        if train and not self.optimizer:  # nothing to supervise
            predictions = dataclasses.replace(predictions, masks=None)
        return proposals, query, predictions

    def encode_video(self, clip: types.Clip, train: bool = False) -> features.VideoFeatures:
        """Everything that does not depend on the sentence (sections 3.1, 3.2)."""
        self._check_size(clip.frames.shape[2:4])
        maps, valid = features.backbone_maps(self.video_encoder, clip, train)
        projected = features.project(maps, self.projections, self.projection_norms)
        levels = [unfold(x, frames=valid.shape[1]) for x in augment(projected, self.augment_before)]
        return features.VideoFeatures.of(levels, valid, maps, clip.size)

    def encode_text(self, text: types.Text, train: bool = False) -> features.TextFeatures:
        """Word and sentence features, projected to the hidden size (section 3.1)."""
        words, sentence = self.text_backbone(text, train)
        return features.TextFeatures(
            self.word_projection(words, train), text.valid, self.sentence_projection(sentence, train)
        )

    def segment(
        self, video: features.VideoFeatures, text: features.TextFeatures, train: bool = False
    ) -> types.Proposals:
        """Proposals of every decoder layer (sections 3.2, 3.3)."""
        video = features.repeat_for_sentences(video, text)
        fused = self.fuse(video, features.words_of_clips(text, len(video.size)))
        memory = self.encode(fused, video, train)
        return self.propose(memory, video, self.query_content(text, memory), train)

    def fuse(self, video: features.VideoFeatures, words: Words) -> list[Float[ArrayLike, 'B T _h _w C']]:
        """The levels after spectrum-guided cross-modal fusion (section 3.2)."""
        levels = [fold(self.word_attention(x, words)) for x in video.levels]
        return [unfold(x, video.valid[0].shape[1]) for x in augment(levels, self.augment_after)]

    def encode(
        self, levels: Sequence[Float[ArrayLike, 'B T _h _w C']], video: features.VideoFeatures, train: bool
    ) -> list[Float[ArrayLike, 'B T _h _w C']]:
        """The fused levels after the transformer's encoder."""
        valid = [fold(v) for v in video.valid]
        where = [positions.sine_2d(v, self.hidden) for v in valid]
        memory = self.transformer.encode([fold(x) for x in levels], valid, where, train)
        return [unfold(x, video.valid[0].shape[1]) for x in memory]

    def query_content(
        self, text: features.TextFeatures, memory: Sequence[Float[ArrayLike, '_ T _h _w C']]
    ) -> Float[Array, 'N T Q C']:
        """The queries' initial content: the sentence feature."""
        return jnp.broadcast_to(
            text.sentence[:, None, None], (len(text.sentence), memory[0].shape[1], *self.query_embedding.shape)
        )

    def propose(
        self,
        memory: Sequence[Float[ArrayLike, 'N T _h _w C']],
        video: features.VideoFeatures,
        content: Float[ArrayLike, 'N T Q C'],
        train: bool,
    ) -> types.Proposals:
        """Proposals of every decoder layer: each sentence's queries attend to its memory and generate their conditional
        patch kernels (section 3.3).

        Args:
          memory: encoded levels.
          video: one copy per sentence.
          content: the queries' initial content.
          train: dropout on.
        """
        sentences, frames = content.shape[:2]
        states, boxes, points = self.transformer.decode(
            [fold(x) for x in memory], [fold(v) for v in video.valid], fold(content), self.query_embedding, train
        )
        states, boxes, points = (x.reshape(-1, sentences, frames, *x.shape[2:]) for x in (states, boxes, points))
        scores = jnp.stack([head(x)[..., 0] for head, x in zip(self.class_heads, states.astype(jnp.float32))])
        finest = self.segmented_features(memory, video)
        return types.Proposals(scores, boxes, self.patch_kernels(states, points, finest, video.size))

    def segmented_features(
        self, memory: Sequence[Float[ArrayLike, 'N T _h _w C']], video: features.VideoFeatures
    ) -> Float[ArrayLike, 'N T h w F']:
        """What the kernels are applied to: the encoded levels' sum at stride 8, or decoded features of stride 4."""
        maps = [fold(x) for x in memory[:3]]
        decoded = self.feature_pyramid(maps, fold(video.stride4)) if self.feature_decoder else mask_features(maps)
        return unfold(decoded, memory[0].shape[1])

    def optimize(
        self, patch_masks: Float[ArrayLike, 'K N T h w P'], video: features.VideoFeatures
    ) -> Float[Array, 'K N T H W']:
        """Mask logits at full resolution, refined if there is an optimizer (section 3.4)."""
        layers, sentences, frames, *patches = patch_masks.shape
        clips = len(video.size)
        # Groups all masks of a frame, as they share its features; clips come first, as they are split over devices.
        x = patch_masks.reshape(layers, clips, -1, frames, *patches)
        x = jnp.moveaxis(x, (1, 3), (0, 1)).reshape(clips * frames, -1, *patches)
        refined = self.mask_optimizer(x, fold(video.stride8), fold(video.stride4)) if self.optimizer else x
        masks = dynamic_conv.pixel_shuffle(refined)
        full = 4 * video.stride4.shape[2], 4 * video.stride4.shape[3]
        if masks.shape[2:] != full:
            masks = jnp.asarray(resize.bilinear(masks[..., None], full))[..., 0]
        masks = jnp.moveaxis(masks.reshape(clips, frames, layers, -1, *masks.shape[2:]), (0, 1), (1, 3))
        return masks.reshape(layers, sentences, frames, *masks.shape[4:]).astype(jnp.float32)

    def _check_switches(self):
        for field, choices in (('fusion', tuple(AUGMENTATIONS)), ('labels', (1, dynamic_conv.P))):
            if getattr(self, field) not in choices:
                raise ValueError(f'{field} = {getattr(self, field)!r}: must be one of {", ".join(map(str, choices))}.')
        if self.feature_decoder and self.optimizer:
            raise ValueError(
                'feature_decoder = True and optimizer = True: the optimizer refines masks of encoded features, of '
                'stride 8, not of decoded ones. Set one of them to False.'
            )

    def _check_size(self, size):
        smallest = -(-min(size) // 32)
        if self.levels == 4:
            smallest = (smallest - 1) // 2 + 1
        if smallest < SMALLEST_LEVEL:
            least = {3: 65, 4: 129}[self.levels]
            raise ValueError(
                f'frames of {size[0]}x{size[1]} pixels are too small for levels = {self.levels}: '
                f'each side must be at least {least}. Use larger frames'
                f'{" or levels = 3" if self.levels == 4 else ""}.'
            )
