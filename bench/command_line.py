"""Command lines of the benchmark scripts: the module's text as help, and every mistake as one line with exit status 2."""

import argparse


class OneLineParser(argparse.ArgumentParser):
    def __init__(self, description):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def positive(text):
    """An argument type: a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of at least 1")
    return int(text)


def sizes(text):
    """An argument type: "1,4,16" as a list; an empty text is an empty list."""
    return [positive(part) for part in text.split(",") if text]
