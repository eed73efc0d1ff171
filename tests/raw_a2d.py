"""A tiny A2D-Sentences in its raw layout, with the quirks of the real one."""

import av
import h5py
import numpy as np

HEIGHT, WIDTH = 64, 96
FIRST, SECOND, TEST, MISSED = '-aaaaaaaaaa', '_bbbbbbbbbb', 'ccccccccccc', 'ddddddddddd'
FRAMES = {FIRST: 9, SECOND: 6, TEST: 5}
VIDEOSET = '\n'.join(
    f'{video},15,0:00:01,0:00:04,320,480,100,3,{subset}'
    for video, subset in [(TEST, 1), (SECOND, 0), (MISSED, 0), (FIRST, 0)]
)
ANNOTATION = f"""video_id,instance_id,query
{SECOND},2,the Red ball's jumping
{SECOND},0,a dog
{SECOND},5,a cat that nobody has drawn
{TEST},0,car on the right
{FIRST},0,bird walking
{FIRST},1,the other bird
{FIRST},1 (copy),the other bird
"""


def mask(video, frame, instance):
    """A rectangle [H W] of 0 and 1, different for each video, frame and instance."""
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    drawn[3 + frame : 20 + 5 * instance, ord(video[-1]) - 95 + 2 * frame : 40 + 11 * instance] = 1
    return drawn


def write_film(file, num_frames, codec='libx264', size=(HEIGHT, WIDTH), options=None):
    """Frames that get brighter over time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), 'w', options=options or {}) as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = size
        stream.pix_fmt = 'yuv420p'
        shading = np.random.default_rng(0).integers(0, 40, (*size, 3))
        for number in range(num_frames):
            image = (shading + 20 * number).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
        container.mux(stream.encode())


def write_h5(raw, video, frame, **content):
    file = raw / 'text_annotations' / 'a2d_annotation_with_instances' / video / f'{frame:05d}.h5'
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, 'w') as stream:
        stream.update({'id': np.array([[15.0]])} | content)


def write(raw):
    """Three videos: one is in test, and one is listed as missed."""
    (raw / 'text_annotations').mkdir(parents=True)
    for video, number in FRAMES.items():
        write_film(raw / 'Release' / 'CLIPS320' / f'{video}.mp4', number, 'mpeg4' if video == TEST else 'libx264')
    with (raw / 'Release' / 'CLIPS320' / f'{FIRST}.mp4').open('ab') as stream:
        stream.write(b'\0\0\0\x10free' + bytes(8))  # Valid, and ends with zeros.
    (raw / 'Release' / 'videoset.csv').write_text(VIDEOSET)
    (raw / 'text_annotations' / 'a2d_annotation.txt').write_text(ANNOTATION)
    (raw / 'text_annotations' / 'a2d_missed_videos.txt').write_text(MISSED)  # No newline at the end.
    two = [mask(FIRST, 3, 1).T, mask(FIRST, 3, 0).T]  # Not in the order of their numbers.
    write_h5(raw, FIRST, 3, instance=np.array([1, 0], np.int64), reMask=np.stack(two))
    write_h5(raw, FIRST, 9, instance=np.uint8(0), reMask=mask(FIRST, 9, 0).T)  # 1 is away.
    three = [mask(SECOND, 1, 0).T, 1 - mask(SECOND, 1, 0).T, mask(SECOND, 1, 2).T]
    write_h5(raw, SECOND, 1, instance=np.array([[0.0, 0.0, 2.0]]), reMask=np.stack(three))  # 0 is there twice.
    write_h5(raw, TEST, 5, instance=np.array([0], np.int32), reMask=mask(TEST, 5, 0).T[None])
    write_h5(raw, TEST, 2, instance=np.array([0], np.int32), reMask=mask(TEST, 2, 0).T)
    write_h5(raw, TEST, 4, instance=np.zeros(0, np.int32), reMask=np.zeros((0, 0), np.uint8))
    return raw
