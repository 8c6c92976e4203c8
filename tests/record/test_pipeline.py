"""The graph of components: laws of the layout for any graph, what is in it, and its pictures read back as what they are."""

from __future__ import annotations

import json
import re
from itertools import combinations, pairwise
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlgym.errors import InputError
from mlgym.plan.config import read
from mlgym.record.layered import Arrow, closing, crossings, layout, ordered, ranks
from mlgym.record.pipeline import MAX_COMPONENTS, Node, Pipeline, Sweep, as_json, fit, measure, pipeline
from mlgym.record.pipeline_text import mermaid, rows, svg, table
from tests.conftest import DIGITS, ROOT, Run

EXAMPLES = sorted((ROOT / "example").glob("*/gs_config.yml"))


def component(*requires: str, subscription: Any = None, type_: str = "T") -> dict[str, Any]:
    requirements = [{"name": name, "component_name": name, "subscription": subscription} for name in requires]
    return {"component_type_key": type_, "variant_key": "DEFAULT", "requirements": requirements}


@st.composite
def arrows(draw: st.DrawFn, count: int, circles: bool = False) -> list[Arrow]:
    ends = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1), st.sampled_from([0.0, 30.0, 90.0]))
    found = draw(st.lists(ends, max_size=3 * count))
    return [Arrow(a, b, c) if circles else Arrow(min(a, b), max(a, b), c) for a, b, c in found if circles or a != b]


@st.composite
def graphs(draw: st.DrawFn, circles: bool = False) -> tuple[list[tuple[float, float]], list[Arrow]]:
    sizes = draw(st.lists(st.tuples(st.floats(20, 250), st.floats(20, 120)), min_size=1, max_size=14))
    return sizes, draw(arrows(len(sizes), circles))


# --- layout ---


@given(graphs(circles=True))
def test_everything_has_a_place_and_arrows_go_right(graph: tuple[list[tuple[float, float]], list[Arrow]]) -> None:
    sizes, found = graph
    drawn = layout(sizes, found)
    assert layout(sizes, found) == drawn
    assert len(drawn.boxes) == len(sizes)
    for (x, y, width, height), (least, high) in zip(drawn.boxes, sizes, strict=True):
        assert (height, width >= least) == (high, True)
        assert -0.01 <= x <= drawn.width - width + 0.01
        assert -0.01 <= y <= drawn.height - height + 0.01
    for (a, b, c, d), (e, f, g, h) in combinations(drawn.boxes, 2):
        assert a + c <= e or e + g <= a or b + d <= f + 0.01 or f + h <= b + 0.01, "two boxes overlap"
    circle = closing(len(sizes), found)
    for i, (arrow, route) in enumerate(zip(found, drawn.routes, strict=True)):
        assert (route == []) == (i in circle)
        if not route:
            continue
        x, y, width, height = drawn.boxes[arrow.source]
        assert route[0] == pytest.approx((x + width, y + height / 2))
        x, y, width, height = drawn.boxes[arrow.target]
        assert route[-1][0] == pytest.approx(x)
        assert y < route[-1][1] < y + height
        assert route[-1][0] - route[-2][0] >= arrow.label
        assert all(a[0] <= b[0] for a, b in pairwise(route))
        for begin, end in list(pairwise(route))[1::2]:  # straight through a column, where it meets no box
            assert begin[1] == end[1]
            for x, y, width, height in drawn.boxes:
                assert not (x < end[0] - 0.01 and begin[0] + 0.01 < x + width and y < begin[1] < y + height)


@given(graphs(circles=True))
def test_without_what_closes_them_there_are_no_circles(graph: tuple[list[tuple[float, float]], list[Arrow]]) -> None:
    sizes, found = graph
    left_out = closing(len(sizes), found)
    kept = [arrow for i, arrow in enumerate(found) if i not in left_out]
    assert closing(len(sizes), kept) == set()
    rank = ranks(len(sizes), kept)
    assert all(rank[arrow.source] < rank[arrow.target] for arrow in kept)
    assert len(left_out) >= sum(arrow.source == arrow.target for arrow in found)


@given(graphs())
def test_nothing_is_left_out_where_there_is_no_circle(graph: tuple[list[tuple[float, float]], list[Arrow]]) -> None:
    sizes, found = graph
    assert all(layout(sizes, found).routes)


@st.composite
def columns(draw: st.DrawFn) -> tuple[list[list[int]], list[tuple[int, int]]]:
    """Vertices in columns, and segments between neighbouring ones."""
    lengths = draw(st.lists(st.integers(1, 6), min_size=2, max_size=4))
    found, segments, next_ = [], set[tuple[int, int]](), 0
    for length in lengths:
        found.append(list(range(next_, next_ + length)))
        next_ += length
    for left, right in pairwise(found):
        segments |= set(draw(st.lists(st.tuples(st.sampled_from(left), st.sampled_from(right)), max_size=12)))
    return found, sorted(segments)


@given(columns())
def test_no_more_crossings_than_in_the_order_given(graph: tuple[list[list[int]], list[tuple[int, int]]]) -> None:
    found, segments = graph
    better = ordered(found, segments)
    assert [sorted(column) for column in better] == found
    place = {v: k for column in better for k, v in enumerate(column)}
    column = {v: i for i, members in enumerate(better) for v in members}
    by_hand = sum(
        (place[a] - place[c]) * (place[b] - place[d]) < 0
        for (a, b), (c, d) in combinations(segments, 2)
        if column[a] == column[c]
    )
    assert crossings(better, segments) == by_hand <= crossings(found, segments)


def test_a_tangle_is_undone() -> None:
    """A ladder whose rungs all cross, and a tree whose leaves are mixed, are drawn without a crossing."""
    ladder = [Arrow(i, 8 + 7 - i) for i in range(8)] + [Arrow(8 + i, 16 + 7 - i) for i in range(8)]
    joined = [*ladder, *(Arrow(16 + i, 24) for i in range(8))]
    assert layout([(100.0, 50.0)] * 25, joined).crossings == 0
    tree = [Arrow((i - 1) // 2, i) for i in range(1, 31)]
    assert layout([(100.0, 50.0)] * 31, tree).crossings == 0


def test_an_arrow_alone_is_straight() -> None:
    drawn = layout([(100.0, 50.0), (80.0, 90.0), (60.0, 20.0)], [Arrow(0, 1), Arrow(1, 2), Arrow(0, 1, 40)])
    assert len({round(y, 2) for _, y in drawn.routes[1]}) == 1
    assert drawn.crossings == 0


# --- what is in it ---


def named(found: Pipeline) -> dict[str, Node]:
    return {node.name: node for node in found.nodes}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_the_examples(path: Any) -> None:
    config = read(path).value
    found = pipeline(config)
    nodes = named(found)
    assert set(nodes) == set(config) - {"global_config", "model_info"}
    assert all(node.used and not node.missing for node in found.nodes)
    wanted = [
        (requirement["component_name"], name, requirement["name"], requirement.get("subscription"))
        for name in nodes
        for requirement in config[name].get("requirements", [])
    ]
    assert [edge[:4] for edge in found.edges] == wanted
    for edge in found.edges:
        assert nodes[edge.source].x + nodes[edge.source].width < nodes[edge.target].x
        assert edge.path
    assert {node.group for node in found.nodes} == {"data", "model", "training", "evaluation"}


def test_what_a_box_says() -> None:
    config = read(DIGITS / "gs_config.yml").value
    swept = {"data_loaders.config.batch_size": 16, "optimizer.config.params.lr": Sweep(4), "fold": 3}
    found = named(pipeline(config, swept))
    assert [line.text for line in found["optimizer"].lines] == ["optimizer", "OPTIMIZER", "DEFAULT", "lr: sweep of 4"]
    assert [line.text for line in found["data_loaders"].lines][-1] == "batch_size: 16"
    assert found["data_loaders"].swept == {"config.batch_size": 16}
    assert found["optimizer"].config == config["optimizer"]["config"]
    labels = {(edge.source, edge.target): edge.label for edge in pipeline(config).edges}
    assert labels["data_loaders", "eval_component"] == "train, val, test"
    assert labels["data_loaders", "trainer"] == "train"
    assert labels["model", "trainer"] == ""
    for node in found.values():
        for line in node.lines:
            assert node.x < line.x
            assert line.x + measure(line.text, line.kind) < node.x + node.width
            assert node.y + 8 < line.y < node.y + node.height


def test_many_swept_values_are_counted() -> None:
    swept = {f"model.config.betas.{i}": i for i in range(9)} | {"model_2.config.lr": 1}
    lines = named(pipeline({"model": component()}, swept))["model"].lines
    assert [line.text for line in lines][3:] == ["betas.0: 0", "betas.1: 1", "betas.2: 2", "and 6 more"]


def test_what_is_not_used_missing_or_no_component() -> None:
    config = {
        "model_info": {"model_version": "1"},
        "carrier": {"config": {"injectable": {"id": "x"}}},
        "round": component("about"),
        "about": component("round"),
        "self": component("self"),
        "trainer": component("model", "nobody"),
        "model": component(),
        "note": "a text",
        "odd": {"requirements": "model"},
        "odder": {"requirements": [None, {"name": 3}, {"name": None, "component_name": 7, "subscription": {"a": 1}}]},
    }
    found = pipeline(config)
    nodes = named(found)
    assert list(nodes)[:3] == ["trainer", "model", "nobody"]
    assert {name for name, node in nodes.items() if node.used} == {"trainer", "model", "nobody"}
    assert {name for name, node in nodes.items() if node.missing} == {"nobody", "7"}
    assert "note" not in nodes
    assert "model_info" not in nodes
    undrawn = [(edge.source, edge.target) for edge in found.edges if not edge.path]
    assert len(undrawn) == 2
    assert ("self", "self") in undrawn
    assert len(found.edges) == 6
    json.dumps(as_json(found), allow_nan=False)
    titles = [element.text for element in ElementTree.fromstring(svg(found)).iter() if element.tag.endswith("title")]
    assert {"nobody (missing)", "carrier (not used)", "model T DEFAULT"} <= set(titles)
    nothings: list[Any] = [{}, None, [], "text"]
    for nothing in nothings:
        empty = pipeline(nothing)
        assert (empty.nodes, empty.edges) == ([], [])
        ElementTree.fromstring(svg(empty))
        assert table(empty).startswith("component")


def test_names_are_compared_as_they_are() -> None:
    """Not as they are shown, which may be nothing at all."""
    found = pipeline({" a\nb ": {}, "": {}, "model": component(" a\nb ", "")})
    assert [(node.name, node.used, node.missing) for node in found.nodes] == [
        (" a\nb ", True, False),
        ("", True, False),
        ("model", True, False),
    ]
    assert [[line.text for line in node.lines] for node in found.nodes][:2] == [["a b"], []]


def test_too_many_to_draw() -> None:
    assert len(pipeline({f"c{i}": component() for i in range(MAX_COMPONENTS)}).nodes) == MAX_COMPONENTS
    with pytest.raises(InputError, match=r"501 components with 0 requirements are too many to draw; at most 500"):
        pipeline({f"c{i}": component() for i in range(MAX_COMPONENTS + 1)})


def test_the_same_in_every_process(python: Run) -> None:
    """The order of sets is another in each."""
    code = f"""
from mlgym.plan.config import read
from mlgym.record.pipeline import pipeline
from mlgym.record.pipeline_text import mermaid, svg
from pathlib import Path
found = pipeline(read(Path({str(EXAMPLES[0])!r})).value)
print(svg(found) + mermaid(found))
"""
    first, second = python("-c", code), python("-c", code)
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout


# --- as text ---

ANY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
HOSTILE = st.sampled_from(
    [
        *("<script>alert(1)</script>", '"/><a href="javascript:x">', "]]>", "&lt;", "\x00\x1b", "x]--> y", "`b`"),
        *("$$a$$", "\u202eabc", "end", "#35;", "日本語" * 9, "%%{init: {}}%%", "e\u0301" * 50, "\ufffe", "a\nb"),
    ]
)
TEXTS = st.one_of(ANY, HOSTILE)


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(TEXTS, min_size=1, max_size=5, unique=True))
    return {
        name: {
            "component_type_key": draw(TEXTS),
            "variant_key": draw(TEXTS),
            "requirements": [{"name": draw(TEXTS), "component_name": draw(TEXTS), "subscription": draw(TEXTS)}]
            + [{"name": "n", "component_name": other, "subscription": [draw(TEXTS), 1]} for other in names[:i]],
        }
        for i, name in enumerate(names)
    }


@settings(max_examples=60)
@given(configs(), TEXTS, st.booleans())
def test_svg_is_nothing_but_a_picture(config: dict[str, Any], value: str, inline: bool) -> None:
    first = next(iter(config))
    found = pipeline(config, {f"{first}.config.x": value})
    root = ElementTree.fromstring(svg(found, title=value, inline=inline))
    kinds = {element.tag.removeprefix("{http://www.w3.org/2000/svg}") for element in root.iter()}
    assert kinds <= {"svg", "title", "desc", "g", "path", "rect", "text", *(() if inline else ("style",))}
    attributes = {name for element in root.iter() for name in element.attrib}
    assert not [name for name in attributes if name.startswith("on") or "href" in name]
    lines = sum(len(node.lines) for node in found.nodes)
    labels = sum(bool(edge.label and edge.path) for edge in found.edges)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}text"))) == lines + labels


def test_svg_says_what_it_shows() -> None:
    found = pipeline(read(DIGITS / "gs_config.yml").value, {"optimizer.config.params.lr": Sweep(4)})
    root = ElementTree.fromstring(svg(found, "the digits"))
    space = "{http://www.w3.org/2000/svg}"
    assert (root.get("role"), root.get("aria-label"), root.findtext(f"{space}title")) == ("img", *["the digits"] * 2)
    assert "trainer requires data_loaders (train)" in str(root.findtext(f"{space}desc"))
    texts = [element.text for element in root.iter(f"{space}text")]
    assert {"dataset_repository", "DATASET_REPOSITORY", "RANDOM", "lr: sweep of 4", "train, val, test"} <= set(texts)
    titles = [element.text for element in root.iter(f"{space}title")]
    assert "eval_component requires data_loaders as data_loaders: train, val, test" in titles


LINE = re.compile(
    r'flowchart LR|    n\d+\["[^"]*"\]|    n\d+ -->(\|"[^"]*"\|)? n\d+|    classDef unused [a-z0-9:, .-]+'
    r"|    class n\d+(,n\d+)* unused"
)


@settings(max_examples=60)
@given(configs(), TEXTS)
def test_mermaid_has_a_line_for_each(config: dict[str, Any], value: str) -> None:
    found = pipeline(config, {f"{next(iter(config))}.config.x": value})
    lines = mermaid(found).splitlines()
    assert all(LINE.fullmatch(line) for line in lines), lines
    assert sum("[" in line for line in lines) == len(found.nodes)
    assert sum("-->" in line for line in lines) == len(found.edges)
    for line in lines:
        inside = "".join(re.findall(r'"([^"]*)"', line)).replace("<br/>", "")
        assert not re.search(r"[<>`\"$\[\]{}|]", inside)


def test_mermaid_and_the_table_of_an_example() -> None:
    found = pipeline(read(DIGITS / "gs_config.yml").value, {"optimizer.config.params.lr": Sweep(4)})
    text = mermaid(found)
    assert 'n7["optimizer<br/>OPTIMIZER · DEFAULT<br/>lr: sweep of 4"]' in text
    assert 'n4 -->|"train, val, test"| n11' in text
    by_name = {row[0]: row[1:] for row in rows(found)}
    assert by_name["trainer"][2] == "train_component; model; data_loaders (train)"
    assert by_name["dataset_iterators"][2] == "dataset_repository as repository"
    assert by_name["optimizer"][3] == "config.params.lr: sweep of 4"
    assert len(table(found).splitlines()) == len(found.nodes) + 2


@given(st.text(max_size=60), st.floats(16, 300))
def test_what_is_cut_fits(text: str, width: float) -> None:
    for kind in ("name", "swept", "label"):
        assert measure(fit(text, kind, width), kind) <= width
