"""The Hugging Face hub as far as the copy of the picks needs it, in memory."""

from __future__ import annotations


class RepoInfo:
    def __init__(self, private: bool) -> None:
        self.private = private


class Hub:
    """The three calls of HfApi that are used, keeping what was uploaded."""

    def __init__(self, repos: dict[str, bool]) -> None:
        self.private = repos
        self.files: dict[str, bytes] = {}

    def create_repo(self, repo_id, *, repo_type, private, exist_ok):
        assert (repo_type, exist_ok) == ("dataset", True)
        self.private.setdefault(repo_id, private)

    def repo_info(self, repo_id, *, repo_type):
        return RepoInfo(self.private[repo_id])

    def upload_file(self, *, path_or_fileobj, path_in_repo, repo_id, repo_type, commit_message):
        self.files[f"{repo_id}/{path_in_repo}"] = path_or_fileobj.read_bytes()
