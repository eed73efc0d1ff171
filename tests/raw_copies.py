"""Small copies of the data sets, as users have them on disk."""

import json
import pickle

import av
import h5py
import numpy as np
from PIL import Image
import raw_tree
import scipy.io

from sgmg_jax.doctor import davis, frame_sets

SEQUENCES = {'blackswan': ('valid', 2), 'dog': ('valid', 1), 'classic-car': ('train', 1)}


def write_davis(root, converted):
    """Three sequences of three frames; blackswan has two objects and void."""
    words = {}
    for video, (split, objects) in SEQUENCES.items():
        frames = root / (f'{split}/JPEGImages' if converted else 'DAVIS/JPEGImages/480p') / video
        masks = root / (f'{split}/Annotations' if converted else 'DAVIS/Annotations_unsupervised/480p') / video
        frames.mkdir(parents=True)
        for number in range(3):
            Image.fromarray(raw_tree.frame(video, number)).save(frames / f'{number:05d}.jpg')
            index = np.minimum(raw_tree.mask(0), objects)
            index[0, :5] = 255
            raw_tree.save_mask(masks / f'{number:05d}.png', index)
        expressions = {str(i): {'exp': 'a thing', 'obj_id': str(i // 4 + 1)} for i in range(4 * objects)}
        words.setdefault(split, {})[video] = {'expressions': expressions, 'frames': ['00000', '00001', '00002']}
    if converted:
        for split, videos in words.items():
            raw_tree.write_json(root / 'meta_expressions' / split / 'meta_expressions.json', videos)
        return root
    lists = root / 'DAVIS/ImageSets/2017'
    lists.mkdir(parents=True)
    (lists / 'val.txt').write_text('blackswan\ndog\n')
    (lists / 'train.txt').write_text(  # As in old releases.
        '/JPEGImages/480p/classic-car/00000.jpg /Annotations/480p/classic-car/00000.png \n'
    )
    lines = ['blackswan 1 "a swan"', 'blackswan 2 "its \xe9gg"', 'dog 1 "a dog"', 'clasic-car 1 "the car"']
    for place in davis.TEXTS:
        (root / place).parent.mkdir(exist_ok=True)
        (root / place).write_text('\n'.join(lines), encoding='utf-8' if 'annot1' in place else 'latin-1')
    return root


def write_film(path):
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('mpeg4', rate=5)
        stream.width, stream.height, stream.pix_fmt = 96, 64, 'yuv420p'
        for number in range(4):
            image = np.full((64, 96, 3), 40 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
        container.mux(stream.encode())


def write_a2d(root, clips='CLIPS320'):
    videos = ('--h5fAKYurM', '_bcdefghijk', 'zzzzzzzzzzz')
    (root / 'Release' / clips).mkdir(parents=True)
    (root / 'text_annotations').mkdir()
    for video in videos[:2]:
        write_film(root / 'Release' / clips / f'{video}.mp4')
        folder = root / 'text_annotations/a2d_annotation_with_instances' / video
        folder.mkdir(parents=True)
        for number, count in ((2, 1), (4, 2)):
            with h5py.File(folder / f'{number:05d}.h5', 'w') as file:
                file['instance'] = np.arange(count)
                file['reMask'] = np.ones((96, 64) if count == 1 else (count, 96, 64), np.uint8)
    (root / 'Release/videoset.csv').write_text(
        ''.join(f'{video},11,0:01,0:05,64,96,4,2,{number % 2}\n' for number, video in enumerate(videos))
    )
    (root / 'text_annotations/a2d_annotation.txt').write_text(
        'video_id,instance_id,query\n--h5fAKYurM,0,the pigeon\n--h5fAKYurM,1,A man\n_bcdefghijk,1 (copy),bird\n'
        '_bcdefghijk,0,a bird\n'
    )
    (root / 'text_annotations/a2d_missed_videos.txt').write_text('zzzzzzzzzzz')
    return root


def write_jhmdb(root, prefix='./jhmdb_sentences'):
    rows = []
    for video in ('one_run_1', 'two_run_2'):
        frames, masks = root / 'Rename_Images/run' / video, root / 'puppet_mask/run' / video
        frames.mkdir(parents=True)
        masks.mkdir(parents=True)
        for number in range(1, 7):
            Image.fromarray(raw_tree.frame(video, number)).save(frames / f'{number:05d}.png')
        scipy.io.savemat(masks / 'puppet_mask.mat', {'part_mask': np.ones((54, 96, 5), np.uint8)})
        rows += [
            [
                video,
                f'{prefix}/Rename_Images/run/{video}/{number:05d}.png',
                f'{prefix}/puppet_mask/run/{video}/puppet_mask.mat',
                6,
                'A man running',
            ]
            for number in (2, 5)
        ]
    (root / frame_sets.JHMDB_SAMPLES).write_text(json.dumps(rows))
    (root / 'jhmdb_annotation.txt').write_text('video_id,query\none_run_1,A man running\ntwo_run_2,A man running\n')
    return root


def write_refcoco(root, converted=False):
    (root / 'train2014').mkdir(parents=True)
    files = {number: f'COCO_train2014_{number:012d}.jpg' for number in (9, 25)}
    for number, file in files.items():
        Image.fromarray(raw_tree.frame('coco', number)).save(root / 'train2014' / file)
    for name, splits in frame_sets.REFCOCO_SPLITS.items():
        refs = [
            {
                'ref_id': i,
                'ann_id': i,
                'image_id': (9, 25)[i % 2],
                'split': split,
                'file_name': 'not_a_path.jpg',
                'sentences': [{'sent': f'left thing {i}', 'raw': 'Left', 'tokens': ['left'], 'sent_id': i}],
            }
            for i, split in enumerate(splits)
        ]
        folder = root / name
        folder.mkdir()
        if converted:
            for split in splits:
                (folder / f'instances_{name}_{split}.json').write_text(
                    json.dumps(
                        {
                            'images': [
                                {
                                    'file_name': files[9],
                                    'caption': 'left thing',
                                    'id': 1,
                                    'original_id': 9,
                                    'height': raw_tree.HEIGHT,
                                    'width': raw_tree.WIDTH,
                                }
                            ],
                            'annotations': [
                                {
                                    'image_id': 1,
                                    'id': 1,
                                    'original_id': 3,
                                    'iscrowd': 0,
                                    'segmentation': [[9, 9, 40, 9, 40, 40]],
                                }
                            ],
                        }
                    )
                )
            continue
        (folder / ('refs(umd).p' if name == 'refcocog' else 'refs(unc).p')).write_bytes(pickle.dumps(refs, protocol=0))
        (folder / 'instances.json').write_text(
            json.dumps(
                {
                    'images': [
                        {'id': number, 'file_name': file, 'height': raw_tree.HEIGHT, 'width': raw_tree.WIDTH}
                        for number, file in files.items()
                    ],
                    'annotations': [
                        {'id': i, 'image_id': (9, 25)[i % 2], 'segmentation': [[9, 9, 40, 9, 40, 40]], 'iscrowd': 0}
                        for i in range(4)
                    ],
                }
            )
        )
    return root
