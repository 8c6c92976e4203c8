"""Nested cross validation: an honest estimate of a search. `python run.py --config_path run_config.yml`"""

from cancer import Classifier, cancer

from mlgym import run
from mlgym.build.registry import Registry


def blueprint(registry: Registry) -> None:
    registry.dataset("cancer", cancer)
    registry.model("classifier", Classifier)


if __name__ == "__main__":
    run(blueprint)
