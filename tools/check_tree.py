#!/usr/bin/env python3
"""Checks the house style that a program can check: include direction, sizes, names, banned calls, headers, stray files.

    tools/check_tree.py [ROOT]

Prints every violation as `file:line: rule: text` and exits with 1 if there is any. Needs only Python's standard library.
"""
import ast
import dataclasses
import os
import pathlib
import re
import sys

import cpp_source

MAX_FUNCTION_LINES = 70
MAX_KERNEL_LINES = 150
MAX_FILE_LINES = 600
MAX_LINE_CHARACTERS = 130

SKIPPED_FOLDERS = {"build", "fixtures", "models", "shared", "__pycache__"}
CPP_SUFFIXES = {".h", ".cc", ".cu", ".cuh"}
BANNED_NAME_WORDS = {"util", "utils", "helper", "helpers", "common", "misc", "manager"}

# What these folders may see of a folder they depend on; all others see every header.
VISIBLE_HEADERS = {
    ("frontend", "engine"): {"generation_request.h", "request_queue.h"},
}
CONFIG_HEADERS = re.compile(r"^base/|_config\.h$|_limits\.h$|^tensor/dtype\.h$")
# Folders that may include anything, and that nothing else includes.
OUTSIDE_FOLDERS = {"tests", "bench", "tools"}


@dataclasses.dataclass(frozen=True)
class Ban:
    """A pattern in code (comments and literals blanked) that only files matching `allowed` may hold."""

    rule: str
    pattern: re.Pattern
    allowed: re.Pattern


def _ban(rule, pattern, allowed=r"$^"):
    return Ban(rule, re.compile(pattern), re.compile(allowed))


BANS = [
    _ban("std::regex backtracks without limit; use PCRE2", r"\bstd::w?regex\b"),
    _ban("wait on a condition, event or timer; do not sleep", r"\b(?:sleep_for|sleep_until|usleep|nanosleep)\b", r"comm/|tests/"),
    _ban("throw an error; only the launcher exits", r"(?<![\w.>])(?:_exit|exit|quick_exit)\s*\(", r"launcher/|tests/|tools/"),
    _ban("MPI stays behind comm/", r"\bMPI_[A-Z]\w*", r"comm/|tests/comm/|tests/support/|tools/pmpi_bytes"),
    _ban("flags are read in launcher/flags.cc and bench/*_perf.cc only", r"\b(?:DEFINE_\w+\s*\(|DECLARE_\w+\s*\(|FLAGS_\w+)",
         r"launcher/flags\.cc$|bench/\w+_perf\.cc$"),
    _ban("using namespace std", r"\busing\s+namespace\s+std\b"),
    # `std::shared_ptr<T> owner(new T(...))` stays possible: make_shared cannot call a private constructor.
    _ban("own by value or unique_ptr; no bare new", r"(?<!\()(?<!operator )\bnew\b(?!\s*\()"),
    _ban("own by value or unique_ptr; no bare delete", r"(?<!operator )\bdelete\s*(?:\[\s*\]\s*)?[\w(*]"),
]

# Headers that cost seconds to parse or pull a runtime into every includer.
HEAVY_INCLUDES = re.compile(r"nlohmann/json\.hpp$|mpi\.h$|boost/|nccl\.h$|cuda\w*\.h(?:pp)?$|cublas\w*\.h$")
MAY_BE_HEAVY = {"nlohmann/json.hpp": r"tests/", "mpi.h": r"comm/mpi_|tests/", "boost/": r"frontend/|tests/",
                "": r".*/cuda/|tests/"}
CATCH_ALL = re.compile(r"\bcatch\s*\(\s*\.\.\.\s*\)\s*\{")
HANDLES_ERROR = re.compile(r"\b(?:throw|rethrow_exception|current_exception|abort|terminate|LOG|FAIL|ADD_FAILURE)\b")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
# Written in two parts so that this file does not violate its own rules.
UNNUMBERED_WORK = re.compile("(?:TO" "DO|FIX" "ME)" + r"(?!\(#\d+\))")
WORKPLACE_PATH = re.compile("(?<![\\w.])/" "work/|/tmp/" "build")


@dataclasses.dataclass(frozen=True, order=True)
class Violation:
    path: str
    line: int
    rule: str
    text: str

    def __str__(self):
        return f"{self.path}:{self.line}: {self.rule}: {self.text}"


class Tree:
    """The files of a checkout and what its CMakeLists.txt say about folders."""

    def __init__(self, root):
        self.root = pathlib.Path(root).resolve()
        self.paths = sorted(self._walk())
        self._texts = {}
        self.cmake_lists = {path: self.text(path) for path in self.paths if path.endswith("CMakeLists.txt")}
        self.order = re.findall(r"^add_subdirectory\((\w+)\)", self.cmake_lists.get("CMakeLists.txt", ""), re.MULTILINE)
        self.links = {folder: self._declared_links(folder) for folder in self.order}

    def _walk(self):
        for folder, subfolders, names in os.walk(self.root):
            subfolders[:] = [name for name in subfolders if name not in SKIPPED_FOLDERS and not name.startswith(".")]
            for name in names:
                yield str((pathlib.Path(folder) / name).relative_to(self.root))

    def text(self, path):
        if path not in self._texts:
            self._texts[path] = (self.root / path).read_text(encoding="utf-8", errors="replace")
        return self._texts[path]

    def _declared_links(self, folder):
        """{"public": folders, "private": folders}, or None while the folder has no library."""
        text = re.sub(r"#[^\n]*", "", self.cmake_lists.get(f"{folder}/CMakeLists.txt", ""))
        library = re.search(r"skipper_library\(([^)]*)\)", text)
        if not library:
            return None
        public, private = set(), set()
        section = None
        for word in library[1].split():
            if word in ("NAME", "SRCS", "DEPS", "PRIVATE_DEPS"):
                section = word
            elif word.startswith("skipper_"):
                (public if section == "DEPS" else private).add(word.removeprefix("skipper_"))
        for links in re.findall(r"target_link_libraries\(skipper_\w+([^)]*)\)", text):
            private.update(re.findall(r"\bskipper_(\w+)", links))
        return {"public": public, "private": private}

    def visible_folders(self, folder, of_header):
        """What a file of `folder` may include: its libraries and theirs; None when the folder has no library."""
        links = self.links.get(folder)
        if links is None:
            return None
        pending = list(links["public"] if of_header else links["public"] | links["private"])
        seen = {folder}
        while pending:
            current = pending.pop()
            if current not in seen:
                seen.add(current)
                pending += (self.links.get(current) or {"public": ()})["public"]
        return seen


def check_includes(tree, path):
    folder = path.split("/")[0]
    text = cpp_source.without_comments(tree.text(path))
    for number, line in enumerate(text.split("\n"), 1):
        found = INCLUDE.match(line)
        if not found:
            continue
        target = found[2]
        problem = _heavy_include(path, target) if found[1] == "<" else _wrong_direction(tree, path, folder, target)
        if problem:
            yield Violation(path, number, "include", problem)


def _heavy_include(path, target):
    if not path.endswith(".h") or not HEAVY_INCLUDES.search(target):
        return None
    allowed = next(folders for start, folders in MAY_BE_HEAVY.items() if target.startswith(start))
    return None if re.match(allowed, path) else f"<{target}> belongs in a .cc file"


def _wrong_direction(tree, path, folder, target):
    if folder in OUTSIDE_FOLDERS:
        return None
    target_folder, _, target_name = target.partition("/")
    if target_folder in OUTSIDE_FOLDERS and target_name:
        return f"{folder} includes {target}; nothing includes {target_folder}"
    if folder not in tree.order or target_folder not in tree.order or target_folder == folder:
        return None
    if tree.order.index(target_folder) > tree.order.index(folder):
        return f"{folder} includes {target}, but comes before {target_folder} in CMakeLists.txt"
    visible = tree.visible_folders(folder, path.endswith(".h"))
    if visible is not None and target_folder not in visible:
        return f"{folder} includes {target} without skipper_{target_folder} among its DEPS"
    return _hidden_header(folder, target_folder, target_name)


def _hidden_header(folder, target_folder, target_name):
    allowed = VISIBLE_HEADERS.get((folder, target_folder))
    if allowed is not None and target_name not in allowed:
        return f"{folder} sees of {target_folder} only {', '.join(sorted(allowed))}, not {target_name}"
    if folder == "configs" and not CONFIG_HEADERS.search(f"{target_folder}/{target_name}"):
        return f"configs includes only *_config.h and *_limits.h, not {target_folder}/{target_name}"
    return None


def check_functions(tree, path):
    if path.endswith(".py"):
        sized = [(node.name, node.lineno, node.end_lineno - node.lineno + 1, MAX_FUNCTION_LINES)
                 for node in ast.walk(ast.parse(tree.text(path))) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    else:
        is_cuda = path.endswith((".cu", ".cuh"))
        sized = [(_name_of(function.head), function.first_line, function.num_lines,
                  MAX_KERNEL_LINES if is_cuda and function.is_kernel else MAX_FUNCTION_LINES)
                 for function in cpp_source.functions(cpp_source.code_only(tree.text(path)))]
    for name, line, num_lines, limit in sized:
        if num_lines > limit:
            yield Violation(path, line, "function size", f"{name} has {num_lines} lines, more than {limit}")


def _name_of(head):
    if macro := re.match(r"(?:TEST|TEST_F|TEST_P|TYPED_TEST)\(([^)]*)\)", head):
        return re.sub(r"\s*,\s*", ".", macro[1])
    found = re.search(r"([\w:~]+)\s*\(", head)
    return found[1] if found else "function"


def check_size_and_lines(tree, path):
    lines = tree.text(path).split("\n")
    if len(lines) - 1 > MAX_FILE_LINES:
        yield Violation(path, MAX_FILE_LINES + 1, "file size", f"{len(lines) - 1} lines, more than {MAX_FILE_LINES}")
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_LINE_CHARACTERS:
            yield Violation(path, number, "line length", f"{len(line)} characters, more than {MAX_LINE_CHARACTERS}")


def check_text(tree, path):
    for number, line in enumerate(tree.text(path).split("\n"), 1):
        if UNNUMBERED_WORK.search(line):
            yield Violation(path, number, "to-do", "needs an issue number, as in (#12)")
        if WORKPLACE_PATH.search(line):
            yield Violation(path, number, "path", f"names a folder of one machine: {line.strip()[:80]}")


def check_bans(tree, path):
    code = cpp_source.code_only(tree.text(path))
    for ban in BANS:
        if ban.allowed.match(path):
            continue
        for found in ban.pattern.finditer(code):
            yield Violation(path, code.count("\n", 0, found.start()) + 1, "banned", f"`{found[0].strip()}`: {ban.rule}")
    for found in CATCH_ALL.finditer(code):
        body = code[found.end():cpp_source.closing_brace(code, found.end() - 1)]
        if not HANDLES_ERROR.search(body):
            line = code.count("\n", 0, found.start()) + 1
            yield Violation(path, line, "banned", "`catch (...)` swallows the error: rethrow, keep or log it")


def check_header_opening(tree, path):
    opening, pragma, _ = tree.text(path).partition("#pragma once")
    lines = opening.rstrip().split("\n")
    first_paragraph = re.match(r"(?:// [^\n]*\n)*", opening)[0]
    if not pragma:
        yield Violation(path, 1, "header", "has no #pragma once")
    elif not all(line == "//" or line.startswith("// ") for line in lines):
        yield Violation(path, 1, "header", "has something other than its opening comment above #pragma once")
    elif not first_paragraph.rstrip().endswith("."):
        yield Violation(path, 1, "header", "does not open with a sentence that says its duty and ends with a full stop")


def check_file_name(path):
    for part in pathlib.PurePath(path).with_suffix("").parts:
        banned = BANNED_NAME_WORDS & set(re.split(r"[_\-.]", part.lower()))
        if banned:
            yield Violation(path, 1, "file name", f"`{banned.pop()}` does not name a duty")
            return


def check_is_built(tree, path):
    for cmake_path, text in tree.cmake_lists.items():
        folder = cmake_path.removesuffix("CMakeLists.txt")
        names = {path} | ({path.removeprefix(folder)} if path.startswith(folder) else set())
        if any(re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", text) for name in names):
            return
    yield Violation(path, 1, "not built", "no CMakeLists.txt lists this file")


def is_code(path):
    suffix = pathlib.PurePath(path).suffix
    return suffix in CPP_SUFFIXES | {".py", ".cmake", ".sh"} or path.endswith("CMakeLists.txt") or path.startswith("scripts/")


def is_text(path):
    return is_code(path) or path.endswith((".md", ".json", ".in", ".yml", ".txt"))


def violations(tree):
    for path in tree.paths:
        suffix = pathlib.PurePath(path).suffix
        if is_text(path):
            yield from check_text(tree, path)
        if is_code(path):
            yield from check_file_name(path)
            yield from check_size_and_lines(tree, path)
        if suffix in CPP_SUFFIXES or suffix == ".py":
            yield from check_functions(tree, path)
        if suffix in CPP_SUFFIXES:
            yield from check_includes(tree, path)
            yield from check_bans(tree, path)
        if suffix in (".h", ".cuh"):
            yield from check_header_opening(tree, path)
        if suffix in (".cc", ".cu"):
            yield from check_is_built(tree, path)


def main(arguments):
    if len(arguments) > 1:
        sys.exit(__doc__)
    root = arguments[0] if arguments else pathlib.Path(__file__).resolve().parent.parent
    found = sorted(set(violations(Tree(root))))
    for violation in found:
        print(violation)
    if found:
        print(f"check_tree: {len(found)} violations", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
