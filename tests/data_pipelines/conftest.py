"""Small datasets on disk, written by TFDS as `data_pipelines.build` writes large ones."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds


@pytest.fixture
def build_dataset(tmp_path):
    """`build_dataset(records, num_shards=1)` gives the data_dir of a dataset with them as "train".

    TFDS orders records by a hash of their key; the order is not the list's.
    """

    def build(records: list[dict], name: str = "tiny", num_shards: int = 1) -> str:
        features = tfds.features.FeaturesDict(
            {
                "id": tfds.features.Text(),
                "text": tfds.features.Text(),
                "media_positions": tfds.features.Sequence(np.int32),
                "media": tfds.features.Sequence(tf.string),
                "media_ids": tfds.features.Sequence(tf.string),
                "metadata": tfds.features.Text(),
            }
        )
        builder = tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version="1.0.0",
            features=features,
            split_datasets={"train": [(r["id"], r) for r in records]},
            data_dir=tmp_path,
            download_config=tfds.download.DownloadConfig(num_shards=num_shards),
            disable_shuffling=True,
        )
        return str(builder.data_dir)

    return build
