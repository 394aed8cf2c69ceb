"""The rows of `metrics.jsonl`, and sample pictures, as TensorBoard events.

TensorFlow is imported when a writer is made, so that training without TensorBoard needs none.
After a resume, TensorBoard shows steps that were written twice in both stretches; the JSON lines
hold each once.
"""

import os
from collections.abc import Sequence

from experiments.reporting.figure_style import figure_pixels
from experiments.reporting.report_data import SamplePicture
from experiments.reporting.report_figure import draw_samples
from flamingo_jax.train.metrics import Row, to_numbers


class TensorBoardWriter:
    """Writes scalars and pictures under `log_dir`.

    Raises ModuleNotFoundError, with the remedy, where TensorFlow is not installed.
    """

    def __init__(self, log_dir: str | os.PathLike[str]):
        try:
            import tensorflow as tf
        except ModuleNotFoundError as e:
            raise ModuleNotFoundError(
                "TensorBoard events need TensorFlow: install the 'data' extra "
                "(pip install -e '.[data]')"
            ) from e
        self._summary = tf.summary
        self._writer = tf.summary.create_file_writer(os.fspath(log_dir))

    def write(self, row: Row) -> None:
        """One scalar for each number of the row; None is left out."""
        numbers = to_numbers(row)
        step = numbers.pop("step")
        with self._writer.as_default():
            for name, value in numbers.items():
                if isinstance(value, int | float):
                    self._summary.scalar(name, value, step=step)
        self._writer.flush()

    def write_samples(self, step: int, samples: Sequence[SamplePicture]) -> None:
        """One picture: the grid of the report, with the text written for each."""
        with self._writer.as_default():
            pixels = figure_pixels(draw_samples(samples))
            self._summary.image("samples", pixels[None], step=step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
