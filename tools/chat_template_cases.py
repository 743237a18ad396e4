"""Single templates, and the variables they see, for make_chat_template_fixtures.py."""

CONTEXT = {
    "name": "Ada",
    "empty": "",
    "accents": "Größe, café, Ελλάδα, 日本語, 😀",
    "padded": " \t two  words \n",
    "numbers": [3, 1, 2],
    "mixed": [1, "two", 3.5, None, True],
    "nested": {"list": [[1, 2], [3]], "map": {"key": "value", "items": "shadowed"}},
    "people": [
        {"name": "Zoë", "age": 30, "tags": ["x", "y"]},
        {"name": "bob", "age": 25},
        {"name": "Ann", "age": 30, "tags": []},
    ],
    "flag": True,
    "off": False,
    "nothing": None,
    "zero": 0,
    "half": 0.5,
    "big": 123456789012,
}

# Each renders, or fails, exactly as in Python.
CASES = {
    # Text, tags and white space
    "plain text": "no tags at all",
    "empty template": "",
    "newline at the end is dropped": "text\n",
    "only one newline at the end is dropped": "text\n\n",
    "carriage returns": "a\r\nb\rc\r\n",
    "trim_blocks eats one newline": "{% if flag %}\n\nyes\n{% endif %}\nend",
    "output keeps the newline": "{{ name }}\nend",
    "lstrip_blocks": "a\n   {% if flag %}b{% endif %}\n  c",
    "lstrip_blocks only before the first tag of a line": "a\n  x {% if flag %}b{% endif %}\n  c",
    "lstrip_blocks with tabs": "\t {% if flag %}\t{% endif %}|",
    "lstrip_blocks does not touch output": "   {{ name }}\n   {{ name }}",
    "lstrip_blocks and comments": "a\n   {# note #}\n  b",
    "lstrip after a tag on the same line": "{% if flag %} {% if flag %}x{% endif %} {% endif %}",
    "minus on the left": "a \n\t {%- if flag %} b {% endif %} c",
    "minus on the right": "a {% if flag -%} \n\n b{% endif -%} \n c",
    "minus both sides": "a {%- if flag -%} b {%- endif -%} c",
    "minus on output": "a  {{- name -}}  b",
    "minus on comments": "a  {#- note -#}  b",
    "plus keeps indentation": "a\n   {%+ if flag %}b{% endif %}",
    "plus keeps the newline": "{% if flag +%}\nb{% endif +%}\nc",
    "minus beats trimming of unicode spaces": "a\u00a0\u2003{{- name -}}\u3000\u2028b",
    "comment over lines": "a{# one\ntwo {{ name }} {% if %} #}b",
    "empty comment": "a{##}b{#-#}c",
    "braces in text": "{ a } {a} } %} }} #} {",
    "tag over lines": "{%\n  if\n flag\n%}\nyes{%\nendif\n%}",
    "whitespace only": "  \n \n",
    "indented set lines": "  {% set x = 1 %}\n  {% set y = 2 %}\n  {{ x + y }}\n",
    "for with lines": "{% for n in numbers %}\n  - {{ n }}\n{% endfor %}\nend",
    "for with minus": "{%- for n in numbers -%}\n  {{ n }},\n{%- endfor -%}",
    # Literals
    "strings": """{{ 'single' }}{{ "double" }}{{ 'it\\'s' }}{{ "say \\"hi\\"" }}""",
    "escapes": r"""{{ 'a\nb\tc\\d\re\x41\u00e9\U0001F600\101\q' }}""",
    "escape at the end of a line": "{{ 'a\\\nb' }}",
    "newline in a string": "{{ 'a\nb' }}",
    "strings side by side": "{{ 'a' 'b' \"c\" }}",
    "braces in strings": "{{ '}}' }}{{ '{%' }}{{ \"%}\" }}",
    "numbers": "{{ 1 }} {{ 1_000 }} {{ 1.5 }} {{ 1e3 }} {{ 2.5e-3 }} {{ 1e16 }} {{ 1e15 }} {{ 1e-5 }} {{ 0.0001 }} {{ 00 }}",
    "constants": "{{ true }}{{ True }}{{ false }}{{ False }}{{ none }}{{ None }}",
    "lists": "{{ [1, 'a', 2.0, none, true, [], ()] }}",
    "tuples": "{{ (1, 2) }}{{ (1,) }}{{ () }}{{ 1, 2 }}",
    "maps": "{{ {'a': 1, 'b': {'c': [1]}} }}{{ {} }}",
    "map keys from expressions": "{{ {'a' ~ 1: name, name: 2} }}",
    "repr of strings": """{{ ['a', "it's", 'say "x"', 'both \\' and "', 'tab\\t', 'nl\\n', '\\x01', 'é', '\\u200b', '\\\\'] }}""",
    "trailing commas": "{{ [1, 2,] }}{{ {'a': 1,} }}{{ range(3,)|list }}",
    "nested braces": "{{ {'a': {'b': {}}} }}",
    # Names and undefined
    "variables": "{{ name }} {{ flag }} {{ nothing }} {{ half }} {{ big }}",
    "undefined prints nothing": "[{{ missing }}]",
    "undefined is false and empty": (
        "{{ missing is defined }}{% if missing %}a{% else %}b{% endif %}{% for x in missing %}c{% endfor %}"
        "{{ missing|length }}"
    ),
    "attribute of undefined": "{{ missing.attribute }}",
    "item of undefined": "{{ missing['x'] }}",
    "missing attribute prints nothing": (
        "[{{ people[0].missing }}][{{ people[0]['missing'] }}][{{ name.missing }}][{{ nothing.x }}]"
    ),
    "attribute of a missing attribute": "{{ people[0].missing.more }}",
    "calling undefined": "{{ missing() }}",
    "adding undefined": "{{ missing + 1 }}",
    "joining undefined": "{{ missing ~ 'x' }}",
    "undefined equals undefined": "{{ missing == other }}{{ missing == none }}{{ missing != 1 }}",
    "in undefined": "{{ 'a' in missing }}",
    "undefined in string": "{{ missing in 'abc' }}",
    "less than undefined": "{{ missing < 1 }}",
    # Operators
    "arithmetic": (
        "{{ 1 + 2 * 3 - 4 }} {{ 7 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 2 ** 10 }} "
        "{{ 2 ** -1 }} {{ 6 / 2 }}"
    ),
    "float arithmetic": "{{ 0.1 + 0.2 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 1.0 * 3 }} {{ 10 / 4 }} {{ 2 ** 0.5 }}",
    "power groups from the left": "{{ 2 ** 3 ** 2 }} {{ -2 ** 2 }}",
    "signs": "{{ -5 }} {{ +5 }} {{ --5 }} {{ -half }} {{ - 3|abs }} {{ -true }}",
    "booleans are numbers": "{{ true + true }} {{ true == 1 }} {{ false == 0.0 }} {{ [1] == [true] }}",
    "string operators": "{{ 'a' + 'b' }}{{ 'ab' * 2 }}{{ 2 * 'x' }}{{ 'a' ~ 1 ~ none ~ 1.5 }}{{ 'x' * -1 }}",
    "list operators": "{{ [1] + [2, 3] }}{{ [0] * 3 }}{{ (1,) + (2,) }}",
    "adding string and number": "{{ 'a' + 1 }}",
    "adding list and tuple": "{{ [1] + (2,) }}",
    "division by zero": "{{ 1 / 0 }}",
    "modulo by zero": "{{ 1 % 0 }}",
    "tilde binds tighter than plus": "{{ 'a' + 1 ~ 2 }}",
    "comparisons": (
        "{{ 1 < 2 }}{{ 2 <= 2 }}{{ 3 > 4 }}{{ 3 >= 4 }}{{ 1 == 1.0 }}{{ 1 != '1' }}{{ 'a' < 'b' }}"
        "{{ [1, 2] < [1, 3] }}{{ 'Z' < 'a' }}{{ 'é' > 'z' }}"
    ),
    "chained comparisons": "{{ 1 < 2 < 3 }}{{ 1 < 3 < 2 }}{{ 1 < 2 == 2 }}{{ 3 > 2 in [2] }}",
    "comparing string and number": "{{ 'a' < 1 }}",
    "comparing none": "{{ none < 1 }}",
    "equality of containers": (
        "{{ [1, [2]] == [1, [2]] }}{{ {'a': 1, 'b': 2} == {'b': 2, 'a': 1} }}{{ [1] == (1,) }}{{ [] == {} }}"
    ),
    "in": (
        "{{ 'b' in 'abc' }}{{ '' in 'abc' }}{{ 2 in numbers }}{{ '2' in numbers }}{{ 'name' in people[0] }}"
        "{{ 4 not in numbers }}{{ not 3 in numbers }}"
    ),
    "number in string": "{{ 1 in 'abc' }}",
    "in a number": "{{ 1 in 2 }}",
    "and or": "{{ 1 and 2 }}{{ 0 and 2 }}{{ '' or 'x' }}{{ 'a' or missing.x }}{{ none and missing.x }}{{ not 1 }}{{ not '' }}",
    "precedence of not": "{{ not 1 == 2 }}{{ not true and false }}{{ not (true and false) }}",
    "inline if": "{{ 'a' if flag else 'b' }}{{ 'a' if off else 'b' }}[{{ 'a' if off }}]{{ 1 if off else 2 if off else 3 }}",
    "inline if is lazy": "{{ missing.x if off else 'safe' }}",
    "parentheses": "{{ (1 + 2) * 3 }}{{ ((name)) }}{{ (1 if flag else 2) + 1 }}",
    # Subscripts and slices
    "subscripts": (
        "{{ numbers[0] }}{{ numbers[-1] }}[{{ numbers[9] }}][{{ numbers[-9] }}]{{ people[1]['name'] }}"
        "{{ name[0] }}{{ name[-1] }}[{{ name[7] }}]"
    ),
    "attribute by number": "{{ numbers.0 }}{{ nested.list.0.1 }}",
    "subscript with bool": "{{ numbers[true] }}",
    "slices": (
        "{{ numbers[1:] }}{{ numbers[:1] }}{{ numbers[:] }}{{ numbers[-2:] }}{{ numbers[:-1] }}{{ numbers[::-1] }}"
        "{{ numbers[::2] }}{{ numbers[5:] }}{{ numbers[-99:99] }}{{ numbers[2:0:-1] }}"
    ),
    "slices of strings": (
        "{{ 'abcdef'[1:4] }}{{ 'abcdef'[::-1] }}{{ accents[-3:] }}{{ accents[1:3] }}{{ 'abc'[none:2] }}"
        "{{ 'abcdef'[-2::-2] }}"
    ),
    "slices of tuples": "{{ (1, 2, 3)[1:] }}",
    "slice with step 0": "{{ numbers[::0] }}",
    "slice with a string": "{{ numbers['a':] }}",
    "unicode subscripts": "{{ accents[0] }}{{ accents[2] }}{{ accents[-1] }}{{ accents|length }}",
    "slice of undefined": "{{ missing[1:] }}",
    # Statements
    "if elif else": "{% for n in [0, 1, 2] %}{% if n == 0 %}a{% elif n == 1 %}b{% else %}c{% endif %}{% endfor %}",
    "truth": "{% for v in [0, 0.0, '', [], {}, none, false, (), 1, 'a', [0], {'a': 0}, -1] %}{{ 'T' if v else 'F' }}{% endfor %}",
    "loop variable": (
        "{% for n in numbers %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}"
        "{{ loop.first }}{{ loop.last }}{{ loop.length }} {% endfor %}"
    ),
    "previous and next item": "{% for n in numbers %}[{{ loop.previtem }}<{{ n }}<{{ loop.nextitem }}]{% endfor %}",
    "previtem is defined": "{% for n in numbers %}{{ loop.previtem is defined }}{{ loop.nextitem is undefined }}{% endfor %}",
    "loop cycle": "{% for n in numbers %}{{ loop.cycle('odd', 'even') }} {% endfor %}",
    "for else": "{% for n in [] %}x{% else %}empty{% endfor %}{% for n in [1] %}x{% else %}empty{% endfor %}",
    "for if": "{% for n in numbers if n > 1 %}{{ n }}{{ loop.index }}{{ loop.last }}{{ loop.length }}{% else %}none{% endfor %}",
    "for if with else": "{% for n in numbers if n > 9 %}{{ n }}{% else %}none{% endfor %}",
    "for over a map": (
        "{% for key in nested %}{{ key }} {% endfor %}{% for k, v in nested.map.items() %}"
        "{{ k }}={{ v }} {% endfor %}"
    ),
    "for over a string": "{% for c in 'añ😀' %}{{ c }}.{% endfor %}",
    "for over a tuple": "{% for x in 1, 'b' %}{{ x }}{% endfor %}",
    "for over a number": "{% for x in 5 %}{% endfor %}",
    "for over none": "{% for x in none %}{% endfor %}",
    "unpacking": (
        "{% for a, b in [(1, 2), [3, 4]] %}{{ a }}-{{ b }} {% endfor %}{% for a, (b, c) in [(1, (2, 3))] %}"
        "{{ a + b + c }}{% endfor %}"
    ),
    "unpacking too many": "{% for a, b in [(1, 2, 3)] %}{% endfor %}",
    "unpacking a number": "{% for a, b in [1] %}{% endfor %}",
    "nested loops": (
        "{% for p in people %}{{ loop.index }}{% for t in p.tags %}{{ loop.index }}{{ t }}{% endfor %}"
        "{{ loop.index }} {% endfor %}"
    ),
    "outer loop by set": (
        "{% for p in people %}{% set outer = loop %}{% for t in p.tags %}"
        "{{ outer.index }}.{{ loop.index }} {% endfor %}{% endfor %}"
    ),
    "loop scope": "{% set x = 1 %}{% for n in numbers %}{{ x }}{% set x = n %}{{ x }} {% endfor %}{{ x }}",
    "loop variable is gone": "{% for n in numbers %}{% endfor %}[{{ n }}][{{ loop }}]",
    "if has no scope": "{% if flag %}{% set x = 1 %}{% endif %}{{ x }}",
    "break and continue": (
        "{% for n in range(10) %}{% if n == 2 %}{% continue %}{% endif %}{% if n == 5 %}{% break %}{% endif %}"
        "{{ n }}{% endfor %}"
    ),
    "break leaves one loop": (
        "{% for a in [1, 2] %}{% for b in [1, 2] %}{% if b == 2 %}{% break %}{% endif %}{{ a }}"
        "{{ b }} {% endfor %}{% endfor %}"
    ),
    "set": "{% set x = 1 %}{% set y = x + 1 %}{{ x }}{{ y }}{% set x = 'new' %}{{ x }}",
    "set tuple": "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set t = 1, 2 %}{{ t }}{% set (c, d) = [3, 4] %}{{ c + d }}",
    "set block": "{% set x %}a {{ name }}\n {% if flag %}b{% endif %}{% endset %}[{{ x }}]{{ x is string }}",
    "set block scope": "{% set x %}{% set y = 1 %}{% endset %}[{{ y }}]",
    "namespace": (
        "{% set ns = namespace(a=1, b='x') %}{% for n in numbers %}{% set ns.a = ns.a + n %}{% endfor %}{{ ns.a }}"
        "{{ ns.b }}[{{ ns.c }}]"
    ),
    "namespace from a map": "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a + ns.b }}{% set ns.c = [1] %}{{ ns.c }}{{ ns['a'] }}",
    "namespace block": "{% set ns = namespace() %}{% set ns.text %}hello {{ name }}{% endset %}{{ ns.text }}",
    "attribute of a map cannot be set": "{% set nested.x = 1 %}",
    "attribute of undefined cannot be set": "{% set missing.x = 1 %}",
    "macro": (
        "{% macro greet(who, mark='!') %}Hi {{ who }}{{ mark }}{% endmacro %}{{ greet('A') }}{{ greet('B', '?') }}"
        "{{ greet(mark='.', who='C') }}"
    ),
    "macro without argument": "{% macro m(a) %}[{{ a }}]{{ a is defined }}{% endmacro %}{{ m() }}",
    "macro default uses earlier": "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, 2) }}",
    "macro default is evaluated late": "{% set x = 1 %}{% macro m(a=x) %}{{ a }}{% endmacro %}{% set x = 2 %}{{ m() }}",
    "macro sees globals": "{% set x = 1 %}{% macro m() %}{{ x }}{{ name }}{% endmacro %}{% set x = 2 %}{{ m() }}",
    "macro does not see the caller's loop": "{% macro m() %}[{{ n }}]{% endmacro %}{% for n in numbers %}{{ m() }}{% endfor %}",
    "macro scope": "{% macro m() %}{% set x = 1 %}{% endmacro %}{{ m() }}[{{ x }}]",
    "macro result is text": "{% macro m() %} {{ 1 }} {% endmacro %}{{ m() is string }}{{ m()|trim ~ m()|length }}",
    "recursive macro": "{% macro count(n) %}{{ n }}{% if n > 0 %}{{ count(n - 1) }}{% endif %}{% endmacro %}{{ count(3) }}",
    "macro changes a namespace": (
        "{% set ns = namespace(n=0) %}{% macro m() %}{% set ns.n = ns.n + 1 %}{% endmacro %}{{ m() }}{{ m() }}"
        "{{ ns.n }}"
    ),
    "macro with too many arguments": "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}",
    "macro with unknown argument": "{% macro m(a) %}{% endmacro %}{{ m(b=1) }}",
    "macro before its definition": "{{ m() }}{% macro m() %}{% endmacro %}",
    "call block": "{% macro box() %}<{{ caller() }}>{% endmacro %}{% call box() %}in {{ name }}{% endcall %}",
    "call block with arguments": (
        "{% macro each(items) %}{% for i in items %}{{ caller(i) }}{% endfor %}{% endmacro %}"
        "{% call(x) each(numbers) %}({{ x }}){% endcall %}"
    ),
    "call block without caller": "{% macro m() %}{% endmacro %}{% call m() %}{% endcall %}",
    "generation": "a{% generation %}b{{ name }}{% endgeneration %}c",
    "generation in a loop": "{%- for n in numbers %}\n{%- generation %}\n  {{- n }}\n{%- endgeneration %}\n{%- endfor %}",
    # Tests
    "is defined": (
        "{{ name is defined }}{{ missing is defined }}{{ missing is undefined }}{{ nothing is defined }}"
        "{{ people[0].x is defined }}{{ missing is not defined }}"
    ),
    "is none": "{{ nothing is none }}{{ name is none }}{{ missing is none }}{{ nothing is not none }}",
    "is type": (
        "{% for v in [1, 1.5, true, 'a', none, [1], (1,), {'a': 1}] %}{{ v is string }}{{ v is number }}"
        "{{ v is integer }}{{ v is float }}{{ v is boolean }}{{ v is mapping }}{{ v is iterable }}"
        "{{ v is sequence }} {% endfor %}"
    ),
    "is true and false": (
        "{{ true is true }}{{ 1 is true }}{{ false is false }}{{ 0 is false }}{{ off is false }}"
        "{{ missing is false }}"
    ),
    "is undefined type": "{{ missing is iterable }}{{ missing is sequence }}{{ missing is string }}{{ missing is mapping }}",
    "is equalto": "{{ 1 is equalto 1 }}{{ 1 is eq(2) }}{{ 'a' is ne 'b' }}{{ 2 is gt 1 }}{{ 2 is le 1 }}",
    "is in": "{{ 1 is in numbers }}{{ 9 is not in numbers }}{{ 'a' is in 'abc' }}",
    "is odd": "{{ 1 is odd }}{{ 2 is even }}{{ 9 is divisibleby 3 }}{{ 9 is divisibleby(2) }}",
    "is in conditions": (
        "{{ 'a' if name is string and name is not none else 'b' }}"
        "{% if nothing is none or missing.x %}c{% endif %}"
    ),
    "is binds tighter than not": "{{ not missing is defined }}{{ 1 + 1 is odd }}",
    "is upper": "{{ 'ABC' is upper }}{{ 'abc' is lower }}{{ 'Abc' is lower }}{{ '12' is upper }}",
    "odd string": "{{ 'a' is odd }}",
    # Filters
    "trim": "[{{ padded|trim }}][{{ 'xxaxx'|trim('x') }}][{{ 5|trim }}][{{ missing|trim }}]",
    "length": "{{ name|length }}{{ numbers|count }}{{ nested|length }}{{ (1, 2)|length }}",
    "length of a number": "{{ 5|length }}",
    "case filters": (
        "{{ 'hELLO wORLD'|upper }}{{ 'hELLO wORLD'|lower }}{{ 'hELLO wORLD'|title }}{{ 'hELLO wORLD'|capitalize }}"
        "{{ accents|upper }}{{ accents|lower }}{{ 'o\\'neil (x-y) [z]'|title }}{{ 5|upper }}"
    ),
    "join": (
        "{{ numbers|join(', ') }}{{ numbers|join }}{{ 'abc'|join('-') }}{{ mixed|join('|') }}"
        "{{ people|join(', ', attribute='name') }}{{ [missing, 1]|join('-') }}"
    ),
    "replace": (
        "{{ 'aaa'|replace('a', 'b') }}{{ 'aaa'|replace('a', 'b', 2) }}{{ 'abc'|replace('', '-') }}"
        "{{ 121|replace(1, 'x') }}"
    ),
    "first and last": "{{ numbers|first }}{{ numbers|last }}{{ 'añ'|first }}{{ 'añ'|last }}[{{ []|first }}][{{ []|last }}]",
    "list": "{{ 'añb'|list }}{{ (1, 2)|list }}{{ nested|list }}{{ missing|list }}",
    "int": (
        "{{ '42'|int }}{{ ' 7 '|int }}{{ '3.9'|int }}{{ 3.9|int }}{{ -3.9|int }}{{ 'x'|int }}{{ 'x'|int(-1) }}"
        "{{ none|int }}{{ true|int }}{{ '1_000'|int }}{{ []|int(default=5) }}{{ 'inf'|int }}"
    ),
    "float": (
        "{{ '4.5'|float }}{{ 2|float }}{{ 'x'|float }}{{ 'x'|float(1.5) }}{{ '1e3'|float }}{{ 'nan'|float }}"
        "{{ '-inf'|float }}"
    ),
    "string": "{{ 5|string + 'x' }}{{ none|string }}{{ [1]|string|length }}{{ missing|string }}",
    "default": (
        "{{ missing|default('x') }}{{ nothing|default('x') }}{{ ''|default('x', true) }}{{ missing|d }}"
        "{{ people[0].x|default(3) }}{{ 0|default(1, boolean=true) }}"
    ),
    "items": "{{ nested.map|items|list }}{% for k, v in people[0]|items %}{{ k }}:{{ v }} {% endfor %}{{ missing|items|list }}",
    "map attribute": (
        "{{ people|map(attribute='name')|list }}{{ people|map(attribute='tags', default='-')|list }}"
        "{{ people|map(attribute='age')|sum }}{{ nested.list|map(attribute=0)|list }}"
    ),
    "map filter": (
        "{{ ['a', 'b']|map('upper')|join }}{{ numbers|map('string')|list }}"
        "{{ ['a-b']|map('replace', '-', '+')|list }}{{ [[2, 1]]|map('sort')|list }}"
    ),
    "selectattr": (
        "{{ people|selectattr('tags')|map(attribute='name')|list }}"
        "{{ people|selectattr('age', 'equalto', 30)|map(attribute='name')|list }}"
        "{{ people|rejectattr('age', '>', 26)|map(attribute='name')|list }}"
        "{{ people|selectattr('tags', 'defined')|list|length }}"
    ),
    "select": (
        "{{ mixed|select|list }}{{ numbers|select('odd')|list }}{{ numbers|reject('odd')|list }}"
        "{{ mixed|select('string')|list }}{{ numbers|select('in', [1, 2])|list }}"
    ),
    "unique": (
        "{{ [1, 2, 1, 'a', 'A', 'a']|unique|list }}{{ ['a', 'A']|unique(true)|list }}"
        "{{ people|unique(attribute='age')|map(attribute='name')|list }}"
    ),
    "sort": (
        "{{ numbers|sort }}{{ numbers|sort(reverse=true) }}{{ ['b', 'A', 'c']|sort }}"
        "{{ ['b', 'A', 'c']|sort(case_sensitive=true) }}"
        "{{ people|sort(attribute='age')|map(attribute='name')|list }}"
        "{{ people|sort(attribute='age,name')|map(attribute='name')|list }}"
    ),
    "sort of mixed types": "{{ [1, 'a']|sort }}",
    "reverse": "{{ numbers|reverse|list }}{{ 'añb'|reverse }}",
    "safe": "{{ '<b>'|safe }}{{ '<&>' }}",
    "indent": (
        "{{ 'a\\nb\\n\\nc'|indent }}|{{ 'a\\nb'|indent(2, true) }}"
        "|{{ 'a\\n\\nb'|indent(2, blank=true) }}|{{ 'a\\nb'|indent('> ') }}|{{ ''|indent }}"
    ),
    "dictsort": (
        "{{ {'b': 1, 'A': 2}|dictsort }}{{ {'b': 1, 'A': 2}|dictsort(true) }}"
        "{{ {'b': 2, 'a': 1}|dictsort(by='value', reverse=true) }}"
    ),
    "numeric filters": (
        "{{ -3|abs }}{{ -2.5|abs }}{{ 2.5|round }}{{ 3.5|round }}{{ 2.345|round(2) }}{{ 42.55|round(1, 'floor') }}"
        "{{ 42.51|round(1, 'ceil') }}{{ 5|round }}"
    ),
    "aggregates": (
        "{{ numbers|min }}{{ numbers|max }}{{ numbers|sum }}{{ ['b', 'A']|min }}{{ people|sum('age') }}"
        "{{ people|max(attribute='age')|items|list }}[{{ []|min }}]{{ numbers|sum(start=10) }}"
    ),
    "batch": "{{ [1, 2, 3, 4, 5]|batch(2)|list }}{{ [1, 2, 3]|batch(2, 'x')|list }}",
    "filter chains": (
        "{{ ' A,b '|trim|lower|replace(',', ' ')|title }}{{ (1 + 2)|string|length }}"
        "{{ name|default('x')|upper|first }}"
    ),
    "filters bind tighter than operators": "{{ 1 + '2'|int }}{{ 'a' ~ 'b'|upper }}",
    "an iterator is used up": "{% set i = numbers|map('string') %}{{ i|join }}[{{ i|join }}]{{ 'T' if []|select else 'F' }}",
    "length of an iterator": "{{ numbers|select|length }}",
    "tojson": (
        "{{ nested|tojson }}{{ mixed|tojson }}{{ accents|tojson }}{{ 'q\"\\\\/\\n\\t\\x01<>&\\'\\x7f'|tojson }}"
        "{{ 1e16|tojson }}{{ half|tojson }}{{ (1, 2)|tojson }}{{ {}|tojson }}{{ []|tojson }}"
    ),
    "tojson indent": (
        "{{ nested|tojson(indent=2) }}{{ [1, [], {}]|tojson(indent=4) }}{{ {'a': 1}|tojson(indent='--') }}"
        "{{ [1]|tojson(indent=0) }}"
    ),
    "tojson options": (
        "{{ {'b': 1, 'a': 'é😀'}|tojson(ensure_ascii=true, sort_keys=true) }}"
        "{{ {'a': [1, 2]}|tojson(separators=(',', ':')) }}"
    ),
    "tojson of undefined": "{{ missing|tojson }}",
    # Methods
    "strip": (
        "[{{ padded.strip() }}][{{ padded.lstrip() }}][{{ padded.rstrip() }}][{{ '\\n\\na\\n'.strip('\\n') }}]"
        "[{{ 'xyaxy'.lstrip('yx') }}][{{ 'aéé'.rstrip('é') }}][{{ ' a '.strip(none) }}]"
    ),
    "split": (
        "{{ 'a,b,,c'.split(',') }}{{ ' a  b '.split() }}{{ 'a b c'.split(' ', 1) }}"
        "{{ 'a b  c'.split(maxsplit=1) }}{{ ''.split() }}{{ ''.split(',') }}{{ 'a</x>b</x>c'.split('</x>')[-1] }}"
        "{{ 'abc'.split('x')[0] }}"
    ),
    "rsplit": "{{ 'a,b,c'.rsplit(',', 1) }}{{ ' a b  c '.rsplit(none, 1) }}{{ 'a b'.rsplit() }}",
    "split with empty separator": "{{ 'abc'.split('') }}",
    "splitlines": "{{ 'a\\nb\\r\\nc\\n'.splitlines() }}",
    "startswith": (
        "{{ name.startswith('A') }}{{ name.endswith('da') }}{{ name.startswith(('x', 'A')) }}"
        "{{ ''.startswith('') }}{{ 'a'.endswith('') }}"
    ),
    "case methods": (
        "{{ 'hELLO wORLD'.upper() }}{{ 'hELLO wORLD'.lower() }}{{ \"they're bill's\".title() }}"
        "{{ 'hELLO'.capitalize() }}{{ ''.capitalize() }}"
    ),
    "replace method": "{{ 'aaa'.replace('a', 'b') }}{{ 'aaa'.replace('a', 'b', 1) }}{{ 'ab'.replace('', '.') }}",
    "find": "{{ 'añbñ'.find('b') }}{{ 'añbñ'.rfind('ñ') }}{{ 'a'.find('z') }}{{ 'banana'.count('an') }}",
    "join method": "{{ ', '.join(['a', 'b']) }}{{ ''.join([]) }}{{ '-'.join('abc') }}",
    "join method with numbers": "{{ ','.join([1]) }}",
    "removeprefix": "{{ 'abc'.removeprefix('a') }}{{ 'abc'.removesuffix('c') }}{{ 'abc'.removeprefix('x') }}",
    "character tests": "{{ '12'.isdigit() }}{{ ''.isdigit() }}{{ ' \\t'.isspace() }}",
    "map methods": (
        "{% for k, v in people[1].items() %}{{ k }}{{ v }}{% endfor %}{{ people[1].keys()|list }}"
        "{{ people[1].values()|list }}{{ people[1].get('age') }}{{ people[1].get('x') }}"
        "{{ people[1].get('x', 'd') }}{{ nested.map['items'] }}"
    ),
    "list methods": "{{ numbers.index(2) }}{{ numbers.count(3) }}",
    "unknown method": "{{ name.shout() }}",
    "method of none": "{{ nothing.strip() }}",
    "lists cannot be changed": "{{ numbers.append(4) }}",
    "maps cannot be changed": "{{ nested.update({'a': 1}) }}",
    "strip with a number": "{{ name.strip(1) }}",
    # Functions
    "range": (
        "{{ range(3)|list }}{{ range(1, 4)|list }}{{ range(5, 0, -2)|list }}{{ range(0)|list }}"
        "{{ range(3)|length }}{{ range(5)[1] }}{% for i in range(2) %}{{ i }}{% endfor %}"
    ),
    "range too large": "{{ range(1000000000) }}",
    "range with step 0": "{{ range(1, 2, 0) }}",
    "dict": "{{ dict(a=1, b='x') }}{{ dict({'a': 1}, b=2) }}{{ dict([('k', 'v')]) }}",
    "raise_exception": "{{ raise_exception('Roles must alternate: ' ~ name) }}",
    "raise_exception in a branch": "{% if off %}{{ raise_exception('no') }}{% endif %}fine",
    "raise_exception in a macro": "{% macro m() %}{{ raise_exception('inner') }}{% endmacro %}{{ m() }}",
    "variables hide functions": "{% set range = 5 %}{{ range }}",
    # Syntax errors
    "unclosed output": "{{ name",
    "unclosed tag": "{% if flag",
    "unclosed comment": "{# note",
    "unclosed string": "{{ 'abc }}",
    "unclosed if": "{% if flag %}x",
    "unclosed for": "{% for x in y %}",
    "end without begin": "x{% endif %}",
    "wrong end": "{% if flag %}{% endfor %}",
    "empty output": "{{ }}",
    "two values": "{{ a b }}",
    "bad operator": "{{ a ! b }}",
    "unbalanced bracket": "{{ (1 }}",
    "wrong bracket": "{{ [1) }}",
    "unknown filter": "{{ name|shout }}",
    "unknown test": "{{ name is shouting }}",
    "unknown tag": "{% shout %}",
    "assign to a constant": "{% set true = 1 %}",
    "positional after named": "{{ dict(a=1, 2) }}",
    "chained tests": "{{ 1 is odd is true }}",
    "else twice": "{% if flag %}{% else %}{% else %}{% endif %}",
    "bad escape": r"{{ '\xZZ' }}",
    "break outside": "{% break %}",
}
