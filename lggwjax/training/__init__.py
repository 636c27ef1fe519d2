"""Training with sample reuse, and measuring on the way."""

from lggwjax.training.checkpoints import read_params
from lggwjax.training.config import MeasureSpec, RunConfig
from lggwjax.training.gate import Gate, domination_gate
from lggwjax.training.heldout import gradient_norm, population_descent
from lggwjax.training.loop import TrainingDiverged, TrainSpec, TrainState, measurement_steps, train
from lggwjax.training.measure import CheckpointPath, measure
from lggwjax.training.meter import Meter, MeterState, Samples
from lggwjax.training.monitor import Monitor, MonitorState
from lggwjax.training.observation import Report
from lggwjax.training.run import plan_run, prepare_run, run
from lggwjax.training.writers import CsvWriter, JsonlWriter, TensorBoardWriter, WandbWriter

__all__ = [
    "CheckpointPath",
    "CsvWriter",
    "Gate",
    "JsonlWriter",
    "MeasureSpec",
    "Meter",
    "MeterState",
    "Monitor",
    "MonitorState",
    "Report",
    "RunConfig",
    "Samples",
    "TensorBoardWriter",
    "TrainSpec",
    "TrainState",
    "TrainingDiverged",
    "WandbWriter",
    "domination_gate",
    "gradient_norm",
    "measure",
    "measurement_steps",
    "plan_run",
    "population_descent",
    "prepare_run",
    "read_params",
    "run",
    "train",
]
