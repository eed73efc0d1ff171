"""A tiny Ref-DAVIS17 as downloaded, with its quirks."""

import raw_tree

FRAMES = [f'{number:05d}' for number in range(5)]
OBJECTS = {'classic-car': 1, 'judo': 2, 'dog': 1}  # Of each video.
LISTS = {'train': ['classic-car'], 'val': ['judo', 'dog']}


def sentence(video, number, file):
    """The sentence of an object (numbered from 1) in a file of sentences (numbered from 0)."""
    return f'the {video} {number}, caf\xe9 "{file}"' if file >= 2 else f'{file}: {video} {number}'


def davis_mask(video, position):
    index = raw_tree.mask(position)
    index[index > OBJECTS[video]] = 0
    index[0, :7] = 255  # Void.
    return index


def write(raw):
    """Writes the unpacked downloads."""
    raw_tree.save_frames(raw, 'frames', dict.fromkeys(OBJECTS, FRAMES))
    (raw / 'DAVIS' / 'JPEGImages').mkdir(parents=True)
    (raw / 'frames' / 'JPEGImages').rename(raw / 'DAVIS' / 'JPEGImages' / '480p')
    for video in OBJECTS:
        for position, name in enumerate(FRAMES):
            raw_tree.save_mask(
                raw / 'DAVIS' / 'Annotations_unsupervised' / '480p' / video / f'{name}.png', davis_mask(video, position)
            )
    (raw / 'DAVIS' / 'ImageSets' / '2017').mkdir(parents=True)
    for split, videos in LISTS.items():
        (raw / 'DAVIS' / 'ImageSets' / '2017' / f'{split}.txt').write_text('\n'.join(videos) + '\n')
    (raw / 'davis_text_annotations').mkdir()
    files = 'Davis17_annot1', 'Davis17_annot1_full_video', 'Davis17_annot2', 'Davis17_annot2_full_video'
    for file, name in enumerate(files):
        lines = [
            f'{video.replace("classic", "clasic")} {number}  "{sentence(video, number, file)}"'
            for video, last in OBJECTS.items()
            for number in reversed(range(1, last + 1))
        ]
        lines.append(f'not-unpacked 1 "{file}"')
        (raw / 'davis_text_annotations' / f'{name}.txt').write_text(
            '\n'.join(lines), encoding='utf-8' if file < 2 else 'latin-1'
        )
    return raw
