"""Thirty clients sign in without pause, beside four who read: what is left for the four?"""

from benchmarks.cases import Caller, get_one, login
from benchmarks.load import Wrk
from benchmarks.report import Flood

SIGNING_IN, READING = 30, 4


def flood(caller: Caller, seconds: int) -> Flood:
    """Put both loads on a contestant at once."""
    host = caller.server.host
    signing_in, reading = login(caller), get_one(caller)
    first = Wrk(host, signing_in, connections=SIGNING_IN, seconds=seconds, statuses=True)
    others = Wrk(host, reading, connections=READING, seconds=seconds, statuses=True).result()
    sign_ins = first.result()
    return Flood(
        contestant=caller.server.contestant.name,
        sign_ins_per_second=sign_ins.statuses.get("200", 0) / sign_ins.seconds,
        sign_in_p99=sign_ins.p99,
        others_per_second=others.statuses.get("200", 0) / others.seconds,
        others_p99=others.p99,
        others_answers=dict(others.statuses),
        answers=dict(sign_ins.statuses),
    )
