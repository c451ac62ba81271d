from lucency.cli.launch import main as main
from lucency.config.protocol import Protocol as Protocol
from lucency.config.protocol import read_protocol as read_protocol
from lucency.core.manifest import Manifest as Manifest
from lucency.core.manifest import Preparation as Preparation
from lucency.core.manifest import Prepared as Prepared
from lucency.core.plan import Plan as Plan
from lucency.core.predictions import Predictions as Predictions
from lucency.core.predictions import load_predictions as load_predictions
from lucency.data.images import read_grey as read_grey
from lucency.data.labels import read_nih as read_nih
from lucency.data.preprocess import prepare_film as prepare_film
from lucency.evaluation.summary import Evaluation as Evaluation
from lucency.explain.heatmaps import Heatmaps as Heatmaps
from lucency.models.classifier import Classifier as Classifier
from lucency.models.classifier import load_classifier as load_classifier
from lucency.pipeline.film_inference import predict_files as predict_files
from lucency.pipeline.library import Explanation as Explanation
from lucency.pipeline.library import Model as Model
from lucency.pipeline.library import RunResult as RunResult
from lucency.pipeline.library import check as check
from lucency.pipeline.library import compare as compare
from lucency.pipeline.library import create_network as create_network
from lucency.pipeline.library import evaluate as evaluate
from lucency.pipeline.library import list_networks as list_networks
from lucency.pipeline.library import load as load
from lucency.pipeline.library import prepare as prepare
from lucency.pipeline.library import run as run
from lucency.pipeline.run import Run as Run
from lucency.pipeline.run import open_run as open_run

__all__: list[str]
__version__: str

def __dir__() -> list[str]: ...
