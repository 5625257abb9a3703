"""Snowflake's own connector at the double: what it reads there is what was written.

    python snowflake_agrees.py PORT USER PASSWORD DATABASE

A double that only its own client understands would prove little. The user's rows come in chunks, and its answers late.
"""

import datetime
import sys
import threading
from decimal import Decimal

import snowflake.connector

port, user, password, database = sys.argv[1:]


def connect():
    return snowflake.connector.connect(
        user=user, password=password, account="tests", host="127.0.0.1", port=int(port), protocol="http", database=database,
        schema="PUBLIC", warehouse="W", session_parameters={"QUERY_TAG": "agrees"}, platform_detection_timeout_seconds=0, login_timeout=5)


connection = connect()
cursor = connection.cursor()
cursor.execute(
    "create table t as select seq4() + 1 as id, 'text ' || seq4() as txt, cast(seq4() / 4 as number(12,2)) as price, "
    "cast('1969-12-31 23:59:59.5' as timestamp_ntz) as plain, cast('2026-11-20 10:00:00+01:00' as timestamp_tz) as instant, "
    "cast(null as timestamp_ntz) as nothing, cast('12:34:56.5' as time) as clock, cast('2026-11-20' as date) as day, "
    "to_binary('00ff', 'HEX') as bin, true as yes, parse_json('[1]') as doc, cast(0.1 as float) as f "
    "from table(generator(rowcount => 5000))")
cursor.execute("select * from t order by id")
rows = cursor.fetchall()
assert [row[0] for row in rows] == list(range(1, 5001)), len(rows)
assert rows[6] == (
    7, "text 6", Decimal("1.50"), datetime.datetime(1969, 12, 31, 23, 59, 59, 500000), rows[6][4], None, datetime.time(12, 34, 56, 500000),
    datetime.date(2026, 11, 20), b"\x00\xff", True, rows[6][10], 0.1), rows[6]
assert rows[6][4] == datetime.datetime(2026, 11, 20, 9, tzinfo=datetime.timezone.utc), rows[6]

cursor.execute("update t set txt = 'x' where id <= 3")
assert cursor.rowcount == 3
connection.autocommit(False)
cursor.execute("begin")
cursor.execute("delete from t")
connection.rollback()
cursor.execute("select count(*) from t")
assert cursor.fetchone() == (5000,)

for statement, code in [("select * from nowhere", 2003), ("selec 1", 1003), ("select no_such_column from t", 904)]:
    try:
        cursor.execute(statement)
        raise SystemExit(f"{statement} works")
    except snowflake.connector.errors.ProgrammingError as error:
        assert error.errno == code, error

# Its own way to cancel is the one that levin takes.
try:
    cursor.execute("select system$wait(3600)", timeout=1)
    raise SystemExit("a statement outlives its time")
except snowflake.connector.errors.ProgrammingError as error:
    assert error.errno == 604, error

try:
    password = "wrong"
    connect()
    raise SystemExit("a wrong password opens the door")
except snowflake.connector.errors.DatabaseError as error:
    assert error.errno == 250001 or error.errno == 390100, error
connection.close()
print("agrees")
