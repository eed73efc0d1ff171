"""A2D-Sentences (Gavrilyuk et al., CVPR 2018) as array_record: one record a video.

    python -m datasets.build a2d_sentences --raw=<where Release/ text_annotations/ lie> --out=data/tfds

Only three to five frames of a video are annotated, and an instance may be away from some of them: `mask_places` in
metadata.json says whose mask in which frame each of a record's masks is. The film is kept as it is and its frames
are decoded when they are asked for.
"""
import io
import pathlib

from absl import logging
import numpy as np
import tensorflow_datasets as tfds

from datasets.a2d_sentences import raw


class A2dSentences(tfds.core.GeneratorBasedBuilder):
    """Videos of actors and actions, sentences that each refer to one instance, its masks in a few frames."""
    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'One record a video.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'Download the clips of A2D and the text annotations (a2d_annotation.txt, a2d_missed_videos.txt, '
        'a2d_annotation_with_instances.zip) from the pages of A2D and A2D-Sentences, and unpack them into Release/ '
        'and text_annotations/ of one folder.')

    def __init__(self, *, skip_bad_videos: bool = False, **kwargs):
        """skip_bad_videos: leave out, with a counted warning, videos of which a file is broken."""
        self._skip_bad_videos = skip_bad_videos
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict({
                'video': tfds.features.Text(),
                'frame_names': tfds.features.Sequence(tfds.features.Text()),  # '00001' is the first.
                # One element, the bytes of the mp4.
                'film': tfds.features.Sequence(tfds.features.Tensor(shape=(), dtype=np.object_)),
                'masks': tfds.features.Sequence(
                    tfds.features.Image(shape=(None, None, 1), encoding_format='png')),
                'expressions': tfds.features.Sequence({
                    'id': tfds.features.Text(),  # The instance.
                    'text': tfds.features.Text(),
                    'object_id': np.int32,  # The instance + 1, since 0 is background elsewhere.
                    'tags': tfds.features.Text(),
                }),
                'height': np.int32,
                'width': np.int32,
            }),
            metadata=tfds.core.MetadataDict(videos={}),
            disable_shuffling=True,  # Records keep the order of the metadata.
        )

    def _split_generators(self, dl_manager):
        root = pathlib.Path(dl_manager.manual_dir)
        videos = raw.read_videos(root)  # Every text file is checked before the first film is copied.
        return {split: self._generate_examples(root, split, videos[split]) for split in videos if videos[split]}

    def _generate_examples(self, root: pathlib.Path, split: str, videos: list[raw.Video]):
        listed = self.info.metadata['videos'][split] = []
        skipped, away = 0, []
        for key, video in enumerate(videos):
            try:
                film, num_frames, height, width = raw.read_film(root, video)
                masks = raw.read_masks(root, video, num_frames, height, width)
            except (OSError, ValueError) as error:
                if not self._skip_bad_videos:
                    raise
                skipped += 1
                logging.warning('Skipped a bad video of %s, number %d: %s', split, skipped, error)
                continue
            annotated = {instance for _, instance in masks}
            away += [f'{video.name} {expression.instance}' for expression in video.expressions
                     if expression.instance not in annotated]
            expressions = [{'id': str(expression.instance), 'text': expression.text,
                            'object_id': expression.instance + 1, 'tags': ''}
                           for expression in video.expressions if expression.instance in annotated]
            if not expressions:
                continue
            entry = {'video': video.name, 'frame_names': [f'{number:05d}' for number in range(1, num_frames + 1)],
                     'expressions': expressions, 'height': height, 'width': width}
            places = [[frame, instance + 1] for frame, instance in masks]
            listed.append(entry | {'has_masks': True, 'mask_places': places})
            yield key, entry | {'film': [film], 'masks': [io.BytesIO(mask) for mask in masks.values()]}
        if away:
            logging.warning('Left out %d expressions of %s whose instance is annotated in no frame (video, instance): '
                            '%s', len(away), split, ', '.join(away))
