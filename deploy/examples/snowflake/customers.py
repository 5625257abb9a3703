"""Snowflake's own connector makes the table of customers in the double, and edits it.

    python customers.py PORT make|edit
"""

import json
import sys
import urllib.request

import snowflake.connector

port, what = sys.argv[1:]


def double(path, settings):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(settings).encode(), {"content-type": "application/json"})
    return json.load(urllib.request.urlopen(request))


if what == "make":
    keys = double("/double/keys", {})
    double("/double/users/LEVIN", {"account": "example", "database": "SHOP", "password": "only-for-the-double", "public_key": keys["public"]})
    print(keys["private"], end="")
connection = snowflake.connector.connect(
    user="LEVIN", password="only-for-the-double", account="example", host="127.0.0.1", port=int(port), protocol="http",
    database="SHOP", schema="PUBLIC", warehouse="LEVIN_WH", platform_detection_timeout_seconds=0)
cursor = connection.cursor()
if what == "make":
    cursor.execute(
        "create table customers as select seq4() + 1 as id, 'customer' || seq4() || '@example.com' as email, "
        "case when seq4() % 3 = 0 then 'DE' else 'US' end as country, cast(seq4() / 8 as number(12,2)) as ltv, "
        "dateadd(day, seq4(), cast('2024-01-01' as date)) as signed_up_on, parse_json('{\"plan\":\"free\"}') as profile "
        "from table(generator(rowcount => 1000))")
else:
    cursor.execute("update customers set email = 'ada@example.com' where id = 7")
    cursor.execute("delete from customers where id = 8")
