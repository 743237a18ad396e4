"""Adds up JUnit files of ctest; lists skips and failures, ends with the line "N passed, N failed"; status 1 on failures."""

import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def main():
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for path in sys.argv[1:]:
        for case in ElementTree.parse(path).getroot().iter("testcase"):
            name = f"{pathlib.Path(path).stem}: {case.get('name')}"
            if case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail":
                counts["failed"] += 1
                print(f"FAILED  {name}")
            elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
                counts["skipped"] += 1
                print(f"skipped {name}")
            else:
                counts["passed"] += 1
    if counts["skipped"]:
        print(f"{counts['skipped']} skipped, each named above")
    print(f"{counts['passed']} passed, {counts['failed']} failed")
    sys.exit(1 if counts["failed"] or not counts["passed"] else 0)


if __name__ == "__main__":
    main()
