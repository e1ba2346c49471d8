"""Pushes folders to the Hugging Face Hub in one commit, and pulls them so that they appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session

from reverie.errors import HubError, ReverieError, first_line
from reverie.hub.push_options import PushOptions

Kind = Literal["model", "dataset"]

CONNECT_S = 6.0
"""Seconds that the Hub has for its first answer; the Hub's own client tries for a minute."""
PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY")
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def find_obstacle() -> str | None:
    """Ask the Hub for any answer at all.  Returns why there is none (offline mode, no network, an unusable proxy),
    or None."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set; unset it to go online"
    outcome: list[str | None] = []

    def ask() -> None:
        try:
            status = get_session().head(constants.ENDPOINT, timeout=CONNECT_S).status_code
            outcome.append(None if status < 500 else f"{constants.ENDPOINT} answers with status {status}; try later")
        except Exception as error:  # of whichever HTTP library the Hub's client uses, and of its proxies
            outcome.append(_explain_connection(error))

    thread = threading.Thread(target=ask, daemon=True)  # looking up a name has no time limit
    thread.start()
    thread.join(CONNECT_S)
    return outcome[0] if outcome else f"{constants.ENDPOINT} does not answer; go online"


def push(
    repository: str,
    kind: Kind,
    files: Mapping[str, Path | bytes],
    options: PushOptions,
    *,
    message: str,
    replaced: Sequence[str] = (),
    token: str | None = None,
    tag: str | None = None,
) -> str:
    """Commits files to a repository, which is made if it is not there.  Returns the commit's address.

    Args:
        repository: OWNER/NAME.
        files: path in the repository -> file, or its content.
        message: of the commit, where `options` has none.
        replaced: patterns (see `is_match`) of paths that are removed from the repository unless they are in `files`.
        token: of the account; the stored one by default.
        tag: put on the commit, and taken off an older one.

    Raises HubError if the Hub cannot be reached or refuses; then nothing has been committed.
    """
    _require_hub(repository)
    api = HfApi(token=token)
    with explained(repository, kind):
        private, revision = options.private or None, options.revision
        repository = api.create_repo(repository, repo_type=kind, private=private, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(repository, branch=revision, repo_type=kind, exist_ok=True)
        there = api.list_repo_files(repository, repo_type=kind, revision=revision)
        stale = [name for name in there if name not in files and is_match(name, replaced)]
        commit = api.create_commit(
            repository,
            [
                *(
                    CommitOperationAdd(name, file if isinstance(file, bytes) else str(file))
                    for name, file in files.items()
                ),
                *(CommitOperationDelete(name) for name in stale),
            ],
            commit_message=options.message or message,
            repo_type=kind,
            revision=revision,
        )
        if tag is not None:
            _move_tag(api, repository, kind, tag, commit.oid)
    return commit.commit_url


def _move_tag(api: HfApi, repository: str, kind: Kind, tag: str, commit: str) -> None:
    with suppress(RevisionNotFoundError):  # of the first push
        api.delete_tag(repository, tag=tag, repo_type=kind)
    api.create_tag(repository, tag=tag, revision=commit, repo_type=kind)


def pull(
    repository: str,
    kind: Kind,
    output: Path,
    *,
    head: str,
    patterns: Sequence[str],
    check_head: Callable[[Path], object],
    check: Callable[[Path], object],
    revision: str | None = None,
    token: str | None = None,
) -> Path:
    """Downloads a repository into the folder `output`, which appears when all of it is there and sound.

    A download that was cut off goes on when the same call is made again: until then it lies beside `output`, hidden.

    Args:
        repository: OWNER/NAME.
        output: must not exist, or be empty.
        head: the file that describes the repository's content; it is fetched and checked before the others.
        patterns: of paths that are fetched, see `is_match`.
        check_head, check: raise a ReverieError for a folder, with only the head in it or whole, that is not sound.
        revision: a branch, tag or commit.
        token: of the account; the stored one by default.

    Raises HubError if the Hub cannot be reached or refuses, and the errors of the checks; then `output` is not there.
    """
    _check_output(output)
    _require_hub(repository)
    partial = output.absolute().parent / f".{output.name}.partial"
    with explained(repository, kind):
        api = HfApi(token=token)
        info = (api.model_info if kind == "model" else api.dataset_info)(repository, revision=revision)
    wanted = [file.rfilename for file in info.siblings or () if is_match(file.rfilename, patterns)]
    if head not in wanted:
        raise HubError(f"{repository} holds nothing that Reverie knows: it has no {head}; check the name")

    def fetch(*names: str) -> None:
        with explained(repository, kind):
            snapshot_download(
                repository,
                repo_type=kind,
                revision=info.sha,
                local_dir=partial,
                allow_patterns=list(names),
                token=token,
                endpoint=constants.ENDPOINT,
            )

    try:
        fetch(head)
        check_head(partial)
        fetch(*wanted)
        shutil.rmtree(partial / ".cache", ignore_errors=True)
        _remove_others(partial, set(wanted))
        check(partial)
        if output.exists():
            output.rmdir()
        partial.rename(output)
    except HubError:
        raise  # what was fetched so far is used by the next try
    except ReverieError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    except OSError as error:
        raise HubError(
            f"cannot write {output}: {error.strerror or error}; make room, or name another folder"
        ) from error
    return output


def is_match(name: str, patterns: Sequence[str]) -> bool:
    """Returns True where a path fits a pattern: `folder/*` takes everything below it, others name files at the top."""
    return any(fnmatch(name, one) for one in patterns if one.endswith("/*") or "/" not in name)


def _check_output(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise HubError(f"{output} is there already; name a new folder with -o, or remove it")


def _remove_others(folder: Path, wanted: set[str]) -> None:
    """Removes what an earlier try has fetched of another version."""
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in wanted:
            path.unlink()


def _require_hub(repository: str) -> None:
    if obstacle := find_obstacle():
        raise HubError(f"{repository}: the Hub cannot be reached ({obstacle})")


@contextmanager
def explained(repository: str, kind: Kind) -> Iterator[None]:
    """Raises HubError, in one line with what to do, for whatever the Hub's client raises inside."""
    try:
        yield
    except HFValidationError:
        raise HubError(f"{repository!r} is not the name of a repository; expected OWNER/NAME") from None
    except GatedRepoError:
        raise HubError(f"{repository} asks for consent first: give it on its page, and {LOG_IN}") from None
    except RevisionNotFoundError:
        raise HubError(f"{repository} has no such revision; check --revision") from None
    except RepositoryNotFoundError:
        raise HubError(
            f"the Hub has no {kind} {repository}, or it is private and not yours to see; check its name, and {LOG_IN}"
        ) from None
    except LocalTokenNotFoundError:
        raise HubError(f"{repository}: the Hub asks who you are; {LOG_IN}") from None
    except OfflineModeIsEnabled:
        raise HubError(f"{repository}: HF_HUB_OFFLINE is set; unset it to go online") from None
    except HfHubHTTPError as error:
        raise HubError(f"{repository}: {_explain_status(error)}") from error
    except ReverieError:
        raise
    except Exception as error:  # the network's, in the words of whichever HTTP library there is; the disk's
        raise HubError(f"{repository}: {first_line(error)}; try again, it goes on from there") from error


def _explain_status(error: HfHubHTTPError) -> str:
    status = error.response.status_code if error.response is not None else 0
    if status == 401:
        return f"the Hub does not accept this token, or there is none; {LOG_IN}"
    if status == 403:
        return "this token may not do that here; use one that may write to it, or another owner's name"
    if status >= 500:
        return f"the Hub answers with status {status}; try later"
    return f"the Hub refuses ({error.server_message or first_line(error)})"


def _explain_connection(error: Exception) -> str:
    """Names the obstacle and the remedy.  Proxies are named, never quoted: they may hold passwords."""
    proxies = [name for name in (*PROXIES, *map(str.lower, PROXIES)) if os.environ.get(name)]
    if not proxies:
        return f"{first_line(error)}; go online"
    names = " and ".join(proxies)
    if isinstance(error, ImportError):
        return f"the SOCKS proxy of {names} needs a package: pip install socksio, or unset {names}"
    if isinstance(error, ValueError):
        return f"{names} is no usable proxy; write http:// or socks5:// and its address, or unset {names}"
    return f"{first_line(error)}; check the proxy of {names}, or unset it"
