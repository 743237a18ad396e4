"""Just enough of C++'s surface to check style: code without comments and literals, and where functions begin and end."""
import dataclasses
import re

# Comments, raw strings, strings, characters; a quote between digits separates thousands.
_LITERAL = re.compile(
    r'//(?:\\\n|[^\n])*'
    r'|/\*.*?\*/'
    r'|R"(?P<tag>[^()\s\\]*)\(.*?\)(?P=tag)"'
    r'|"(?:\\.|[^"\\\n])*"'
    r"|(?<![0-9A-Fa-f])'(?:\\.|[^'\\\n])*'",
    re.DOTALL,
)
_DIRECTIVE = re.compile(r"^[ \t]*#(?:\\\n|[^\n])*", re.MULTILINE)
_MEMBER_INITIALISER = re.compile(r"\)[\w\s]*[^:]:[^:].*[\w>]\s*$|\)\s*:[^:].*[\w>]\s*$", re.DOTALL)
_TYPE = re.compile(r"^(?:template\s*<.*>\s*)?(?:typedef\s+)?(?:class|struct|union|enum)\b", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Function:
    """`head` is the text before the body; lines count from 1 and include the head."""

    head: str
    first_line: int
    last_line: int

    @property
    def num_lines(self):
        return self.last_line - self.first_line + 1

    @property
    def is_kernel(self):
        return "__global__" in self.head or "__device__" in self.head


def _blanked(text):
    return re.sub(r"[^\n]", " ", text)


def without_comments(text):
    """The text with comments blanked and literals kept; every line stays where it was."""
    return _LITERAL.sub(lambda found: _blanked(found[0]) if found[0].startswith("/") else found[0], text)


def code_only(text):
    """The text with comments, literals' contents and directives blanked; every line stays where it was."""
    return _DIRECTIVE.sub(lambda found: _blanked(found[0]), _LITERAL.sub(_blank_literal, text))


def _blank_literal(found):
    text = found[0]
    return _blanked(text) if text.startswith("/") else '"' + _blanked(text[1:-1]) + '"'


def closing_brace(code, opening):
    """The index of the brace that closes the one at `opening`, or the end of the code."""
    depth = 0
    for found in re.compile(r"[{}]").finditer(code, opening):
        depth += 1 if found[0] == "{" else -1
        if depth == 0:
            return found.start()
    return len(code)


def functions(code):
    """The functions at namespace and class level, in order, of a text made by code_only."""
    found = []
    start = position = depth = 0
    while position < len(code):
        character = code[position]
        if character in "()":
            depth += 1 if character == "(" else -1
        elif character in ";}" and depth == 0 or _is_access_label(code, start, position):
            start = position + 1
        elif character == "{":
            head = code[start:position]
            if depth == 0 and _opens_scope(head):
                start = position + 1
            else:
                closing = closing_brace(code, position)
                if depth == 0 and _opens_body(head):
                    found.append(_function(code, start, closing, head))
                    start = closing + 1
                position = closing
        position += 1
    return found


def _is_access_label(code, start, position):
    return code[position] == ":" and code[start:position].strip() in ("public", "private", "protected")


def _opens_scope(head):
    head = head.strip()
    return bool(re.match(r"(?:inline\s+)?namespace\b|extern\b[^()]*$", head) or _TYPE.match(head) and not head.endswith(")"))


def _opens_body(head):
    if "(" not in head or head.rstrip().endswith(("=", ",")):
        return False
    return not _MEMBER_INITIALISER.search(head)


def _function(code, start, closing, head):
    first = start + len(head) - len(head.lstrip())
    return Function(head.strip(), code.count("\n", 0, first) + 1, code.count("\n", 0, closing) + 1)
