"""Bad addresses, bad disks and bad files: each with its own text, and nothing committed lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from tests import postgres
from watcher.database.engine import build_database, refuse_network_file_system
from watcher.domain.errors import ConfigError, StoreError, StoreUnavailableError

ROOT = Path(__file__).parents[3]
SECRET = "Un-guessable"
MOUNTS = r"""
/dev/sda1 / ext4 rw 0 0
server:/export /mnt/share nfs4 rw 0 0
//server/c /mnt/with\040space cifs rw 0 0
bucket /mnt/bucket fuse.s3fs rw 0 0
/dev/sdb1 /mnt/share/local xfs rw 0 0
server:/late /srv nfs rw 0 0
/dev/sdc1 /srv ext4 rw 0 0
broken line
"""


def touch(url: str) -> None:
    database = build_database(url)
    try:
        with database.write() as session:
            session.execute(text("CREATE TABLE IF NOT EXISTS filled (content text)"))
            session.execute(text("INSERT INTO filled VALUES ('x')"))
    finally:
        database.close()


@pytest.fixture
def open_folder():
    """A folder that an unprivileged user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="tests-open-", dir=postgres.shared_folder()))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def rights_of_a_stranger() -> Iterator[None]:
    """Root may write everything, so root takes the rights of another user for a while."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.mark.scenario(number=31)
@pytest.mark.parametrize(
    ("path", "file_system"),
    [
        ("/mnt/share/data/watcher.sqlite", r"/mnt/share, a network file system \(nfs4\)"),
        ("/mnt/with space/watcher.sqlite", r"/mnt/with space, a network file system \(cifs\)"),
        ("/mnt/bucket/watcher.sqlite", r"/mnt/bucket, a network file system \(fuse\.s3fs\)"),
    ],
)
def test_sqlite_file_on_a_network_file_system_is_refused(path, file_system):
    with pytest.raises(ConfigError, match=file_system):
        refuse_network_file_system(Path(path), mounts=MOUNTS)


@pytest.mark.parametrize(
    "path", ["/mnt/share/local/x.sqlite", "/srv/x.sqlite", "/mnt/shared/x.sqlite", "/x.sqlite"]
)
def test_sqlite_file_on_a_local_disk_is_taken(path):
    refuse_network_file_system(Path(path), mounts=MOUNTS)


def test_sqlite_file_below_a_link_to_a_network_file_system_is_refused(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    mounts = f"/dev/sda1 / ext4 rw 0 0\nserver:/x {tmp_path.resolve()}/target nfs rw 0 0\n"
    with pytest.raises(ConfigError, match="network file system"):
        refuse_network_file_system(tmp_path / "link" / "x.sqlite", mounts=mounts)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://user:Un-guessable@host/name", "'mysql'; known are sqlite"),
        ("postgresql+psycopg2://user:Un-guessable@host/name", r"'postgresql\+psycopg2'; known are"),
        ("sqlite://", "forget everything"),
        ("sqlite:///:memory:", "forget everything"),
        ("user:Un-guessable@host/name", "cannot be read: write sqlite"),
        ("postgresql://user:Un-guessable@host:port/name", "cannot be read: write sqlite"),
        ("", "cannot be read: write sqlite"),
    ],
)
def test_url_of_no_known_database_is_refused_without_its_password(url, told):
    with pytest.raises(ConfigError, match=told) as caught:
        build_database(url)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_url_of_postgres_in_each_spelling_is_understood(scheme):
    database = build_database(f"{scheme}://user@host/name")
    assert database.engine.url.drivername == "postgresql+psycopg"
    assert not database.is_sqlite


def test_postgres_with_a_wrong_password_is_unavailable_and_the_password_is_not_told(postgres_server):
    url = postgres_server.url("postgres").replace(postgres_server.password, SECRET)
    with pytest.raises(StoreUnavailableError, match="password authentication failed") as caught:
        touch(url)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_postgres_that_does_not_listen_is_unavailable_and_the_password_is_not_told(free_port):
    url = f"postgresql://user:{SECRET}@127.0.0.1:{free_port}/name?application_name={SECRET}"
    with pytest.raises(StoreUnavailableError, match=f"127.0.0.1:{free_port}/name is unavailable") as caught:
        touch(url)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_postgres_that_cut_the_session_is_unavailable_and_then_there_again(postgres_url):
    database = build_database(postgres_url)
    with pytest.raises(StoreUnavailableError, match="terminat"), database.write() as session:  # noqa: PT012 - the end of the transaction is part of it
        pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with psycopg.connect(postgres_url) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [pid])
        session.execute(text("SELECT 1"))
    with database.write() as session:
        assert session.execute(text("SELECT 1")).scalar_one() == 1
    database.close()


def test_postgres_that_restarted_between_two_transactions_is_not_noticed(postgres_url):
    database = build_database(postgres_url)
    with database.read() as session:
        pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    with database.write() as session:
        assert session.execute(text("SELECT pg_backend_pid()")).scalar_one() != pid
    database.close()


def test_postgres_that_only_reads_is_unavailable(postgres_url):
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    with pytest.raises(
        StoreUnavailableError, match=r"cannot be written .*read-only transaction.*is a standby"
    ):
        touch(postgres_url)


def test_sqlite_file_in_a_missing_folder_says_so(tmp_path):
    with pytest.raises(StoreUnavailableError, match=r"cannot be opened .*does its folder exist"):
        touch(f"sqlite:///{tmp_path}/missing/store.sqlite")


def test_sqlite_file_that_is_something_else_says_so_and_stays_as_it_is(tmp_path):
    path = tmp_path / "store.sqlite"
    path.write_bytes(b"\xff\xd8\xff\xe0 a photograph " * 100)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="is damaged or no SQLite database") as caught:
        touch(f"sqlite:///{path}")
    assert not caught.value.retryable
    assert path.read_bytes() == before


def test_sqlite_file_that_may_not_be_written_says_so(open_folder):
    path = open_folder / "store.sqlite"
    touch(f"sqlite:///{path}")
    path.chmod(0o444)
    open_folder.chmod(0o777)
    with (
        rights_of_a_stranger(),
        pytest.raises(
            StoreUnavailableError, match=r"cannot be written \(attempt to write a readonly database\)"
        ),
    ):
        touch(f"sqlite:///{path}")


def test_sqlite_file_in_a_folder_that_may_not_be_written_says_so(open_folder):
    open_folder.chmod(0o555)
    with rights_of_a_stranger(), pytest.raises(StoreUnavailableError, match="may this user write there"):
        touch(f"sqlite:///{open_folder}/store.sqlite")


FILL_THE_DISK = """
import resource, sys
from sqlalchemy import text
from watcher.database.engine import build_database
from watcher.domain.errors import StoreUnavailableError

database = build_database("sqlite:///" + sys.argv[1])
with database.write() as session:
    session.execute(text("CREATE TABLE filled (content text)"))
written = 0
_soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))  # the kernel refuses to let any file grow further
try:
    while written < 1000:
        with database.write() as session:
            session.execute(text("INSERT INTO filled VALUES (:content)"), {"content": "x" * 10_000})
        written += 1
except StoreUnavailableError as error:
    print(error)
    assert error.retryable
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))  # somebody frees space
with database.read() as session:
    assert session.execute(text("SELECT count(*) FROM filled")).scalar_one() == written, "a committed row is lost"
with database.write() as session:
    session.execute(text("INSERT INTO filled VALUES ('after')"))
    assert session.execute(text("SELECT count(*) FROM filled")).scalar_one() == written + 1
database.close()
print("written", written)
"""


def test_sqlite_file_on_a_full_disk_says_so_loses_nothing_and_goes_on_when_there_is_space(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FILL_THE_DISK, str(tmp_path / "store.sqlite")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    assert "is full or failing" in first
    assert "free space, nothing is lost meanwhile" in first
    assert 5 < int(last.split()[1]) < 1000


def _guard(path: Path):
    touch(f"sqlite:///{path}")
    database = build_database(f"sqlite:///{path}")
    database.guard_file()
    return database


def _count(database) -> int:
    with database.read() as session:
        return session.execute(text("SELECT count(*) FROM filled")).scalar_one()


def _insert(database) -> None:
    with database.write() as session:
        session.execute(text("INSERT INTO filled VALUES ('y')"))


def test_guarded_file_that_was_replaced_takes_no_more_writes_and_says_so(tmp_path):
    path, other = tmp_path / "store.sqlite", tmp_path / "other.sqlite"
    database = _guard(path)
    touch(f"sqlite:///{other}")
    _insert(database)
    assert not database.replaced.is_set()
    other.replace(path)
    with pytest.raises(StoreUnavailableError, match=r"store\.sqlite was replaced by another one"):
        _insert(database)
    assert database.replaced.is_set()
    assert "replaced" in database.last_failure
    with pytest.raises(StoreUnavailableError):
        _count(database)
    database.close()


def test_guarded_file_that_is_gone_is_not_begun_anew_and_goes_on_once_it_is_back(tmp_path):
    path, away = tmp_path / "store.sqlite", tmp_path / "away.sqlite"
    database = _guard(path)
    path.rename(away)
    with pytest.raises(StoreUnavailableError, match=r"store\.sqlite is gone .*: put it back"):
        _insert(database)
    assert not path.exists()
    away.rename(path)
    _insert(database)
    assert _count(database) == 2
    assert database.last_failure is None
    assert not database.replaced.is_set()
    database.close()
