import codecs
import json
import os

import numpy as np
import pytest

from sgmg_jax.data import text

SENTENCES = [
    'a bright cat on the left',
    'the cat walking to the right of a dog',
    'person in a blue-and-white shirt',
    "the man's 2nd surfboard, held in his left hand",
    'two birds',
    'x',
]
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
        assert tokens[valid.sum() - 1] == 2 and valid[: valid.sum()].all()
    again = text.encode(tokenizer, [' two birds', SENTENCES[0]], 16)
    np.testing.assert_array_equal(encoded.tokens, again.tokens)
    assert text.encode(tokenizer, [], 16).tokens.shape == (0, 16)


def test_trained_specials_and_bytes():
    least = text.train_tokenizer([], 260)
    assert [least.id_to_token(number) for number in range(4)] == ['<s>', '<pad>', '</s>', '<unk>']
    assert least.get_vocab_size() == 260 and len(least.encode('☃').ids) == 5


def test_sentences_too_long_for_the_text_encoder(tokenizer):
    count = len(tokenizer.encode(SENTENCES[3]).ids)
    text.encode(tokenizer, [SENTENCES[3]], count)
    with pytest.raises(ValueError, match=rf'2nd surfboard.* has {count} tokens .* text_length={count - 1}'):
        text.encode(tokenizer, [SENTENCES[3]], count - 1)


@pytest.mark.parametrize(
    'sentence, error, words',
    [
        ('', ValueError, 'is empty'),
        (' \n\t\x1f', ValueError, 'is empty'),
        (None, TypeError, 'must be a string, is None'),
        (5, TypeError, 'must be a string, is 5'),
        (b'a cat', TypeError, "must be a string, is b'a cat'"),
        (['a cat'], TypeError, 'must be a string'),
        ('a\x00cat', ValueError, r"has the character '\\x00', which is not text"),
        ('\x1b[31ma cat', ValueError, r"has the character '\\x1b'"),
        ('a cat\x7f', ValueError, r"has the character '\\x7f'"),
        ('a \ud83d cat', ValueError, r"has the character '\\ud83d'"),
        ('\udfff', ValueError, r"has the character '\\udfff'"),
        ('a' * 10_001, ValueError, 'has 10,001 characters, at most 10,000'),
        (' ' * 10**6, ValueError, 'has 1,000,000 characters'),
    ],
)
def test_invalid_sentences_are_named_by_index(tokenizer, sentence, error, words):
    with pytest.raises(error, match=f'^sentence 1 of 3:? {words}') as caught:
        text.encode(tokenizer, ['a cat', sentence, 'a dog'], 16)
    assert len(str(caught.value)) < 300
    with pytest.raises(error, match=words):
        text.train_tokenizer(['a cat', sentence], 300)


def test_all_other_characters_are_text(tokenizer):
    odd = 'a\tcat\r\n \x80\x92\xa0\u200b\ufeff\u202e\U0001f408\ud7ff\ue000 ' + 'a' * 900
    [ids] = text.encode(tokenizer, [odd], 2000).tokens
    assert tokenizer.decode(ids[ids != text.PAD]) == text.normalise(odd)
    text.encode(tokenizer, ['a' * text.LONGEST], 10_002)


@pytest.mark.parametrize('sentences', ['a cat', b'a cat'])
def test_a_single_string_is_refused(tokenizer, sentences):
    with pytest.raises(TypeError, match='must be a list of strings'):
        text.encode(tokenizer, sentences, 16)


def test_padding_sentences_have_no_valid_token(tokenizer):
    encoded = text.encode(tokenizer, ['a cat'], 16, 3)
    assert encoded.tokens.shape == encoded.valid.shape == (3, 16)
    assert encoded.valid.any(1).tolist() == [True, False, False] and (encoded.tokens[1:] == text.PAD).all()


def test_the_vocabulary_has_limits():
    for size in (259, 2**20 + 1, 2**60):
        with pytest.raises(ValueError, match=f'vocab_size={size}: must be at least 260, .* at most 1,048,576'):
            text.train_tokenizer([], size)


def write_parts(folder, vocab=None, merges='#version: 0.2\na b\nab a\n'):
    """A folder of vocab.json, changed by `vocab`, and merges.txt."""
    content = {token: i for i, token in enumerate(['<s>', '<pad>', '</s>', '<unk>', 'a', 'b', 'ab', 'aba', '<mask>'])}
    folder.mkdir(exist_ok=True)
    for name, part in (('vocab.json', vocab(content) if vocab else content), ('merges.txt', merges)):
        part = json.dumps(part) if isinstance(part, dict | list) else part
        (folder / name).write_bytes(part if isinstance(part, bytes) else part.encode())
    return folder


def test_byte_order_marks_and_crlf_are_accepted(tmp_path):
    """As Windows editors write them."""
    plain = text.load_tokenizer(write_parts(tmp_path / 'plain'))
    ids = plain.encode('aba<mask>').ids
    assert ids == [0, 7, 8, 2]
    marked = write_parts(
        tmp_path / 'marked',
        lambda vocab: codecs.BOM_UTF8 + json.dumps(vocab).encode(),
        codecs.BOM_UTF8 + b'#version: 0.2\r\na b\r\nab a\r\n',
    )
    assert text.load_tokenizer(marked).encode('aba<mask>').ids == ids
    bare = text.load_tokenizer(write_parts(tmp_path / 'bare', merges='a b\nab a'))
    assert bare.encode('aba<mask>').ids == ids


IDS = 'the ids of its . tokens must be the numbers from 0 on, each once'


@pytest.mark.parametrize(
    'vocab, words',
    [
        (lambda v: b'', 'is not JSON .it is empty'),
        (lambda v: b'{"a": ', 'is not JSON'),
        (lambda v: b'\xff\x00\xd8', 'not text'),
        (lambda v: '[' * 10**5, 'is JSON of too many levels'),
        (lambda v: [1, 2], 'its tokens are not written as'),
        (lambda v: b'7', 'its tokens are not written as'),
        (lambda v: '{"a": 1, "a": 2}', "the key 'a' is there twice"),
        (lambda v: v | {'b': -1}, IDS),
        (lambda v: v | {'b': 2**32}, IDS),
        (lambda v: v | {'b': 10**9}, IDS),
        (lambda v: v | {'b': 4}, IDS),
        (lambda v: v | {'b': 5.0}, IDS),
        (lambda v: v | {'b': True}, IDS),
        (lambda v: v | {'b': None}, IDS),
        (lambda v: v | {'b': '5'}, IDS),
        (lambda v: v | {'c': 10}, IDS.replace('its .', 'its 10')),
        (
            lambda v: {'\ud800' if k == '<mask>' else k: i for k, i in v.items()},
            'cannot be read as a byte-pair tokenizer',
        ),
        (lambda v: b' ' * (text.LARGEST + 1), 'at most 16,777,216 are read'),
    ],
)
def test_a_damaged_vocabulary(tmp_path, vocab, words):
    with pytest.raises(ValueError, match=f'vocab.json: .*{words}'):
        text.load_tokenizer(write_parts(tmp_path, vocab))


@pytest.mark.parametrize(
    'merges', ['a', 'a b a', 'a  b', ' b', 'a c', 'b a', 'a b\n\n \nab a', b'a b\nab \xff', 'a\tb', '\x00 a', '<s> a']
)
def test_damaged_merges(tmp_path, merges):
    """The library panics (not an Exception) if two tokens do not make a third."""
    with pytest.raises(ValueError, match=r'merges.txt: (cannot be read .* .merge \d,|is not text)'):
        text.load_tokenizer(write_parts(tmp_path, merges=merges))


def test_missing_tokenizer_files(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(ValueError, match='pipe: is a pipe'):
        text.load_tokenizer(tmp_path / 'pipe')
    for name in ('vocab.json', 'merges.txt'):
        folder = write_parts(tmp_path / f'no {name}')
        (folder / name).unlink()
        with pytest.raises(FileNotFoundError, match=f'no {name}: no tokenizer there'):
            text.load_tokenizer(folder)
        (folder / name).mkdir()
        with pytest.raises(ValueError, match=f'{name}: is a folder'):
            text.load_tokenizer(folder)
    (tmp_path / 'tokenizer.json').mkdir()
    with pytest.raises(ValueError, match='tokenizer.json: is a folder'):
        text.load_tokenizer(tmp_path)
    with pytest.raises(FileNotFoundError, match='nowhere: no tokenizer there'):
        text.load_tokenizer(tmp_path / 'nowhere')


def put(*path):
    """A change of a file's content: path of keys, and the value; ... to remove it."""
    *keys, last, value = path

    def change(content):
        for key in keys:
            content = content[key]
        if value is ...:
            del content[last]
        else:
            content[last] = value

    return change


@pytest.mark.parametrize(
    'change, words',
    [
        (put('model', ...), 'it has no model with merges'),
        (put('model', 5), 'it has no model with merges'),
        (put('model', 'merges', ...), 'it has no model with merges'),
        (put('pre_tokenizer', None), 'or no pre_tokenizer'),
        (put('model', 'merges', 'a b'), 'it has no model with merges'),
        (put('model', 'vocab', []), 'its tokens are not written'),
        (put('model', 'type', 'WordPiece'), "model.type = 'WordPiece', must be BPE as in RoBERTa"),
        (put('pre_tokenizer', 'type', 'Whitespace'), 'pre_tokenizer.type'),
        (put('pre_tokenizer', 'add_prefix_space', True), 'pre_tokenizer.add_prefix_space = True, must be None as in'),
        (put('pre_tokenizer', 'use_regex', False), 'pre_tokenizer.use_regex = False, must be True as in RoBERTa'),
        (put('normalizer', {'type': 'Lowercase'}), 'normalizer = '),
        (put('model', 'dropout', 0.1), 'model.dropout = 0.1'),
        (put('model', 'continuing_subword_prefix', '##'), "continuing_subword_prefix = '##'"),
        (put('model', 'end_of_word_suffix', '</w>'), 'end_of_word_suffix'),
        (put('model', 'byte_fallback', True), 'byte_fallback'),
        (put('model', 'ignore_merges', True), 'ignore_merges'),
        (put('model', 'merges', 0, ['a', 'no']), "merge 0, .'a', 'no'., is not two"),
        (put('model', 'merges', 0, 5), 'merge 0, 5'),
        (put('model', 'merges', 0, [['a'], 'b']), 'merge 0'),
        (put('model', 'merges', 0, 'a'), 'merge 0'),
        (put('model', 'vocab', 'a', -1), 'the ids of its'),
        (put('added_tokens', {}), None),
        (put('added_tokens', 5), 'its tokens'),
        (put('added_tokens', 0, 5), 'its tokens'),
        (put('added_tokens', 0, 'content', 5), 'its tokens'),
        (put('added_tokens', 0, 'id', 7), 'the ids of its'),
        (put('added_tokens', 0, 'id', ...), 'the ids of its'),
        (put('added_tokens', 0, 'content', ''), 'the ids of its'),
        (put('added_tokens', 0, 'content', '<S>'), 'the ids of its'),
    ],
)
def test_a_tokenizer_of_another_kind_or_damaged(tokenizer, tmp_path, change, words):
    path = text.save_tokenizer(tokenizer, tmp_path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    if words is None:
        assert text.load_tokenizer(path).get_vocab() == tokenizer.get_vocab()
        return
    with pytest.raises(ValueError, match=f'tokenizer.json: cannot be read as a byte-pair tokenizer .*{words}'):
        text.load_tokenizer(path)


def test_other_files_are_not_a_tokenizer(tmp_path):
    path = tmp_path / 'tokenizer.json'
    for content in (b'', b'{"model": ', b'[1]', b'null', b'[' * 10**5, b'\xff\xfe\x00', b'{"a": NaN}'):
        path.write_bytes(content)
        with pytest.raises(ValueError, match='tokenizer.json: '):
            text.load_tokenizer(path)
    with path.open('wb') as file:
        file.truncate(text.LARGEST + 1)
    with pytest.raises(ValueError, match='at most 16,777,216 are read'):
        text.load_tokenizer(tmp_path)


def test_other_special_tokens(tmp_path):
    bert = write_parts(tmp_path, lambda vocab: {'[PAD]': 0, 'a': 1, 'b': 2, 'ab': 3, 'aba': 4})
    with pytest.raises(ValueError, match="token '<s>' has the id None, must be 0 as in RoBERTa"):
        text.load_tokenizer(bert)


def test_added_tokens_are_kept(tokenizer, tmp_path):
    """They are matched before a sentence is split into words, as in the file."""
    path = text.save_tokenizer(tokenizer, tmp_path)
    content = json.loads(path.read_text())
    size = tokenizer.get_vocab_size()
    content['added_tokens'] += [
        {'content': 'zebra', 'id': size + 1, 'special': True, 'lstrip': True, 'rstrip': False},
        {'content': '<mask>', 'id': size},
    ]
    path.write_text(json.dumps(content))
    loaded = text.load_tokenizer(path)
    assert loaded.encode('a zebra').ids == [0, *tokenizer.encode('a').ids[1:-1], size + 1, 2]
    assert loaded.decode([size + 1, size], skip_special_tokens=True) == '<mask>'
    content['added_tokens'][-1]['id'] = size + 2
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match='the ids of its'):
        text.load_tokenizer(path)


def test_truncation_of_a_file_is_not_inherited(tokenizer, tmp_path):
    path = text.save_tokenizer(tokenizer, tmp_path)
    content = json.loads(path.read_text())
    content['truncation'] = {'direction': 'Right', 'max_length': 4, 'strategy': 'LongestFirst', 'stride': 0}
    path.write_text(json.dumps(content))
    assert text.load_tokenizer(path).encode(SENTENCES[0]).ids == tokenizer.encode(SENTENCES[0]).ids


def test_a_saved_tokenizer_frames_sentences_like_roberta_base(tokenizer, tmp_path):
    content = json.loads(text.save_tokenizer(tokenizer, tmp_path).read_text())
    assert content['post_processor'] == {
        'type': 'RobertaProcessing',
        'sep': ['</s>', 2],
        'cls': ['<s>', 0],
        'trim_offsets': True,
        'add_prefix_space': False,
    }


def test_saving_leaves_one_file(tokenizer, tmp_path):
    text.save_tokenizer(tokenizer, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['tokenizer.json']
