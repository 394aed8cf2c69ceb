"""Small datasets on disk, written by TFDS as `data_pipelines.build` writes large ones."""

import pytest
import tensorflow_datasets as tfds

from data_pipelines import records


@pytest.fixture
def build_dataset(tmp_path):
    """`build_dataset(examples, num_shards=1)`: the data_dir of a dataset with them as "train"."""

    def build(examples: list[dict], name: str = "tiny", num_shards: int = 1) -> str:
        builder = tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version="1.0.0",
            features=records.features(),
            split_datasets={"train": [(r["id"], r) for r in examples]},
            data_dir=tmp_path,
            download_config=tfds.download.DownloadConfig(num_shards=num_shards),
            disable_shuffling=True,
        )
        return str(builder.data_dir)

    return build
