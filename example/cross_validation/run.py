"""Five-fold cross validation of four combinations. `python run.py --config_path run_config.yml`"""

from wines import Classifier, wine

from mlgym import run
from mlgym.build.registry import Registry


def blueprint(registry: Registry) -> None:
    registry.dataset("wine", wine)
    registry.model("classifier", Classifier)


if __name__ == "__main__":
    run(blueprint)
