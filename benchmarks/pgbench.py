"""The SQL alone: the statements of a case, the token's lookup among them, sent by PostgreSQL's own pgbench."""

import statistics
import subprocess
import tempfile
from pathlib import Path

from benchmarks.database import ADMINS, ORDINARY, SUPPORT, program
from benchmarks.load import Load

MEMBERS = (
    "id, email, name, role, is_active, email_verified, external_id, public_metadata, version, created_at, updated_at"
)
IDENTIFY = """\\set who random({first}, {last})
SELECT users.id, users.role FROM users JOIN sessions ON sessions.user_id = users.id
WHERE sessions.id = :who AND users.id = :who AND sessions.ended_at IS NULL AND sessions.expires_at > now()
AND users.is_active AND users.deleted_at IS NULL;
"""
READER = IDENTIFY.format(first=SUPPORT[0], last=SUPPORT[-1])
WRITER = IDENTIFY.format(first=ADMINS[0], last=ADMINS[-1])
ANYBODY = f"\\set id random({ORDINARY}, :rows)\n"
LIST = f"{READER}{ANYBODY}SELECT {MEMBERS} FROM users WHERE deleted_at IS NULL AND id > :id ORDER BY id LIMIT "
SCRIPTS = {
    "get": f"{READER}{ANYBODY}SELECT {MEMBERS} FROM users WHERE id = :id AND deleted_at IS NULL;",
    "list-20": f"{LIST}21;",
    "list-100": f"{LIST}101;",
    "create": f"""{WRITER}\\set number random(1, 900000000000)
BEGIN;
INSERT INTO users (email, email_key, name, name_key, role, is_active, email_verified, public_metadata,
private_metadata, version, created_at, updated_at) VALUES (:number || '@example.com', :number || '@example.com',
'New Person', 'new person', 'member', true, false, '{{"plan": "free", "seats": 1}}', '{{}}', 1, now(), now())
RETURNING {MEMBERS};
COMMIT;""",
    "patch": f"""{WRITER}{ANYBODY}BEGIN;
SELECT {MEMBERS} FROM users WHERE id = :id FOR UPDATE;
UPDATE users SET name = 'Person ' || :id, name_key = 'person ' || :id, version = version + 1, updated_at = now()
WHERE id = :id RETURNING {MEMBERS};
COMMIT;""",
}


class PgBench:
    """A run of pgbench that has begun."""

    def __init__(self, url: str, case: str, *, rows: int, clients: int, seconds: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="rollcall-pgbench-")
        self._seconds = seconds
        script = Path(self._folder.name) / "script"
        script.write_text(SCRIPTS[case])
        options = ["-n", "-M", "prepared", "-c", str(clients), "-j", "1", "-T", str(seconds), "-f", script]
        options += ["-D", f"rows={rows}", "--log", "--log-prefix", f"{self._folder.name}/log", url]
        self._process = subprocess.Popen(
            [program("pgbench"), *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.pid = self._process.pid

    def result(self) -> Load:
        """Wait for the end and return what came of it."""
        output, _ = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError(f"pgbench failed: {output}")
        logs = Path(self._folder.name).glob("log.*")
        times = [int(line.split()[2]) / 1e6 for log in logs for line in log.read_text().splitlines()]
        self._folder.cleanup()
        cuts = statistics.quantiles(times, n=100)
        return Load(len(times), self._seconds, cuts[49], cuts[98], 0, 0, {})
