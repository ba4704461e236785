"""Splits of a dataset: from a local file or folder, or from the Hub."""

from glob import has_magic
from pathlib import Path

from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from datasets.exceptions import DatasetsError
from pyarrow import ArrowInvalid

from ..row_files import SUFFIXES, format_of

_READERS = {
    ".jsonl": ("json", {}),
    ".ndjson": ("json", {}),
    ".json": ("json", {}),
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
    ".parquet": ("parquet", {}),
    ".arrow": ("arrow", {}),
}
"""Reader of `datasets` for each of the formats that all commands read, and its options."""
_MORE_COMPRESSIONS = (".zip", ".zst", ".lz4")  # `datasets` reads these too, the last two with a package of theirs
# What `save_to_disk` leaves beside the data of a dataset, and of several splits.
_SAVED = ("state.json", "dataset_dict.json")


def load_splits(name: str, config: str | None = None) -> DatasetDict:
    """
    All splits of a dataset.

    Args:
        name: a local file, compressed or not, a pattern such as `data/*.jsonl`, or a file's address; a folder of
            files, or one written by `save_to_disk`; or a dataset on the Hub. Files, and a dataset that was saved
            alone, have the one split `train`.
        config: name of the dataset's configuration, where it has several.

    Raises:
        ValueError: there is no such file, or it cannot be read.
    """
    path = Path(name).expanduser()
    ending = _format_of(path)
    is_file = path.is_file() or (ending is not None and ("://" in name or has_magic(name)))
    if is_file and config is not None:
        raise ValueError(f"dataset_config={config!r}: a file has no configurations. Leave the setting out.")
    if not is_file and not path.exists():
        if ending is not None:
            raise ValueError(f"dataset_name={name!r}: there is no such file.")
        return load_dataset(name, name=config)
    if any((path / file).is_file() for file in _SAVED):
        saved = load_from_disk(str(path))
        return DatasetDict({"train": saved}) if isinstance(saved, Dataset) else saved
    if is_file and ending is None:
        raise ValueError(f"dataset_name={name!r}: the file's name ends in none of {', '.join(SUFFIXES)}.")
    try:
        if path.is_dir():
            return load_dataset(str(path), name=config)
        reader, options = _READERS[ending]
        files = str(path) if path.is_file() else name
        return load_dataset(reader, data_files={"train": files}, **options)
    except (DatasetsError, ArrowInvalid, StopIteration, FileNotFoundError) as error:
        reason = error.__cause__ or error
        raise ValueError(f"dataset_name={name!r} cannot be read: {str(reason) or 'it has no rows'}.") from error


def _format_of(path: Path) -> str | None:
    plain = path.with_suffix("") if path.suffix.lower() in _MORE_COMPRESSIONS else path
    return format_of(plain)
