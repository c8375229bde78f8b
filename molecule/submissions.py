"""A steady stream of tasks, each with an identity, and an account of what became of each.

    with Submissions(url, "admin", password, data, rate=5) as submissions:
        …
    report = submissions.report

Each task writes its identity into the table `effects`, in the transaction that ends it: see `variants.records_effects`. A submission whose
answer did not come is made again with the same Idempotency-Key, as a careful client does, until it is known whether it was accepted. One
that was answered with 503 was refused, and is let go.
"""

import itertools
import random
import secrets
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import requests

# Of twenty tasks, those that wait, and those that compute
KINDS = ("effect",) * 15 + ("effect_cpu",) * 5

TABLE = """
CREATE TABLE IF NOT EXISTS effects
  (id bigserial PRIMARY KEY, identity text NOT NULL, task uuid NOT NULL, at timestamptz NOT NULL DEFAULT now());
GRANT INSERT ON effects TO fba;
GRANT USAGE ON effects_id_seq TO fba;
"""

SEEN_EVERY = 0.5
"""Seconds between two looks at the table."""

LOOKS = 20
"""Looks of one connection."""

PATIENCE = 300
"""Seconds that a submission may take to be answered, over all its tries. Longer than any fault."""


class Submissions:
    """Who submits, and who looks at the effects."""

    def __init__(self, url, username, password, data, rate):
        self.url, self.credentials, self.data, self.rate = url, {"username": username, "password": password}, data, rate
        self.run = f"run{secrets.token_hex(4)}"
        self.lock = threading.Lock()
        self.begun = {}
        """Identity to the moment at which its submission began."""
        self.outcome = {}
        """Identity to `accepted`, `refused`, or why neither is known."""
        self.seen = {}
        """Identity to the moment at which its first effect was seen."""
        self.tries = Counter()
        """How each try was answered: a status, or the name of an error."""
        self.stopping = threading.Event()
        self.local = threading.local()
        self.token = None
        self.report = None

    def __enter__(self):
        self.data.host.check_output(f"docker exec -i fba_postgres psql -qX -v ON_ERROR_STOP=1 -U postgres -d fba <<'END'\n{TABLE}\nEND")
        self._log_in()
        self.threads = [threading.Thread(target=self._submit_steadily), threading.Thread(target=self._watch)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_exception):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    # Submitting

    def _http(self):
        if not hasattr(self.local, "session"):
            self.local.session = requests.Session()
        return self.local.session

    def _log_in(self):
        answer = requests.post(f"{self.url}/api/v1/auth/login", json=self.credentials, timeout=10)
        answer.raise_for_status()
        self.token = answer.json()["access_token"]

    def _try(self, identity, body):
        """Submit once; return the status, or the name of what went wrong."""
        headers = {"Idempotency-Key": identity, "Authorization": f"Bearer {self.token}"}
        try:
            answer = self._http().post(f"{self.url}/api/v1/tasks", json=body, headers=headers, timeout=20)
        except requests.RequestException as error:
            return type(error).__name__
        if answer.status_code == 401:
            try:
                self._log_in()
            except requests.RequestException as error:
                return type(error).__name__
        return answer.status_code

    def _submit(self, identity, kind):
        """Submit a task, until its answer is known."""
        body = {"kind": kind, "arguments": {"identity": identity, "seconds": round(random.uniform(0, 1 if kind == "effect" else 0.1), 2)}}
        deadline = time.monotonic() + PATIENCE
        outcome, unsure = None, False
        while outcome is None:
            answer = self._try(identity, body)
            with self.lock:
                self.tries[str(answer)] += 1
            if answer == 202:
                outcome = "accepted"
            elif answer == 503 and not unsure:
                outcome = "refused"
            elif time.monotonic() > deadline:
                outcome = f"unknown: {answer}"
            else:
                # After a try without an answer, a refusal of the next one says nothing about the first
                unsure = unsure or answer != 401
                time.sleep(0.5)
        with self.lock:
            self.outcome[identity] = outcome

    def _submit_steadily(self):
        due = time.monotonic()
        with ThreadPoolExecutor(64) as pool:
            for number in itertools.count():
                if self.stopping.wait(max(0.0, due - time.monotonic())):
                    return
                due += 1 / self.rate
                identity = f"{self.run}-{number}"
                with self.lock:
                    self.begun[identity] = time.monotonic()
                pool.submit(self._submit, identity, random.choice(KINDS))

    # Watching

    def _sql(self, query):
        """Return the answer's lines, or None where PostgreSQL does not answer."""
        answer = self.data.host.run(f'docker exec fba_postgres psql -qtAX -U postgres -d fba -c "{query}"')
        return answer.stdout.splitlines() if answer.rc == 0 else None

    def _watch(self):
        """Note when each effect is seen first. One that is committed late is asked for a while longer."""
        # psql asks again by itself, for some seconds: to enter two containers for each look takes a fifth of a small machine
        query = f"SELECT identity FROM effects WHERE identity LIKE '{self.run}-%' AND at > clock_timestamp() - interval '30 s'"
        statement = f"{query} \\watch i={SEEN_EVERY} c={LOOKS}\n".encode()
        command = f"docker exec -i {self.data.name} docker exec -i fba_postgres psql -qtAXU postgres -d fba".split()
        while not self.stopping.is_set():
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as psql:
                psql.stdin.write(statement)
                psql.stdin.close()
                for line in psql.stdout:
                    if identity := line.strip().decode():
                        self.seen.setdefault(identity, time.monotonic())
            self.stopping.wait(SEEN_EVERY)

    def flows_since(self, moment):
        """Return the seconds from a moment until the effect of a task that was submitted after it was seen; None before that."""
        with self.lock:
            after = {identity for identity, begun in self.begun.items() if begun >= moment}
        seen = [when for identity, when in list(self.seen.items()) if identity in after]
        return min(seen) - moment if seen else None

    # The account

    def states(self):
        """Return how many tasks of this run are in each state; None where PostgreSQL does not answer."""
        # The application puts whose key it is in front of it
        lines = self._sql(f"SELECT state FROM tasks WHERE idempotency_key LIKE 'user:%:{self.run}-%'")
        return None if lines is None else Counter(lines)

    def all_ended(self):
        """Return whether every task that was accepted has ended."""
        states = self.states() or Counter()
        ended = sum(states[state] for state in ("succeeded", "failed", "cancelled"))
        return ended == states.total() >= sum(outcome == "accepted" for outcome in self.outcome.values())

    def account(self):
        """Return what became of all submissions. To be called when nobody submits any more and no task is open."""
        effects = dict.fromkeys(self.outcome, 0)
        for line in self._sql(f"SELECT identity, count(*) FROM effects WHERE identity LIKE '{self.run}-%' GROUP BY identity"):
            identity, _, count = line.rpartition("|")
            effects[identity] = int(count)
        accepted = {identity for identity, outcome in self.outcome.items() if outcome == "accepted"}
        self.report = {
            "run": self.run,
            "submitted": len(self.begun),
            "accepted": len(accepted),
            "refused": sum(outcome == "refused" for outcome in self.outcome.values()),
            "unknown": {identity: outcome for identity, outcome in self.outcome.items() if outcome.startswith("unknown")},
            "unanswered": sorted(set(self.begun) - set(self.outcome)),
            "done": sum(effects[identity] > 0 for identity in accepted),
            "lost": sorted(identity for identity in accepted if not effects[identity]),
            "twice": {identity: count for identity, count in effects.items() if count > 1},
            "refused_but_done": sorted(
                identity for identity, outcome in self.outcome.items() if outcome == "refused" and effects[identity]
            ),
            "states": dict(self.states()),
            "tries": dict(self.tries),
        }
        return self.report
