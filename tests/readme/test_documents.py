"""The README and the guides do what they say."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from .documents import Document, DocumentError, read_document, run_document

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
OWN_MODEL = ROOT / "docs" / "your-own-model.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]

OWN_DATA_LINES = 15
OWN_MODEL_LINES = 40


def page_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def code_lines(text: str) -> list[str]:
    """Lines that are neither empty nor comments; a continued line is two."""
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def anchors(document: Document) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    headings = [line.lstrip("#") for line in document.prose.values() if re.match(r"#+ ", line)]
    plain = [re.sub(r"[^\w\- ]", "", heading.strip().lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


def resolves(page: Path, link: str) -> bool:
    """Whether a link goes to a file, and to a heading in it, that exist; the web is not asked."""
    place, _, anchor = link.partition("#")
    if re.match(r"[a-z]+:", place):
        return True
    target = page.parent / place if place else page
    if not target.exists():
        return False
    return not anchor or target.suffix != ".md" or anchor in anchors(read_document(target))


def section(document: Document, heading: str) -> range:
    """Line numbers of the section whose heading matches."""
    starts = [n for n, line in document.prose.items() if re.match(r"#+ ", line)]
    (start,) = (n for n in starts if re.search(heading, document.prose[n], re.IGNORECASE))
    level = len(document.prose[start].split()[0])
    ends = [n for n in starts if n > start and len(document.prose[n].split()[0]) <= level]
    return range(start, min(ends, default=10**9))


@pytest.mark.parametrize("path", [README, OWN_MODEL], ids=page_id)
def test_every_command_of_the_document_works(path, tmp_path):
    document = read_document(path)
    assert document.marked("run")
    run_document(document, tmp_path)


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_every_relative_link_leads_somewhere(path):
    text = "\n".join(read_document(path).prose.values())
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    assert not [link for link in links if not resolves(path, link)]


def test_every_make_target_of_the_readme_exists():
    named = sorted(set(re.findall(r"(?:^|`|&& )make ([a-z-]+)", README.read_text(), re.MULTILINE)))
    assert named
    for target in named:
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_own_data_takes_few_lines():
    document = read_document(README)
    lines = section(document, r"\bown data\b")
    blocks = [block for block in document.blocks if block.kind is not None and block.line in lines]
    assert {block.kind for block in blocks} == {"file", "run"}
    assert sum(len(code_lines(block.text)) for block in blocks) < OWN_DATA_LINES


def test_an_own_model_takes_few_lines():
    files = {block.argument: block.text for block in read_document(OWN_MODEL).marked("file")}
    assert files["my_net.py"].count("\n") < OWN_MODEL_LINES


# The runner


def page(folder: Path, text: str) -> Document:
    path = folder / "page.md"
    path.write_text(text)
    return read_document(path)


def test_blocks_share_files_and_variables_in_the_order_of_the_page(tmp_path):
    text = """
<!-- file: sub/name.txt -->
```text
first
```
<!-- run: prints first -->
```sh
cat sub/name.txt
name=$(cat sub/name.txt) && cd sub
```
<!-- file: other.txt -->
```text
second
```
<!-- run: prints first second -->
```sh
echo $name $(cat other.txt)
```
"""
    run_document(page(tmp_path, text), tmp_path)


def test_blocks_without_a_mark_are_not_run(tmp_path):
    run_document(page(tmp_path, "```sh\nfalse\n```\n<!-- run -->\n```sh\ntrue\n```\n"), tmp_path)


@pytest.mark.parametrize("failing", ["echo said; false", "echo said; false | true", "echo said$no"])
def test_a_failing_command_is_told_with_its_block_and_what_it_printed(tmp_path, failing):
    text = f"<!-- run -->\n```sh\necho fine\n```\n\n<!-- run -->\n```sh\n{failing}\necho on\n```\n"
    with pytest.raises(DocumentError) as caught:
        run_document(page(tmp_path, text), tmp_path)
    message = str(caught.value)
    assert "page.md:7" in message
    assert failing in message
    assert "fine" not in message
    assert "\non\n" not in message.partition("printed")[2]


def test_a_block_that_prints_something_else_is_told(tmp_path):
    text = "<!-- run: prints edited -->\n```sh\necho base\n```\n"
    with pytest.raises(DocumentError, match="expected it to print 'edited'"):
        run_document(page(tmp_path, text), tmp_path)


def test_what_a_block_leaves_running_is_stopped_at_the_end(tmp_path):
    text = "<!-- run -->\n```sh\nsleep 600 &\necho $! > pid\n```\n"
    run_document(page(tmp_path, text), tmp_path)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "here" / "pid").read_text()), 0)


def test_a_block_that_hangs_is_killed_and_told(tmp_path):
    text = "<!-- run -->\n```sh\nsleep 600\n```\n"
    with pytest.raises(DocumentError, match="exit code 124"):
        run_document(page(tmp_path, text), tmp_path, seconds=0.3)


def test_a_mark_without_a_fence_is_a_fault_of_the_page(tmp_path):
    with pytest.raises(DocumentError, match=r"page\.md:2"):
        page(tmp_path, "<!-- run -->\n\n```sh\ntrue\n```\n")


def test_given_data_are_there_before_the_first_block(tmp_path):
    text = """
<!-- given: photos -->
<!-- given: ratings.csv -->
<!-- run: prints 64 -->
```sh
ls photos | wc -l
test $(find photos -name '*.png' | wc -l) -eq 1792
head -1 ratings.csv | grep user_id,item_id,timestamp
```
"""
    run_document(page(tmp_path, text), tmp_path)
