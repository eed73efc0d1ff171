"""SOC: Semantic-assisted Object Cluster for Referring Video Object Segmentation (Luo et al., NeurIPS 2023).

Axis letters: B clips, T frames, E sentences per clip, N = B E sentences, clip by clip, H W pixels, h w the stride-4
map, C channels, Q queries, L tokens, D decoder layers, K the last of them, whose query is selected.
"""

from collections.abc import Callable
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sgmg_jax import types
from sgmg_jax.models import features, roberta, video_swin
from sgmg_jax.models.deformable_transformer import DeformableTransformer
from sgmg_jax.models.features import fold, unfold
from sgmg_jax.models.layers import dense, rare
from sgmg_jax.models.mask_features import FeaturePyramid
from sgmg_jax.models.multimodal_fusion import DIRECTIONS, MultimodalFusion
from sgmg_jax.models.object_cluster import AGGREGATIONS, ObjectCluster
from sgmg_jax.models.patch_kernels import PatchKernels
from sgmg_jax.ops import positions
from sgmg_jax.types import ArrayLike

MASK_CHANNELS = 8
MASK_LAYERS = 8, 8, 1  # channels of the pointwise convolutions that a query generates
MASK_STRIDE = 4

CHOICES = {
    'fusion_direction': tuple(DIRECTIONS),
    'aggregation': ('cluster', *AGGREGATIONS),
    'inference_layer': ('first', 'last'),
    'contrast_scale': ('channels', 'root'),
}


class SOC(nn.Module):
    """The same four steps as models.sgmg.SgMg; `optimize` refines nothing.

    Attributes (the released weights need the defaults):
      backbone, text_encoder, hidden, levels, heads, points, encoder_layers, decoder_layers, mlp, dropout, text_dropout,
        drop_path, remat, dtype: as in SgMg.
      queries: per frame, and per video.
      fusion_direction: which modality receives the other: 'both', 'to_vision', 'to_language' or 'none'.
      aggregation: what makes video queries of those of the frames: 'cluster', or in its place 'k-means' or
        'convolution', over time.
      cluster_encoder_layers, cluster_decoder_layers, cluster_mlp, cluster_window: see models.object_cluster. Without
        decoder layers, the encoded queries are averaged over time; without any layers, this is a plain average.
      classes: number of object classes; a query's score in a frame is its largest class logit. Training needs 1.
      inference_layer: decoder layer whose heads are used at inference: 'first', as in the released code, or 'last'.
        Nothing in the paper suggests the first.
      padding_is_content: at inference, norms and convolutions see padded pixels, too, as in the release; which however
        pads nothing then, as it evaluates one clip at a time. In training they always do.
      contrast_scale: divisor of the similarity of video queries and guidance in the contrastive loss: 'channels', their
        number, as in the released code, or 'root', its square root, as in the paper.
    """

    backbone: video_swin.Size = video_swin.SIZES['tiny']
    text_encoder: roberta.Size = roberta.SIZES['base']
    hidden: int = 256
    queries: int = 20
    levels: int = 4
    heads: int = 8
    points: int = 4
    encoder_layers: int = 3
    decoder_layers: int = 3
    mlp: int = 2048
    fusion_direction: str = 'both'
    aggregation: str = 'cluster'
    cluster_encoder_layers: int = 3
    cluster_decoder_layers: int = 3
    cluster_mlp: int = 2048
    cluster_window: int = 0
    classes: int = 1
    inference_layer: str = 'first'
    contrast_scale: str = 'channels'
    padding_is_content: bool = False
    dropout: float = 0.1
    text_dropout: float = 0.1
    drop_path: float = 0.2
    remat: str = 'hidden'
    dtype: Any = jnp.float32

    def setup(self) -> None:
        for field, choices in CHOICES.items():
            if getattr(self, field) not in choices:
                raise ValueError(f'{field} = {getattr(self, field)!r}: must be one of {", ".join(choices)}.')
        if self.hidden % 128:
            raise ValueError(
                f'hidden = {self.hidden}: must be a multiple of 128 for SOC, as its feature pyramid '
                'normalises hidden / 16 channels in 8 groups.'
            )
        dtype = self.dtype
        self.video_encoder = video_swin.VideoSwin(self.backbone, self.drop_path, self.remat, dtype)
        self.text_backbone = roberta.Roberta(self.text_encoder, self.text_dropout, dtype)
        self.text_projection = features.TextProjection(self.hidden, self.dropout, dtype, start=None)
        self.projections, self.projection_norms = features.projection_layers(self.hidden, self.levels, dtype)
        self.fusion = MultimodalFusion(self.heads, dtype, self.fusion_direction)
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
            remat=self.remat,
            dtype=dtype,
        )
        self.object_cluster = ObjectCluster(  # its queries are added to those of the frames
            self.queries,
            self.cluster_encoder_layers,
            self.cluster_decoder_layers,
            self.heads,
            self.cluster_mlp,
            self.cluster_window,
            self.dropout,
            dtype,
            self.aggregation,
        )
        self.class_heads = [dense(self.classes, self.hidden, bias_init=rare) for _ in range(self.decoder_layers)]
        self.feature_pyramid = FeaturePyramid(MASK_CHANNELS, dtype)
        self.patch_kernels = PatchKernels(layers=MASK_LAYERS, stride=MASK_STRIDE, dtype=dtype)

    @property
    def conventions(self) -> features.Conventions:
        """At inference padded pixels affect nothing, and padded frames only the object cluster's windows, which they
        would shift."""
        return features.Conventions(
            frames=1 if self.cluster_window else video_swin.WINDOW[0],
            pixels=1,
            shared=1 if self.padding_is_content else 128,
            mask_stride=MASK_STRIDE,
            annotated_in_the_middle=True,
            cut_before_resizing=True,
        )

    def __call__(
        self,
        clip: types.Clip,
        text: types.Text,
        select: Callable[[types.Proposals], Int[Array, 'K N']],
        train: bool = False,
    ) -> tuple[types.Proposals, Int[Array, 'K N'], types.Predictions]:
        """As SgMg.__call__, for frames of any size; masks are at stride 4."""
        return features.four_steps(self, clip, text, select, train)

    def encode_video(self, clip: types.Clip, train: bool = False) -> features.VideoFeatures:
        """Everything that does not depend on the sentence."""
        size = self._without_padding(clip.size, train)
        maps, valid = features.backbone_maps(self.video_encoder, clip, train, size)
        projected = features.project(maps, self.projections, self.projection_norms, size)
        levels = [unfold(x, frames=valid.shape[1]) for x in projected]
        return features.VideoFeatures.of(levels, valid, maps, clip.size, size)

    def encode_text(self, text: types.Text, train: bool = False) -> features.TextFeatures:
        """Word and sentence features; both go through the same projection."""
        words, sentence = self.text_backbone(text, train)
        return features.TextFeatures(
            self.text_projection(words, train), text.valid, self.text_projection(sentence, train)
        )

    def segment(
        self, video: features.VideoFeatures, text: features.TextFeatures, train: bool = False
    ) -> types.Proposals:
        """Proposals of every decoder layer in training, of `inference_layer` otherwise."""
        if train and self.classes > 1:
            raise ValueError(
                f'classes = {self.classes}: can be evaluated, but not trained, as records have no object '
                'classes. Set config.model.classes = 1.'
            )
        video = features.repeat_for_sentences(video, text)
        sentences, frames = video.valid[0].shape[:2]
        words = features.words_of_clips(text, sentences)
        fused, guidance = self.fusion(video.levels, video.valid, words)

        valid = [fold(x) for x in video.valid]
        memory = self.transformer.encode(
            [fold(x) for x in fused], valid, [positions.sine_2d(x, self.hidden) for x in valid], train
        )
        content = jnp.zeros((sentences * frames, *self.query_embedding.shape))  # queries differ only in their embedding
        states, boxes, points = self.transformer.decode(memory, valid, content, self.query_embedding, train)
        starts = [self.transformer.first_reference(self.query_embedding), *jax.lax.stop_gradient(boxes[:-1])]

        def by_sentence(x):
            """[D (N T) ...] -> [D N T ...]"""
            return x.reshape(-1, sentences, frames, *x.shape[2:])

        states, points = by_sentence(states), by_sentence(points)
        real_frames = jnp.any(video.valid[0], axis=(2, 3))
        cluster = self.object_cluster(states if train else states[-1:], real_frames, text.sentence, train)
        layers = range(self.decoder_layers)
        if not train and not self.is_initializing():
            layers = layers[:1] if self.inference_layer == 'first' else layers[-1:]
        states = states[layers.start : layers.stop] + cluster[:, :, None]
        scores = jnp.stack([self.class_heads[i](x) for i, x in zip(layers, states.astype(jnp.float32))])
        boxes = jnp.stack([self.transformer.box(i, x, starts[i]) for i, x in zip(layers, map(fold, states))])
        frame_size = features.of_frames(self._without_padding(video.size, train), frames)
        pixels = unfold(self.feature_pyramid(memory[:3], fold(video.stride4), frame_size), frames)
        masks = self.patch_kernels(states, points[layers.start : layers.stop], pixels, video.size)
        return types.Proposals(
            scores.max(-1), by_sentence(boxes), masks, alignment(cluster, guidance, self.contrast_scale)
        )

    def _without_padding(self, size, train):
        """The frames' size, if what pads them must not be seen; None otherwise."""
        return None if train or self.padding_is_content else size

    def optimize(
        self, mask_logits: Float[ArrayLike, 'K N T h w 1'], video: features.VideoFeatures
    ) -> Float[ArrayLike, 'K N T h w']:
        """The mask logits themselves: nothing is refined."""
        return mask_logits[..., 0].astype(jnp.float32)


def alignment(
    video_queries: Float[ArrayLike, 'D N Q C'], guidance: Float[ArrayLike, 'N C'], scale: str
) -> Float[Array, 'D N Q']:
    """Similarity of each video query and the guidance; for `scale` see SOC.contrast_scale."""
    similarity = jnp.einsum('dnqc,nc->dnq', video_queries.astype(jnp.float32), guidance.astype(jnp.float32))
    channels = guidance.shape[-1]
    return similarity / (channels if scale == 'channels' else channels**0.5)
