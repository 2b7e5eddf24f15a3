"""All checks by name."""

from __future__ import annotations

from collections.abc import Callable

from tests.programs.building import check_build
from tests.programs.copies import check_cp, check_rsync, check_tar
from tests.programs.fio import check_fio
from tests.programs.git import check_git
from tests.programs.maildir import check_maildir
from tests.programs.place import Place
from tests.programs.postgres import check_postgres
from tests.programs.sqlite import check_sqlite

CHECKS: dict[str, Callable[[Place], None]] = {
    "git": check_git,
    "sqlite": check_sqlite,
    "build": check_build,
    "rsync": check_rsync,
    "tar": check_tar,
    "cp": check_cp,
    "maildir": check_maildir,
    "fio": check_fio,
    "postgres": check_postgres,
}
