#!/usr/bin/env python3
"""Writes what transformers' own chat template rendering makes of templates and chats, for the tests of jinja/ and
processor/chat_template.

    python tools/make_chat_template_fixtures.py --tree . [--extra NAME=TEMPLATE.jinja ... --output chats.json]

Without --output it rewrites tests/jinja/fixtures/template_cases.json and tests/processor/fixtures/chat_prompts.json. With
--extra the same chats are rendered with further templates (published ones, say) into a file of their own.
"""

import argparse
import json
import pathlib

from chat_template_cases import CASES, CONTEXT
from transformers.utils.chat_template_utils import render_jinja_template

# What transformers' templates are like: a system message first, thinking cut out of earlier turns, images counted.
TEMPLATES = {
    "turns": (
        "{{ bos_token }}{% for message in messages %}\n"
        "{% if loop.first and message['role'] == 'assistant' %}\n"
        "{{ raise_exception('A chat cannot start with the assistant') }}\n"
        "{% endif %}\n"
        "[{{ message['role'] | upper }}] {{ message['content'] | trim }}{{ eos_token }}\n"
        "{% endfor %}\n"
        "{% if add_generation_prompt %}[ASSISTANT] {% endif %}"
    ),
    "thinking": (
        "{%- if tools %}\n"
        "    {{- raise_exception('no tools here') }}\n"
        "{%- elif messages[0].role == 'system' %}\n"
        "    {{- '<sys>\\n' + messages[0].content + '</sys>\\n' }}\n"
        "{%- endif %}\n"
        "{%- set state = namespace(searching=true, last_question=messages|length - 1) %}\n"
        "{%- for turn in messages[::-1] %}\n"
        "    {%- set position = (messages|length - 1) - loop.index0 %}\n"
        "    {%- if state.searching and turn.role == \"user\" and turn.content is string "
        "and not(turn.content.startswith('<result>') and turn.content.endswith('</result>')) %}\n"
        "        {%- set state.searching = false %}\n"
        "        {%- set state.last_question = position %}\n"
        "    {%- endif %}\n"
        "{%- endfor %}\n"
        "{%- for turn in messages %}\n"
        "    {%- if turn.content is string %}\n"
        "        {%- set words = turn.content %}\n"
        "    {%- else %}\n"
        "        {%- set words = '' %}\n"
        "    {%- endif %}\n"
        "    {%- if (turn.role == \"user\") or (turn.role == \"system\" and not loop.first) %}\n"
        "        {{- '<' + turn.role + '>\\n' + words + '</>' + '\\n' }}\n"
        "    {%- elif turn.role == \"assistant\" %}\n"
        "        {%- set thoughts = '' %}\n"
        "        {%- if turn.reasoning_content is string %}\n"
        "            {%- set thoughts = turn.reasoning_content %}\n"
        "        {%- elif '</think>' in words %}\n"
        "            {%- set thoughts = words.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}\n"
        "            {%- set words = words.split('</think>')[-1].lstrip('\\n') %}\n"
        "        {%- endif %}\n"
        "        {%- if loop.index0 > state.last_question %}\n"
        "            {%- if loop.last or (not loop.last and thoughts) %}\n"
        "                {{- '<' + turn.role + '>\\n<think>\\n' + thoughts.strip('\\n') "
        "+ '\\n</think>\\n\\n' + words.lstrip('\\n') }}\n"
        "            {%- else %}\n"
        "                {{- '<' + turn.role + '>\\n' + words }}\n"
        "            {%- endif %}\n"
        "        {%- else %}\n"
        "            {{- '<' + turn.role + '>\\n' + words }}\n"
        "        {%- endif %}\n"
        "        {{- '</>\\n' }}\n"
        "    {%- endif %}\n"
        "{%- endfor %}\n"
        "{%- if add_generation_prompt %}\n"
        "    {{- '<assistant>\\n' }}\n"
        "    {%- if enable_thinking is defined and enable_thinking is false %}\n"
        "        {{- '<think>\\n\\n</think>\\n\\n' }}\n"
        "    {%- endif %}\n"
        "{%- endif %}"
    ),
    "pictures": (
        "{%- set pictures = namespace(count=0) %}\n"
        "{%- macro parts_of(content, counts) %}\n"
        "    {%- if content is string %}\n"
        "        {{- content }}\n"
        "    {%- else %}\n"
        "        {%- for part in content %}\n"
        "            {%- if 'image' in part or 'image_url' in part or part.type == 'image' %}\n"
        "                {%- if counts %}\n"
        "                    {%- set pictures.count = pictures.count + 1 %}\n"
        "                {%- endif %}\n"
        "                {%- if number_pictures %}Figure {{ pictures.count }}: {% endif -%}\n"
        "                <img/>\n"
        "            {%- elif 'text' in part %}\n"
        "                {{- part.text }}\n"
        "            {%- endif %}\n"
        "        {%- endfor %}\n"
        "    {%- endif %}\n"
        "{%- endmacro %}\n"
        "{%- for message in messages %}\n"
        "    {%- set content = parts_of(message.content, True) %}\n"
        "    {{- '<|' + message.role + '|>' + content + '\\n' }}\n"
        "{%- endfor %}\n"
        "{%- if pictures.count > 0 %}\n"
        "    {{- '(' ~ pictures.count ~ ')' }}\n"
        "{%- endif %}\n"
        "{%- if add_generation_prompt %}\n"
        "    {{- '<|assistant|>' }}\n"
        "{%- endif %}\n"
    ),
    "marked": (
        "{%- for message in messages -%}\n"
        "  {%- if message.role == 'assistant' -%}\n"
        "    <bot>{% generation %}{{ message.content }}{% endgeneration %}</bot>\n"
        "  {%- elif message.role in ['user', 'system'] -%}\n"
        "    <{{ message.role }}>{{ message.content if message.content is string "
        "else message.content|selectattr('type', 'equalto', 'text')|map(attribute='text')|join(' ') }}</{{ message.role }}>\n"
        "  {%- else -%}\n"
        "    {{ raise_exception('Unknown role: ' + message.role|tojson) }}\n"
        "  {%- endif -%}\n"
        "{%- endfor -%}\n"
        "{{ '<bot>' if add_generation_prompt else '' }}"
    ),
}


def text(role, content):
    return {"role": role, "content": content}


def with_parts(role, *parts):
    blocks = [{"type": "image"} if part is None else {"type": "text", "text": part} for part in parts]
    return {"role": role, "content": blocks}


CHATS = [
    [text("user", "Hello")],
    [text("user", "")],
    [text("user", "  spaces around \n")],
    [text("system", "Be brief."), text("user", "Hi")],
    [text("system", ""), text("user", "Hi")],
    [text("user", "2+2?"), text("assistant", "4"), text("user", "3+3?")],
    [text("system", "S"), text("user", "a"), text("assistant", "b"), text("user", "c"), text("assistant", "d"),
     text("user", "e")],
    [text("user", "a"), text("assistant", "b")],
    [text("user", "a"), text("assistant", "<think>\nhm\n</think>\n\nb")],
    [text("user", "a"), text("assistant", "<think>\nhm\n</think>\n\nb"), text("user", "c")],
    [text("user", "a"), text("assistant", "<think>x</think>y"), text("user", "c"),
     text("assistant", "<think>\n\nz\n\n</think>\n\n\nw")],
    [text("user", "a"), text("assistant", "half </think> thought"), text("user", "b")],
    [text("user", "a"), text("assistant", "<think>one</think><think>two</think>rest"), text("assistant", "more")],
    [text("user", "a"), {**text("assistant", "b"), "reasoning_content": "because"}, text("user", "c")],
    [text("user", "a"), {**text("assistant", "b"), "reasoning_content": "\nbecause\n"}],
    [text("user", "<result>42</result>"), text("assistant", "b")],
    [text("user", "q"), text("assistant", "w"), text("user", "<result>1</result>"), text("assistant", "<think>t</think>done")],
    [text("user", "a"), text("user", "b"), text("user", "c")],
    [text("user", "a"), text("system", "in the middle"), text("user", "b")],
    [text("assistant", "first"), text("user", "a")],
    [text("user", "日本語 😀 é\u0301 \u00a0 \u200b")],
    [text("user", "quotes ' \" and \\ and {{ braces }} {% raw %}")],
    [text("user", "line one\nline two\r\nline three\ttab")],
    [text("user", "<|im_start|>user\nfake<|im_end|>")],
    [text("user", "x" * 5000)],
    [text("user", "a"), text("assistant", ""), text("user", "b")],
    [with_parts("user", None, "What is this?")],
    [with_parts("user", "What is this?", None)],
    [with_parts("user", None, None, "Compare.")],
    [with_parts("user", None)],
    [text("system", "Look closely."), with_parts("user", None, "a"), text("assistant", "b"), with_parts("user", "c", None, "d")],
    [with_parts("user", "between ", None, " pictures ", None, ""), text("assistant", "ok"), text("user", "and now?")],
    [with_parts("user", None, "¿Qué? 図")],
    [with_parts("user", None, "q"), text("assistant", "<think>\nlook\n</think>\n\nred")],
]
SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def render(template, messages, **context):
    """{"expected": text}, {"raised": message of raise_exception} or {"fails": what Python said}."""
    try:
        rendered, _ = render_jinja_template([messages], chat_template=template, **context)
        return {"expected": rendered[0]}
    except Exception as error:  # whatever Python's interpreter throws is what ours must refuse
        kind = f"{type(error).__module__}.{type(error).__name__}"
        return {"raised": str(error)} if kind == "jinja2.exceptions.TemplateError" else {"fails": f"{kind}: {error}"[:160]}


def make_cases():
    cases = [{"name": name, "template": template, **render(template, [], **CONTEXT)} for name, template in CASES.items()]
    return {"context": CONTEXT, "cases": cases}


def make_chats(templates):
    prompts = []
    for name, template in templates.items():
        for index, chat in enumerate(CHATS):
            for add_generation_prompt in (False, True):
                result = render(template, chat, add_generation_prompt=add_generation_prompt, **SPECIAL_TOKENS)
                prompts.append({"template": name, "chat": index, "add_generation_prompt": add_generation_prompt, **result})
    return {"templates": templates, "special_tokens": SPECIAL_TOKENS, "chats": CHATS, "prompts": prompts}


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"{path}: {path.stat().st_size} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=pathlib.Path, required=True, help="root of the source tree")
    parser.add_argument("--extra", action="append", default=[], metavar="NAME=FILE", help="a template to render the chats with")
    parser.add_argument("--output", type=pathlib.Path, help="where to write the chats with --extra templates")
    options = parser.parse_args()
    if options.output:
        extra = dict(entry.split("=", 1) for entry in options.extra)
        write(options.output, make_chats({name: pathlib.Path(path).read_text(encoding="utf-8") for name, path in extra.items()}))
        return
    demo = (options.tree / "models/demo/chat_template.jinja").read_text(encoding="utf-8")
    write(options.tree / "tests/jinja/fixtures/template_cases.json", make_cases())
    write(options.tree / "tests/processor/fixtures/chat_prompts.json", make_chats({"demo": demo, **TEMPLATES}))


if __name__ == "__main__":
    main()
