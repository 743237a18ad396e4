"""Runs `skipper measure` as a partner that is given operating points one by one, and remembers every answer in a file."""

import json
import os
import subprocess

MPI_ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "OMPI_MCA_mpi_yield_when_idle": "1",
}


class Measurer:
    """Points over one data set, under one set of flags. What was measured once is not measured again, nor is anything started."""

    def __init__(self, command, cache_path):
        """`command` without --points; `cache_path` grows by a line for each measurement and belongs to that command, wherever
        its folder is."""
        self.command = [*command, "--points", "-"]
        folder = os.path.dirname(cache_path)
        self._identity = [part.replace(folder, "WORK") for part in self.command]
        self.samples = None
        self.level_0 = None
        self.num_measured = 0
        self._known = {}
        self._process = None
        self._cache_path = cache_path
        self._take_over()

    def measure(self, point):
        """What `skipper measure` says of this operating point (evaluation/point_lines.h)."""
        key = json.dumps(point, sort_keys=True)
        if key not in self._known:
            self._start()
            self._process.stdin.write(key + "\n")
            self._process.stdin.flush()
            self._known[key] = self._answer()
            self._remember({"point": key, "measured": self._known[key]})
            self.num_measured += 1
        return self._known[key]

    def knows(self, point):
        return json.dumps(point, sort_keys=True) in self._known

    def start(self):
        """The samples and level 0 are known afterwards."""
        if self.level_0 is None:
            self._start()
        return self

    def run(self):
        """Starts the program even where everything is known: somebody needs the predictions that it saves."""
        self._start()
        return self

    def close(self):
        if self._process:
            self._process.stdin.close()
            self._process.wait()
            self._process = None

    def _take_over(self):
        if not os.path.exists(self._cache_path):
            return
        with open(self._cache_path, encoding="utf-8") as file:
            lines = file.readlines()
        if not lines or json.loads(lines[0]).get("command") != self._identity:
            os.remove(self._cache_path)
            return
        for line in lines[1:]:
            try:
                entry = json.loads(line)
            except ValueError:
                break  # cut short
            if "samples" in entry:
                self.samples, self.level_0 = entry["samples"], entry["level_0"]
            else:
                self._known[entry["point"]] = entry["measured"]

    def _start(self):
        if self._process:
            return
        self._process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                         text=True, env={**os.environ, **MPI_ENVIRONMENT})
        # Progress and log lines come slowly and few: they fit into the pipe, and tell what went wrong at the end.
        samples, level_0 = self._answer()["samples"], self._answer()
        if self.level_0 is None:
            self.samples, self.level_0 = samples, level_0
            self._remember({"samples": samples, "level_0": level_0})

    def _answer(self):
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self._process.stdin.close()
        raise SystemExit(f"{' '.join(self.command)}\nended with status {self._process.wait()}:\n{self._process.stderr.read()}")

    def _remember(self, entry):
        is_new = not os.path.exists(self._cache_path)
        with open(self._cache_path, "a", encoding="utf-8") as file:
            if is_new:
                file.write(json.dumps({"command": self._identity}) + "\n")
            file.write(json.dumps(entry) + "\n")


class Workplace:
    """Where the program, the model and the caches are."""

    def __init__(self, binary, model, folder, threads, num_questions):
        """`num_questions` of the test set are used, spread evenly over it."""
        self.binary, self.model, self.threads, self.num_questions = binary, model, threads, num_questions
        self.folder = os.path.abspath(folder)
        self._open = []
        os.makedirs(folder, exist_ok=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def data(self, name):
        return os.path.join(self.model, name)

    def measurer(self, name, data, ranks, *flags):
        """`name` is that of the cache; `data` is relative to the model, or absolute."""
        launcher = ["mpirun", "-n", str(ranks)] if ranks > 1 else []
        command = [*launcher, self.binary, "measure", "--model", self.model, "--data", self.data(data),
                   "--threads", str(self.threads), *map(str, flags)]
        self._open.append(Measurer(command, self.path(name + ".jsonl")))
        return self._open[-1]

    def close(self):
        for measurer in self._open:
            measurer.close()
        self._open = []
