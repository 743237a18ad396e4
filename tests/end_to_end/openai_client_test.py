"""The official openai client against a running server: what it gets back, typed errors, 64 streams at once, disconnects.

    python openai_client_test.py BASE_URL MODEL_DIR        BASE_URL: http://127.0.0.1:8000

Needs the package of openai_requirements.txt. Questions and pictures come from MODEL_DIR/calibration.
"""

import base64
import concurrent.futures
import json
import pathlib
import sys
import time
import unittest
import urllib.request

import openai

BASE_URL = ""
MODEL_DIR = pathlib.Path()
NUM_STREAMS = 64
MAX_TOKENS = 24


def client(**options):
    return openai.OpenAI(base_url=BASE_URL + "/v1", api_key="none", max_retries=0, timeout=300, **options)


def read_questions():
    """One question per picture, every fifth one, so that all tasks are among them."""
    lines = (MODEL_DIR / "calibration" / "vqa.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[::5]][:NUM_STREAMS]


def picture_message(question):
    picture = base64.b64encode((MODEL_DIR / "calibration" / question["image"]).read_bytes()).decode()
    return {
        "role": "user",
        "content": [
            {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64," + picture}},
            {"type": "text", "text": question["question"]},
        ],
    }


def text_message(text):
    return {"role": "user", "content": text}


def metric(name):
    """Sum of a metric's samples."""
    with urllib.request.urlopen(BASE_URL + "/metrics", timeout=30) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + " ", name + "{")))


def wait_until(condition, timeout=30.0):
    end = time.monotonic() + timeout
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


class OpenAiClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = client()
        cls.model = cls.client.models.list().data[0].id

    def ask(self, messages, **options):
        options = {"temperature": 0, "max_tokens": MAX_TOKENS, **options}
        return self.client.chat.completions.create(model=self.model, messages=messages, **options)

    def stream_text(self, messages, **options):
        """The streamed text and the finish reason."""
        text, reason = "", None
        for chunk in self.ask(messages, stream=True, **options):
            text += chunk.choices[0].delta.content or ""
            reason = chunk.choices[0].finish_reason or reason
        return text, reason

    # --- answers ---

    def test_model_list_has_the_model_and_its_context(self):
        models = self.client.models.list().data
        self.assertEqual(len(models), 1)
        self.assertGreater(models[0].max_model_len, 0)
        self.assertEqual(self.client.models.list().object, "list")

    def test_whole_answer_has_text_reason_and_exact_usage(self):
        answer = self.ask([text_message("What is 83 + 20?")])
        self.assertTrue(answer.choices[0].message.content)
        self.assertEqual(answer.choices[0].message.role, "assistant")
        self.assertIn(answer.choices[0].finish_reason, ("stop", "length"))
        self.assertEqual(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)
        self.assertLessEqual(answer.usage.completion_tokens, MAX_TOKENS)

    def test_streamed_and_whole_answers_are_the_same(self):
        messages = [text_message("What is 35 + 75?")]
        answer = self.ask(messages).choices[0]
        self.assertEqual(self.stream_text(messages), (answer.message.content, answer.finish_reason))

    def test_the_demo_model_knows_its_sums_and_pictures(self):
        questions = read_questions()
        right = sum(self.ask([picture_message(q)]).choices[0].message.content.strip() == q["answer"] for q in questions[:12])
        self.assertGreaterEqual(right, 6, "fewer than half of 12 pictures were answered right")
        self.assertIn("103", self.ask([text_message("What is 83 + 20?")]).choices[0].message.content)

    def test_all_roles_and_several_turns(self):
        answer = self.ask(
            [
                {"role": "system", "content": "Answer briefly."},
                {"role": "user", "content": [{"type": "text", "text": "What is 2 + 2?"}]},
                {"role": "assistant", "content": "4"},
                {"role": "user", "content": "What is 3 + 3?"},
            ]
        )
        self.assertGreater(answer.usage.prompt_tokens, 20)
        developer = [{"role": "developer", "content": "Answer briefly."}, text_message("What is 3 + 3?")]
        system = [{"role": "system", "content": "Answer briefly."}, text_message("What is 3 + 3?")]
        self.assertEqual(self.ask(developer).usage.prompt_tokens, self.ask(system).usage.prompt_tokens)

    def test_pictures_count_as_prompt_tokens(self):
        question = read_questions()[0]
        with_picture = self.ask([picture_message(question)], max_tokens=1).usage.prompt_tokens
        without = self.ask([text_message(question["question"])], max_tokens=1).usage.prompt_tokens
        self.assertGreater(with_picture, without)

    # --- streaming ---

    def test_usage_comes_only_when_asked_and_then_last(self):
        messages = [text_message("What is 2 x 3?")]
        plain = list(self.ask(messages, stream=True))
        self.assertTrue(all(chunk.choices and chunk.usage is None for chunk in plain))
        chunks = list(self.ask(messages, stream=True, stream_options={"include_usage": True}))
        self.assertEqual(chunks[-1].choices, [])
        self.assertEqual(chunks[-1].usage.completion_tokens, self.ask(messages).usage.completion_tokens)
        self.assertTrue(all(chunk.usage is None for chunk in chunks[:-1]))

    def test_the_role_comes_first_and_the_identity_stays(self):
        chunks = list(self.ask([text_message("What is 2 x 3?")], stream=True))
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        self.assertEqual({chunk.id for chunk in chunks}, {chunks[0].id})
        self.assertEqual([c.choices[0].finish_reason is not None for c in chunks], [False] * (len(chunks) - 1) + [True])

    def test_64_streams_with_pictures_are_not_mixed_up(self):
        questions = read_questions()
        self.assertEqual(len(questions), NUM_STREAMS)
        alone = [self.stream_text([picture_message(question)]) for question in questions]
        with concurrent.futures.ThreadPoolExecutor(NUM_STREAMS) as pool:
            together = list(pool.map(lambda question: self.stream_text([picture_message(question)]), questions))
        self.assertGreater(len({text for text, _ in alone}), NUM_STREAMS // 4, "the answers are too alike to tell apart")
        self.assertEqual(together, alone)

    # --- options ---

    def test_max_tokens_ends_with_reason_length(self):
        for name in ("max_tokens", "max_completion_tokens"):
            options = {"max_tokens": 200, name: 3, "extra_body": {"ignore_eos": True}}
            answer = self.ask([text_message("Tell me about the sea.")], **options)
            self.assertEqual(answer.usage.completion_tokens, 3)
            self.assertEqual(answer.choices[0].finish_reason, "length")

    def test_stop_strings_end_before_themselves(self):
        messages = [text_message("What is 83 + 20?")]
        full = self.ask(messages).choices[0].message.content
        stop = full[1:3]
        for stops in (stop, ["never in it", stop]):
            answer = self.ask(messages, stop=stops).choices[0]
            self.assertEqual(answer.message.content, full[: full.find(stop)])
            self.assertEqual(answer.finish_reason, "stop")
            self.assertEqual(self.stream_text(messages, stop=stops), (full[: full.find(stop)], "stop"))

    def test_a_seed_repeats_and_choices_differ(self):
        options = {"temperature": 1.0, "seed": 42, "n": 4, "max_tokens": 16, "extra_body": {"ignore_eos": True}}
        texts = [[c.message.content for c in self.ask([text_message("Tell a story.")], **options).choices] for _ in range(2)]
        self.assertEqual(texts[0], texts[1])
        self.assertGreater(len(set(texts[0])), 1)
        other = self.ask([text_message("Tell a story.")], **{**options, "seed": 43})
        self.assertNotEqual([c.message.content for c in other.choices], texts[0])

    def test_n_choices_are_streamed_each_to_its_end(self):
        ends = []
        for chunk in self.ask([text_message("What is 2 x 3?")], stream=True, n=3, temperature=1.0, seed=1):
            if chunk.choices[0].finish_reason:
                ends.append(chunk.choices[0].index)
        self.assertEqual(sorted(ends), [0, 1, 2])

    # --- errors ---

    def assert_bad_request(self, param, messages=None, **options):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.ask(messages or [text_message("hi")], **options)
        self.assertEqual(caught.exception.param, param)
        self.assertNotIn("\n", caught.exception.body["message"])
        return caught.exception

    def test_bad_fields_are_named(self):
        self.assert_bad_request("temperature", temperature=-1)
        self.assert_bad_request("top_p", top_p=3)
        self.assert_bad_request("n", n=1000)
        self.assert_bad_request("max_tokens", max_tokens=0)
        self.assert_bad_request("logprobs", logprobs=True)
        self.assert_bad_request("messages[0].role", messages=[{"role": "nobody", "content": "x"}])

    def test_bad_pictures_are_named(self):
        broken = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 40).decode()
        prefix = "data:image/png;base64,"
        for url in ("https://example.org/x.png", "file:///etc/passwd", prefix + "!!", prefix + broken):
            message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
            self.assert_bad_request("messages[0].content[0].image_url.url", messages=[message])

    def test_a_prompt_over_the_context_says_the_numbers(self):
        context = self.client.models.list().data[0].max_model_len
        error = self.assert_bad_request("messages", messages=[text_message("word " * 2 * context)])
        self.assertEqual(error.code, "context_length_exceeded")
        self.assertIn(str(context), error.body["message"])

    def test_an_unknown_model_is_not_found(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            self.client.chat.completions.create(model="another", messages=[text_message("hi")])
        self.assertEqual(caught.exception.code, "model_not_found")

    def test_an_unknown_path_is_not_found(self):
        with self.assertRaises(openai.NotFoundError):
            self.client.embeddings.create(model=self.model, input="x")

    def test_the_request_id_comes_back(self):
        answer = self.client.chat.completions.with_raw_response.create(
            model=self.model, messages=[text_message("hi")], max_tokens=1, extra_headers={"X-Request-Id": "my-request-7"}
        )
        self.assertEqual(answer.headers["x-request-id"], "my-request-7")

    def test_a_flood_is_answered_or_refused_with_rate_limit(self):
        def ask_once(_):
            try:
                client().chat.completions.create(model=self.model, messages=[text_message("hi")], max_tokens=4, n=16)
                return True
            except openai.RateLimitError as error:
                return "retry-after" in error.response.headers

        with concurrent.futures.ThreadPoolExecutor(48) as pool:
            outcomes = list(pool.map(ask_once, range(48)))
        self.assertTrue(all(outcomes))
        self.assertTrue(self.ask([text_message("hi")]).choices)

    # --- disconnects ---

    def test_a_disconnect_frees_its_place(self):
        self.assertTrue(wait_until(lambda: metric("vllm:num_requests_running") == 0))
        streams = []
        for i in range(8):
            options = {"stream": True, "max_tokens": 1500, "extra_body": {"ignore_eos": True}}
            stream = self.ask([text_message(f"Tell me story {i}.")], **options)
            next(iter(stream))
            streams.append(stream)
        self.assertTrue(wait_until(lambda: metric("vllm:num_requests_running") > 0))
        for stream in streams:
            stream.close()
        freed = lambda: metric("vllm:num_requests_running") == 0 and metric("vllm:kv_cache_usage_perc") == 0
        # A step takes milliseconds; engine_test counts steps, this bounds the way from the socket to the engine.
        self.assertTrue(wait_until(freed, timeout=1), "blocks are still held a second after the clients left")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    BASE_URL = sys.argv[1].rstrip("/")
    MODEL_DIR = pathlib.Path(sys.argv[2])
    unittest.main(argv=[sys.argv[0]] + sys.argv[3:], verbosity=2)
