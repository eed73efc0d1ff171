import json

import numpy as np
import pytest
import tokenizers

from sgmg_jax.data import text

SENTENCES = ['a bright cat on the left', 'the cat walking to the right of a dog',
             'person in a blue-and-white shirt', "the man's 2nd surfboard, held in his left hand",
             'two birds', 'x']
UNSEEN = ['A Zebra \t is  eating', 'ünïcode ☃ 漢字', "don't stop--now!!", '12/34_56', 'a' * 40]


@pytest.fixture(scope='module')
def tokenizer():
    return text.train_tokenizer(SENTENCES * 3, 320)


def test_ids_are_those_of_transformers(tokenizer, tmp_path):
    transformers = pytest.importorskip('transformers')
    tokenizer.model.save(str(tmp_path))  # vocab.json and merges.txt.
    oracle = transformers.RobertaTokenizer.from_pretrained(tmp_path)
    folder = text.load_tokenizer(tmp_path)
    file = text.load_tokenizer(text.save_tokenizer(tokenizer, tmp_path / 'whole'))
    assert oracle.vocab_size > 280
    for sentence in SENTENCES + UNSEEN:
        expected = oracle(text.normalise(sentence))['input_ids']
        for ours in (tokenizer, folder, file):
            encoded = text.encode(ours, [sentence], 200)
            np.testing.assert_array_equal(encoded.tokens[0][encoded.valid[0]], expected)
            assert ours.decode(expected) == text.normalise(sentence)


def test_a_file_of_transformers_can_be_loaded(tokenizer, tmp_path):
    transformers = pytest.importorskip('transformers')
    tokenizer.model.save(str(tmp_path))
    oracle = transformers.RobertaTokenizer.from_pretrained(tmp_path)
    oracle.save_pretrained(tmp_path / 'saved')
    loaded = text.load_tokenizer(tmp_path / 'saved')
    for sentence in SENTENCES + UNSEEN:
        assert loaded.encode(text.normalise(sentence)).ids == oracle(text.normalise(sentence))['input_ids']


def test_encode_pads_and_marks(tokenizer):
    encoded = text.encode(tokenizer, ['two  BIRDS', SENTENCES[0]], 16)
    assert encoded.tokens.shape == encoded.valid.shape == (2, 16)
    assert encoded.tokens.dtype == np.int32 and encoded.valid.dtype == bool
    assert (encoded.tokens[~encoded.valid] == 1).all() and (encoded.tokens[:, 0] == 0).all()
    for tokens, valid in zip(encoded.tokens, encoded.valid):
        assert tokens[valid.sum() - 1] == 2 and valid[:valid.sum()].all()
    again = text.encode(tokenizer, [' two birds', SENTENCES[0]], 16)
    np.testing.assert_array_equal(encoded.tokens, again.tokens)
    assert text.encode(tokenizer, [], 16).tokens.shape == (0, 16)


def test_trained_specials_and_bytes():
    least = text.train_tokenizer([], 260)
    assert [least.id_to_token(number) for number in range(4)] == ['<s>', '<pad>', '</s>', '<unk>']
    assert least.get_vocab_size() == 260 and len(least.encode('☃').ids) == 5
    with pytest.raises(ValueError, match='vocab_size=259: must be at least 260'):
        text.train_tokenizer([], 259)


def test_wrong_sentences(tokenizer):
    count = len(tokenizer.encode(SENTENCES[3]).ids)
    text.encode(tokenizer, [SENTENCES[3]], count)
    with pytest.raises(ValueError, match=rf"2nd surfboard.* has {count} tokens .* text_length={count - 1}"):
        text.encode(tokenizer, [SENTENCES[3]], count - 1)
    with pytest.raises(ValueError, match=r'sentence 1 of 2 is empty'):
        text.encode(tokenizer, ['a cat', ' \n'], 16)


def test_wrong_files(tokenizer, tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere: no tokenizer there'):
        text.load_tokenizer(tmp_path / 'nowhere')
    (tmp_path / 'tokenizer.json').write_text('{"model": ')
    with pytest.raises(ValueError, match='tokenizer.json: cannot be read'):
        text.load_tokenizer(tmp_path / 'tokenizer.json')
    other = tokenizers.Tokenizer(tokenizers.models.BPE({'[PAD]': 0, 'a': 1}, []))
    text.save_tokenizer(other, tmp_path / 'bert')
    with pytest.raises(ValueError, match=r"bert: token '<s>' has the id None, RoBERTa has 0"):
        text.load_tokenizer(tmp_path / 'bert')


def test_truncation_of_a_file_is_not_inherited(tokenizer, tmp_path):
    path = text.save_tokenizer(tokenizer, tmp_path)
    content = json.loads(path.read_text())
    content['truncation'] = {'direction': 'Right', 'max_length': 4, 'strategy': 'LongestFirst', 'stride': 0}
    path.write_text(json.dumps(content))
    assert text.load_tokenizer(path).encode(SENTENCES[0]).ids == tokenizer.encode(SENTENCES[0]).ids


def test_saving_leaves_one_file(tokenizer, tmp_path):
    text.save_tokenizer(tokenizer, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['tokenizer.json']
