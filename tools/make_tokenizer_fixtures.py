#!/usr/bin/env python3
"""Writes tests/processor/fixtures/tokenizer: texts with the token ids that Hugging Face tokenizers gives them.

    tools/make_tokenizer_fixtures.py --model models/demo --output tests/processor/fixtures/tokenizer

Needs `tokenizers` and `transformers`. The same inputs give the same files. Besides the model's own tokenizer it trains three
small ones of other shapes, so that the code is not fitted to one tokenizer.json.
"""

import argparse
import json
import pathlib
import random
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "Der Müller übergießt große Äpfel; Straße, Grüße, Öl.",
    "Voilà l'été où j'ai reçu cœur, naïveté, façade et garçon.",
    "El pingüino de la cigüeña comió ñoquis; ¿qué? ¡así!",
    "Zażółć gęślą jaźń. Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "Árvíztűrő tükörfúrógép. İstanbul'da ığdır şoförü çağrı.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία: ΐ ΰ ώ.",
    "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر",
    "السَّلامُ عَلَيْكُمْ وَرَحْمَةُ اللهِ",
    "דג סקרן שט בים מאוכזב ולפתע מצא חברה. שָׁלוֹם",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश",
    "আমি বাংলায় গান গাই। ੳਅੲ ગુજરાતી தமிழ் తెలుగు ಕನ್ನಡ മലയാളം සිංහල",
    "いろはにほへと ちりぬるを。漢字とカタカナ、ｶﾞ半角。",
    "视野无限广，窗外有蓝天。繁體中文測試，「引號」。",
    "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다.",
    "ภาษาไทย ພາສາລາວ ភាសាខ្មែរ မြန်မာဘာသာ བོད་ཡིག ქართული հայերեն አማርኛ",
    "Tiếng Việt: Con sói nâu nhảy qua con chó lười biếng, được ở đường.",
    "𝒯𝒽ℯ 𝓺𝓾𝓲𝓬𝓴 𝕓𝕣𝕠𝕨𝕟 𝐟𝐨𝐱 𝟙𝟚𝟛 𝚖𝚘𝚗𝚘 ℝ ℂ ∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, α ∧ ¬β ⇒ γ ∮ E⋅da = Q",
    "👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 ❤️ ☃ 🤷🏾‍♀️ 1️⃣ ©️™",
    "int main(void) {\n\treturn argc > 1 ? 0x7fULL : -1;  // done\n}\n",
    "def f(x):\n    return {k: v**2 for k, v in x.items() if v != 0}\n\n\n",
    "<div class=\"a b\">&nbsp;&amp;</div>\r\n<!-- c -->\r\n",
    "SELECT * FROM t WHERE a='x''y' AND b<=1e-9;",
    "{\"key\": [1, 2.50, null, true], \"ü\": \"\\u00fc\"}",
    "https://example.org/a/b?c=d&e=%20f#g user.name+tag@example.com C:\\dir\\file.txt",
    "Tel. +49 (0)30 1234567, 3.14159, 1,000,000, 50%, $9.99, 2024-02-29T23:59:60Z",
    "١٢٣ ۴۵۶ १२३ ๑๒๓ 一二三 Ⅷ ½ ² ₃ ①",
    "ſ long s; K kelvin; Å angstrom; ﬁ ligature; ǆ ǅ Ǆ; ß ẞ",
]
CONTRACTIONS = ["I'm", "I'M", "you're", "YOU'RE", "we've", "it's", "IT'S", "he'll", "He'D", "don't", "DON'T", "'s", "'S",
                "'ſ", "''s", "a's's", "o'clock", "rock'n'roll", "’s", "I’ll", "' s", "'re're", "'LL", "'lL", "'t5", "5's"]
SPACES = ["", " ", "  ", "   ", "\t", "\t\t x", "\n", "\n\n", "\r\n", "\r\n\r\n x", " \n", "\n ", "  \n  \n", " \t \n\t ",
          "x  y",
          "x   y    z", "x \n y", "x\n\n\ny", "trailing   ", "   leading", "\u00a0x", "x\u00a0 y", "\u2003\u2003x",
          "\u3000全角\u3000", "\u180ex \u180e y", "\u200bzero\u200bwidth", "\ufeffbom", "\u2028line\u2029para", "\x85next",
          "\x0b\x0c vertical", "x\u202fy\u205fz\u1680w"]
CONTROLS = ["\x00", "a\x00b", "\x01\x02\x03", "\x1b[31mred\x1b[0m", "\x7f", "\x80\x9f", "\ufffd", "\ufffe\uffff",
            "\U0010ffff",
            "\U000e0001\U000e0041", "\ue000", "\u00adsoft", "\u202eright\u202c", "\u0378", "\u2060\u2064", "\x08\x07"]
COMPOSING = ["e\u0301", "cafe\u0301", "A\u030a", "\u212b", "o\u0302\u0323", "o\u0323\u0302", "\u0301", " \u0301x",
             "q\u0307\u0323",
             "\u1100\u1161\u11a8", "\u1112\u1161\u11ab\u1100\u116e\u11a8", "\uac00\u11a8", "\u0958", "\u0915\u093c",
             "\u2126", "\u0374",
             "\u1e9b\u0323", "a\u0315\u0300\u05ae\u0062", "\U0001d15e", "\U0001d157\U0001d165", "\ufb1d", "\u0344",
             "\u0340\u0341",
             "\u0b47\u0b3e", "\u09c7\u09be", "n\u0303o", "ﬁ ﬀ ½ ²", "i\u0307", "I\u0307", "\u2329\u232a", "e\u0301" * 20,
             "z" + "\u0301\u0323" * 15, "z\u0336\u0336\u0489", "\uf900\ufa10", "\u0f71\u0f72\u0f73"]
SPECIALS = ["<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>", " <|im_end|> ",
            "<|im_end|><|im_end|>", "<|im_end",
            "|im_end|>", "<<|im_end|>>", "<|IM_END|>", "<|im_end |>", "<|image_pad|>",
            "<|vision_start|><|image_pad|><|vision_end|>What?",
            "x<|endoftext|>y", "<|endoftext|><|video_pad|>é", "e<|im_end|>\u0301", "e<|im_start|>\u0301x",
            "<|im_<|im_end|>end|>",
            "<|object_ref_start|>cat<|object_ref_end|><|box_start|>(1,2)<|box_end|>", "<think>hm</think>",
            "<tool_call>{}</tool_call>"]
ADDED = ["a <lstrip> b", "a   <lstrip>b", "\n\t <lstrip>", "<lstrip>", "a <rstrip> b", "<rstrip>   \n b", "<rstrip>",
         "a  <both>  b", "<both> <both>",
         "<both>   <lstrip>", "<rstrip>   <lstrip>  x", "<rstrip> <rstrip>\u3000y", "word", "a word here", "words",
         "sword", "a-word.", "_word",
         "wordé", "word\u0301", "Ⓐword", "word word", "wordword", "\u200dword", "word5", "<a>", "<ab>", "<abc>", "<abcd>",
         "<ab", "<<abc>",
         "cafe\u0301 <café>", "<cafe\u0301>", "x<cafe\u0301>y", "Ångström", "A\u030angstro\u0308m", "\u212bngström!",
         "a 東京 b", "東京都",
         "<special> x", "x<special>", "<special ><special>", "tab\t<lstrip>\ttab", "  <both>", "<both>  ",
         "\u00a0<both>\u2003"]


def repeated_texts():
    """Long runs of one kind of character."""
    units = ["a", " ", "é", "漢", "🙂", "9", "!", "\n", "\t", "ab", "the", "\u0301", "👨\u200d", "-", "=", "e\u0301", "한",
         "\u200d", "A", "0x"]
    return [unit * count for unit in units for count in (2, 3, 7, 64, 301)]


def random_texts(count, seed):
    """Random mixtures of characters from blocks that behave differently."""
    ranges = [(0x20, 0x7E), (0x20, 0x7E), (0x09, 0x0D), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x52F), (0x590, 0x6FF),
              (0x900, 0x97F),
              (0xE00, 0xE7F), (0x1100, 0x11FF), (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x20A0, 0x22FF), (0x2460, 0x27BF),
              (0x3040, 0x30FF),
              (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0xFB00, 0xFB4F), (0xFF00, 0xFFEF), (0x1D400, 0x1D7FF),
              (0x1F300, 0x1F6FF), (0x20000, 0x2A6DF)]
    generator = random.Random(seed)
    texts = []
    for _ in range(count):
        pieces = []
        for _ in range(generator.randint(1, 8)):
            low, high = generator.choice(ranges)
            run = "".join(chr(generator.randint(low, high)) for _ in range(generator.randint(1, 5)))
            pieces.append(generator.choice(["", " ", "  ", "\n", "'s", "e", "a1"]) + run)
        texts.append("".join(pieces))
    return texts


def all_texts():
    texts = SENTENCES + CONTRACTIONS + SPACES + CONTROLS + COMPOSING + SPECIALS + ADDED
    texts += [unicodedata.normalize("NFD", text) for text in SENTENCES]
    texts += [text.upper() for text in SENTENCES[:10]]
    texts += [" " + text + "\r\n" for text in SENTENCES]
    texts += repeated_texts() + random_texts(250, seed=1)
    texts += ["".join(SENTENCES), "\n".join(SENTENCES[:8]) * 3, "x" * 5000, "lorem ipsum " * 200, "1234567890" * 100]
    return list(dict.fromkeys(texts))


def encode(tokenizer, text, as_text):
    tokenizer.encode_special_tokens = as_text
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    tokenizer.encode_special_tokens = False
    return ids


def encode_cases(tokenizer, texts):
    cases = []
    for text in texts:
        case = {"text": text, "ids": encode(tokenizer, text, as_text=False)}
        as_text = encode(tokenizer, text, as_text=True)
        if as_text != case["ids"]:
            case["ids_as_text"] = as_text
        cases.append(case)
    return cases


def decode_cases(tokenizer, count, seed):
    """Random ids: most of them end in the middle of a character."""
    generator = random.Random(seed)
    size = tokenizer.get_vocab_size()
    bytes_only = [tokenizer.token_to_id(character) for character in pre_tokenizers.ByteLevel.alphabet()]
    bytes_only = sorted(token for token in bytes_only if token is not None)
    cases = []
    for i in range(count):
        source = bytes_only if i % 2 else range(size)
        ids = [generator.choice(source) for _ in range(generator.randint(0, 12))]
        if i % 5 == 0:
            ids.insert(generator.randint(0, len(ids)), size - 1 - generator.randint(0, 3))
        cases.append({"ids": ids, "text": tokenizer.decode(ids, skip_special_tokens=False),
                      "text_without_special": tokenizer.decode(ids, skip_special_tokens=True)})
    return cases


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")


def write_cases(folder, tokenizer, special_ids):
    texts = all_texts()
    write_json(folder / "cases.json", {
        "special_ids": special_ids,
        "encode": encode_cases(tokenizer, texts),
        "decode": decode_cases(tokenizer, 200, seed=2),
    })


def train(corpus, pre_tokenizer, normalizer, vocab_size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def added_tokens():
    return [
        AddedToken("<lstrip>", lstrip=True, normalized=False),
        AddedToken("<rstrip>", rstrip=True, normalized=False),
        AddedToken("<both>", lstrip=True, rstrip=True, normalized=False, special=True),
        AddedToken("word", single_word=True, normalized=False),
        AddedToken("<a>", normalized=False),
        AddedToken("<ab", normalized=False),
        AddedToken("<abc>", normalized=False, special=True),
        AddedToken("<café>", normalized=True),
        AddedToken("A\u030angström", normalized=True),
        AddedToken("東京", normalized=False),
        AddedToken("<special>", normalized=False, special=True),
        AddedToken("<|im_end|>", normalized=True, special=True),
    ]


def save_trained(folder, tokenizer, change_json):
    folder.mkdir(parents=True, exist_ok=True)
    contents = json.loads(tokenizer.to_str())
    change_json(contents)
    write_json(folder / "tokenizer.json", contents)
    loaded = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special_ids = sorted(id for id, token in loaded.get_added_tokens_decoder().items() if token.special)
    write_cases(folder, loaded, special_ids)


def make_gpt2_style(folder, corpus):
    """The split of ByteLevel itself, no normalizer, merges as strings."""
    tokenizer = train(corpus, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True), None, 700)
    tokenizer.add_tokens(added_tokens())

    def change(contents):
        contents["model"]["merges"] = [" ".join(pair) for pair in contents["model"]["merges"]]

    save_trained(folder, tokenizer, change)


def make_llama3_style(folder, corpus):
    """ignore_merges, with whole words that no merge reaches."""
    pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
               r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False,
              use_regex=False)]
    tokenizer = train(corpus, pre_tokenizers.Sequence(steps), None, 900)

    def change(contents):
        contents["model"]["ignore_merges"] = True
        contents["model"]["merges"] = [pair for i, pair in enumerate(contents["model"]["merges"]) if i % 7 != 6]

    tokenizer.add_tokens(added_tokens())
    save_trained(folder, tokenizer, change)


def make_deepseek_style(folder, corpus):
    """Several splits in a row, classes with \\s, \\S, \\w and \\d, NFC within a Sequence,
              flags from tokenizer_config.json."""
    steps = [
        pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"),
        pre_tokenizers.Split(Regex("[一-龥぀-ゟ゠-ヿ]+"), "isolated"),
        pre_tokenizers.Split(Regex(r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"
                                   r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), "isolated"),
        pre_tokenizers.Split(Regex(r"[\s\d]+\w|\W\S+?(?=[^\w]|\D)"), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    tokenizer = train(corpus, pre_tokenizers.Sequence(steps), normalizers.Sequence([normalizers.NFC()]), 800)
    tokenizer.add_tokens(added_tokens())
    save_trained(folder, tokenizer, lambda contents: None)


def make_model_fixture(folder, model):
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    official = AutoTokenizer.from_pretrained(str(model))
    for text in all_texts():
        ids = encode(tokenizer, text, as_text=False)
        assert official(text, add_special_tokens=False)["input_ids"] == ids, text
    write_cases(folder, tokenizer, sorted(official.all_special_ids))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    prose = (arguments.model / "calibration" / "text.txt").read_text()[:60000]
    corpus = [prose] + [sentence for sentence in SENTENCES for _ in range(3)]
    make_model_fixture(arguments.output / "demo", arguments.model)
    make_gpt2_style(arguments.output / "gpt2_style", corpus)
    make_llama3_style(arguments.output / "llama3_style", corpus)
    make_deepseek_style(arguments.output / "deepseek_style", corpus)


if __name__ == "__main__":
    main()
