"""From sources to a rendered book: only changed notebooks are executed, and failures are named."""

import json
import shutil
from pathlib import Path

import nbformat
import pytest
import typer
from bs4 import BeautifulSoup

from paper import ROOT, execute
from paper import build as publish
from paper.page import page_of
from soi_lib.cli import app
from soi_lib.errors import SoiError

PORTS = "import ipykernel\nprint(ipykernel.get_connection_info())"


def notebook(path, *cells: tuple[str, str]) -> None:
    kernel = {"name": "python3", "display_name": "Python 3"}
    book = nbformat.v4.new_notebook(metadata={"kernelspec": kernel, "language_info": {"name": "python"}})
    for kind, source in cells:
        cell = nbformat.v4.new_markdown_cell(source) if kind == "md" else nbformat.v4.new_code_cell(source)
        if kind == "parameters":
            cell.metadata["tags"] = ["parameters"]
        book.cells.append(cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, path)


@pytest.fixture
def book(tmp_path):
    """A small book with the configuration and extension of the real one."""
    for folder in ("book/_ext", "book/_static"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("_config.yml", "book/references.bib"):
        shutil.copyfile(ROOT / file, tmp_path / file)
    (tmp_path / "book" / "index.md").write_text("# Start\n\n<!-- soi command line -->\n", encoding="utf-8")
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nparts:\n- caption: A\n  chapters:\n  - file: notebooks/one\n"
        "    sections:\n    - file: notebooks/two\n",
        encoding="utf-8",
    )
    notebook(tmp_path / "notebooks" / "one.ipynb", ("md", "# One"), ("parameters", 'runs = ""\nseeds: int = 1'),
             ("code", "print(runs, seeds)"), ("code", PORTS))  # fmt: skip
    notebook(tmp_path / "notebooks" / "two.ipynb", ("md", "# Two"), ("code", PORTS))
    return tmp_path


def test_a_notebook_parameter_arrives_as_data(tmp_path):
    """Quotes, line ends, escapes and code reach the notebook as the same string."""
    hostile = {
        "runs": "x\"; open('hacked', 'w'); y=\"",
        "profile": "__import__('os').system('touch hacked')\nimport os\\n\\\" ''' \"\"\" {runs} é \u2028 \\x00",
        "seeds": 1,
    }
    save = "import json\nopen('seen.json', 'w').write(json.dumps([runs, profile, seeds]))"
    notebook(tmp_path / "in.ipynb", ("parameters", 'runs = ""\nprofile = ""\nseeds = 0'), ("code", save))
    execute.run_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", hostile, cwd=tmp_path)
    assert json.loads((tmp_path / "seen.json").read_text()) == list(hostile.values())
    assert not (tmp_path / "hacked").exists()


def run(root, *only: str, **parameters):
    """Execute all or the named notebooks, two at a time; return those that were really executed."""
    values = {"runs": Path("runs"), "profile": "quick"} | parameters
    paths = [path for path in publish.notebooks(root) if path.stem in (only or ("one", "two"))]
    out = root / "_build" / "stamps"
    return execute.execute(dict.fromkeys(paths, values), root=root, out=out, reads="r", jobs=2, quiet=True)


def staged(root):
    made = root / "_build" / "stamps"
    publish.stage(root, {page: made / page for page in publish.notebooks(root) if (made / page).exists()})


def test_only_what_changed_is_executed_staged_and_rendered(book):
    assert {p.name for p in run(book)} == {"one.ipynb", "two.ipynb"}
    executed = book / "_build" / "stamps" / "notebooks" / "one.ipynb"
    body = executed.read_text(encoding="utf-8")
    assert "../runs 1" in body  # relative to the notebook, not a path of this machine
    assert str(book) not in body
    assert "papermill" not in json.loads(body)["metadata"]
    assert run(book) == []

    made = [nbformat.read(executed.with_stem(name), as_version=4) for name in ("one", "two")]
    found = [json.loads(one.cells[-1].outputs[0].text) for one in made]
    assert {one["transport"] for one in found} == {"ipc"}  # ports of kernels that start together may clash
    assert found[0]["ip"] != found[1]["ip"]  # paths of sockets
    assert not any(Path(one["ip"]).parent.exists() for one in found)

    notebook(book / "notebooks" / "two.ipynb", ("md", "# Two, once more"), ("code", "print(1 + 1)"))
    assert [p.name for p in run(book)] == ["two.ipynb"]

    executed.write_text(body.replace("../runs 1", "../runs 2"), encoding="utf-8")  # damaged
    assert [p.name for p in run(book)] == ["one.ipynb"]
    assert [p.name for p in run(book, "two", runs="other")] == ["two.ipynb"]

    staged(book)
    html = publish.render(book, quiet=True).parent
    two = (html / "notebooks/two.html").read_text(encoding="utf-8")
    assert "Two, once more" in two
    assert '<a href="../_sources/notebooks/two.ipynb" download>two.ipynb</a>' in two
    offered = json.loads((html / "_sources/notebooks/two.ipynb").read_text(encoding="utf-8"))
    assert [cell["outputs"] for cell in offered["cells"] if cell["cell_type"] == "code"] == [[]]

    start = BeautifulSoup((html / "book/index.html").read_text(encoding="utf-8"), "html.parser")
    commands = {name: c for name, c in typer.main.get_command(app).commands.items() if not c.hidden}
    assert len(commands) >= 9
    for name, command in commands.items():
        (heading,) = (h2 for h2 in start.find_all("h2") if h2.get_text().startswith(f"soi {name}"))
        section = heading.find_parent("section").get_text()
        for option in (flag for parameter in command.params for flag in parameter.opts if flag.startswith("--")):
            assert option in section, f"soi {name} {option}"


def test_a_page_offers_code_values_and_runs_of_its_figures_and_hides_other_code():
    def cell(markup: str, *tags: str) -> nbformat.NotebookNode:
        values = {"soi": {"csv": "a,b\n1,2\n"}} if "<figure" in markup else {}
        out = nbformat.v4.new_output("display_data", {"text/html": markup}, metadata=values)
        return nbformat.v4.new_code_cell("1", metadata={"tags": list(tags)}, outputs=[out])

    figure = '<figure class="soi-figure"><img src="data:image/png;base64,aGVsbG8="></figure>'
    behind = '<details class="soi-runs"><summary>2 runs</summary><div id="runs">k</div></details>'
    cells = [cell(figure, "hide-input"), cell("<p>words</p>", "hide-input"), cell(behind)]
    cells += [cell("", "injected-parameters"), nbformat.v4.new_markdown_cell("a")]
    text, files = page_of(json.dumps(nbformat.v4.new_notebook(cells=cells)), "notebooks/one")
    page = json.loads(text)
    tags = [c["metadata"].get("tags") for c in page["cells"]]
    assert tags == [["hide-input"], ["remove-input"], [], ["injected-parameters", "remove-cell"], None]
    picture, values = files
    assert files == {picture: b"hello", values: b"a,b\n1,2\n"}
    shown = page["cells"][0]["outputs"][0]["data"]["text/html"]
    assert f'<img src="../{picture}">' in shown
    assert f'href="../{values}" download="one-1.csv"' in shown
    assert '<a href="#runs">2 runs</a>' in shown


def test_a_failing_notebook_is_named_and_its_output_saved(book):
    notebook(book / "notebooks" / "two.ipynb", ("code", "1 / 0"))
    with pytest.raises(SoiError, match=r"two.ipynb: .*ZeroDivisionError") as raised:
        run(book, "two")
    kept = book / "_build" / "stamps" / "notebooks" / "two-failed.ipynb"
    assert str(kept) in str(raised.value)
    assert "ZeroDivisionError" in kept.read_text(encoding="utf-8")
    assert not (book / "_build" / "stamps" / "notebooks" / "two.ipynb").exists()


def test_a_warning_of_the_renderer_is_an_error(book):
    (book / "book" / "index.md").write_text("# Start\n\n[nowhere](nothing.md)\n", encoding="utf-8")
    staged(book)
    with pytest.raises(SoiError, match=r"render.log: .*nothing"):
        publish.render(book, quiet=True)


def test_a_missing_page_is_not_in_the_contents(book):
    toc = (book / "_toc.yml").read_text(encoding="utf-8").replace("notebooks/two", "reproduced/two")
    (book / "_toc.yml").write_text(toc, encoding="utf-8")
    publish.stage(book, {})
    assert publish.toc_files(book / publish.STAGE) == ["book/index", "notebooks/one"]
    publish.stage(book, {Path("reproduced/two.ipynb"): book / "notebooks/two.ipynb"})
    assert publish.toc_files(book / publish.STAGE) == ["book/index", "notebooks/one", "reproduced/two"]


def test_a_book_needs_its_recorded_runs(book):
    with pytest.raises(SoiError, match="data/recorded/standard"):
        publish.make_book(book, "quick", book / "runs", jobs=1, quiet=True)
    assert not (book / "runs").exists()  # before anything is trained
