"""Downloads from the hub; where one fails, a sentence that says what to do."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


def download_file(repository: str, file: str, options: dict[str, Any]) -> Path:
    """A file of a repository, `owner/name`, on this disk. Raises `OSError` if it can't be had."""
    with _in_words(f"{repository}/{file}", options):
        return Path(hf_hub_download(repository, file, **options))


def download_folder(repository: str, patterns: Sequence[str], options: dict[str, Any]) -> Path:
    """A folder with those files of a repository that are like `patterns`. Raises `OSError` if it can't be had."""
    with _in_words(repository, options):
        return Path(snapshot_download(repository, allow_patterns=list(patterns), **options))


@contextmanager
def _in_words(name: str, options: dict[str, Any]) -> Iterator[None]:
    revision = options.get("revision")
    try:
        yield
    except HFValidationError as error:
        raise OSError(f"{name} is no hub id (owner/name): {error}") from error
    except GatedRepoError as error:
        raise OSError(
            f"{name} is for those who have agreed to its terms: do so on its page, then pass token=, or log in with "
            "`hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise OSError(
            f"The hub has no {name}, or it is private; pass token=, or log in with `hf auth login`, if it is yours."
        ) from error
    except RevisionNotFoundError as error:
        raise OSError(f"{name} has no revision {revision} on the hub.") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        if constants.HF_HUB_OFFLINE or options.get("local_files_only"):
            why = "nothing is downloaded, as local_files_only or HF_HUB_OFFLINE says"
        else:
            why = "the hub can't be reached; check the connection, or give a folder on this machine"
        raise LocalEntryNotFoundError(f"{name} has not been downloaded before, and {why}.") from error
    except EntryNotFoundError as error:
        raise OSError(f"The hub has no {name}.") from error
    except (HfHubHTTPError, HTTPError) as error:
        words = " ".join(str(error).split())[:300]
        raise OSError(
            f"{name} could not be downloaded ({words}); try again, what is there already is kept."
        ) from error
