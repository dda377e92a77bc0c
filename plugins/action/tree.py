# Copyright (c) 2026, the onprem.airflow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of onprem.airflow.tree that runs on the control machine: it reads the source and sends what a host lacks."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.onprem.airflow.plugins.module_utils import _compile, _tree

MODULE = "onprem.airflow.tree"

ARGUMENTS: dict[str, dict[str, Any]] = {
    "src": {"type": "path", "required": True},
    "dest": {"type": "path", "required": True},
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "file_mode": {"type": "str", "default": "0644"},
    "dir_mode": {"type": "str", "default": "0755"},
    "exclude": {"type": "list", "elements": "str", "default": ["__pycache__", "*.pyc", ".git"]},
    "allow_empty": {"type": "bool", "default": False},
    "compile_with": {"type": "path"},
}


class ActionModule(ActionBase):
    """One comparing module call; a transfer and a call that compiles and applies only where something differs."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Entry point."""
        super().run(tmp, task_vars)
        _validated, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        src = arguments["src"].rstrip("/") or "/"
        try:
            manifest = _tree.scan_source(src, arguments["exclude"])
        except _tree.TreeError as error:
            raise AnsibleActionFail(str(error)) from error
        if not manifest and not arguments["allow_empty"]:
            raise AnsibleActionFail(
                f"src {src} has no file to copy, and dest {arguments['dest']} would be emptied. Is it the right folder?"
                " If so, set allow_empty."
            )
        arguments["manifest"] = _tree.to_plain(manifest)
        result = self._call(arguments, "compare", task_vars)
        texts = result.pop("texts", {})
        if result.get("failed") or result.get("unreachable") or "added" not in result:
            return result
        check_only = self._task.check_mode
        if result["changed"] and (arguments["compile_with"] or not check_only):
            wanted = [*result["added"], *result["updated"]]
            if check_only:
                wanted = [path for path in wanted if _compile.relevant(path)]
            if wanted:
                arguments["archive"] = self._send(src, wanted)
            result = self._call(arguments, "compile" if check_only else "apply", task_vars)
            if result.get("failed") or "added" not in result:
                return result
        if self._task.diff and result["changed"]:
            new = _tree.texts(src, [*result["added"], *result["updated"]])
            result["diff"] = _tree.diffs(result, arguments["dest"], texts, new)
        result["files"] = len(manifest)
        result["digest"] = _tree.manifest_digest(manifest)
        return result

    def _call(self, arguments: dict[str, Any], state: str, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """One call of the module on the host, without the echo of its long arguments."""
        result: dict[str, Any] = self._execute_module(
            module_name=MODULE, module_args={**arguments, "state": state}, task_vars=task_vars
        )
        result.pop("invocation", None)
        return result

    def _send(self, src: str, paths: list[str]) -> str:
        """Transfer files of src in one archive, and return its path on the host. Ansible removes it after the task."""
        shell = self._connection._shell
        if not shell.tmpdir:
            self._make_tmp_path()
        remote: str = shell.join_path(shell.tmpdir, "tree.tar.gz")
        with tempfile.NamedTemporaryFile(dir=C.DEFAULT_LOCAL_TMP, suffix=".tar.gz") as archive:
            try:
                _tree.pack(src, paths, archive)
            except _tree.TreeError as error:
                raise AnsibleActionFail(str(error)) from error
            archive.flush()
            self._transfer_file(os.path.abspath(archive.name), remote)
        self._fixup_perms2([shell.tmpdir, remote])
        return remote
