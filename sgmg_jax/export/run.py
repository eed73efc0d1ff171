"""Segments frames with the model beside this file. Needs jax, flatbuffers, numpy, safetensors, tokenizers.

FRAMES.npy: uint8 [n h w 3], RGB, resized as export.json describes; OUT.npz: mask_logits float32 [E n h w], above 0 on
the object (at 1 / mask_stride of the frames' size), and scores float32 [E n], of a sentence in a frame, from 0 to 1.
"""

import argparse
import json
import pathlib

import numpy as np


def segment(folder: pathlib.Path, frames: np.ndarray, sentences: list[str]) -> tuple[np.ndarray, np.ndarray]:
    import jax.export  # here, so that --help appears at once
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    about = json.loads((folder / 'export.json').read_text())
    weights = jax.device_put(load_file(folder / 'weights.safetensors'))
    video, ask = (jax.jit(jax.export.deserialize((folder / name).read_bytes()).call) for name in about['programs'])
    (count, height, width), stride = frames.shape[:3], about['mask_stride']
    padded, tokens = np.zeros(about['frames'], np.uint8), np.full(about['tokens'], about['padding_token'], np.int32)
    padded[:count, :height, :width], valid = frames, np.zeros(tokens.shape, bool)
    for row, sentence in enumerate(sentences):
        ids = Tokenizer.from_file(str(folder / 'tokenizer.json')).encode(' '.join(sentence.lower().split())).ids
        tokens[row, : len(ids)], valid[row, : len(ids)] = ids, True
    features = video(weights, padded, np.int32(count), np.array([height, width], np.int32))  # once for all sentences
    found = ask(weights, features, tokens, valid)
    logits, scores = (np.asarray(found[name])[: len(sentences), :count] for name in ('mask_logits', 'scores'))
    return logits[..., : -(-height // stride), : -(-width // stride)], scores


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, number in (('FRAMES.npy', None), ('OUT.npz', None), ('SENTENCE', '+')):
        parser.add_argument(name, nargs=number)
    given = vars(parser.parse_args())
    found = segment(pathlib.Path(__file__).parent, np.load(given['FRAMES.npy']), given['SENTENCE'])
    np.savez(given['OUT.npz'], mask_logits=found[0], scores=found[1])
