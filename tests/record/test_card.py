"""The model card: what is in it, from logs with everything and from logs with little; and that text stays text."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlgym.errors import InputError
from mlgym.record.card import CPU_WATTS, card
from mlgym.record.card_blocks import document, figures, short_count, size
from mlgym.record.card_evaluation import MAX_POINTS
from mlgym.record.card_html import as_html
from mlgym.record.card_markdown import as_markdown, text
from mlgym.record.card_schema import ModelCard, as_json
from mlgym.record.card_sources import sources
from mlgym.record.events import JobUsage, decode_lines
from mlgym.record.fold import State, fold_all
from mlgym.record.log import Log
from tests.ml_board.page.logs import Script
from tests.record.cards import CONFUSION, HOST, INFO, announced, carded, told


@pytest.fixture
def full(tmp_path: Path) -> ModelCard:
    return carded(told(announced("g")), tmp_path)


def test_json_has_the_six_sections(full: ModelCard) -> None:
    found = json.loads(as_json(full))
    assert list(found) == [
        "model_details",
        "dataset_details",
        "training_details",
        "eval_details",
        "experiment_environment",
        "pipeline_details",
    ]
    assert found["model_details"]["model_description"] == "Reads digits."
    assert [one["name"] for one in found["pipeline_details"]["components"]][:2] == [
        "dataset_repository",
        "dataset_iterators",
    ]


def test_the_model(full: ModelCard) -> None:
    model = full.model_details
    assert (model.name, model.type, model.total_parameters, model.trainable_parameters) == ("Net", "nets.Net", 20, 16)
    assert (model.model_version, model.source_repo) == ("1.2", "https://example.org/digits")
    assert model.stated == {key: INFO[key] for key in ("license", "tags", "intended_use", "limitations", "funding")}
    assert model.checkpoint
    assert [(file.name, file.size) for file in model.checkpoint.files] == [("model.safetensors", 7)]
    assert len(model.checkpoint.files[0].sha256) == 64


def test_the_data(full: ModelCard) -> None:
    train, val = full.dataset_details.splits
    assert full.dataset_details.datasets == ["digits"]
    assert (train.percentage, val.percentage) == (80.0, 20.0)
    assert [(label.name, label.count, label.percentage) for label in val.label_distribution] == [
        ("zero", 6, 33.33),
        ("one", 6, 33.33),
        ("two", 6, 33.33),
    ]
    assert (train.label_distribution, train.uncounted) == ([], "it would take reading every item")


def test_hyperparameters_say_what_was_swept(full: ModelCard) -> None:
    found = {one.parameter: one for one in full.training_details.hyperparameters}
    assert {name for name, one in found.items() if one.swept} == {
        "data_loaders.config.batch_size",
        "optimizer.config.params.lr",
    }
    assert found["optimizer.config.params.lr"].value == 0.001
    assert found["lr_scheduler.config.params.gamma"].value == 0.9
    assert not any("metrics_config" in name or "subscription_key" in name for name in found)
    assert full.training_details.optimizer == {"key": "ADAM", "params": {"lr": 0.001}}
    assert full.training_details.loss
    assert full.training_details.loss["key"] == "CrossEntropyLoss"


def test_scores_are_judged_by_one_of_them(full: ModelCard) -> None:
    found = full.eval_details
    assert (found.score, found.mode, found.best_epoch) == ("val/accuracy", "max", 2)
    by_tag = {one.tag: one for one in found.scores}
    loss = by_tag["cross_entropy_loss"]
    assert loss.best
    assert (loss.mode, loss.best.epoch, loss.best.value, loss.at_best_epoch) == ("min", 3, 0.2, 0.3)
    assert (by_tag["accuracy"].epochs, by_tag["accuracy"].last.epoch) == ([0, 1, 2, 3], 3)
    assert [metric["key"] for metric in found.metrics] == ["ACCURACY", "F1_SCORE"]


def test_results_by_class(full: ModelCard) -> None:
    last, best = full.eval_details.class_results
    assert (last.epoch, last.last, last.best, best.epoch, best.best) == (3, True, False, 2, True)
    assert best.accuracy == 15 / 18
    assert best.confusion == CONFUSION
    two = best.classes[2]
    assert (two.name, two.support, two.precision, two.recall, two.f1) == ("two", 6, 1.0, 4 / 6, 0.8)


def test_energy_is_stated_or_says_that_it_is_a_guess(full: ModelCard, tmp_path: Path) -> None:
    found = full.experiment_environment.carbon_and_cost
    assert (found.basis, found.hours, found.energy_kwh, found.carbon_g) == ("stated", 1.0, 0.25, 100.0)
    assert (found.cost, found.currency) == (0.125, "EUR")
    bare = carded(told(announced("bare", {})), tmp_path).experiment_environment.carbon_and_cost
    assert (bare.basis, bare.power_watts, bare.carbon_g, bare.cost) == ("estimate", 2 * CPU_WATTS, None, None)
    assert "guess for each CPU thread" in bare.explanation
    measured = announced("measured")
    usage = JobUsage(grid_search_id="measured", experiment_id=0, job_id="0-1", energy_joules=7.2e6)
    measured.wait(3600)
    measured.put(usage)
    measured.job(0, "DONE")
    counted = carded(measured, tmp_path).experiment_environment.carbon_and_cost
    assert (counted.basis, counted.energy_kwh, counted.power_watts) == ("measured", 2.0, 2000.0)


def test_an_attempt_without_an_end_leaves_the_duration_open(tmp_path: Path) -> None:
    script = announced("g")
    script.wait(60)
    script.job(0, "LOST", error="killed")
    script.job(0, "INIT", attempt=2)
    script.job(0, "RUNNING", attempt=2)
    told(script)
    found = carded(script, tmp_path)
    assert found.training_details.seconds is None
    assert found.experiment_environment.carbon_and_cost.energy_kwh is None
    assert "not known" in as_markdown(found)


def test_where_it_ran_but_not_in_whose_folder(full: ModelCard) -> None:
    (host,) = full.experiment_environment.hosts
    assert host["processor"] == HOST["processor"]
    for written in (as_json(full).decode(), as_html(full), as_markdown(full)):
        assert "0123abcd" in written
        assert "91002" in written
        assert "secret" not in written


def test_a_log_without_facts_has_a_card_that_says_so(tmp_path: Path) -> None:
    script = Script("old")
    script.grid(num_experiments=1)
    script.job(0, "RUNNING")
    script.scores(0, 0, {"val/accuracy": 0.5})
    found = carded(script, tmp_path)
    assert found.model_details.total_parameters is None
    assert found.dataset_details.splits == []
    assert found.pipeline_details.components == []
    for written in (as_html(found), as_markdown(found)):
        assert "What the model consists of was not recorded." in written
        assert "What the data consist of was not recorded." in written
        assert written.count("Not stated.") == 2


def test_a_card_of_the_past(tmp_path: Path) -> None:
    script = told(announced("g"))
    script.write(tmp_path)
    path = tmp_path / "g" / "event_storage.log"
    events = decode_lines(path.read_bytes())
    for seq in range(1, len(events) + 1):
        state = fold_all(State(), events[:seq])
        if 0 not in state.experiments:
            continue
        found = card(sources(Log.load(path), state, 0))
        assert found.model_details.seq == seq
        assert len(found.eval_details.class_results) == sum(
            name.startswith("classes") for name in state.experiments[0].facts
        )
        assert (found.model_details.total_parameters is not None) == ("model" in state.experiments[0].facts)
        assert as_html(found)
        assert as_markdown(found)


def test_an_experiment_that_is_not_there(tmp_path: Path) -> None:
    announced("g").write(tmp_path)
    log = Log.load(tmp_path / "g" / "event_storage.log")
    with pytest.raises(InputError, match=r"there is no experiment 7 in g; there is: 0"):
        sources(log, log.state, 7)


def test_long_series_keep_their_extremes(tmp_path: Path) -> None:
    script = announced("g")
    for epoch in range(3000):
        script.scores(0, epoch, {"val/accuracy": 5.0 if epoch == 1234 else float(epoch % 7) / 7})
    (found,) = carded(script, tmp_path).eval_details.scores
    assert len(found.epochs) <= MAX_POINTS
    assert (found.epochs[0], found.epochs[-1]) == (0, 2999)
    assert found.values[found.epochs.index(1234)] == 5.0


def test_scores_that_are_no_numbers(tmp_path: Path) -> None:
    script = announced("g")
    for epoch, value in enumerate((float("nan"), float("inf"), 1e308, -1e308)):
        script.scores(0, epoch, {"val/accuracy": value, "val/never": float("nan")})
    found = carded(script, tmp_path)
    assert json.loads(as_json(found))
    assert "NaN" in as_markdown(found)
    assert "nan" not in re.sub(r"<style>.*</style>", "", as_html(found), flags=re.DOTALL)


# --- as HTML and as Markdown --------------------------------------------------------------------------------


def test_the_front_matter_is_yaml(full: ModelCard) -> None:
    head = yaml.safe_load(as_markdown(full).split("---\n")[1])
    assert (head["license"], head["tags"], head["datasets"]) == ("apache-2.0", ["mlgym", "digits"], ["digits"])
    (result,) = head["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": 15 / 18, "name": "accuracy on val"}]


@pytest.mark.parametrize("hostile", ["\U0001f600 größe", "a: b\n---\n", '"\\u2028 \u2028', "\x00\x85\x7f", "'{[*&"])
def test_the_front_matter_is_yaml_whatever_is_in_it(tmp_path: Path, hostile: str) -> None:
    info = {**INFO, "tags": [hostile], "license": hostile, "model_name": hostile}
    head = as_markdown(carded(told(announced("g", info)), tmp_path)).split("\n---\n")[0]
    found = yaml.safe_load(head.removeprefix("---\n"))
    assert "license" not in found
    assert len(found["tags"]) == 2
    if hostile.isprintable():
        assert found["tags"][1] == hostile


def test_markdown_tables_are_whole(full: ModelCard) -> None:
    lines = as_markdown(full).splitlines()
    tables = [line for line in lines if line.startswith("|")]
    assert len(tables) > 40
    for before, line in pairwise(lines):
        if before.startswith("|") and line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", before)) == len(re.findall(r"(?<!\\)\|", line))


@pytest.mark.parametrize(
    "markup",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[x](javascript:alert(1))",
        "![x](http://example.org/x.png)",
        "**bold** _it_ ~~gone~~ `code`",
        "# heading",
        "- item",
        "1. item",
        "> quote",
        "a | b",
        "&lt;script&gt;",
        "[x]: http://example.org",
        "---",
        "$x^2$",
        "```\ncode",
        "    code",
        "a\\\\[x](y)",
    ],
)
def test_markdown_of_users_is_text(markup: str) -> None:
    markdown_it = pytest.importorskip("markdown_it")
    html = markdown_it.MarkdownIt("gfm-like", {"linkify": False}).render(text(markup))
    shown = " ".join(markup.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert html == f"<p>{shown}</p>\n"


def test_html_asks_for_nothing(full: ModelCard) -> None:
    html = as_html(full)
    assert "default-src 'none'" in html
    assert "<script" not in html
    assert not re.search(r"\b(src|href)=\"(?!#|https://example\.org/digits\")", html)
    assert html.count("<svg") == 5  # two scores, two confusion matrices, the components


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "data:text/html,x", 'https://a.b/" onclick="x', "http://a b"]
)
def test_only_addresses_become_links(tmp_path: Path, address: str) -> None:
    html = as_html(carded(announced("g", {"source_repo": address}), tmp_path))
    assert not re.search(r'<a href="[^#]', html)


def test_every_statement_of_the_user_is_shown(tmp_path: Path) -> None:
    from mlgym.record.card_blocks import GROUPS

    info: dict[str, Any] = {key: f"about {key}" for group in GROUPS.values() for key in group}
    info |= {"citation": "about citation", "whatever else": {"a": ["about more", 1.5, None, True]}}
    found = carded(announced("g", info), tmp_path)
    for written in (as_html(found), as_markdown(found).replace("\\_", "_")):
        for key in (*(key for group in GROUPS.values() for key in group), "citation", "more"):
            assert f"about {key}" in written


def test_blocks_name_each_section_once(full: ModelCard) -> None:
    anchors = re.findall(r'<h2 id="(\w+)"', as_html(full))
    assert len(anchors) == len(set(anchors)) == 10
    assert document(full).title == "Net"


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        (size(512), "512 B"),
        (size(2048), "2.0 KiB"),
        (size(2**50), "1024.0 TiB"),
        (short_count(11_700_000), "11.7 M"),
        (figures(0.00001234), "1.23e-05"),
        (figures(12345), "12,345"),
        (figures(1234.5), "1,234"),
        (figures(999.7), "1,000"),
        (figures(0.25), "0.25"),
    ],
)
def test_numbers_are_written_for_people(written: str, wanted: str) -> None:
    assert written == wanted
