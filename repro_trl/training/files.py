"""Splits of a dataset: from a local file or folder, or from the Hub."""

from glob import has_magic
from pathlib import Path

from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from datasets.exceptions import DatasetsError
from pyarrow import ArrowInvalid

FILE_FORMATS = {
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
    ".ndjson": ("json", {}),
    ".parquet": ("parquet", {}),
    ".arrow": ("arrow", {}),
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
}
"""Reader of `datasets` for each ending of a file's name, and its options."""
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip")
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
    ending = _ending(path)
    is_file = path.is_file() or (ending in FILE_FORMATS and ("://" in name or has_magic(name)))
    if is_file and config is not None:
        raise ValueError(f"dataset_config={config!r}: a file has no configurations. Leave the setting out.")
    if not is_file and not path.exists():
        if ending in FILE_FORMATS:
            raise ValueError(f"dataset_name={name!r}: there is no such file.")
        return load_dataset(name, name=config)
    if any((path / file).is_file() for file in _SAVED):
        saved = load_from_disk(str(path))
        return DatasetDict({"train": saved}) if isinstance(saved, Dataset) else saved
    if is_file and ending not in FILE_FORMATS:
        raise ValueError(f"dataset_name={name!r}: the file's name ends in none of {', '.join(FILE_FORMATS)}.")
    try:
        if path.is_dir():
            return load_dataset(str(path), name=config)
        reader, options = FILE_FORMATS[ending]
        files = str(path) if path.is_file() else name
        return load_dataset(reader, data_files={"train": files}, **options)
    except (DatasetsError, ArrowInvalid, StopIteration, FileNotFoundError) as error:
        reason = error.__cause__ or error
        raise ValueError(f"dataset_name={name!r} cannot be read: {str(reason) or 'it holds no rows'}.") from error


def _ending(path: Path) -> str:
    """The ending of a name that says what a file holds, in small letters, without that of its compression."""
    endings = [ending.lower() for ending in path.suffixes]
    if len(endings) > 1 and endings[-1] in COMPRESSIONS:
        endings.pop()
    return endings[-1] if endings else ""
