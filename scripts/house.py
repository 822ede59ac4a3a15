"""House style that a machine can judge: shape of the Rust files, places of unsafe code, links of the documents.

Prints every offender; exits 1 only for what is never right. Standard library only.
"""

import re
import subprocess
import sys
from pathlib import Path

FUNCTION_NOTED, FUNCTION_MAX = 60, 100
FILE_NOTED, FILE_MAX = 500, 800
UNSAFE_ALLOWED = re.compile(
    r"ring/src/(segment|slot|lock|lease|fork|wait|writer|process)\.rs|ring/examples/(interop|stress_reader)\.rs"
    r"|ring/benches/.*|ring/tests/(raw/mod|common/system)\.rs|python/src/(view|dlpack)\.rs|capi/.*"
)

FUNCTION = re.compile(r"^(\s*)(?:pub(?:\([^)]*\))? )?(?:const |async |unsafe |extern \"C\" )*fn (\w+)")
UNSAFE = re.compile(r"^[^/\"]*\bunsafe\b(?!_)")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def tracked(pattern: str) -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", pattern]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n")
    return [Path(name) for name in names if name and Path(name).exists()]


def functions(lines: list[str]):
    """Yields name, first line and length of every function; relies on rustfmt's indentation."""
    for start, line in enumerate(lines):
        found = FUNCTION.match(line)
        if not found:
            continue
        end = found[1] + "}"
        for stop in range(start, len(lines)):
            if lines[stop] == end:
                yield found[2], start + 1, stop - start + 1
                break
            if lines[stop].rstrip().endswith((";", "}")) and stop == start:
                break
            if lines[stop].startswith(found[1] + ")") and lines[stop].endswith(";"):
                break  # a trait's declaration


def code_lines(lines: list[str]) -> int:
    """Lines before the tests."""
    for index, line in enumerate(lines):
        if line.startswith("#[cfg(test)]") or line.startswith("#[cfg(all(test"):
            return index
    return len(lines)


def judge_rust(path: Path, noted: list[str], wrong: list[str]) -> None:
    lines = path.read_text().split("\n")
    if not lines[0].startswith("//!"):
        wrong.append(f"{path}:1: the first line does not say what the file owns (//! ...)")
    count = code_lines(lines)
    if "tests" not in path.parts and count > FILE_NOTED:
        (wrong if count > FILE_MAX else noted).append(f"{path}: {count} lines before its tests, aim for {FILE_NOTED}")
    for name, line, length in functions(lines):
        if length > FUNCTION_NOTED:
            (wrong if length > FUNCTION_MAX else noted).append(
                f"{path}:{line}: fn {name} has {length} lines, aim for 25, explain above {FUNCTION_NOTED}"
            )
    if not UNSAFE_ALLOWED.fullmatch(str(path)):
        wrong += [f"{path}:{n}: unsafe code does not belong here" for n, text in enumerate(lines, 1) if UNSAFE.match(text)]


def anchor(heading: str) -> str:
    """The fragment that a heading is reached by."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")


def judge_links(path: Path, wrong: list[str]) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, fragment = target.partition("#")
        there = path.parent / file if file else path
        if not there.exists():
            wrong.append(f"{path}: the link to {target} leads nowhere")
        elif fragment and there.suffix == ".md" and fragment not in map(anchor, HEADING.findall(there.read_text())):
            wrong.append(f"{path}: {file or path} has no heading for #{fragment}")


def main() -> int:
    noted: list[str] = []
    wrong: list[str] = []
    for path in tracked("*.rs"):
        judge_rust(path, noted, wrong)
    for path in tracked("*.md"):
        judge_links(path, wrong)
    for line in noted:
        print(f"note: {line}")
    for line in wrong:
        print(f"wrong: {line}")
    print(f"house style: {len(wrong)} wrong, {len(noted)} noted")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
