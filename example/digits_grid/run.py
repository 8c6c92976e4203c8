"""A grid of 12 trainings on real handwritten digits. `python run.py --config_path run_config.yml`"""

from conv_net import ConvNet

from mlgym import run
from mlgym.build.registry import Registry


def blueprint(registry: Registry) -> None:
    registry.model("conv_net", ConvNet)


if __name__ == "__main__":
    run(blueprint)
