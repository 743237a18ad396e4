"""A byte-level BPE tokenizer of any vocabulary size, made of nothing: Qwen2's split rule, merges of Latin letters.

Tokens are the 256 bytes, then merged letters (all pairs, a space before a letter, triples, quadruples), then three specials, so
that any text can be encoded. Standard library only.
"""

import itertools
import json
import os
import string

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LETTERS = string.ascii_lowercase
SPACE = "\u0120"  # how byte-level BPE writes a space
NUM_BYTES = 256
SMALLEST_VOCABULARY = NUM_BYTES + len(SPECIALS)
LARGEST_VOCABULARY = SMALLEST_VOCABULARY + sum(len(LETTERS) ** length for length in (1, 2, 3, 4))

SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CHAT_TEMPLATE = ("{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
                 "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def byte_alphabet():
    """The 256 characters that stand for bytes: printable ones for themselves, the others from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (chr(0x100 + index) for index in range(NUM_BYTES - len(printable)))
    return [chr(byte) for byte in printable] + list(others)


def all_merges():
    """Pairs of tokens that are there already, each making a new one."""
    pairs = [a + b for a, b in itertools.product(LETTERS, repeat=2)]
    yield from itertools.product(LETTERS, repeat=2)
    yield from itertools.product([SPACE], LETTERS)
    yield from itertools.product(pairs, LETTERS)
    yield from itertools.product(pairs, repeat=2)


def special_ids(vocab_size):
    return {token: vocab_size - len(SPECIALS) + index for index, token in enumerate(SPECIALS)}


def tokenizer_of(vocab_size):
    """tokenizer.json as an object."""
    merges = list(itertools.islice(all_merges(), vocab_size - SMALLEST_VOCABULARY))
    tokens = byte_alphabet() + [first + second for first, second in merges]
    added = [{"id": index, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for token, index in special_ids(vocab_size).items()]
    split = {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [list(pair) for pair in merges],
        },
    }


def settings_of(vocab_size, max_positions):
    """tokenizer_config.json as an object."""
    decoder = {str(index): {"content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
                            "special": True} for token, index in special_ids(vocab_size).items()}
    return {
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": decoder,
        "add_bos_token": False,
        "add_prefix_space": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "errors": "replace",
        "split_special_tokens": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_positions,
        "chat_template": CHAT_TEMPLATE,
    }


def write(directory, vocab_size, max_positions):
    """tokenizer.json, tokenizer_config.json, and vocab.json and merges.txt for readers of the older form."""
    tokenizer = tokenizer_of(vocab_size)
    merges = "".join(" ".join(pair) + "\n" for pair in tokenizer["model"]["merges"])
    files = {
        "tokenizer.json": json.dumps(tokenizer, ensure_ascii=False),
        "tokenizer_config.json": json.dumps(settings_of(vocab_size, max_positions), indent=1),
        "vocab.json": json.dumps(tokenizer["model"]["vocab"], ensure_ascii=False),
        "merges.txt": "#version: 0.2\n" + merges,
    }
    for name, text in files.items():
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            file.write(text)
