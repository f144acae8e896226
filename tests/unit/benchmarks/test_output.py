"""What is made of result files: comparison, plots, the page, the README's section."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from benchmarks import results
from benchmarks.__main__ import main
from benchmarks.case import Case
from benchmarks.compare import compare_documents, differences_of_environment
from benchmarks.plot import curve_column, has_plot, make_figure, svg
from benchmarks.readme import SECTIONS, section
from benchmarks.report import render
from benchmarks.results import spread


def _document(op_s: float, **more: Any) -> dict[str, Any]:
    runs = [op_s, op_s * 1.01, op_s * 0.99, op_s * 1.02, op_s * 0.98]
    row = {"case": "a", **Case().columns(), "failed_runs": 0, "op_s": spread(runs), "p50_ms": spread([1e5 / op_s] * 5)}
    row["p99_ms"] = row["p50_ms"]
    return {"environment": {"commit": "abc", "cores": 2, "python": "3"}, "figures": [row], **more}


def _write(path: Path, document: dict[str, Any]) -> Path:
    path.write_text(json.dumps(document))
    return path


def test_compare_finds_equal_rows_whatever_failed_on_the_way() -> None:
    second = _document(1000.0)
    second["figures"][0]["failed_runs"] = 1
    lines = compare_documents(_document(1000.0), second)
    assert {line.metric: line.comparison.verdict for line in lines}["op_s"] == "noise"


def test_compare_finds_an_attack_again_that_ended_otherwise() -> None:
    """Verdict and complaints are what came of a measurement, not which one it is."""
    first, second = (
        {"environment": {}, "figures": [{"attack": "delay", "verdict": word, "ratio": spread([1.0] * 5)}]}
        for word in ("holds", "below")
    )
    assert [line.row for line in compare_documents(first, second)] == ["attack=delay"]


@pytest.mark.parametrize("file", sorted(results.RESULTS.glob("*.json")), ids=lambda file: file.stem)
def test_every_result_file_holds_its_figures_as_spreads(file: Path) -> None:
    """One form, so that comparisons, plots and the README need to know no other."""
    for row in results.read(file)["figures"]:
        assert results.metrics(row) or row["verdict"].startswith("failed")
        assert not any(isinstance(value, float) for name, value in results.identity(row).items() if name != "seconds")


def test_compare_does_not_mix_rows_of_different_cases() -> None:
    second = _document(1000.0)
    second["figures"][0]["durability"] = "power"
    assert compare_documents(_document(1000.0), second) == []


def test_compare_tells_what_it_compares_with_nothing(tmp_path: Path) -> None:
    """A case that gave no figures any more must not pass for one that did not change."""
    second = _document(1000.0)
    second["figures"][0]["durability"] = "power"
    second["figures"].append(_document(1000.0)["figures"][0])
    files = [_write(tmp_path / "a.json", _document(1000.0)), _write(tmp_path / "b.json", second)]
    outcome = CliRunner().invoke(main, ["compare", *map(str, files)])
    assert outcome.exit_code == 0, outcome.output
    assert "a: only in the second" in outcome.output
    assert "3 tests at 5 %: up to about 1 of them" in outcome.output


def test_exact_figures_have_no_noise() -> None:
    """One run is enough in virtual time, and the smallest difference counts."""
    first, second = _document(1000.0, exact=True), _document(1001.0, exact=True)
    assert [line.comparison.verdict for line in compare_documents(first, first)] == ["noise"] * 3
    assert compare_documents(first, second)[0].comparison.verdict == "better"


@pytest.mark.parametrize(("after", "code"), [(2000.0, 0), (1000.0, 0), (500.0, 1)])
def test_compare_command_fails_when_something_got_worse(tmp_path: Path, after: float, code: int) -> None:
    files = [_write(tmp_path / "a.json", _document(1000.0)), _write(tmp_path / "b.json", _document(after))]
    outcome = CliRunner().invoke(main, ["compare", *map(str, files), "--metric", "op_s", "--json"])
    assert outcome.exit_code == code, outcome.output


def test_compare_command_names_a_file_that_is_no_result(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(main, ["compare", str(tmp_path / "none.json"), str(tmp_path / "none.json")])
    assert outcome.exit_code == 1
    assert "none.json" in outcome.output
    assert "Traceback" not in outcome.output


def test_rows_that_differ_in_one_number_form_curves() -> None:
    rows = [{"n": n, "durability": level, "op_s": spread([1.0])} for n in (4, 7, 10) for level in ("memory", "power")]
    assert curve_column(rows) == "n"
    assert curve_column(rows[:4]) is None  # two points are no curve
    assert curve_column([{**row, "n": str(row["n"])} for row in rows]) is None


@pytest.mark.parametrize("rows", [1, 12])
def test_plots_are_pictures_of_any_kind_of_result_file(tmp_path: Path, rows: int) -> None:
    """Files of kinds that this code has never heard of are drawn from their rows alone."""
    figures = [{"attack": f"attack {i}", "slowdown": spread([1.0 + i, 2.0 + i])} for i in range(rows)]
    file = _write(tmp_path / "attacks.json", {"environment": {}, "figures": figures})
    outcome = CliRunner().invoke(main, ["plot", str(file), "--output", str(tmp_path)])
    assert outcome.exit_code == 0, outcome.output
    assert (tmp_path / "attacks.png").read_bytes().startswith(b"\x89PNG")
    root = ElementTree.parse(tmp_path / "attacks.svg").getroot()
    assert root.tag.endswith("svg")
    assert "attack 0" in (tmp_path / "attacks.svg").read_text() or rows == 1


def test_no_two_curves_of_a_picture_look_alike() -> None:
    """However many there are, the legend tells them apart, and beside the curves where it would hide some."""
    rows = [{"n": n, "what": f"kind {kind}", "op_s": spread([1.0 + kind])} for n in (4, 7, 10) for kind in range(8)]
    (axes,) = make_figure({"environment": {}, "figures": rows}, "x").axes
    legend = axes.get_legend()
    assert len(legend.get_texts()) == 8
    styles = {(line.get_color(), line.get_linestyle()) for line in axes.get_lines() if len(line.get_xdata()) == 3}
    assert len({style for style in styles if style[1] != "None"}) == 8
    assert legend.get_bbox_to_anchor().transformed(axes.transAxes.inverted()).x0 >= 1.0


def test_file_may_say_which_of_its_rows_are_drawn() -> None:
    rows = [{"what": name, "op_s": spread([1.0])} for name in ("drawn", "left out")]
    page = svg({"environment": {}, "plot": {"what": "drawn"}, "figures": rows}, "x")
    assert "left out" not in page


def test_plot_of_equal_figures_is_equal() -> None:
    assert svg(_document(1000.0), "x") == svg(_document(1000.0), "x")


def test_file_without_metrics_has_no_plot() -> None:
    document = {"environment": {}, "figures": [{"operations": 3}]}
    assert not has_plot(document)
    with pytest.raises(Exception, match="no metric"):
        make_figure(document, "x")


def test_report_is_one_page_that_needs_nothing_else_and_escapes_what_files_say() -> None:
    evil = _document(1000.0, about="<script>alert(1)</script>", absent={"etcd": "<b>no</b>"})
    evil["figures"][0]["case"] = "<img src=x>"
    page = render([("quick", evil), ("targets", _document(1000.0, suite="targets"))])
    assert "<script" not in page
    assert "<img" not in page
    assert "src=" not in page.replace("src=x", "")
    assert page.count("<svg") == 2
    assert "1,000 (980 .. 1,020)" in page


def test_report_command_takes_all_kinds_of_files_that_are_there(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(main, ["report", "--output", str(tmp_path / "report.html")])
    assert outcome.exit_code == 0, outcome.output
    page = (tmp_path / "report.html").read_text()
    for file in results.RESULTS.glob("*.json"):
        assert f'<section id="{file.stem}">' in page


def test_readme_section_follows_the_files(tmp_path: Path) -> None:
    """Its rows are those of the targets; everything else appears when it was measured."""
    _write(tmp_path / "targets.json", _document(4321.0))
    assert "| memory | 200 sessions | 0/0 | 4,321 (4,235 .. 4,407) |" in section(tmp_path)
    assert "| bft |" not in section(tmp_path)
    _write(tmp_path / "peers.json", _document(1234.0))
    assert "| bft | 4 | memory | 200 | 1,234 (1,209 .. 1,259) |" in section(tmp_path)
    for name in SECTIONS:
        shutil.copy(results.RESULTS / f"{name}.json", tmp_path)
    whole = section(tmp_path)
    for words in ("kill -9", "MiB", "while the state grew", "4 to 7", "over 60 s", "`torrent`", "zookeeper", ".svg)"):
        assert words in whole


def test_what_a_signature_check_took_is_told_and_compared(tmp_path: Path) -> None:
    """Two files of one machine may be of two speeds; where their checks overlap there is nothing to say."""
    slow, quick, between = (_document(4321.0, check_us=spread(values)) for values in ([90.0, 99], [50.0, 60], [55, 95]))
    (difference,) = differences_of_environment(slow, quick)
    assert difference == "us for a signature check: 94.50 (90.00 .. 99.00) and 55.00 (50.00 .. 60.00)"
    assert differences_of_environment(slow, between) == differences_of_environment(slow, _document(1.0)) == []
    _write(tmp_path / "targets.json", slow)
    assert "brackets; a signature check took 94.50 (90.00 .. 99.00) us):" in " ".join(section(tmp_path).split())


def test_readme_section_names_every_attack_that_was_not_held(tmp_path: Path) -> None:
    """What is defended against is a number; what is not has its name and its price."""
    costs = {"holds": 0.9, "recovers": 0.3, "below": 0.2}
    rows = [
        {"description": f"one that {word}", "verdict": word, "seconds": 10.0, "ratio": spread([cost])}
        | {"settled_ratio": spread([cost * 2])}
        for word, cost in costs.items()
    ]
    rows.append({"description": "one that broke the run", "verdict": "failed: no answer", "seconds": 10.0})
    _write(tmp_path / "targets.json", _document(4321.0))
    _write(tmp_path / "attacks.json", {"environment": {"commit": "abc"}, "figures": rows})
    told = " ".join(section(tmp_path).split())
    assert "0.7 or more under 1 of 4 attacks; under the others: one that recovers: 0.30," in told
    assert "one that below: 0.20, in the last third 0.40; one that broke the run: failed: no answer." in told


def test_readme_section_tells_the_commit_of_a_file_that_is_not_that_of_the_targets(tmp_path: Path) -> None:
    """Figures of different code stand side by side; who reads them is told."""
    _write(tmp_path / "targets.json", _document(4321.0))
    _write(tmp_path / "peers.json", _document(1234.0))
    assert "100-byte values (5 runs);" in section(tmp_path)
    other = _document(1234.0)
    other["environment"]["commit"] = "def"
    _write(tmp_path / "peers.json", other)
    assert "100-byte values (5 runs, commit def);" in section(tmp_path)
