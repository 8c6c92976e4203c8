"""A grid search config as older versions wrote it: registries required by name, positional seeds, old spellings,
options that are only accepted, and an entry that merely carries injected ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mlgym.build.catalog import built_in
from mlgym.engine import experiment
from mlgym.parts.batch import Batch
from mlgym.plan.config import Document
from mlgym.plan.sweep import expand
from mlgym.record.events import EvaluationResult, Payload
from mlgym.schema import import_path
from mlgym.specs import ExperimentSpec
from tests.conftest import DIGITS


class OldCollator:
    """As users wrote them: the target's key by name, items of (sample, target, tag)."""

    def __init__(self, target_publication_key: str) -> None:
        self.target_publication_key = target_publication_key

    def __call__(self, batch: list[Any]) -> Batch:
        samples = torch.stack([item[0] for item in batch])
        return Batch(samples, {self.target_publication_key: torch.tensor([int(item[1]) for item in batch])})


CONFIG = """
global_config:
  target_key: &target target_key
  prediction: &prediction model_prediction_key
  argmax: &argmax postprocessing_argmax_key

cv_experiment_information:
  component_type_key: DATASET_ITERATORS
  variant_key: DEFAULT
  config:
    experiment_id: {injectable: {id: id_experiment_id}}

dataset_repository:
  component_type_key: DATASET_REPOSITORY
  variant_key: DEFAULT
  config: {storage_connector_path: ./file_storage/}

dataset_iterators:
  component_type_key: DATASET_ITERATORS
  variant_key: DEFAULT
  requirements:
    - {name: repository, component_name: dataset_repository}
  config:
    dataset_identifier: digits
    split_configs:
      - split: train

splitted_dataset_iterators:
  component_type_key: SPLITTED_DATASET_ITERATORS
  variant_key: RANDOM
  requirements:
    - {name: iterators, component_name: dataset_iterators, subscription: [train]}
  config:
    split_configs: {train: {train: 0.7, val: 0.3}}
    seed: 2

data_collator:
  component_type_key: DATA_COLLATOR
  variant_key: DEFAULT
  config:
    collator_type: {injectable: {id: id_collator}}
    collator_params: {target_publication_key: *target}

data_loaders:
  component_type_key: DATA_LOADER
  variant_key: DEFAULT
  requirements:
    - {name: iterators, component_name: splitted_dataset_iterators, subscription: [train, val]}
    - {name: data_collator, component_name: data_collator}
  config:
    batch_size: 50
    weigthed_sampling_split_name: train
    seeds: [0, 1]

model_registry: {component_type_key: MODEL_REGISTRY, variant_key: DEFAULT}

model:
  component_type_key: MODEL
  variant_key: DEFAULT
  requirements:
    - {name: model_registry, component_name: model_registry, subscription: conv_net}
  config:
    model_definition: {channels: 8}
    prediction_publication_keys: {prediction_publication_key: *prediction}
    seed: 2

optimizer:
  component_type_key: OPTIMIZER
  variant_key: DEFAULT
  config:
    optimizer_key: ADAM
    params: {lr: {sweep: absolute, values: [0.003]}}

lr_scheduler:
  component_type_key: LR_SCHEDULER
  variant_key: DEFAULT
  config: {lr_scheduler_key: dummy}

loss_function_registry: {component_type_key: LOSS_FUNCTION_REGISTRY, variant_key: DEFAULT}
metric_registry: {component_type_key: METRIC_REGISTRY, variant_key: DEFAULT}
prediction_postprocessing_registry: {component_type_key: PREDICTION_POSTPROCESSING_REGISTRY, variant_key: DEFAULT}

train_component:
  component_type_key: TRAIN_COMPONENT
  variant_key: VARIANT
  requirements:
    - {name: loss_function_registry, component_name: loss_function_registry}
    - {name: prediction_postprocessing_registry, component_name: prediction_postprocessing_registry}
  config:
    show_progress: true
    loss_fun_config:
      {prediction_subscription_key: *prediction, target_subscription_key: *target, key: CrossEntropyLoss, tag: ce}

trainer:
  component_type_key: TRAINER
  variant_key: VARIANT
  requirements:
    - {name: train_component, component_name: train_component}
    - {name: model, component_name: model, subscription: null}
    - {name: data_loaders, component_name: data_loaders, subscription: train}

eval_component:
  component_type_key: EVAL_COMPONENT
  variant_key: VARIANT
  requirements:
    - {name: model, component_name: model, subscription: null}
    - {name: data_loaders, component_name: data_loaders, subscription: [train, val]}
    - {name: loss_function_registry, component_name: loss_function_registry}
    - {name: metric_registry, component_name: metric_registry}
    - {name: prediction_postprocessing_registry, component_name: prediction_postprocessing_registry}
  config:
    cpu_target_subscription_keys: [*target]
    cpu_prediction_subscription_keys: [*argmax, *prediction]
    train_split_name: train
    show_progress: true
    post_processors_config:
      - key: ARG_MAX
        applicable_splits: [train, val]
        params: {prediction_subscription_key: *prediction, prediction_publication_key: *argmax}
    metrics_computation_config:
      - {metric_tag: F1_SCORE_macro, applicable_splits: [val]}
    metrics_config:
      - key: F1_SCORE
        params: {average: macro}
        prediction_subscription_key: *argmax
        target_subscription_key: *target
        tag: F1_SCORE_macro
    loss_funs_config:
      - {prediction_subscription_key: *prediction, target_subscription_key: *target, key: CrossEntropyLoss, tag: ce}

evaluator:
  component_type_key: EVALUATOR
  variant_key: VARIANT
  requirements:
    - {name: eval_component, component_name: eval_component}

early_stopping_strategy_registry: {component_type_key: EARLY_STOPPING_STRATEGY_REGISTRY, variant_key: DEFAULT}
early_stopping_strategy:
  component_type_key: EARLY_STOPPING_STRATEGY
  variant_key: DEFAULT
  requirements:
    - {name: early_stopping_strategy_registry, component_name: early_stopping_strategy_registry}
  config:
    early_stopping_key: LAST_K_EPOCHS_IMPROVEMENT_STRATEGY
    early_stopping_config:
      min_relative_improvement: 0.01
      epochs_window: 5
      split_name: val
      monitoring_key: F1_SCORE_macro
      is_increase_task: true

checkpointing_strategy_registry: {component_type_key: CHECKPOINTING_STRATEGY_REGISTRY, variant_key: DEFAULT}
checkpointing_strategy:
  component_type_key: CHECKPOINTING_STRATEGY
  variant_key: DEFAULT
  requirements:
    - {name: checkpointing_strategy_registry, component_name: checkpointing_strategy_registry}
  config: {checkpointing_key: SAVE_LAST_EPOCH_ONLY_CHECKPOINTING_STRATEGY}
"""


@pytest.mark.parametrize("variant", ["DEFAULT", "ACCELERATE"])
def test_runs_as_it_is(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DIGITS))
    registry = built_in()
    registry.model("conv_net", import_path("conv_net:ConvNet"))
    registry.injectable("id_collator", OldCollator)
    config = expand(Document(Path("gs_config.yml"), CONFIG.replace("VARIANT", variant)).value)[0].config
    spec = ExperimentSpec("g", 0, config, "", {}, 0, 2)
    parts = experiment.build(spec, registry, torch.device("cpu"))
    events: list[Payload] = []
    assert experiment.run(spec, parts, events.append, lambda: False).status == "DONE"
    last = [event for event in events if isinstance(event, EvaluationResult)][-1]
    assert [(score.metric, score.split) for score in last.metric_scores] == [("F1_SCORE_macro", "val")]
    assert float(last.metric_scores[0].score) > 0.5
    assert {score.split for score in last.loss_scores} == {"train", "val"}
