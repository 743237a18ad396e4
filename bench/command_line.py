"""Command lines of the benchmark scripts: the module's text as help, and every mistake as one line with exit status 2."""

import argparse


class OneLineParser(argparse.ArgumentParser):
    def __init__(self, description):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")
