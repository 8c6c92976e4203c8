from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlgym.errors import ConfigError, InputError
from mlgym.plan.config import Document, read, read_run_config, required


def document(text: str) -> Document:
    return Document(Path("f.yml"), text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        (".5", 0.5),
        ("5.", 5.0),
        ("-.inf", float("-inf")),
        ("12", 12),
        ("0o17", 15),
        ("0x1f", 31),
        ("012", 12),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("1.2.3", "1.2.3"),
        ("e5", "e5"),
        (".", "."),
    ],
)
def test_scalars_of_yaml_1_2(text: str, value: object) -> None:
    found = document(f"a: {text}").value["a"]
    assert found == value
    assert type(found) is type(value)


_text = st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), max_size=8)
_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None)
@given(_data)
def test_json_is_yaml(value: Any) -> None:
    assert document(json.dumps(value, ensure_ascii=False)).value == value


def test_places() -> None:
    found = document("a:\n  b:\n    - 1\n    - {c: 2}\n")
    assert found.place(("a", "b", 1, "c")) == "f.yml:4:8"
    assert found.place(("a", "b", 0)) == "f.yml:3:7"
    assert found.place(("a", "x", "y")) == "f.yml:1:1"


def test_anchors_and_merge_keys() -> None:
    found = document("d: &d {x: 1, y: 2}\na: {<<: *d, y: 3}\nb: *d\n")
    assert found.value == {"d": {"x": 1, "y": 2}, "a": {"x": 1, "y": 3}, "b": {"x": 1, "y": 2}}
    assert found.value["b"] is not found.value["d"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: [1, 2\n", r"f\.yml:3:1: this is not valid YAML"),
        ("a: 1\nb: 2\na: 3\n", r"f\.yml:3:1: the key 'a' is given twice"),
        ("a: !!python/object/apply:os.system ['true']", r"f\.yml:1:4: .*python/object"),
        ("a: &x {b: *x}", r"f\.yml:1:4: an anchor contains itself"),
        ("? [1]\n: 2", "a key must be a single value"),
        ("a: " + "[" * 5000, "f.yml"),
        ("a: \x01", "not valid YAML"),
        ("{a: " * 200_000, "nested more than 100 deep"),
        ("a: !!set {x}", "tag .*set"),
        ("a: !!bool maybe", "f\\.yml:1:4: 'maybe' is not what its tag says"),
        ("!!int foo: 1", "'foo' is not what its tag says"),
        ("a: !!binary aGk=", "tag .*binary"),
        ("a: {<<: 3}", "<< takes a mapping"),
    ],
)
def test_bad_yaml(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        document(text)


def test_aliases_that_explode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlgym.plan.config._MAX_NODES", 10_000)
    text = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    with pytest.raises(ConfigError, match="the aliases expand to more than"):
        document(text)


def test_merge_keys() -> None:
    text = "z: &z {a: 2, b: 2}\ny: &y {own: &o {a: 1, <<: *z}, <<: *z}\nx: {<<: [*y, *z], c: 3}\n"
    found = document(text).value
    assert found["y"] == {"own": {"a": 1, "b": 2}, "a": 2, "b": 2}
    assert found["x"] == {"own": {"a": 1, "b": 2}, "a": 2, "b": 2, "c": 3}
    with pytest.raises(ConfigError, match="contains itself"):
        document("a: &a {<<: *a}")


def test_merge_keys_do_not_explode() -> None:
    text = "a0: &a0 {k: 1}\n"
    text += "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 12))
    assert document(text).value["a11"] == {"k": 1}


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "run_config.yml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"no such file; did you mean 'run_config\.yml'"):
        read(tmp_path / "run_conifg.yml")
    with pytest.raises(InputError, match="directory"):
        read(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "run_config.yml")


RUN = "run_configuration:\n  type: train\n  config:\n    gs_config_path: g.yml\n    num_epochs: 1\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "got an empty file"),
        ("[1]", "got list"),
        (RUN.replace("num_epochs", "num_epoch"), r":5:5: .*unknown key 'num_epoch'; did you mean 'num_epochs'"),
        (RUN.replace("epochs: 1", "epochs: -1"), r":5:5: .*must be at least 0, not -1"),
        (RUN.replace("epochs: 1", "epochs: 1.5"), r":5:5: .*expected int, got float 1\.5"),
        (RUN.replace("type: train", "type: tarin"), "'tarin'"),
        (RUN + "environment: {type: mainprocess}\n", "main_process"),
        (RUN + "enviroment: {type: main_process}\n", "did you mean 'environment'"),
        ("environment: {type: main_process}", "the key 'run_configuration' is missing"),
    ],
)
def test_run_config_errors(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "run_config.yml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        read_run_config(path)
    assert str(path) in str(caught.value)


def component(*needs: str) -> dict[str, Any]:
    return {
        "component_type_key": "T",
        "variant_key": "DEFAULT",
        "requirements": [{"name": f"n{i}", "component_name": need} for i, need in enumerate(needs)],
    }


def test_required_components_come_after_what_they_require() -> None:
    config = {
        "evaluator": component("model"),
        "trainer": component("model", "data"),
        "model": component("registry"),
        "registry": component(),
        "data": component(),
        "optimizer": component(),
        "carries_ids": {"config": {"fold": {"injectable": {"id": "id_fold"}}}},
    }
    order = list(required(config))
    assert order.index("registry") < order.index("model") < order.index("trainer")
    assert "carries_ids" not in order


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": component("trainer")}, r"circle: model -> trainer -> model"),
        ({"model": component("registri")}, "requires 'registri', which does not exist; did you mean 'registry'"),
        ({"model": {"variant_key": "DEFAULT"}}, "the key 'component_type_key' is missing"),
        ({"model": {**component(), "requirments": []}}, "unknown key 'requirments'; did you mean 'requirements'"),
        ({"model": 3}, "model: expected object, got int"),
    ],
)
def test_components_that_do_not_fit(change: dict[str, Any], words: str) -> None:
    config = {
        "model": component(),
        "trainer": component("model"),
        "optimizer": component(),
        "evaluator": component(),
        "registry": component(),
    }
    with pytest.raises(ConfigError, match=words):
        required(config | change)
    del config["optimizer"]
    with pytest.raises(ConfigError, match="there is no component named 'optimizer'"):
        required(config)
