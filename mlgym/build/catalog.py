"""Everything that is built in, a line each."""

from __future__ import annotations

from functools import partial
from typing import TypeVar

from mlgym.build.registry import Registry
from mlgym.parts import (
    class_metrics,
    data,
    datasets,
    evaluator,
    iterators,
    loss_functions,
    metrics,
    models,
    optimizers,
    policies,
    postprocessing,
    trainer,
)

T = TypeVar("T")


def _the(table: T) -> T:
    return table


def built_in() -> Registry:
    """A new registry with the built-in components."""
    r = Registry()

    r.component("DATASET_REPOSITORY", "DEFAULT", datasets.repository)
    r.component("DATASET_ITERATORS", "DEFAULT", datasets.iterators)
    r.component("SPLITTED_DATASET_ITERATORS", "RANDOM", datasets.random_splits)
    r.component("COMBINED_DATASET_ITERATORS", "DEFAULT", iterators.combined)
    r.component("IN_MEMORY_DATASET_ITERATORS", "DEFAULT", iterators.in_memory)
    r.component("SHUFFLED_DATASET_ITERATORS", "DEFAULT", iterators.shuffled)
    r.component("FILTERED_LABELS_ITERATOR", "DEFAULT", iterators.filtered_labels)
    r.component("MAPPED_LABELS_ITERATOR", "DEFAULT", iterators.mapped_labels)
    r.component("TRANSFORMED_DATASET_ITERATORS", "DEFAULT", iterators.transformed)
    r.component("FEATURE_ENCODED_ITERATORS", "DEFAULT", iterators.feature_encoded)
    r.component("ONE_HOT_ENCODED_TARGETS_ITERATOR", "DEFAULT", iterators.one_hot_targets)
    r.component("ITERATOR_VIEW", "DEFAULT", iterators.view)
    r.component("DATA_COLLATOR", "DEFAULT", data.collator)
    r.component("DATA_LOADER", "DEFAULT", data.loaders)
    r.component("DATA_LOADER", "FUTURE", data.strategy_loaders)
    r.component("MODEL", "DEFAULT", models.model)
    r.component("OPTIMIZER", "DEFAULT", optimizers.optimizer)
    r.component("OPTIMIZER", "BUNDLE", optimizers.bundle)
    r.component("LR_SCHEDULER", "DEFAULT", optimizers.lr_scheduler)
    for variant in ("DEFAULT", "ACCELERATE"):  # one implementation behind both names
        r.component("TRAIN_COMPONENT", variant, trainer.train_component)
        r.component("TRAINER", variant, trainer.Trainer)
        r.component("EVAL_COMPONENT", variant, evaluator.eval_component)
        r.component("EVALUATOR", variant, evaluator.Evaluator)
    r.component("EARLY_STOPPING_STRATEGY", "DEFAULT", policies.early_stopping)
    r.component("CHECKPOINTING_STRATEGY", "DEFAULT", policies.checkpointing)
    for name, table in r.tables.items():
        r.component(name.upper(), "DEFAULT", partial(_the, table))

    r.dataset("digits", datasets.digits)
    r.dataset("mnist", datasets.mnist)
    r.dataset("fashion_mnist", datasets.fashion_mnist)
    r.dataset("cifar10", datasets.cifar10)
    r.dataset("npz", datasets.npz)
    r.dataset("csv", datasets.csv)
    r.dataset("image_folder", datasets.image_folder)

    r.loss("CrossEntropyLoss", loss_functions.cross_entropy)
    r.loss("BCEWithLogitsLoss", loss_functions.bce_with_logits)
    r.loss("BCELoss", loss_functions.bce)
    r.loss("NLLLoss", loss_functions.nll)
    r.loss("LPLoss", loss_functions.LP)
    r.loss("LPPredictionLoss", loss_functions.LP)
    r.loss("MSE", loss_functions.mse)
    r.loss("MSELoss", loss_functions.mse)
    r.loss("L1", loss_functions.l1)
    r.loss("L1Loss", loss_functions.l1)
    r.loss("Huber", loss_functions.huber)
    r.loss("HuberLoss", loss_functions.huber)

    r.metric("ACCURACY", metrics.accuracy)
    r.metric("BALANCED_ACCURACY", metrics.balanced_accuracy)
    r.metric("F1_SCORE", metrics.f1_score)
    r.metric("PRECISION", metrics.precision)
    r.metric("RECALL", metrics.recall)
    r.metric("AUROC", class_metrics.auroc)
    r.metric("AUPR", class_metrics.aupr)
    r.metric("RECALL_AT_K", class_metrics.recall_at_k)
    r.metric("AREA_UNDER_RECALL_AT_K", class_metrics.area_under_recall_at_k)
    r.metric("BRIER_SCORE", class_metrics.brier_score)
    r.metric("EXPECTED_CALIBRATION_ERROR", class_metrics.expected_calibration_error)
    r.metric("BINARY_CLASSWISE_EXPECTED_CALIBRATION_ERROR", class_metrics.binary_classwise_expected_calibration_error)
    r.metric("MAE", metrics.mean_absolute_error)
    r.metric("MSE", metrics.mean_squared_error)
    r.metric("RMSE", metrics.root_mean_squared_error)
    r.metric("R2", metrics.r2_score)

    r.postprocessor("SOFT_MAX", postprocessing.soft_max)
    r.postprocessor("ARG_MAX", postprocessing.arg_max)
    r.postprocessor("MIN_OR_MAX", postprocessing.min_or_max)
    r.postprocessor("SIGMOIDAL", postprocessing.sigmoidal)
    r.postprocessor("BINARIZATION", postprocessing.binarization)
    r.postprocessor("DUMMY", postprocessing.dummy)

    r.lr_scheduler("hugging_face_scheduler", optimizers.hugging_face_scheduler)

    r.early_stopping("LAST_K_EPOCHS_IMPROVEMENT_STRATEGY", policies.LastEpochsImprovement)
    r.early_stopping("PATIENCE", policies.Patience)
    r.early_stopping("NONE", policies.NeverStop)

    r.checkpointing("SAVE_LAST_EPOCH_ONLY_CHECKPOINTING_STRATEGY", policies.SaveLastEpochOnly)
    r.checkpointing("SAVE_ALL_CHECKPOINTING_STRATEGY", policies.SaveAll)
    r.checkpointing("SAVE_EVERY_N_EPOCHS_CHECKPOINTING_STRATEGY", policies.SaveEveryNEpochs)
    r.checkpointing("SAVE_BEST_K_CHECKPOINTING_STRATEGY", policies.SaveBestK)
    r.checkpointing("NONE", policies.SaveNone)
    return r
