#!/usr/bin/env python3
"""Plants one violation of each rule into a small clean tree and sees that check_tree finds it, and nothing else."""
import pathlib
import tempfile
import unittest

import check_tree

CLEAN_TREE = {
    "CMakeLists.txt": "add_subdirectory(base)\nadd_subdirectory(tensor)\nadd_subdirectory(comm)\nadd_subdirectory(engine)\n",
    "base/CMakeLists.txt": "skipper_library(NAME base SRCS error.cc)\n",
    "base/error.h": "// Errors.\n#pragma once\n",
    "base/error.cc": '#include "base/error.h"\n',
    "tensor/CMakeLists.txt": "skipper_library(NAME tensor SRCS tensor.cc DEPS skipper_base)\n",
    "tensor/tensor.h": "// Shapes over a buffer,\n// without math.\n//\n// More on it\n#pragma once\n",
    "tensor/tensor.cc": '#include "base/error.h"\n',
    "comm/CMakeLists.txt": "skipper_library(NAME comm SRCS ring.cc DEPS skipper_base)\n",
    "comm/ring.h": "// A ring.\n#pragma once\n",
    "comm/ring.cc": 'int size() { return MPI_SUCCESS; } // sleep_for\nvoid wait() { std::this_thread::sleep_for(1); }\n',
    "engine/CMakeLists.txt": "skipper_library(NAME engine SRCS engine.cc PRIVATE_DEPS skipper_comm DEPS skipper_tensor)\n",
    "engine/engine.h": '// The loop.\n#pragma once\n#include "base/error.h"\n#include "tensor/tensor.h"\n',
    "engine/engine.cc": '#include "comm/ring.h"\nEngine::Engine() : size_{1} {}\nauto p = "new exit( MPI_X catch (...) {}";\n',
}
LONG_BODY = "void run() {\n" + "  step();\n" * 68 + "}\n"


class CheckTree(unittest.TestCase):
    def found(self, changes):
        with tempfile.TemporaryDirectory() as folder:
            for path, text in {**CLEAN_TREE, **changes}.items():
                file = pathlib.Path(folder, path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
            return [f"{found.path}:{found.line}: {found.rule}" for found in check_tree.violations(check_tree.Tree(folder))]

    def assert_found(self, path, text, *expected):
        self.assertEqual(self.found({path: text}), [f"{path}:{rule}" for rule in expected])

    def test_finds_nothing_in_a_clean_tree(self):
        self.assertEqual(self.found({}), [])

    def test_finds_an_include_against_the_order_of_folders(self):
        self.assert_found("tensor/tensor.cc", '\n#include "engine/engine.h"\n', "2: include")

    def test_finds_an_include_of_a_folder_that_is_no_dependency(self):
        self.assert_found("comm/ring.cc", '#include "tensor/tensor.h"\n', "1: include")

    def test_finds_a_header_that_includes_a_private_dependency(self):
        self.assert_found("engine/engine.h", '// A.\n#pragma once\n#include "comm/ring.h"\n', "3: include")

    def test_finds_an_include_of_tests(self):
        self.assert_found("engine/engine.cc", '#include "tests/support/x.h"\n', "1: include")

    def test_ignores_includes_in_comments(self):
        self.assert_found("tensor/tensor.cc", '/*\n#include "engine/engine.h"\n*/\n')

    def test_finds_heavy_includes_in_headers(self):
        header = "// A.\n#pragma once\n#include <{}>\n"
        for name in ("mpi.h", "nlohmann/json.hpp", "boost/asio.hpp", "cuda_runtime.h", "nccl.h"):
            self.assert_found("engine/engine.h", header.format(name), "3: include")
        self.assert_found("engine/engine.h", header.format("nlohmann/json_fwd.hpp"))

    def test_finds_functions_over_the_limit(self):
        self.assert_found("engine/engine.cc", LONG_BODY)
        longer = LONG_BODY.replace("{\n", "{\n\n", 1)
        self.assert_found("engine/engine.cc", longer, "1: function size")
        body = longer.removeprefix("void run() ")
        self.assert_found("engine/engine.cc", "namespace a {\nclass B : C<D> {\n public:\n" + longer + "};\n}\n",
                          "4: function size")
        self.assert_found("engine/engine.cc", "A::A(int b)\n    : b_{b},\n      c_(b) " + body, "1: function size")
        self.assert_found("engine/engine.cc", "TEST(A, B) " + body, "1: function size")

    def test_does_not_take_data_for_a_function(self):
        self.assert_found("engine/engine.cc", "const auto kTable = make({\n" + "  {1, 2},\n" * 100 + "});\n")
        self.assert_found("engine/engine.cc", "enum class A {\n" + "  kB,\n" * 100 + "};\n")

    def test_gives_kernels_more_lines(self):
        kernel = "__global__ " + LONG_BODY.replace("{\n", "{\n\n", 1)
        lists = "skipper_library(NAME engine SRCS engine.cc cuda/x.cu DEPS skipper_tensor skipper_comm)\n"
        self.assertEqual(self.found({"engine/CMakeLists.txt": lists, "engine/cuda/x.cu": kernel}), [])

    def test_finds_long_files_and_lines(self):
        self.assert_found("engine/engine.cc", "\n" * 601, "601: file size")
        self.assert_found("engine/engine.cc", "// " + "é" * 127 + "\n// " + "x" * 128 + "\n", "2: line length")

    def test_finds_names_without_a_duty(self):
        for name in ("utils.h", "mpi_helpers.h", "common.h", "cache_manager.h", "misc/a.h"):
            self.assert_found(f"engine/{name}", "// A.\n#pragma once\n", "1: file name")

    def test_finds_banned_calls(self):
        for code in ("std::regex r;", "sleep_for(1s);", "exit(1);", "MPI_Barrier(c);", "FLAGS_port;", "DEFINE_int32(port);",
                     "using namespace std;", "auto x = new int;", "delete x;", "delete[] x;"):
            self.assert_found("engine/engine.cc", f"void f() {{\n{code}\n}}\n", "2: banned")
        for code in ("A(const A&) = delete;", "x.exit(1);", "new (p) int;", "void operator delete[](void* p);",
                     "std::shared_ptr<A> a(new A);", "1'000; exited(1);"):
            self.assert_found("engine/engine.cc", f"void f() {{\n{code}\n}}\n")

    def test_finds_swallowed_errors(self):
        self.assert_found("engine/engine.cc", "void f() {\n try {} catch (...) { count(); }\n}\n", "2: banned")
        self.assert_found("engine/engine.cc", "void f() {\n try {} catch (...) { stop(); throw; }\n}\n")

    def test_finds_unnumbered_work_and_paths_of_one_machine(self):
        self.assert_found("engine/engine.cc", "// TO" + "DO: later\n// TO" + "DO(#12): later\n", "1: to-do")
        self.assert_found("engine/engine.cc", "// see /" + "work/main\n", "1: path")

    def test_finds_headers_without_their_sentence(self):
        self.assert_found("engine/engine.h", "#pragma once\n", "1: header")
        self.assert_found("engine/engine.h", "// The loop\n#pragma once\n", "1: header")
        self.assert_found("engine/engine.h", "// The loop.\n", "1: header")
        self.assert_found("engine/engine.h", "// The loop.\n#include <vector>\n#pragma once\n", "1: header")

    def test_finds_sources_that_are_not_built(self):
        self.assert_found("engine/stray.cc", "\n", "1: not built")
        self.assert_found("engine/cuda/engine.cc", "\n", "1: not built")

    def test_finds_long_python_functions(self):
        self.assert_found("tools/x.py", "def run():\n" + "    step()\n" * 70, "1: function size")


if __name__ == "__main__":
    unittest.main()
