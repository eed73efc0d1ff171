"""Untrusted pictures: formats, sizes, damage."""

import io
import os
import struct
import zlib

import numpy as np
from PIL import Image
import pytest
import small

from sgmg_jax import pictures

GREY = np.arange(35, dtype=np.uint8).reshape(5, 7)
COLOURS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def palette_png():
    image = Image.fromarray(GREY)
    image.putpalette(list(range(255, -1, -1)) * 3)
    stream = io.BytesIO()
    image.save(stream, 'PNG')
    return stream.getvalue()


def chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


@pytest.mark.parametrize('shape', [(1, 1), (5, 7), (300, 400)])
def test_written_pngs_are_read_back(shape, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8) * (np.arange(shape[1]) % 9 < 2)
    for palette, mode in ((False, 'L'), (True, 'P')):
        for given in (pixels, np.asfortranarray(pixels)):
            pictures.write_png(tmp_path / 'mask.png', given, palette)
            data = (tmp_path / 'mask.png').read_bytes()
            np.testing.assert_array_equal(pictures.read_pixels(data, ['PNG'], shape, [mode]), pixels)
    assert Image.open(tmp_path / 'mask.png').getpalette()[: len(pictures.PALETTE)] == list(pictures.PALETTE)


def bomb(height, width):
    """A PNG of a few bytes that claims this size."""
    return (
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0))
        + chunk(b'IDAT', zlib.compress(bytes(100_000)))
        + chunk(b'IEND', b'')
    )


def test_palette_indices_stay_indices(tmp_path):
    (tmp_path / 'a.png').write_bytes(palette_png())
    for source in (palette_png(), tmp_path / 'a.png', str(tmp_path / 'a.png')):
        np.testing.assert_array_equal(pictures.read_pixels(source, ['PNG'], GREY.shape, ['P']), GREY)
        assert pictures.read_header(source) == ('PNG', 'P', 5, 7)


def test_check_jpeg_reads_every_byte(tmp_path):
    data = small.encoded(COLOURS, 'JPEG')
    assert pictures.check_jpeg(data) == (20, 30)
    with pytest.raises(pictures.BrokenPicture, match='truncated|cannot be read'):
        pictures.check_jpeg(data[:-200])
    with pytest.raises(pictures.BrokenPicture, match='is not JPEG'):
        pictures.check_jpeg(palette_png())


@pytest.mark.parametrize('kind', ['EPS', 'TIFF', 'GIF', 'BMP', 'PPM', 'PDF'])
def test_other_formats_are_never_tried(kind):
    data = small.encoded(COLOURS, kind)
    with pytest.raises(pictures.BrokenPicture, match='is not JPEG or PNG'):
        pictures.read_header(data)


def test_postscript_does_not_start_ghostscript(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, 'Ghostscript', lambda *args, **kwargs: pytest.fail('Ghostscript was started'))
    (tmp_path / 'a.png').write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 7 5\n%%EndComments\nshowpage\n')
    with pytest.raises(pictures.BrokenPicture, match='is not PNG'):
        pictures.read_pixels(tmp_path / 'a.png', ['PNG'])


def test_size_and_mode_are_checked_before_decoding(monkeypatch):
    grey = palette_png()
    monkeypatch.setattr(Image.Image, 'load', lambda self: pytest.fail('pixels were decoded'))
    monkeypatch.setattr('PIL.ImageFile.ImageFile.load', lambda self: pytest.fail('pixels were decoded'))
    for source, size, modes, reason in (
        (grey, (7, 5), None, 'is 7x5 pixels, not 5x7'),
        (grey, None, ['L'], 'mode P, not L'),
        (bomb(100_000, 100_000), None, None, '10000000000 pixels'),
        (bomb(8000, 8000), None, None, '8000x8000 pixels'),
    ):
        with pytest.raises(pictures.BrokenPicture, match=reason):
            pictures.read_pixels(source, ['PNG'], size, modes)
        if 'x5' not in reason and 'mode' not in reason:
            with pytest.raises(pictures.BrokenPicture, match=reason):
                pictures.read_header(source)


def test_text_that_unpacks_to_gigabytes_is_refused():
    text = chunk(b'zTXt', b'Comment\0\0' + zlib.compress(bytes(2**28), 9))
    data = palette_png()
    with pytest.raises(pictures.BrokenPicture, match='cannot be read'):
        pictures.read_pixels(data[:33] + text + data[33:], ['PNG'])


def test_pipes_and_folders_are_refused(tmp_path):
    os.mkfifo(tmp_path / 'a.png')
    for path in (tmp_path / 'a.png', tmp_path):
        with pytest.raises(pictures.BrokenPicture, match='not a file'):
            pictures.read_header(path)
    with pytest.raises(FileNotFoundError):
        pictures.read_header(tmp_path / 'none.png')


@pytest.mark.parametrize('make', [palette_png, lambda: small.encoded(COLOURS, 'JPEG')])
def test_damage_anywhere_is_one_error(make):
    data, rng = make(), np.random.default_rng(1)
    for _ in range(200):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            damaged[place] = rng.integers(0, 256)
        damaged = bytes(damaged[: rng.integers(1, len(data) + 1)])
        try:
            pictures.read_pixels(damaged, ['JPEG', 'PNG'])
        except pictures.BrokenPicture as error:
            assert str(error)
