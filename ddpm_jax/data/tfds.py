"""Reads encoded images and their labels from a TFDS data set, prepared as array_record, without TensorFlow."""

import difflib
import os
import re
import shlex
from typing import Any

import numpy as np

from ddpm_jax.data.source import Record, Records
from ddpm_jax.runtime import foreign_files


def prepare_command(name: str, *, data_dir: str) -> str:
    """Returns the command line that prepares a data set."""
    command = f"python -m ddpm_jax.data prepare {shlex.quote(name)}"
    return command + (f" --data_dir={shlex.quote(data_dir)}" if data_dir else "")


def open_builder(name: str, *, data_dir: str, **kwargs: Any) -> Any:
    """Finds a data set by name, prepared or not, and returns its `tfds.core.DatasetBuilder`.

    Args:
        name: TFDS's name, 'name[/config][:version]'.
        data_dir: the root of prepared data sets ('' for TFDS's default), or the folder of this one version.
        **kwargs: for `tfds.builder`.

    Raises:
        ValueError: if TFDS has no such data set, or cannot open it.
    """
    import tensorflow_datasets as tfds

    try:
        if os.path.isfile(os.path.join(data_dir, "dataset_info.json")):
            builder = tfds.builder_from_directory(data_dir)
            if builder.name != re.split("[/:]", name)[0]:
                raise ValueError(f"the data set in {data_dir!r} is {builder.name!r}")
            return builder
        return tfds.builder(name, data_dir=data_dir or None, **kwargs)
    except tfds.core.DatasetNotFoundError:
        # Community data sets are left out: listing them needs TensorFlow.
        known = ["digits", "image_folder", *tfds.list_builders(with_community_datasets=False)]
        near = difflib.get_close_matches(name.split("/")[0], known)
        hint = f"; did you mean {' or '.join(near)}?" if near else "; other names are digits and image_folder."
        raise ValueError(f"{name!r} is not a data set that TFDS knows or that lies in data_dir{hint}") from None
    except Exception as error:  # TFDS raises nearly anything where its files are damaged
        raise ValueError(f"TFDS cannot open {name!r}: {foreign_files.cause(error)}.") from error


def wrong_format_message(name: str, builder: Any) -> str:
    """Says that a data set was not prepared as array_record, and how to prepare it."""
    return (
        f"{name!r} in {str(builder.data_dir)!r} was prepared as {builder.info.file_format.value}, which cannot be read "
        f"without TensorFlow; prepare it as array_record in another folder: {prepare_command(name, data_dir='DIR')}"
    )


def _check_image_feature(name: str, features: Any) -> None:
    """Raises ValueError unless `features` has an 'image' of 8 or 16 bits."""
    import tensorflow_datasets as tfds

    if "image" not in features:
        raise ValueError(f"{name!r} has no 'image' feature; it has {', '.join(sorted(features))}.")
    feature = features["image"]
    is_file = isinstance(feature, tfds.features.Image) and feature.np_dtype in (np.uint8, np.uint16)
    is_array = (
        isinstance(feature, tfds.features.Tensor) and feature.np_dtype == np.uint8 and len(feature.shape) in (2, 3)
    )
    if not (is_file or is_array):
        raise ValueError(f"the 'image' feature of {name!r} is {feature}; it must be an image of 8 or 16 bits.")


def _check_shards(name: str, builder: Any, split: str) -> None:
    """Raises FileNotFoundError if files of the split are missing; array_record would say so when it comes to them."""
    shards = [str(part.filename) for part in builder.info.splits[split].file_instructions]
    if missing := [shard for shard in shards if not os.path.isfile(shard)]:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(shards)} files of {name!r} {split} are missing (first: {missing[0]!r}): copy "
            "the data set again, or delete it and prepare it again."
        )


def open_tfds(name: str, *, split: str, data_dir: str) -> Records:
    """Opens a split of a prepared data set.

    Images are read encoded, and decoded like those of a folder. The labels are the feature 'label' if that is a
    `ClassLabel`, in its own order.

    Raises:
        FileNotFoundError: if it has not been prepared, or files of it are missing; the message says what to do.
        ValueError: if TFDS does not know the name or the split, the files are not array_record, or it has no images.
    """
    import tensorflow_datasets as tfds

    builder = open_builder(name, data_dir=os.path.expanduser(data_dir))
    features = builder.info.features
    _check_image_feature(name, features)
    if not builder.info.splits:
        raise FileNotFoundError(
            f"{name!r} is not prepared in {str(builder.data_dir)!r}; prepare it once with: "
            f"{prepare_command(name, data_dir=data_dir)}"
        )
    encoded = {key: tfds.decode.SkipDecoding() for key in features if isinstance(features[key], tfds.features.Image)}
    try:
        rows = builder.as_data_source(split, decoders=encoded or None)
    except NotImplementedError as error:
        raise ValueError(wrong_format_message(name, builder)) from error
    except ValueError as error:
        raise ValueError(
            f"{name!r} has no split {split!r} ({foreign_files.cause(error)}); it has {', '.join(builder.info.splits)}."
        ) from error
    _check_shards(name, builder, split)
    has_classes = "label" in features and isinstance(features["label"], tfds.features.ClassLabel)
    class_names = tuple(features["label"].names) if has_classes else ()
    folder = str(builder.data_dir)

    def read(i: int) -> Record:
        with foreign_files.reading(folder, f"cannot be read at image {i} of {split}"):
            row = rows[i]
            if row["image"] is None:  # as TFDS reads a record that is not there
                raise ValueError("the image is not there")
            return Record(row["image"], int(row["label"]) if has_classes else 0)

    return Records(size=len(rows), class_names=class_names, name=lambda i: f"{name} {split}[{i}]", read=read)
